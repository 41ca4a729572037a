"""The values of ``--model`` and ``--pretrained``."""

from __future__ import annotations

from dataclasses import dataclass

from mmindex.core import resources
from mmindex.core.model_names import DEFAULT_MODEL, DEFAULT_PRETRAINED
from mmindex.models.files import needs_transformers
from mmindex.models.resolve import (
    BUILT_IN,
    CONFIG_FILE,
    NO_WEIGHTS,
    architectures,
    open_clip_dir,
    read_config,
)

# Models trained on texts in many languages: LAION's XLM-R models (LAION-5B), NLLB
# CLIP (200 languages), SigLIP i18n and SigLIP 2 (WebLI), MetaCLIP 2 ("worldwide"), mT5's tower.
_MULTILINGUAL = ("xlm-roberta-", "nllb-clip-", "mt5-", "-siglip-i18n", "-siglip2", "-worldwide")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A value of ``--model``.

    Attributes:
        name: the name.
        pretrained: the available tags; empty for models with their own weights.
        default: whether it is the default model of builds, with the first tag.
        multilingual: whether it understands many languages; other models understand English.
        extra: the extra of mmindex that it needs, or empty.
    """

    name: str
    pretrained: tuple[str, ...]
    default: bool
    multilingual: bool = False
    extra: str = ""


def list_models(part: str = "") -> list[ModelEntry]:
    """Return the models whose name contains ``part``: built-in models, then open_clip's.

    Importing open_clip for its tags takes seconds.
    """
    from open_clip import list_pretrained_tags_by_model

    entries = []
    for name, folder in BUILT_IN.items():
        config = resources.data_dir() / "models" / folder / CONFIG_FILE
        if part.lower() in name and config.is_file():
            entries.append(ModelEntry(name, (), default=False))
    for name in architectures():
        if part.lower() not in name.lower():
            continue
        tags = sorted(list_pretrained_tags_by_model(name))
        default = name == DEFAULT_MODEL
        if default:
            # The default tag comes first.
            tags.sort(key=lambda tag: tag != DEFAULT_PRETRAINED)
        entries.append(_entry(name, (*tags, NO_WEIGHTS), default=default))
    return entries


def _entry(name: str, tags: tuple[str, ...], *, default: bool) -> ModelEntry:
    config = read_config(open_clip_dir() / "model_configs" / f"{name}.json")
    return ModelEntry(
        name,
        tags,
        default,
        multilingual=any(part in f"{name.lower()}-" for part in _MULTILINGUAL),
        extra="hf" if needs_transformers(config) else "",
    )
