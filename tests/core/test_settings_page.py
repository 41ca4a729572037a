"""docs/settings.md is complete and matches the code."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmindex.core.config import Config, SourceConfig, load_config
from mmindex.sources.spec import absolute_spec

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(DOCS / "settings.py")))


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "settings.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date(generator, page):
    assert page == generator.page(), "run `make docs`"


def test_every_setting_has_an_entry(page):
    sections = {name: field.default for name, field in Config.model_fields.items()}
    settings = {f"source.{name}" for name in SourceConfig.model_fields} | {
        f"{section}.{name}"
        for section, values in sections.items()
        if section != "source"
        for name in type(values).model_fields
    }
    assert set(re.findall(r"^### (.+)$", page, re.MULTILINE)) == settings


def test_a_setting_without_its_text_is_an_error(generator, monkeypatch):
    texts = generator.page.__globals__["_texts"]
    monkeypatch.setitem(
        generator.page.__globals__, "_texts", lambda kind: {**texts(kind), "retries": "Retries."}
    )
    with pytest.raises(ValueError, match=r"fetch\.retries"):
        generator.page()


def test_the_example_is_a_valid_file(tmp_path, page):
    file = tmp_path / "mmindex.toml"
    file.write_text(re.search(r"```toml\n(.+?)```", page, re.DOTALL)[1], encoding="utf-8")
    config = load_config(file, {}, None, absolute_spec)
    assert config.source[0].spec == f"folder:{tmp_path}/photos"
    assert (config.index.refine, config.limits.max_quarantine) == ("sq8", 0.05)
