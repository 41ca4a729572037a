"""Builds of folders: changes become the next version, and damaged files are left out."""

import json

from support.command import mmindex, mmindex_json
from support.images import png


def photo_folder(tmp_path, count):
    """A folder ``photos`` with ``count`` drawn images: ``0.png``, ``1.png`` and so on."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.png").write_bytes(png(number))
    return folder


def test_changes_in_the_corpus_become_the_next_version(tmp_path, tiny_model):
    """One image is added, one removed, one replaced; only new ones are encoded."""
    folder = photo_folder(tmp_path, 20)
    store = tmp_path / "store"
    mmindex("build", "--store", store, "--source", f"folder:{folder}", "--model", tiny_model.name)
    (folder / "0.png").unlink()
    (folder / "1.png").write_bytes(png(101))
    (folder / "new.png").write_bytes(png(100))
    mmindex("build", "--store", store)
    report = json.loads(sorted((store / "runs").iterdir())[-1].read_text())
    assert report["reports"]["encode"]["encoded_images"] == 2
    assert report["reports"]["encode"]["reused_images"] == 18
    assert report["version"] == 2
    (answer,) = mmindex_json("query", "--image", "folder/photos/2.png", "--store", store, "-k", 99)
    ids = {hit["id"] for hit in answer["hits"]}
    assert "folder/photos/new.png" in ids
    assert "folder/photos/0.png" not in ids
    assert "intact" in mmindex("check", "--full", "--store", store).stdout


def test_an_emptied_folder_does_not_empty_the_index(tmp_path, tiny_model):
    folder = photo_folder(tmp_path, 20)
    store = tmp_path / "store"
    mmindex("build", "--store", store, "--source", f"folder:{folder}", "--model", tiny_model.name)
    for number in range(10):
        (folder / f"{number}.png").unlink()
    done = mmindex("build", "--store", store, code=65)
    assert f"10 of the 20 images of folder:{folder} in the last version are missing" in done.stderr
    (status,) = mmindex_json("status", "--store", store)
    assert (status["version"], status["counts"]["indexed"]) == (1, 20)
    mmindex("build", "--store", store, "--max-removed", 1)
    assert mmindex_json("status", "--store", store)[0]["counts"]["indexed"] == 10


def test_bad_images_are_left_out_with_their_reasons(tmp_path, tiny_model):
    folder = photo_folder(tmp_path, 12)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html>no picture</html>")
    (folder / "cut.png").write_bytes(png(50, (300, 300))[:-40])
    (folder / "notes.doc").write_bytes(b"ignored by its extension")
    store = tmp_path / "store"
    mmindex("build", "--store", store, "--source", f"folder:{folder}", "--model", tiny_model.name)
    (status,) = mmindex_json("status", "--store", store)
    counts = status["counts"]
    assert (counts["seen"], counts["indexed"], counts["quarantined"], counts["ignored"]) == (
        16, 12, 3, 1,
    )  # fmt: skip
    listed = mmindex_json("quarantine", "list", "--store", store)
    assert {row["id"].rsplit("/")[-1]: row["reason"] for row in listed} == {
        "empty.jpg": "empty",
        "page.jpg": "not_an_image",
        "cut.png": "truncated",
    }
    assert all({"id", "uri", "reason", "detail"} <= set(row) for row in listed)
    assert "nothing changed" in mmindex("build", "--store", store).stdout


def test_too_many_bad_images_stop_the_run(tmp_path, tiny_model):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.png").write_bytes(png(number) if number < 15 else b"broken")
    store = tmp_path / "store"
    common = ("build", "--store", store, "--source", f"folder:{folder}", "--model", tiny_model.name)
    done = mmindex(*common, code=65)
    assert f"15 of 30 items of folder:{folder} are unusable (15 not_an_image)" in done.stderr
    assert len(mmindex_json("quarantine", "list", "--store", store)) == 15
    failed = mmindex("status", "--store", store, code=66)
    assert "failed with exit code 65" in failed.stdout
    assert f"folder:{folder}" in failed.stdout
    mmindex(*common, "--max-quarantine", 0.5)


def test_every_awkward_file_is_indexed_or_quarantined(real_photos, tmp_path, tiny_model):
    store = tmp_path / "store"
    mmindex(
        "build", "--store", store, "--source", f"folder:{real_photos / 'awkward' / 'files'}",
        "--all-files", "--max-quarantine", "1.0", "--model", tiny_model.name,
    )  # fmt: skip
    (status,) = mmindex_json("status", "--store", store)
    counts = status["counts"]
    files = len(list((real_photos / "awkward" / "files").iterdir()))
    assert counts["seen"] == files
    assert counts["seen"] == counts["indexed"] + counts["quarantined"] + counts["ignored"]
    assert counts["ignored"] == 0
    listed = mmindex_json("quarantine", "list", "--store", store)
    assert len(listed) == counts["quarantined"] == sum(counts["reasons"].values())
    assert counts["indexed"] > 40


def test_a_store_inside_its_own_source_folder_is_not_part_of_the_corpus(tmp_path, tiny_model):
    folder = photo_folder(tmp_path, 12)
    store = folder / "index"
    common = ("--source", f"folder:{folder}", "--all-files", "--model", tiny_model.name)
    mmindex("build", "--store", store, *common)
    assert "nothing changed" in mmindex("build", "--store", store).stdout
    (status,) = mmindex_json("status", "--store", store)
    assert (status["counts"]["indexed"], status["counts"]["ignored"]) == (12, 1)
    assert status["counts"]["quarantined"] == 0


def test_a_damaged_old_version_does_not_stop_the_next_build(tmp_path, tiny_model):
    folder = photo_folder(tmp_path, 12)
    store = tmp_path / "store"
    mmindex("build", "--store", store, "--source", f"folder:{folder}", "--model", tiny_model.name)
    (folder / "12.png").write_bytes(png(12))
    mmindex("build", "--store", store)
    (store / "versions" / f"{1:020d}.json").write_bytes(b"damaged")
    (folder / "13.png").write_bytes(png(13))
    mmindex("build", "--store", store)
    assert mmindex_json("status", "--store", store)[0]["counts"]["indexed"] == 14
    assert f"{1:020d}.json" in mmindex("check", "--store", store, code=65).stdout


def test_globs_are_remembered_and_unread_files_are_named(tmp_path):
    folder = photo_folder(tmp_path, 4)
    for name in ("a.psd", "b.psd", "c.doc", "3.jpg"):
        (folder / name).write_bytes(png(3))
    store = tmp_path / "store"
    source = ("--source", f"folder:{folder}", "--exclude", "3.*")
    first = mmindex("crawl", "--store", store, *source)
    assert "not read    2 .psd, 1 .doc" in first.stdout
    (folder / "3.gif").write_bytes(png(4))
    (folder / "new.png").write_bytes(png(5))
    (again,) = mmindex_json("crawl", "--store", store)
    assert again["counts"]["indexed"] == 4
    assert again["reports"]["crawl"]["sources"][0]["not_read"] == {".psd": 2, ".doc": 1}
    assert "not read    2 .psd, 1 .doc" in mmindex("status", "--store", store).stdout
    (plan,) = mmindex_json("build", "--store", store, "--dry-run", "--model", "embedded")
    assert plan["not_read"] == {".psd": 2, ".doc": 1}


def test_globs_without_a_matching_source_are_refused(tmp_path):
    done = mmindex("crawl", "--store", tmp_path / "s", "--exclude", "*.png", code=2)
    assert "--exclude" in done.stderr
    assert not (tmp_path / "s").exists()


def test_globs_without_a_source_change_the_sources_of_the_store(tmp_path):
    folder, store = photo_folder(tmp_path, 4), tmp_path / "store"
    other = tmp_path / "other"
    other.mkdir()
    (other / "9.png").write_bytes(png(9))

    def indexed(*options):
        (report,) = mmindex_json("crawl", "--store", store, "--max-removed", 1, *options)
        return report["counts"]["indexed"]

    source = ("--source", f"folder:{folder}")
    assert indexed(*source) == 4
    assert indexed("--exclude", "3.*") == 3
    assert indexed("--include", "1.png", "--include", "2.png") == 2
    # A source that is passed again keeps its remembered globs; a new source has none.
    assert indexed(*source, "--source", f"folder:{other}") == 3
    assert indexed("--include", "", "--exclude", "") == 5


def test_a_source_of_a_configuration_file_has_globs_of_its_own(tmp_path):
    folder = photo_folder(tmp_path, 3)
    config = tmp_path / "mmindex.toml"
    config.write_text(f'[[source]]\nspec = "mine=folder:{folder}"\ninclude = ["0.png"]\n')
    (report,) = mmindex_json("crawl", "--store", tmp_path / "s", "--config", config)
    assert report["counts"]["indexed"] == 1
    assert report["reports"]["crawl"]["sources"][0]["name"] == "folder/mine"
