"""Build a store, for the Python API and for the commands."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmindex.core.arguments import as_path, expect, expect_several
from mmindex.core.errors import UsageError
from mmindex.core.system import calm_openmp

if TYPE_CHECKING:
    from mmindex.core.config import Config
    from mmindex.encode.part import Part, PartReport
    from mmindex.runs.forecast import Forecast
    from mmindex.runs.run import RunSummary


@dataclass(frozen=True, slots=True)
class Job:
    """The arguments of a build.

    Attributes:
        store: the folder of the store; it can be missing.
        values: settings by dotted name; see :func:`mmindex.runs.settings.settings`.
        config: a configuration file, or None.
        fresh_settings: use the defaults, not the settings that the store remembers.
        run_id: the run's name in logs and reports.
        metrics_file: the metrics file; None uses the one in the settings, if any.
    """

    store: Path
    values: Mapping[str, Any]
    config: Path | None
    fresh_settings: bool
    run_id: str
    metrics_file: Path | None = None

    def run(self, stages: Sequence[str] | None = None) -> RunSummary:
        """Run stages, all of them by default, and publish the result.

        Raises:
            MmindexError: see :func:`build`.
        """
        from mmindex.store.place import require_writable
        from mmindex.upkeep.metrics import MetricsFile

        with MetricsFile(self.metrics_file, self.store, self.run_id) as metrics:
            require_writable(self.store)  # before the import below, which takes almost a second
            from mmindex.runs.run import STAGES, run

            config = self._settings()
            if metrics.path is None and config.run.metrics_file is not None:
                metrics.path = Path(config.run.metrics_file).expanduser()
            return run(self.store, config, self.run_id, stages or STAGES)

    def encode_part(self, part: Part) -> PartReport:
        """Encode one part of what the published version lacks; a later run adds the shards.

        Raises:
            NoInputError: nothing has been crawled and published yet.
            MmindexError: see :func:`build`; complete shards stay.
        """
        from mmindex.store.place import require_writable

        require_writable(self.store)
        from mmindex.runs.part import run_part

        return run_part(self.store, self._settings(), part)

    def plan(self) -> Forecast:
        """Return what :meth:`run` would do, without changing or downloading anything.

        Raises:
            MmindexError: the store cannot be read or written, or the settings are invalid.
        """
        from mmindex.store.place import require_writable

        require_writable(self.store)
        from mmindex.runs.dry_run import dry_run

        return dry_run(self.store, self._settings(), self.run_id)

    def _settings(self) -> Config:
        from mmindex.runs.settings import settings

        return settings(self.store, self.config, self.values, fresh=self.fresh_settings)


def build(
    store: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]] | None = None,
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | None = None,
    fresh_settings: bool = False,
    progress: bool = False,
    **settings: Any,
) -> RunSummary:
    """Crawl, encode, index, evaluate and publish.

    Existing results are reused: unchanged images are not encoded again, and if nothing has
    changed, nothing is published. Decode workers are separate processes; a script does not need
    ``if __name__ == "__main__"`` for them.

    Args:
        store: the folder of the store; created if it does not exist.
        sources: what to index, each ``KIND:PLACE``, such as ``folder:~/Pictures``,
            ``coco:val2017``, ``scenes:2000``; a Path is a folder of images. None: the sources of
            the last build; in a new store, drawn scenes.
        model: the model; None: that of the store, or the default for the sources.
        config: a TOML file with settings; arguments override it.
        fresh_settings: use the defaults, not the settings that the store remembers.
        progress: show progress bars if stderr is a terminal.
        **settings: any setting of the settings file by its name (``batch_size=32``,
            ``recall_target=0.98``, ``max_removed=1.0``), or a section as a mapping
            (``index={"kind": "exact", "seed": 1}``); ``index="exact"`` sets ``index.kind``. None
            leaves a setting unchanged.

    Returns:
        the result of the run: ``manifest`` (of the published version), ``published`` (whether this
        run published it), ``report`` (counts, seconds, quarantined items and reasons).

    Raises:
        TypeError: an argument has the wrong type, or there is no such setting.
        UsageError: a setting is out of range, or a source is unknown.
        BusyError: another run writes to this store.
        DataError: too much was quarantined or removed, or the input is damaged.
        NetworkError: a download is needed and fails.
        MmindexError: see :mod:`mmindex.core.errors`; the published version stays unchanged.
    """
    calm_openmp()
    from mmindex.core.progress import bars, new_run_id

    values = _values(settings)
    if model is not None:
        values["model.name"] = expect(model, str, "model", "a str")
    if sources is not None:
        values["source"] = _sources(sources)
    job = Job(
        store=as_path(store, "store"),
        values=values,
        config=None if config is None else as_path(config, "config"),
        fresh_settings=fresh_settings,
        run_id=new_run_id(),
    )
    with bars(progress):
        return job.run()


def _sources(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
    expect_several(sources, "sources")
    found = []
    for source in sources:
        path = isinstance(source, os.PathLike)
        spec = f"folder:{as_path(source, 'sources')}" if path else source
        found.append(expect(spec, str, "sources", "a str"))
    if not found:
        raise UsageError("sources is empty", "leave it out to use the sources of the last build")
    return found


def _values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings passed to :func:`build` by dotted name.

    Raises:
        TypeError: a name is unknown or ambiguous, or a value has the wrong type.
    """
    from mmindex.core.config import check_type, setting_names

    names = setting_names()
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            values |= {f"{name}.{key}": one for key, one in value.items() if one is not None}
        elif name in names:
            values[names[name]] = value
        else:
            near = difflib.get_close_matches(name, names, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"build() got an unexpected keyword argument {name!r}{guess}")
    for dotted, value in values.items():
        check_type(dotted, value)
    return values
