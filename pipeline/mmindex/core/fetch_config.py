"""Settings of everything that goes over the network: the ``[fetch]`` section."""

from __future__ import annotations

import re
from typing import Annotated, Final

import pydantic
from pydantic import Field

_MIB: Final = 1 << 20
# What may stand in a header between parentheses; a line break there would forge a header.
_CONTACT: Final = re.compile(r"[!-'*-\[\]-~]+(?: [!-'*-\[\]-~]+)*")

_Seconds = Annotated[float, Field(gt=0)]


class FetchConfig(pydantic.BaseModel):
    """How mmindex behaves on the network."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    # An address or page where a site's owner can complain; sent in the User-Agent.
    contact: str = ""
    # Scheme and host put in place of a corpus file's own: a mirror, or a server inside.
    base_url: str | None = None
    # Loopback, private and link-local addresses are refused without this.
    allow_private: bool = False
    # http_proxy, https_proxy, no_proxy. The proxy then resolves the names, not mmindex.
    use_env_proxy: bool = False
    # A TOML file that describes a corpus beside those that mmindex brings, or in place of one.
    corpora: str | None = None
    # Refuse corpus files of which no checksum is known, instead of trusting the first download.
    require_checksum: bool = False

    # Browsers open 6; image servers of this field's lists bear 16.
    per_host_concurrency: Annotated[int, Field(ge=1, le=1_024)] = 16
    concurrency: Annotated[int, Field(ge=1, le=4_096)] = 64
    # Requests a second and host; None: as fast as the host answers.
    per_host_rate: _Seconds | None = None
    # Tries after the first, of what may pass: timeouts, lost connections, 429 and 5xx.
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    # First pause between tries; doubled each time, jittered, at most ``backoff_max_s``.
    backoff_s: _Seconds = 0.5
    backoff_max_s: _Seconds = 30.0
    # How long one host may ask us to wait in all (Retry-After), and between two requests
    # (Crawl-delay); beyond this its rows are left for a later run.
    retry_after_budget_s: Annotated[float, Field(ge=0)] = 120.0
    max_crawl_delay_s: Annotated[float, Field(ge=0)] = 60.0
    # A host with this many lost connections in a row is left for a later run.
    host_failures: Annotated[int, Field(ge=1)] = 20

    connect_timeout_s: _Seconds = 15.0
    # No byte for this long.
    read_timeout_s: _Seconds = 30.0
    # One image, from the request to the last byte.
    image_timeout_s: _Seconds = 60.0
    max_image_bytes: Annotated[int, Field(ge=1)] = 64 * _MIB

    # Corpus archives: how many at once, and the pace below which a connection counts as stuck.
    parallel_downloads: Annotated[int, Field(ge=1, le=16)] = 3
    min_bytes_per_s: Annotated[int, Field(ge=0)] = 1_024
    # Where the publisher states no size; COCO's train2017 has 19 GB.
    max_download_bytes: Annotated[int, Field(ge=1)] = 256 * 1024 * _MIB

    # URL lists: what failed for good (404, opt-out, ...) is asked for again after this long.
    retry_permanent_days: Annotated[float, Field(ge=0)] = 30.0
    # A shard of fetched images is closed at this size, and at the latest after a while.
    shard_bytes: Annotated[int, Field(ge=_MIB)] = 128 * _MIB
    shard_seconds: _Seconds = 30.0

    @pydantic.field_validator("contact")
    @classmethod
    def _check_contact(cls, value: str) -> str:
        if value and not _CONTACT.fullmatch(value):
            raise ValueError("plain ASCII without parentheses, such as ops@example.org")
        return value
