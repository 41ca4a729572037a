"""`mmindex build --cluster` with a real model."""

import os
import sys

import pytest

from mmindex.store.layout import Layout
from mmindex.store.versions import read_current
from support.command import mmindex, mmindex_json
from support.corpora import jpeg, write_files
from support.raying import cluster

WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from mmindex_cli.app import main; main()"


@pytest.fixture
def photos(tmp_path):
    return write_files(tmp_path / "photos", {f"{n:02}.jpg": jpeg(n) for n in range(14)})


def test_without_ray_it_is_69_with_the_extras_name(tmp_path, photos):
    arguments = ("build", "--store", tmp_path / "s", "--source", f"folder:{photos}")
    done = mmindex(
        "-c", WITHOUT_RAY, *arguments, "--cluster", "auto", program=sys.executable, code=69
    )
    assert "mmindex[ray]" in done.stderr


def test_a_part_and_a_cluster_cannot_be_combined(tmp_path):
    done = mmindex(
        "encode", "--part", "1/2", "--cluster", "auto", "--store", tmp_path / "s", code=2
    )
    assert "--cluster" in done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_build_on_a_cluster_equals_the_build_of_one_machine(tmp_path, photos, tiny_model):
    pytest.importorskip("ray", reason="needs ray: pip install 'mmindex[ray]'")
    config = tmp_path / "config.toml"
    config.write_text(
        f'[[source]]\nspec = "folder:{photos}"\n[model]\nname = "{tiny_model.name}"\n'
        "[encode]\nshard_rows = 5\ncores = 1\nbatch_size = 2\n[index]\nthreads = 1\n"
    )
    mmindex("build", "--store", tmp_path / "alone", "--config", config)
    store = ("--store", tmp_path / "spread", "--config", config)
    (tmp_path / "tricks").mkdir()
    with cluster(tmp_path / "tricks") as nodes:
        [report] = mmindex_json("build", *store, "--cluster", nodes.address)
        encode = report["reports"]["encode"]
        assert sum(node["images"] for node in encode["nodes"].values()) == 14
        assert next(iter(encode["nodes"])).startswith(os.uname().nodename)
        again = mmindex("build", *store, "--cluster", nodes.address)
        assert "nothing changed" in again.stdout
        for stage in ("crawl", "encode", "index"):
            mmindex(stage, "--store", tmp_path / "staged", "--config", config, "--cluster",
                    nodes.address)  # fmt: skip
    alone, spread, staged = (
        {ref.name: ref.sha256 for ref in read_current(Layout(tmp_path / name)).objects}
        for name in ("alone", "spread", "staged")
    )
    assert spread == alone
    calibration = {"calibration"}  # the evaluation makes it
    assert staged == {name: sha for name, sha in alone.items() if name not in calibration}
    assert not list(Layout(tmp_path / "spread").staging_dir.iterdir())
    remembered = read_current(Layout(tmp_path / "spread")).config
    assert "run" not in remembered
    assert "nothing changed" in mmindex("build", "--store", tmp_path / "spread").stdout
