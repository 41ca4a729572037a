"""What the stages of one run share, and what they all ask of a draft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mmindex.core.config import Config
from mmindex.core.errors import NoInputError
from mmindex.encode.work import EncoderSource
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects


@dataclass(slots=True)
class Context:
    """What every stage of one run shares.

    Attributes:
        layout, objects: the store.
        config: the run's settings.
        run_id: its name.
        parent: the published version.
        encoder: the model, once it is known.
        retry: try again what earlier runs could not encode, instead of believing them.
        reports: collects the stages' own numbers.
    """

    layout: Layout
    objects: Objects
    config: Config
    run_id: str
    parent: Manifest | None
    encoder: EncoderSource | None = None
    retry: bool = False
    reports: dict[str, Any] = field(default_factory=dict)


def require(draft: Manifest, name: str, stage: str) -> ObjectRef:
    """The draft's object ``name``, which ``stage`` makes.

    Raises:
        NoInputError: that stage has not run.
    """
    ref = draft.find(name)
    if ref is None:
        raise NoInputError(f"{stage} has not run yet", f"run `mmindex {stage}` first")
    return ref


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds as reports show them."""
    return {name: round(value, 3) for name, value in seconds.items()}


def named(name: str, ref: ObjectRef) -> ObjectRef:
    """The same object under another name."""
    return msgspec.structs.replace(ref, name=name)


def survivors(images: ObjectRef, captions: ObjectRef, kept_out: ObjectRef) -> tuple[ObjectRef, ...]:
    """The tables that search and evaluation read."""
    return named("images", images), named("captions", captions), named("quarantine", kept_out)


def after_change(draft: Manifest, **changes: Any) -> Manifest:
    """A draft whose later stages no longer hold."""
    return msgspec.structs.replace(
        draft, indexes={}, evaluation=None, evaluation_inputs="", **changes
    )
