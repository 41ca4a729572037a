"""Settings: values in a file, flags, and what a store remembers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmindex.core.config import load_config
from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.sources.spec import absolute_spec


def specs(path: Path | None, **values: object) -> list[str]:
    return [source.spec for source in load_config(path, values, None, absolute_spec).source]


def test_paths_are_relative_to_the_file_or_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "val2014").mkdir()
    file = tmp_path / "etc" / "mmindex.toml"
    given = [
        ("urls:list.csv", f"urls:{tmp_path}/etc/list.csv"),
        ("urls:list.csv#train", f"urls:{tmp_path}/etc/list.csv#train"),
        ("folder:photos", f"folder:{tmp_path}/etc/photos"),
        ("webdataset:*.tar", f"webdataset:{tmp_path}/etc/*.tar"),
        ("parquet:a/{0..3}.parquet", f"parquet:{tmp_path}/etc/a/{{0..3}}.parquet"),
        ("coco:copy/", f"coco:{tmp_path}/etc/copy/"),
        ("coco:val2014#val2014", f"coco:{tmp_path}/etc/val2014#val2014"),
        ("coco:val2017", "coco:val2017"),
        ("scenes:20@1", "scenes:20@1"),
        ("folder:/srv/x", "folder:/srv/x"),
        ("folder:~/x", "folder:~/x"),
    ]
    file.write_text("".join(f'[[source]]\nspec = "{spec}"\n' for spec, _ in given))
    assert specs(file) == [resolved for _, resolved in given]
    monkeypatch.chdir(tmp_path / "etc")
    assert specs(None, source=[{"spec": spec} for spec, _ in given]) == [
        resolved for _, resolved in given
    ]
    file.write_text('[fetch]\ncorpora = "own.toml"\n')
    monkeypatch.chdir("/")
    assert load_config(file, {}).fetch.corpora == f"{tmp_path}/etc/own.toml"
    flags = {"fetch.corpora": os.path.join("srv", "own.toml")}  # noqa: PTH118  # as typed
    assert load_config(file, flags).fetch.corpora == "/srv/own.toml"


def test_each_flag_overrides_the_file(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('[fetch]\ncontact = "a@b.example"\nretries = 5\n[limits]\nmax_pixels = 9\n')
    config = load_config(file, {"fetch.retries": 7, "fetch.contact": None, "crawl.rehash": True})
    assert (config.fetch.contact, config.fetch.retries) == ("a@b.example", 7)
    assert (config.limits.max_pixels, config.crawl.rehash) == (9, True)


def test_permissions_for_one_run_are_not_remembered():
    values = {"fetch.allow_private": True, "fetch.use_env_proxy": True, "crawl.rehash": True}
    config = load_config(None, {**values, "limits.max_removed": 1.0, "fetch.retries": 9})
    again = load_config(None, {}, config.recorded())
    assert not again.fetch.allow_private
    assert not again.fetch.use_env_proxy
    assert not again.crawl.rehash
    assert again.limits.max_removed == 0.2
    assert again.fetch.retries == 9


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[fetch]\ncontacts = 1", UsageError, "did you mean 'contact'"),
        ('[fetch]\ncontact = "a\\r\\nX: y"', UsageError, "ASCII"),
        ("[fetch]\nper_host_concurrency = 0", UsageError, "per_host_concurrency"),
        ("fetch = 3", UsageError, "fetch"),
        ("[crawl]\nhash = true", UsageError, "valid: captions_from, metadata, rehash"),
        ("[fetch", DataError, "not a TOML file"),
    ],
)
def test_mistakes_are_named(tmp_path, text, error, words):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(error, match=words):
        load_config(tmp_path / "a.toml", {"fetch.retries": 1})


def test_a_missing_file_is_no_input(tmp_path):
    with pytest.raises(NoInputError):
        load_config(tmp_path / "gone.toml", {})


def test_a_model_path_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "mine").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "etc" / "mmindex.toml"
    for given, resolved in [
        ({"name": "local-dir:../clip"}, {"name": f"local-dir:{tmp_path}/etc/../clip"}),
        ({"name": "local-dir:~/clip"}, {"name": "local-dir:~/clip"}),
        ({"name": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}, {}),
        ({"name": "ViT-B-32", "pretrained": "mine"}, {"pretrained": f"{tmp_path}/etc/mine"}),
        ({"name": "hf-hub:a/b", "pretrained": "./w.safetensors"},
         {"pretrained": f"{tmp_path}/etc/./w.safetensors"}),
    ]:  # fmt: skip
        lines = (f'{key} = "{value}"\n' for key, value in given.items())
        file.write_text("[model]\n" + "".join(lines))
        model = load_config(file, {}).model.model_dump(exclude={"allow_pickle_weights"})
        assert model == {"pretrained": None, **given, **resolved}
    flags = load_config(None, {"model.name": "local-dir:clip"})
    assert flags.model.name == f"local-dir:{tmp_path}/clip"


def test_a_byte_order_mark_is_not_part_of_the_settings(tmp_path):
    file = tmp_path / "mmindex.toml"
    file.write_bytes(b"\xef\xbb\xbf[encode]\nbatch_size = 8\n")
    assert load_config(file, {}).encode.batch_size == 8
