"""The settings of a run, kept from its start until a version records them.

A version remembers the settings that made it. Without this file, the settings of a run that failed
or was killed before publishing would be lost, and the next run would use other sources.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mmindex.core.errors import DataError, os_errors
from mmindex.store import publish, versions
from mmindex.store.layout import Layout


class Intent(msgspec.Struct, frozen=True):
    """The settings of a run that has not succeeded.

    Attributes:
        run_id: the run; its report has the outcome, unless it was killed.
        config: its settings, as a version would record them.
    """

    run_id: str
    config: dict[str, Any]


def read_intent(layout: Layout) -> Intent | None:
    """Read the settings of the last run if it did not succeed; otherwise None.

    Raises:
        DataError: the file is damaged.
    """
    path = layout.intent_file
    if not path.exists():
        return None
    with os_errors(path):
        data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=Intent)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: damaged: {error}", "pass the sources and settings again with `fresh_settings`"
        ) from error


def write_intent(layout: Layout, intent: Intent) -> None:
    """Record the settings of a run; the writer lock must be held."""
    publish.write_file(layout, layout.intent_file, msgspec.json.encode(intent) + b"\n")


def clear_intent(layout: Layout) -> None:
    """Remove the record, because a version now has the settings."""
    if layout.intent_file.exists():
        publish.remove_file(layout.intent_file)


def remembered(layout: Layout) -> dict[str, Any] | None:
    """Return the settings of the last run over a store; None if there was no run.

    These are the newest run's settings even if it failed or was killed; otherwise the published
    version's.

    Raises:
        MmindexError: the store is damaged, or was not made by mmindex.
    """
    if not layout.format_file.exists():
        return None
    versions.open_layout(layout.root)
    if (intent := read_intent(layout)) is not None:
        return intent.config
    manifest = versions.read_current(layout)
    return manifest.config if manifest is not None else None
