"""Request a URL with the real client; return its body, or the reason for the refusal."""

from __future__ import annotations

import asyncio

import pytest

from mmindex.core.config import FetchConfig
from mmindex.fetch.addresses import parse_url
from mmindex.fetch.client import Client, read_body
from mmindex.fetch.outcome import FetchError, FetchStatus
from support.hostile_server import FixedResolver


def get(url: str, resolver: FixedResolver | None = None, **settings: object) -> bytes:
    async def fetch() -> bytes:
        async with (
            Client(FetchConfig.model_validate(settings), resolver) as client,
            client.get(parse_url(url)) as response,
        ):
            return await read_body(response, 1 << 20)

    return asyncio.run(fetch())


def status_of(url: str, resolver: FixedResolver | None = None, **settings: object) -> FetchStatus:
    with pytest.raises(FetchError) as caught:
        get(url, resolver, **settings)
    return caught.value.status
