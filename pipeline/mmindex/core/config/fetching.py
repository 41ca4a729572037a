"""Settings of the network: what is fetched, how fast, and when a host is given up."""

from __future__ import annotations

import re
from typing import Annotated, Final

import pydantic
from pydantic import Field

from mmindex.core.config.values import MIB, Seconds, Section

# What may stand in a header between parentheses; a line break there would forge a header.
_CONTACT: Final = re.compile(r"[!-'*-\[\]-~]+(?: [!-'*-\[\]-~]+)*")


class FetchConfig(Section):
    """How mmindex behaves on the network."""

    contact: str = ""
    """An email address or web page, sent in the User-Agent header.

    Set it before you fetch a URL list, so that site owners can reach you."""

    base_url: str | None = None
    """Fetch a release's files from this address instead of their publisher's server.

    Set it when you have a mirror, or a copy on a server of your own."""

    allow_private: bool = False
    """Also fetch from loopback, private and link-local addresses.

    Set it only when the pictures are on your own network and you trust the list of addresses."""

    use_env_proxy: bool = False
    """Use `http_proxy`, `https_proxy` and `no_proxy` from the environment.

    Set it when the network needs a proxy. The proxy then resolves host names, so mmindex cannot
    check the addresses behind them."""

    corpora: str | None = None
    """A TOML file that describes a corpus of your own, in the form of `data/corpora/*.toml`.

    Set it to fetch a release that mmindex does not know, or to replace a description."""

    require_checksum: bool = False
    """Refuse a release's files that have no known checksum, instead of trusting the first download.

    Set it when the network between you and the publisher is not to be trusted."""

    # Browsers open 6; image servers of this field's lists bear 16.
    per_host_concurrency: Annotated[int, Field(ge=1, le=1_024)] = 16
    """Requests to one host at the same time.

    Lower it when a host answers with 429 or 503; raise it only for a host of your own."""

    concurrency: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Requests to all hosts at the same time.

    Raise it for lists of many hosts on a fast line; lower it when the line or router suffers."""

    per_host_rate: Seconds | None = None
    """Requests per second to one host; no limit by default.

    Set it when a host asks for a slower pace than its robots.txt says."""

    retries: Annotated[int, Field(ge=0, le=20)] = 2
    """Further attempts after a time-out, a lost connection, or a 429 or 5xx answer.

    Raise it on an unreliable line."""

    backoff_s: Seconds = 0.5
    """Pause before the first retry. Each further pause is twice as long, with jitter.

    Raise it when hosts recover slowly."""

    backoff_max_s: Seconds = 30.0
    """Longest pause between two retries.

    Raise it together with `backoff_s` and `retries`."""

    retry_after_budget_s: Annotated[float, Field(ge=0)] = 120.0
    """How long a host may make a run wait in all with `Retry-After`.

    Beyond this, the rest of its images are left for a later run. Raise it for unattended runs
    that have all night."""

    max_crawl_delay_s: Annotated[float, Field(ge=0)] = 60.0
    """Longest `Crawl-delay` in a robots.txt that is followed.

    A host that asks for more is left out. Raise it for a short list on a slow host."""

    host_failures: Annotated[int, Field(ge=1)] = 20
    """Lost connections in a row after which a host is left for a later run.

    Raise it when the line, not the host, is unreliable."""

    connect_timeout_s: Seconds = 15.0
    """Time limit for opening a connection.

    Raise it behind a slow proxy."""

    # With min_bytes_per_s, the window over which a download's pace is measured.
    read_timeout_s: Seconds = 30.0
    """Time limit between two bytes of an answer.

    Raise it for servers that prepare files before they send them."""

    image_timeout_s: Seconds = 60.0
    """Time limit for one image of a URL list, from the request to the last byte.

    Raise it for large images on a slow line."""

    max_image_bytes: Annotated[int, Field(ge=1)] = 64 * MIB
    """Largest image that is fetched from a URL list.

    Lower it to save traffic. `limits.max_bytes` applies as well."""

    parallel_downloads: Annotated[int, Field(ge=1, le=16)] = 3
    """Files of a release that are downloaded at the same time.

    Lower it when the publisher limits connections."""

    min_bytes_per_s: Annotated[int, Field(ge=0)] = 1_024
    """Pace below which a release's download counts as stuck and is resumed on a new connection.

    Lower it on a very slow line; 0 turns the check off."""

    # COCO's train2017 has 19 GB.
    max_download_bytes: Annotated[int, Field(ge=1)] = 256 * 1024 * MIB
    """Largest file of a release whose publisher states no size.

    Raise it for a larger archive of your own; lower it to protect a small disk."""

    retry_permanent_days: Annotated[float, Field(ge=0)] = 30.0
    """Days until an image that failed for good (404, opt-out) is requested again.

    Lower it when a host was repaired; 0 asks again in every run."""

    shard_bytes: Annotated[int, Field(ge=MIB)] = 128 * MIB
    """Size at which a shard of fetched images is closed.

    Raise it for millions of images, to have fewer files."""

    shard_seconds: Seconds = 30.0
    """Age at which a shard of fetched images is closed; it grows with the length of the run.

    Lower it to lose less when a short run is killed."""

    @pydantic.field_validator("contact")
    @classmethod
    def _check_contact(cls, value: str) -> str:
        if value and not _CONTACT.fullmatch(value):
            raise ValueError("plain ASCII without parentheses, such as ops@example.org")
        return value
