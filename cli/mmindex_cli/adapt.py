"""``adapt``: fit a store's model to captions, using the stored vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, StoreOption, TextFormat

if TYPE_CHECKING:
    from mmindex.adaptation.adapt import AdaptReport
    from mmindex.adaptation.measure import Change
    from mmindex.evaluate.bootstrap import Interval

OutOption = Annotated[Path, typer.Option("--out", help="Folder for the adapted model.")]
CaptionsOption = Annotated[
    Path | None,
    typer.Option(
        "--captions",
        metavar="FILE",
        help="List of captions for the images in the store (.csv, .tsv, .txt, .jsonl). "
        "[default: the store's own captions]",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the adapted model in the --out folder.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the random splits and steps.")]


def adapt(
    out: OutOption,
    store: StoreOption = None,
    captions: CaptionsOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    output_format: TextFormat = "text",
) -> None:
    """Adapt the store's model to captions of its images, in seconds, without opening an image.

    The command writes a new model only if recall on held-out images improves significantly. Use the
    model with `mmindex build --model local-dir:OUT`, which computes the new vectors from the old
    ones.

    Example: mmindex adapt --captions captions.csv --out my-model
    """
    import mmindex
    from mmindex_cli.output import emit

    report = mmindex.adapt(
        store_path(store),
        out=out,
        captions=captions,
        overwrite=overwrite,
        device=device,
        seed=seed,
        progress=True,
    )
    emit([report], output_format, text=lambda _: _lines(report), json=lambda one: one.to_json())


def _lines(report: AdaptReport) -> Iterator[str]:
    from mmindex.core.display import visible
    from mmindex_cli.output import labelled

    if report.out is not None:
        yield f"adapted {visible(report.parent.model)}: {visible(str(report.out))}"
    else:
        kept = visible(report.parent.model)
        yield f"kept {kept}: no candidate improves recall significantly"
    yield from labelled(_rows(report))
    if report.model is not None:
        store = visible(str(report.store))
        yield f"use it: mmindex build --store {store} --model {visible(report.model)}"


def _rows(report: AdaptReport) -> Iterator[tuple[str, str]]:
    lost = [
        f"{count:,} {what}"
        for count, what in (
            (report.unknown, "of images that are not in the store"),
            (report.unusable, "without a vector"),
        )
        if count
    ]
    left_out = f"; captions left out: {', '.join(lost)}" if lost else ""
    sampled = " (a sample)" if report.sampled else ""
    yield "pairs", f"{report.images:,} images, {report.captions:,} captions{sampled}{left_out}"
    yield (
        "tested on",
        f"{report.tested:,} held-out images, in galleries of at most {report.gallery:,}",
    )
    after = "after" if report.adapted else "candidate"
    for direction in ("text_to_image", "image_to_text"):
        before = _recall(getattr(report.before, direction))
        yield direction.replace("_to_", "→"), f"{'before':<10}{before}"
        yield "", f"{after:<10}{_recall(getattr(report.after, direction))}"
        yield "", f"{'change':<10}{_change(getattr(report.gain, direction))}"
    yield "time", f"{report.seconds:.1f} s"


def _recall(intervals: tuple[Interval, ...]) -> str:
    return "  ".join(f"R@{i.k} {i.value:.1f} [{i.low:.1f}, {i.high:.1f}]" for i in intervals)


def _change(change: Change) -> str:
    return f"{change.value:+.1f} points [{change.low:+.1f}, {change.high:+.1f}] in mean recall"
