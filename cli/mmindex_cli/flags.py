"""Replace settings in messages of the library with command-line flags."""

from __future__ import annotations

import re
from typing import Final

# The flags for `max_removed` or `device=cpu` in messages are --max-removed and --device cpu.
_NAMES: Final = (
    "all_files|allow_host|allow_pickle_weights|allow_private|annotations|answers|at|base_url|"
    "beams|captions|captions_from|certfile|cluster|config|confusion|cores|corpus|decoder|"
    "device|diversity|exclude|format|fresh_settings|generate|good|half_life|history|hybrid|"
    "image|image_threshold|include|index|interests|keyfile|keywords|labels|layout|learn|"
    "learned|learning_rate|max_quarantine|max_removed|metadata|method|min_score|minus|model|"
    "others|out|overwrite|part|plus|port|precision|pretrained|questions|references|"
    "require_checksum|scale|source|store|subset|templates|threshold|to|token|truth|validate|"
    "weights|where|with_location|workers"
)
_SETTING: Final = re.compile(rf"`({_NAMES})(?:=([^`]*))?`")


def as_flags(text: str) -> str:
    """Return a message of the library with flags instead of settings."""
    return _SETTING.sub(_flag, text)


def _flag(match: re.Match[str]) -> str:
    name, value = match.groups()
    flag = f"--{name.replace('_', '-')}"
    return flag if value is None else f"{flag} {value}"
