"""The base class of sections, and types of values in several sections."""

from __future__ import annotations

from typing import Annotated, Final

import pydantic
from pydantic import Field

MIB: Final = 1 << 20


def _as_utf8(text: str) -> str:
    """Check that a value is valid UTF-8, because a store records its settings as text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("not valid UTF-8; rename the file or folder, or link to it") from error
    return text


Text = Annotated[str, pydantic.AfterValidator(_as_utf8)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(pydantic.BaseModel):
    """A table of the settings file: unknown keys are errors, and instances are immutable."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
