"""Settings of the network: what to download, how fast, and when to give up on a host."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import pydantic
from pydantic import Field

from mmindex.core.config.values import MIB, Seconds, Section

# The characters allowed in a header between parentheses; a line break could forge a header.
_CONTACT: Final = re.compile(r"[!-'*-\[\]-~]+(?: [!-'*-\[\]-~]+)*")

_ENDPOINT: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._/-]*)?")


class FetchConfig(Section):
    """Downloads and network access."""

    contact: str = ""
    """An email address or web page, sent in the User-Agent header.

    Set it before you fetch a URL list, so that site owners can reach you."""

    base_url: str | None = None
    """Download the files of a release from this URL instead of the publisher's server.

    Set it if you have a mirror, or a copy on your own server."""

    allow_private: bool = False
    """Also download from loopback, private and link-local addresses.

    Set it only if the images are on your own network and you trust the list of URLs."""

    use_env_proxy: bool = False
    """Use `http_proxy`, `https_proxy` and `no_proxy` from the environment.

    Set it if the network needs a proxy. The proxy then resolves host names, so mmindex cannot
    check the addresses."""

    s3_endpoint: str | None = None
    """Address of an S3-compatible service, such as `https://minio.example.org:9000`.

    Set it for `s3://` sources in MinIO, Ceph, R2 and similar services. The environment variable
    `MMINDEX_S3_ENDPOINT` overrides it. If neither is set, mmindex uses `AWS_ENDPOINT_URL_S3` or
    `AWS_ENDPOINT_URL`."""

    corpora: str | None = None
    """A TOML file that describes your own corpus, in the format of `data/corpora/*.toml`.

    Set it to download a release that mmindex does not know, or to replace a description."""

    require_checksum: bool = False
    """Refuse files of a release without a known checksum, instead of trusting the first download.

    Set it if you do not trust the network between you and the publisher."""

    # Browsers open 6; the image servers in published lists of URLs support 16.
    per_host_concurrency: Annotated[int, Field(ge=1, le=1_024)] = 16
    """Number of concurrent requests to one host.

    Lower it if a host responds with 429 or 503. Raise it only for your own host."""

    concurrency: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Number of concurrent requests to all hosts.

    Raise it for lists with many hosts on a fast connection. Lower it if requests time out because
    the connection or the router is overloaded."""

    per_host_rate: Seconds | None = None
    """Requests per second to one host; no limit by default.

    Set it if a host asks for a lower rate than its robots.txt states."""

    retries: Annotated[int, Field(ge=0, le=20)] = 2
    """Number of retries after a timeout, a lost connection, or a 429 or 5xx response.

    Raise it on an unreliable connection."""

    backoff_s: Seconds = 0.5
    """Pause before the first retry. Each later pause is twice as long, with jitter.

    Raise it if hosts recover slowly."""

    backoff_max_s: Seconds = 30.0
    """Longest pause between two retries.

    Raise it together with `backoff_s` and `retries`."""

    retry_after_budget_s: Annotated[float, Field(ge=0)] = 120.0
    """Longest total time to wait for one host because of `Retry-After`.

    The remaining images of the host are left for a later run. Raise it for unattended runs at
    night."""

    max_crawl_delay_s: Annotated[float, Field(ge=0)] = 60.0
    """Longest `Crawl-delay` in a robots.txt to accept.

    Hosts that ask for a longer delay are skipped. Raise it for a short list on a slow host."""

    host_failures: Annotated[int, Field(ge=1)] = 20
    """Number of consecutive failed connections after which a host is left for a later run.

    Raise it if your connection is unreliable, not the host."""

    connect_timeout_s: Seconds = 15.0
    """Time limit for opening a connection.

    Raise it behind a slow proxy."""

    # The window in which the rate of a download is compared with min_bytes_per_s.
    read_timeout_s: Seconds = 30.0
    """Time limit between two bytes of a response.

    Raise it for servers that prepare files before they send them."""

    image_timeout_s: Seconds = 60.0
    """Time limit for one image of a URL list, from the request to the last byte.

    Raise it for large images on a slow connection."""

    max_image_bytes: Annotated[int, Field(ge=1)] = 64 * MIB
    """Largest image to download from a URL list.

    Lower it to reduce traffic. `limits.max_bytes` also applies."""

    parallel_downloads: Annotated[int, Field(ge=1, le=16)] = 3
    """Number of files of a release to download at the same time.

    Lower it if the publisher limits connections."""

    min_bytes_per_s: Annotated[int, Field(ge=0)] = 1_024
    """Rate below which the download of a release is resumed on a new connection.

    Lower it on a very slow connection. 0 turns the check off."""

    # COCO's train2017 has 19 GB.
    max_download_bytes: Annotated[int, Field(ge=1)] = 256 * 1024 * MIB
    """Largest file of a release if the publisher states no size.

    Raise it for a larger archive. Lower it to protect a small disk."""

    retry_permanent_days: Annotated[float, Field(ge=0)] = 30.0
    """Days until an image with a permanent failure (404, opt-out) is requested again.

    Lower it after a host was repaired. With 0, every run requests the image again."""

    shard_bytes: Annotated[int, Field(ge=MIB)] = 128 * MIB
    """Size at which a shard of downloaded images is closed.

    Raise it for millions of images to get fewer files."""

    shard_seconds: Seconds = 30.0
    """Age at which a shard of downloaded images is closed. It increases during a long run.

    Lower it to lose less data if a short run is killed."""

    def recorded(self) -> dict[str, Any]:
        """Return what a store remembers; an endpoint only if there is one, as in older versions."""
        left_out = {"allow_private", "use_env_proxy"}
        if self.s3_endpoint is None:
            left_out.add("s3_endpoint")
        return self.model_dump(exclude=left_out)

    @pydantic.field_validator("s3_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        # A password here would be recorded in every version.
        if value is not None and not _ENDPOINT.fullmatch(value):
            raise ValueError("http:// or https://, a host and a port, without a user name")
        return value

    @pydantic.field_validator("contact")
    @classmethod
    def _check_contact(cls, value: str) -> str:
        if value and not _CONTACT.fullmatch(value):
            raise ValueError("plain ASCII without parentheses, such as ops@example.org")
        return value
