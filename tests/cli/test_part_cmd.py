"""`mmindex encode --part` for people and batch systems."""

import json

import pytest

from mmindex.store.layout import Layout
from support.command import mmindex, mmindex_json


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "1/3/5"])
def test_an_invalid_part_is_2_and_changes_nothing(tmp_path, part):
    done = mmindex("encode", "--part", part, "--store", tmp_path / "store", code=2)
    assert "I/N" in done.stderr
    assert "--part 2/10" in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_part_writes_no_metrics(tmp_path):
    arguments = ("--store", tmp_path / "store", "--metrics-file", tmp_path / "m.prom")
    assert "--part" in mmindex("encode", "--part", "1/2", *arguments, code=2).stderr


def test_without_a_crawl_it_is_66(tmp_path):
    mmindex("encode", "--part", "1/2", "--store", tmp_path / "none", code=66)


@pytest.mark.slow
def test_parts_are_completed_by_a_build(tmp_path):
    store, config = tmp_path / "store", tmp_path / "config.toml"
    config.write_text(
        '[[source]]\nspec = "scenes:20@1"\n[encode]\nshard_rows = 8\nworkers = 1\ncores = 1\n'
    )
    where = ("--store", store, "--config", config)
    mmindex("crawl", *where)
    [first] = mmindex_json("encode", "--part", "1/2", *where)
    assert (first["part"], first["parts"], first["done_before"]) == (1, 2, 0)
    done = mmindex("encode", "--part", "2/2", *where)
    assert "encoded part 2 of 2" in done.stdout
    assert not list(Layout(store).staging_dir.iterdir())
    report = json.loads(mmindex("build", *where, "--format", "json").stdout)["reports"]["encode"]
    assert (report["encoded_images"], report["encoded_texts"]) == (0, 0)
    assert report["adopted_shards"] > 2
