"""Settings that a GPU does not support are refused before the run; no GPU is needed here."""

import subprocess
import sys

import pytest

from mmindex.core.errors import UsageError
from mmindex.index.gpu import GpuInfo, check_gpu_legal, detect, fits_search, gpu_sub_quantizers


@pytest.mark.parametrize(
    ("m", "bits", "code_dim", "nprobe", "says"),
    [
        (64, 4, 256, 64, "8-bit"),
        (128, 8, 256, 64, "does not support 128 sub-quantizers"),
        (33, 8, 330, 64, "does not support 33 sub-quantizers"),
        (2, 8, 128, 64, "each must have"),
        (32, 8, 100, 64, "each must have"),
        (64, 8, 256, 2_049, "at most 2048 lists"),
    ],
)
def test_each_limit_is_named(m, bits, code_dim, nprobe, says):
    with pytest.raises(UsageError, match=says) as caught:
        check_gpu_legal(m, bits, code_dim, nprobe)
    assert "index.gpu" in caught.value.hint


def test_supported_settings_are_accepted():
    check_gpu_legal(64, 8, 256, 2_048)
    assert gpu_sub_quantizers(256, 64)[:3] == [64, 32, 16]
    assert gpu_sub_quantizers(7, 64) == []


def test_searches_beyond_the_kernels_go_to_the_cpu():
    assert fits_search(2_048, 2_048)
    assert not fits_search(2_049, 1)
    assert not fits_search(1, 2_049)


def test_never_does_not_look_for_gpus():
    """Not even faiss: `index.gpu = never` works if its GPU part is broken."""
    code = (
        "import sys; from mmindex.index.gpu import detect; detect('never');"
        " print('faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_always_without_a_gpu_is_a_usage_error(monkeypatch):
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    assert detect("auto") is None
    with pytest.raises(UsageError, match="sees no GPU"):
        detect("always")


def test_a_gpu_is_seen(monkeypatch):
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 2)
    assert detect("auto") == GpuInfo(2)
