"""What a section of settings is, and the kinds of values that several of them hold."""

from __future__ import annotations

from typing import Annotated, Final

import pydantic
from pydantic import Field

MIB: Final = 1 << 20


def _as_utf8(text: str) -> str:
    """A store records its settings as text, so they must be valid UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("not valid UTF-8; rename the file or folder, or link to it") from error
    return text


Text = Annotated[str, pydantic.AfterValidator(_as_utf8)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(pydantic.BaseModel):
    """A table of the configuration file: an unknown key is an error, nothing changes later."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
