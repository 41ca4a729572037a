"""What a run was asked for, kept from its start until a version records it.

A version remembers the settings that made it. A run that has not published yet would be forgotten
if it failed or was killed, and the next one would go on with other sources.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mmindex.core.errors import DataError, os_errors
from mmindex.store import publish, versions
from mmindex.store.layout import Layout


class Intent(msgspec.Struct, frozen=True):
    """The settings of a run that has not ended well.

    Attributes:
        run_id: the run; its report says how it ended, unless it was killed.
        config: its settings, as a version would record them.
    """

    run_id: str
    config: dict[str, Any]


def read_intent(layout: Layout) -> Intent | None:
    """What the last run was asked for, if it did not end well; else None.

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
    """Keep what a run is asked for; the writer lock must be held."""
    publish.write_file(layout, layout.intent_file, msgspec.json.encode(intent) + b"\n")


def clear_intent(layout: Layout) -> None:
    """Drop it: a version records the settings now."""
    if layout.intent_file.exists():
        publish.remove_file(layout.intent_file)


def remembered(layout: Layout) -> dict[str, Any] | None:
    """What the last run over a store was asked for; None where there was none.

    That is the newest run's, also if it failed or was killed, else the published version's.

    Raises:
        MmindexError: the store is damaged, or not one of ours.
    """
    if not layout.format_file.exists():
        return None
    versions.open_layout(layout.root)
    if (intent := read_intent(layout)) is not None:
        return intent.config
    manifest = versions.read_current(layout)
    return manifest.config if manifest is not None else None
