"""The connection to a cluster: in time or a clear error, and nothing on stdout."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from mmindex.cluster.connect import _quiet_stdout, connected
from mmindex.core.errors import MissingPackageError, NetworkError, UsageError

NEEDS_RAY = "needs ray: pip install 'mmindex[ray]'"


def test_a_missing_cluster_is_69_within_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason=NEEDS_RAY)

    def nothing(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    def silence(**_: object) -> None:
        time.sleep(60.0)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address, init, why in (
        ("127.0.0.1:1", ray.init, "refused"),
        ("auto", nothing, "any running Ray instance"),
        ("auto", silence, "does not respond"),
    ):
        monkeypatch.setattr(ray, "init", init)
        start = time.monotonic()
        with pytest.raises(NetworkError, match=f"no Ray cluster at .*{why}") as caught:
            connected(address, 1.0).__enter__()
        assert caught.value.exit_code == 69
        assert time.monotonic() - start < 20


@pytest.mark.parametrize("address", ["ray://localhost:10001", "nonsense", "host:port", ":6379"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    pytest.importorskip("ray", reason=NEEDS_RAY)
    with pytest.raises(UsageError), connected(address, 1.0):
        pass


def test_without_ray_it_is_69_with_the_extras_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError) as caught, connected("auto"):
        pass
    assert caught.value.exit_code == 69
    assert "mmindex[ray]" in caught.value.hint


def test_output_of_rays_threads_does_not_reach_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with _quiet_stdout() as quiet:
        sys.stdout.write("kept\n")
        thread = threading.Thread(target=lambda: sys.stdout.write("dropped"), name="ray_print_logs")
        thread.start()
        thread.join()
        quiet.everything = True
        sys.stdout.write("dropped at the end")
    sys.stdout.write("kept too\n")
    assert capsys.readouterr().out == "kept\nkept too\n"
