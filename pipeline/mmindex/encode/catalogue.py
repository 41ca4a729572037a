"""What ``--model`` and ``--pretrained`` can be, for people to choose from."""

from __future__ import annotations

from dataclasses import dataclass

from mmindex import resources
from mmindex.config import DEFAULT_MODEL, DEFAULT_PRETRAINED, EMBEDDED
from mmindex.encode.model import CONFIG_FILE, EMBEDDED_FOLDER, NO_WEIGHTS, architectures


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One name for ``--model``.

    Attributes:
        name: the name.
        pretrained: the tags that it can be had with; empty for models that bring their weights.
        default: whether it is what a build takes when none is named, with the first tag.
    """

    name: str
    pretrained: tuple[str, ...]
    default: bool


def list_models(part: str = "") -> list[ModelEntry]:
    """The models whose name holds ``part``: the embedded one, then open_clip's architectures.

    Importing open_clip for its tags takes seconds.
    """
    from open_clip import list_pretrained_tags_by_model

    entries = []
    embedded = resources.data_dir() / "models" / EMBEDDED_FOLDER / CONFIG_FILE
    if part.lower() in EMBEDDED and embedded.is_file():
        entries.append(ModelEntry(EMBEDDED, (), default=False))
    for name in architectures():
        if part.lower() not in name.lower():
            continue
        tags = sorted(list_pretrained_tags_by_model(name))
        default = name == DEFAULT_MODEL
        if default:
            # The default's own tag first, so that the list can be read off.
            tags.sort(key=lambda tag: tag != DEFAULT_PRETRAINED)
        entries.append(ModelEntry(name, (*tags, NO_WEIGHTS), default))
    return entries
