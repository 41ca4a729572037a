"""``export``: write images, captions and vectors for other tools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmindex.core.display import visible
from mmindex_cli.common import store_path
from mmindex_cli.options import StoreOption, TextFormat, WhereOption

if TYPE_CHECKING:
    from mmindex.export.export import ExportReport

OutOption = Annotated[Path, typer.Option("--out", help="A new or empty folder for the export.")]
LayoutOption = Annotated[
    Literal["parquet", "clip-retrieval", "hf"],
    typer.Option(
        help="parquet: one table of images and one of captions, with vectors. clip-retrieval: .npy "
        "files with Parquet metadata, also for autofaiss. hf: a Hugging Face dataset that contains "
        "the image files."
    ),
]
LocationOption = Annotated[
    bool,
    typer.Option(
        "--with-location",
        help="Also export the locations of images (lat, lon); the image files of hf keep all their "
        "metadata.",
    ),
]
FuseOption = Annotated[
    bool,
    typer.Option(
        "--fuse-captions",
        help="Combine the vector of each image with those of its captions; their weight is fitted "
        "to the corpus.",
    ),
]


def export(
    out: OutOption,
    layout: LayoutOption = "parquet",
    where: WhereOption = None,
    with_location: LocationOption = False,
    fuse_captions: FuseOption = False,
    output_format: TextFormat = "text",
    store: StoreOption = None,
) -> None:
    """Write images, captions and vectors of the published version for other tools.

    The export is not part of the store, so forget does not change it.

    Example: mmindex export --out embeddings --layout clip-retrieval
    """
    import mmindex
    from mmindex_cli.output import emit

    with mmindex.open(store_path(store), with_location=with_location) as index:
        report = index.export(out, layout=layout, where=where, fuse_captions=fuse_captions)
    emit([report], output_format, text=lambda _: _lines(report), json=_record)


def _lines(report: ExportReport) -> Iterator[str]:
    texts = f" and {report.captions:,} captions" if report.captions else ""
    yield (
        f"exported {report.images:,} images{texts} of version {report.version} to "
        f"{visible(str(report.folder))} ({report.bytes / 1e6:,.1f} MB)"
    )
    if report.unreadable:
        yield f"{report.unreadable:,} images cannot be read and are null"
    if (fit := report.fit) is not None:
        yield f"weight of captions: {fit.weight:g} (fitted with {fit.queries:,} captions)"
        if fit.weight > 0:
            before, after = fit.images["r@1"], fit.items["r@1"]
            yield f"recall@1 for these captions: {before:.1f} -> {after:.1f} %"


def _record(report: ExportReport) -> dict[str, object]:
    return {
        "folder": str(report.folder),
        "layout": report.layout,
        "version": report.version,
        "images": report.images,
        "captions": report.captions,
        "unreadable": report.unreadable,
        "bytes": report.bytes,
        **({} if report.fit is None else {"fit": asdict(report.fit)}),
    }
