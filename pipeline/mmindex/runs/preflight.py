"""Check whether a run has enough disk space, before anything is fetched, loaded or encoded.

The estimate is a lower limit, so that no run is refused that could succeed; if a completely new
index would not fit, a warning is logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mmindex.core.config import Config, SourceConfig
from mmindex.core.errors import StorageError
from mmindex.core.model_names import UNKNOWN
from mmindex.core.progress import get_logger
from mmindex.index.plan import KINDS, plan
from mmindex.models.resolve import (
    CONFIG_FILE,
    open_clip_dir,
    read_config,
    resolve_model,
)
from mmindex.sources.base import Needs
from mmindex.sources.needs import needs_of
from mmindex.sources.spec import parse_spec
from mmindex.store.keys import KEY_BYTES
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.place import free_bytes, probe

# Compressed size of a row in the corpus tables on disk; most of it is the key.
_IMAGE_ROW_BYTES: Final = 40
_CAPTION_ROW_BYTES: Final = 50
_FLOAT16_BYTES: Final = 2
# The dimensions of the default model; other models differ.
_DIM: Final = 512
_MOST_DIM: Final = 1 << 16

_REBUILT: Final = ("ids/", "vectors/", "digests/", "index/")


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """A source, and what is missing before it can be read."""

    source: SourceConfig
    needs: Needs


def plan_sources(layout: Layout, config: Config) -> tuple[SourcePlan, ...]:
    """Return what each source lacks, without using the network or the store.

    Raises:
        MmindexError: a source does not exist or its settings are invalid.
    """
    return tuple(
        SourcePlan(source, needs_of(parse_spec(source.spec), layout, config.fetch))
        for source in config.source
    )


def check_room(
    layout: Layout, config: Config, parent: Manifest | None, wanted: Sequence[str]
) -> None:
    """Check that a run fits on the disk.

    Args:
        layout: the store; its writer lock must be held.
        config: the run's settings.
        parent: the published version, the basis of the size estimates.
        wanted: the stages to run.

    Raises:
        StorageError: there is not enough space (the message has both numbers), or nothing can be
            written.
        MmindexError: a source does not exist or its settings are invalid.
    """
    probe(layout)
    sources = plan_sources(layout, config) if "crawl" in wanted else ()
    parts = estimate(sources, config, parent, wanted)
    require_room(layout, parts)
    needed = sum(parts.values()) + (_bytes_of(parent, _REBUILT) if "index" in wanted else 0)
    free = free_bytes(layout.root)
    if needed > free:
        get_logger("run").warning(
            "the disk does not have enough space for a complete new index, if one is needed",
            needed_bytes=needed,
            free_bytes=free,
        )


def require_room(layout: Layout, parts: Mapping[str, int]) -> None:
    """Check that this number of bytes fits on the disk.

    Args:
        layout: the store; it need not exist yet.
        parts: bytes needed, by purpose.

    Raises:
        StorageError: there is not enough space; the message has both numbers.
    """
    needed, free = sum(parts.values()), free_bytes(layout.root)
    if needed > free:
        what = ", ".join(f"{name} {size:,}" for name, size in parts.items() if size)
        raise StorageError(
            f"{layout.root}: needs at least {needed:,} bytes ({what}), but only {free:,} are free",
            "free some disk space (`mmindex gc` removes old versions), or choose another `store`",
        )


def estimate(
    sources: Sequence[SourcePlan], config: Config, parent: Manifest | None, wanted: Sequence[str]
) -> dict[str, int]:
    """Estimate the minimum number of bytes that a run writes, by purpose.

    The size of a source is known for published corpora and for scenes. For a folder it is unknown;
    then only a changed model counts, because it encodes everything again.

    Args:
        sources: the sources to read.
        config: the run's settings.
        parent: the published version.
        wanted: the stages to run.
    """
    needs = [plan.needs for plan in sources]
    images, captions = sum(need.images for need in needs), sum(need.captions for need in needs)
    tables = images * _IMAGE_ROW_BYTES + captions * _CAPTION_ROW_BYTES
    if parent is not None:
        # Rows are staged and written again before a run can determine that nothing changed.
        tables = 2 * _bytes_of(parent, ("crawl/",)) if "crawl" in wanted else 0
        changed = parent.encoder is None or parent.config.get("model") != config.model.model_dump()
        images = parent.counts.unique_images if changed else 0
    parts = {"sources": sum(need.bytes for need in needs), "tables": tables}
    if images and "encode" in wanted:
        dim = _dimensions(config)
        parts["embeddings"] = images * (dim * _FLOAT16_BYTES + KEY_BYTES)
        if "index" in wanted:
            kind = config.index.kind
            codes = plan(images, dim, kind).bytes if kind in KINDS else 0
            parts["index"] = images * dim * _FLOAT16_BYTES + codes
    return parts


def _bytes_of(manifest: Manifest | None, prefixes: tuple[str, ...]) -> int:
    refs = manifest.objects if manifest is not None else ()
    return sum(ref.bytes for ref in refs if ref.name.startswith(prefixes))


def _dimensions(config: Config) -> int:
    """Return the dimensions of the model's vectors from its configuration if it is on this disk."""
    model = config.model
    request = resolve_model(
        model.name,
        model.pretrained,
        specs=[source.spec for source in config.source],
        allow_pickle_weights=model.allow_pickle_weights,
    )
    if request.name == UNKNOWN:
        return _DIM
    if request.folder is not None:
        found = read_config(request.folder / CONFIG_FILE).get("model_cfg", {})
    elif request.repository is None:
        found = read_config(open_clip_dir() / "model_configs" / f"{request.name}.json")
    else:
        return _DIM
    size = found.get("embed_dim") if isinstance(found, dict) else None
    return size if isinstance(size, int) and 0 < size < _MOST_DIM else _DIM
