"""Determine what a build would do, without changing the store and without the network.

The sources are actually crawled, into a scratch store next to the real one, which is read through
it; then the stages are planned, and the plans are shown instead of executed. What only a real run
can determine (images that cannot be decoded, responses to requests) is assumed to succeed. A source
that must first be downloaded or drawn is listed and left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from mmindex.core.config import Config, load_config
from mmindex.core.errors import MmindexError
from mmindex.core.modality import Modality
from mmindex.encode.given import GivenFiles
from mmindex.encode.plan import ShardReader, plan_encode
from mmindex.index.extend import plan_index
from mmindex.media.kinds import remedy
from mmindex.media.services import use_endpoint
from mmindex.models.hub import WouldFetchError, without_network
from mmindex.runs import stages
from mmindex.runs.context import Context
from mmindex.runs.crawl_stage import (
    Found,
    crawl_sources,
    crawled_draft,
    names_of_sources,
    objections,
)
from mmindex.runs.forecast import (
    EncodeForecast,
    Forecast,
    IndexForecast,
    Stop,
    Unread,
    foresee_seconds,
)
from mmindex.runs.index_stage import published_index
from mmindex.runs.keyword_stage import KeywordAction, keyword_action
from mmindex.runs.preflight import estimate, plan_sources, require_room
from mmindex.runs.run import STAGES, first_draft
from mmindex.sources.spec import absolute_spec
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import EncoderInfo, Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.place import free_bytes, require_writable
from mmindex.store.publish import make_directory


@dataclass(frozen=True, slots=True)
class _Scratch(Layout):
    """A scratch store that shares the real store's downloads and versions."""

    real: Layout

    @property
    def downloads_dir(self) -> Path:
        """The real store's folder: nothing is fetched here."""
        return self.real.downloads_dir

    @property
    def versions_dir(self) -> Path:
        """The real store's folder: nothing is published here."""
        return self.real.versions_dir


class _Overlay(Objects):
    """Objects written to the scratch store; others are read from the real one."""

    def __init__(self, scratch: Layout, real: Objects) -> None:
        super().__init__(scratch)
        self.real = real

    def unverified_path(self, ref: ObjectRef) -> Path:
        """Return the object's path in either store."""
        if self.layout.object(ref.sha256).is_file():
            return super().unverified_path(ref)
        return self.real.unverified_path(ref)


def dry_run(root: Path, config: Config, run_id: str) -> Forecast:
    """Report what ``run`` over the same store with the same settings would do.

    If there is a store, its lock is held until the end, so that the report is consistent.

    Args:
        root: the store's folder; it need not exist.
        config: settings, see :func:`mmindex.runs.settings.settings`.
        run_id: name of this run in logs.

    Returns:
        The forecast; what would stop the run is part of it and not raised.

    Raises:
        BusyError: another run holds the store.
        MmindexError: the store cannot be read or written, or is damaged.
    """
    require_writable(root)
    use_endpoint(config.fetch.s3_endpoint, [source.spec for source in config.source])
    layout = Layout(root.absolute())
    there = layout.format_file.exists()
    with ExitStack() as stack:
        if there:
            stack.enter_context(writer_lock(versions.open_layout(root)))
        parent = versions.read_current(layout) if there else None
        objects = stack.enter_context(_overlay(layout))
        # No cluster is used, so the precision is the one for this machine.
        run = config.run.model_copy(update={"cluster": None})
        config = config.model_copy(update={"run": run})
        context = Context(objects.layout, objects, config, run_id, parent)
        return _Foresight(context, objects.real, first_draft(parent, config, run_id)).forecast()


@contextmanager
def _overlay(real: Layout) -> Iterator[_Overlay]:
    with tempfile.TemporaryDirectory(prefix="mmindex-dry-run-") as folder:
        scratch = _Scratch(Path(folder), real)
        for directory in (scratch.objects_dir, scratch.staging_dir):
            make_directory(directory)
        if real.stamps_file.is_file():
            scratch.stamps_file.symlink_to(real.stamps_file)  # read or replaced, never written
        if real.listings_file.is_file():
            scratch.listings_file.symlink_to(real.listings_file)
        yield _Overlay(scratch, Objects(real))


def _differing(parent: Manifest, config: Config) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ from the published version's, by dotted name."""
    before = _flat(load_config(None, {}, parent.config, absolute_spec))
    after = _flat(config)
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _flat(config: Config) -> dict[str, Any]:
    flat: dict[str, Any] = {"source": [source.spec for source in config.source]}
    crawl = config.crawl.model_dump(exclude={"rehash"})  # recorded only if it is not the default
    for section, values in {**config.recorded(), "crawl": crawl}.items():
        if isinstance(values, dict):
            flat |= {f"{section}.{name}": value for name, value in values.items()}
    return flat


@dataclass(slots=True)
class _Foresight:
    """A dry run with the steps of a real run; only the fields of steps that it reaches are set."""

    context: Context
    real: Objects
    draft: Manifest
    unread: list[Unread] = field(default_factory=list)
    stops: list[MmindexError] = field(default_factory=list)
    room: dict[str, int] = field(default_factory=dict)
    found: Found | None = None
    changed: bool = False
    encode: dict[str, EncodeForecast] = field(default_factory=dict)
    index: dict[str, IndexForecast] = field(default_factory=dict)
    keywords: KeywordAction | Literal[""] = ""

    def forecast(self) -> Forecast:
        """Go as far as a real run would get, and return the forecast."""
        try:
            self._foresee()
        except MmindexError as error:
            self.stops.append(error)
        parent, info, config = self.context.parent, self._info(), self.context.config
        seen = self.found.report.seen if self.found else 0
        changes = self.context.figures.changes
        return Forecast(
            store=str(self.real.layout.root),
            version=parent.version if parent else 0,
            would=self._would(),
            exit_code=self.stops[0].exit_code if self.stops else 0,
            unread=tuple(self.unread),
            changes=None if changes is None else msgspec.to_builtins(changes),
            settings=_differing(parent, config) if parent else {},
            model=info.model if info else "",
            encode=self.encode,
            index=self.index,
            keywords=self.keywords,
            stops=tuple(Stop(stop.exit_code, stop.message, stop.hint) for stop in self.stops),
            needed_bytes=sum(self.room.values()),
            free_bytes=free_bytes(self.real.layout.root),
            not_read=self.found.report.not_read if self.found else {},
            not_read_remedy=remedy(self.found.report.not_read) if self.found else "",
            seconds=foresee_seconds(self.real.layout, seen, self.encode, self.index),
        )

    def _foresee(self) -> None:
        context, config, parent = self.context, self.context.config, self.context.parent
        stages.check_settings(context, STAGES)
        sources = plan_sources(self.real.layout, config)
        self.room = estimate(sources, config, parent, STAGES)
        require_room(self.real.layout, self.room)
        try:
            with without_network():
                stages.prepare(context, self.draft, STAGES)
        except WouldFetchError as error:
            self.unread.append(Unread("model", f"would download: {error.message}"))
        read = [plan.source for plan in sources if not plan.needs.what]
        lacking = [plan for plan in sources if plan.needs.what]
        self.unread += [Unread(plan.source.spec, plan.needs.what) for plan in lacking]
        if not read:
            return
        names = names_of_sources(context)
        self.found = crawl_sources(
            context, self.draft, read, [names[plan.source.spec] for plan in lacking]
        )
        self.stops += [] if lacking else objections(context, self.found)
        self._plan(self.found, whole=not lacking)

    def _plan(self, found: Found, *, whole: bool) -> None:
        """Plan the stages after the crawl; indexes only if everything could be crawled."""
        context, parent, info = self.context, self.context.parent, self._info()
        tables = (found.report.images, found.report.captions)
        reader = ShardReader(self.real, info) if info is not None else None
        files = GivenFiles.of(context.config, info) if info is not None else None
        for side, table in zip(Modality, tables, strict=True):
            plan = plan_encode((context.objects, table), side, self.draft, reader, files)
            self.encode[side] = EncodeForecast.of(plan)
            keys = plan.to_index(context.objects)
            if len(keys) and whole:
                before = published_index(context, side)
                fingerprint = info.fingerprint if info is not None else ""
                update = plan_index(before, keys, fingerprint, context.config.index)
                self.index[side] = IndexForecast.of(update)
        self.changed = (
            parent is None
            or any(
                figures.encode or figures.mapped or figures.given
                for figures in self.encode.values()
            )
            or any(figures.action != "kept" for figures in self.index.values())
            or crawled_draft(context, self.draft, found.report).content() != parent.content()
        )
        if Modality.IMAGE in self.index:
            self.keywords = keyword_action(context, changed=self.changed)
            self.changed |= self.keywords not in ("kept", "none")

    def _info(self) -> EncoderInfo | None:
        return self.context.encoder.info if self.context.encoder else None

    def _would(self) -> str:
        if self.stops:
            return "stop"
        if self.unread:
            return "fetch"
        return "publish" if self.changed else "nothing"
