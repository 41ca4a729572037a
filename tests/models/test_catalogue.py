"""The list of models, and the message if the extra of a model is not installed."""

from __future__ import annotations

import importlib.util

import pytest

from mmindex.core.errors import MissingPackageError
from mmindex.models import files as files_module
from mmindex.models import tokenizer as text
from mmindex.models.catalogue import list_models
from mmindex.models.files import TokenizerSpec, locate
from mmindex.models.resolve import resolve_model


def hide_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "transformers" else find(name, *rest),
    )


def test_a_model_of_transformers_without_transformers_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before a gigabyte of weights is downloaded, and with its own exit code."""
    hide_transformers(monkeypatch)
    monkeypatch.setattr(files_module.hub, "fetch", None)
    for tag in ("laion5b_s13b_b90k", "none"):
        with pytest.raises(MissingPackageError) as caught:
            locate(resolve_model("xlm-roberta-base-ViT-B-32", tag))
        assert "xlm-roberta-base-ViT-B-32" in caught.value.message
        assert "mmindex[hf]" in caught.value.hint
        assert caught.value.exit_code == 69
    with pytest.raises(MissingPackageError):
        text.make_tokenizer(TokenizerSpec("siglip", "c4-en", None, 64, {}))


def test_models_for_many_languages_are_marked_with_what_they_need() -> None:
    known = {entry.name: entry for entry in list_models()}
    for name, tag in (
        ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k"),
        ("xlm-roberta-large-ViT-H-14", "frozen_laion5b_s13b_b90k"),
    ):
        assert tag in known[name].pretrained
        assert (known[name].multilingual, known[name].extra) == (True, "hf")
    assert not known["ViT-B-32"].multilingual
    assert known["ViT-B-32"].extra == ""
    # An English text tower of transformers, and one of open_clip's own.
    assert (known["roberta-ViT-B-32"].multilingual, known["roberta-ViT-B-32"].extra) == (
        False,
        "hf",
    )
    marked = {name for name, entry in known.items() if entry.multilingual}
    assert {entry.extra for name, entry in known.items() if name in marked} == {"hf"}
