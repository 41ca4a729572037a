"""One part of the encoding as a separate run: no lock, no version, no report."""

from __future__ import annotations

from pathlib import Path

from mmindex.core.config import Config
from mmindex.core.errors import NoInputError, UsageError
from mmindex.core.progress import get_logger
from mmindex.encode.part import Part, PartReport, encode_part
from mmindex.encode.stage import encoder_source
from mmindex.media.services import use_endpoint
from mmindex.store import versions
from mmindex.store.holds import hold_current
from mmindex.store.objects import Objects
from mmindex.store.staging import hold_staging


def run_part(root: Path, config: Config, part: Part) -> PartReport:
    """Encode one part of what the published version lacks.

    Args:
        root: the store's folder.
        config: settings, see :func:`mmindex.runs.settings.settings`.
        part: the part.

    Raises:
        NoInputError: there is no store, or nothing has been crawled.
        MmindexError: the model is not available, or writing failed; complete shards stay.
    """
    if config.run.cluster:
        raise UsageError("a part runs only on this machine", "remove `cluster`, or `part`")
    use_endpoint(config.fetch.s3_endpoint, [source.spec for source in config.source])
    layout = versions.open_layout(root)
    with hold_current(layout) as published, hold_staging(layout) as staged:
        if published is None:
            raise NoInputError(
                f"{layout.root}: nothing is published yet", "run `mmindex crawl` first"
            )
        source = encoder_source(config, published.encoder)
        report = encode_part(source, published, Objects(staged), config, part)
    get_logger("encode").info(
        f"part {part} encoded",
        images=report.encoded_images,
        texts=report.encoded_texts,
        failed=report.failed,
        done_before=report.done_before,
    )
    return report
