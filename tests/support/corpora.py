"""Small corpora on disk in the layout of the published ones, and crawls of them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mmindex.core.config import LimitsConfig, SourceConfig
from mmindex.core.records import Expected, Ignored, Note, Rejected, SourceEvent, SourceItem
from mmindex.crawl.stage import CrawlReport, crawl
from mmindex.sources.spec import SourceOptions, open_source, parse_spec
from mmindex.store.layout import Layout
from mmindex.store.objects import Objects
from mmindex.store.versions import create_layout
from support.images import draw

Rows = list[dict[str, Any]]


def jpeg(number: int) -> bytes:
    """Return ``draw(number)`` as a JPEG file."""
    buffer = io.BytesIO()
    draw(number).save(buffer, "JPEG")
    return buffer.getvalue()


def write_files(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write files by relative name, and return the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip archive with members by name."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def coco_content(captions: Mapping[int, Sequence[str]], **more: object) -> dict[str, Any]:
    """Return a captions file of images 1, 2, ...: ``{number: captions}``."""
    images = [
        {"id": number, "file_name": f"{number:012d}.jpg", "license": 4, "flickr_url": f"u{number}"}
        for number in captions
    ]
    annotations = [
        {"id": 100 * number + place, "image_id": number, "caption": text}
        for number, texts in captions.items()
        for place, text in enumerate(texts)
    ]
    licenses = [{"id": 4, "name": "Attribution License", "url": "http://x"}]
    return {"images": images, "annotations": annotations, "licenses": licenses, **more}


def source_events(spec: str, **options: Any) -> list[Any]:
    """Return the events of a source that needs no store."""
    given = {"layout": Layout(Path("unused")), "max_bytes": 1 << 20, **options}
    found = open_source(parse_spec(spec), SourceOptions(**given))
    return [event for event in found if not isinstance(event, Expected)]  # only for progress bars


def write_coco(
    folder: Path, content: dict[str, Any] | bytes, split: str = "val2017", count: int = 3
) -> Path:
    """Write a COCO folder with a captions file and images 1 to ``count``."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    images = {f"{split}/{n:012d}.jpg": jpeg(n) for n in range(1, count + 1)}
    return write_files(folder, {f"annotations/captions_{split}.json": data, **images})


def new_store(folder: Path) -> Objects:
    """Create an empty store."""
    return Objects(create_layout(folder))


def crawl_specs(objects: Objects, *specs: str, **limits: float) -> CrawlReport:
    """Crawl the sources with default limits, except for those given."""
    sources = [SourceConfig(spec=spec) for spec in specs]
    return crawl(objects, sources, LimitsConfig.model_validate(limits))


def rows_of(objects: Objects, report: CrawlReport) -> tuple[Rows, Rows]:
    """Return the rows of ``images`` and of ``captions``."""
    images: Rows = objects.read_table(report.images).to_pylist()
    captions: Rows = objects.read_table(report.captions).to_pylist()
    return images, captions


def items(events: Iterable[SourceEvent]) -> dict[str, SourceItem]:
    """Return the items by id."""
    return {event.image_id: event for event in events if isinstance(event, SourceItem)}


def rejections(events: Iterable[SourceEvent]) -> dict[str, str]:
    """Return the reasons by id."""
    return {event.image_id: str(event.reason) for event in events if isinstance(event, Rejected)}


def noted(events: Iterable[SourceEvent]) -> dict[str, int]:
    """Return the sum of the notes by name."""
    counts: dict[str, int] = {}
    for event in events:
        if isinstance(event, Note):
            counts[event.kind] = counts.get(event.kind, 0) + event.count
    return counts


def ignored(events: Iterable[SourceEvent]) -> int:
    """Return the number of ignored rows."""
    return sum(event.count for event in events if isinstance(event, Ignored))


def same_pixels(data: bytes, number: int) -> bool:
    """Return whether a file contains ``draw(number)``, except for JPEG's loss."""
    with Image.open(io.BytesIO(data)) as image:
        return image.size == draw(number).size and data == jpeg(number)
