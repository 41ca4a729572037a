"""``doctor --cluster`` on simulated nodes."""

from __future__ import annotations

import pytest

from support.command import mmindex, mmindex_json
from support.corpora import jpeg, write_files
from support.raying import add_node, cluster

pytest.importorskip("ray", reason="needs ray: pip install 'mmindex[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def test_nodes_are_checked_as_before_a_run(tmp_path, tiny_model):
    photos = write_files(tmp_path / "photos", {f"{n:02}.jpg": jpeg(n) for n in range(14)})
    store = ("--store", tmp_path / "store")
    (tmp_path / "tricks").mkdir()
    with cluster(tmp_path / "tricks") as made:
        add_node(made)
        asked = ("doctor", *store, "--model", tiny_model.name, "--cluster", made.address)
        before = {one["what"]: one for one in mmindex_json(*asked)}
        assert before["cluster"]["detail"].startswith("2 nodes, 2 cores, 0 GPUs; 2 units at once")
        assert "mmindex crawl" in before["nodes"]["detail"]

        mmindex("crawl", *store, "--source", f"folder:{photos}")
        after = mmindex_json(*asked)
        on_nodes = [one for one in after if one["what"].startswith("node ")]
        assert [one["state"] for one in on_nodes] == ["ok", "ok"]
        assert all(f"sees {tmp_path}/store" in one["detail"] for one in on_nodes)
        assert "8 of its images" in next(o["detail"] for o in after if o["what"] == "corpus")
        assert not list((tmp_path / "store" / "staging").iterdir())

        done = mmindex("doctor", *store, "--model", "local-dir:/none", "--cluster", made.address,
                       code=69)  # fmt: skip
        assert done.stdout.count("broken  node ") == 2


def test_without_a_cluster_it_is_said(tmp_path):
    done = mmindex(
        "doctor", "--store", tmp_path / "s", "--model", "embedded", "--cluster", "nonsense", code=69
    )
    assert "neither auto nor HOST:PORT" in done.stdout
