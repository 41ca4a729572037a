"""Options of the commands that read sources: how to behave on the network and with files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

BaseUrlOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Fetch a release's files from this mirror instead of their publisher's server.",
    ),
]
CorporaOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Description of a corpus of your own, as in data/corpora."),
]
ChecksumOption = Annotated[
    bool,
    typer.Option("--require-checksum", help="Refuse release files of which no checksum is known."),
]
HostOption = Annotated[int | None, typer.Option(help="Requests at once to one host. [default: 16]")]
ContactOption = Annotated[
    str | None,
    typer.Option(help="Address or page that goes into the User-Agent, for owners of sites."),
]
PrivateOption = Annotated[
    bool,
    typer.Option("--allow-private", help="Also fetch from loopback and private addresses."),
]
ProxyOption = Annotated[
    bool, typer.Option("--use-env-proxy", help="Use http_proxy and https_proxy.")
]
RehashOption = Annotated[
    bool,
    typer.Option("--rehash", help="Read every file again, also those that look unchanged."),
]


def fetch_values(
    *,
    base_url: str | None,
    corpora: Path | None,
    require_checksum: bool,
    per_host_concurrency: int | None,
    contact: str | None,
    allow_private: bool,
    use_env_proxy: bool,
    rehash: bool,
) -> dict[str, Any]:
    """The options as settings by dotted name; a flag that is not given leaves the file's value."""
    return {
        "fetch.base_url": base_url,
        "fetch.corpora": None if corpora is None else str(corpora),
        "fetch.require_checksum": require_checksum or None,
        "fetch.per_host_concurrency": per_host_concurrency,
        "fetch.contact": contact,
        "fetch.allow_private": allow_private or None,
        "fetch.use_env_proxy": use_env_proxy or None,
        "crawl.rehash": rehash or None,
    }
