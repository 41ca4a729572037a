"""The doctor ends with a result in any case."""

import sys

import pytest

from mmindex.upkeep.doctor import Finding, State, examine, verdict
from support.fakestore import run_build, write_photos


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def found(folder):
    return {finding.what: finding for finding in examine(folder)}


def test_a_machine_that_runs_these_tests_is_ready(tmp_path):
    findings = examine(tmp_path / "store", "embedded")
    assert verdict(findings) == ("ready: `mmindex build` can run on this machine", 0)


@pytest.mark.parametrize("module", ["faiss", "torch"])
def test_a_package_that_cannot_be_imported_is_a_finding_not_a_crash(module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert "not checked" in found(tmp_path)["gpu"].detail


def test_what_is_broken_is_named_and_changes_the_exit_code():
    fine, broken = Finding("a", State.NOTE, ""), Finding("b", State.BROKEN, "")
    assert verdict([fine, broken]) == ("not ready: fix b", 69)


def test_a_store_that_cannot_be_written_is_broken(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert found(tmp_path)["disk"].state is State.BROKEN


def test_a_hub_that_does_not_answer_is_a_note_that_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    hub = found(tmp_path)["model hub"]
    assert hub.state is State.NOTE
    assert "Errno" not in hub.detail


def test_doctor_is_not_ready_if_the_default_model_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    findings = list(examine(tmp_path / "store"))
    assert findings[-1].state is State.BROKEN
    assert "--pretrained PATH" in findings[-1].detail
    sentence, code = verdict(findings)
    assert sentence.startswith("not ready for this model")
    assert code == 69


def test_the_model_is_that_of_the_store(tmp_path):
    photos = write_photos(tmp_path / "photos", {"a.jpg": 1})
    run_build(tmp_path / "store", photos)
    model = {one.what: one for one in examine(tmp_path / "store")}["model"]
    assert "'fake'" in model.detail
