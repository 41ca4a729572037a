"""The routes of ``/api/v1``: JSON and images, for programs and for the pages."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mmindex.core.display import json_fields
from mmindex.core.errors import UsageError
from mmindex.runs.report import last_success, newest_first
from mmindex.runs.status import status_record
from mmindex.search.hits import captions_of
from mmindex.serve.address import image_id_of, parameters
from mmindex.serve.asks import Upload, find, read_ask
from mmindex.serve.live import Served
from mmindex.serve.openapi import document
from mmindex.serve.problems import RequestError, UploadError, json_bytes
from mmindex.serve.service import Service

# The name of a thumbnail depends on the bytes of the image, so it can be cached; ids can be reused.
_CACHE: Final = "private, max-age=300"


def as_json(record: Any) -> Response:
    """Return a record as a JSON response."""
    return Response(json_bytes(record), media_type="application/json")


def api_routes(service: Service) -> list[Route]:
    """Return the routes for a service."""

    async def search(request: Request) -> Response:
        served = service.live.current
        ask = read_ask(parameters(request))
        if request.method == "POST":
            upload = await receive_image(service, served, request)
            ask = replace(ask, upload=upload.key)
        found = await service.search(served, ask)
        record = await service.desk.run(lambda: service.record(served, ask, found))
        return as_json(record)

    async def image(request: Request) -> Response:
        served, image_id = service.live.current, image_id_of(request)

        def known() -> dict[str, Any]:
            find(served, image_id)
            values = service.row(served, image_id)
            captions = captions_of(served.snapshot, [image_id]).get(image_id, [])
            return {"version": served.number, **json_fields(values), "captions": captions}

        return as_json(await service.desk.run(known))

    async def thumbnail(request: Request) -> Response:
        image, data = await service.thumbnail(service.live.current, image_id_of(request))
        tag = f'"{image.key}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
        headers = {"ETag": tag, "Cache-Control": _CACHE}
        return Response(data, media_type="image/jpeg", headers=headers)

    async def file(request: Request) -> Response:
        image, found = await service.file(service.live.current, image_id_of(request))
        tag = f'"{image.key}-plain"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
        headers = {
            "ETag": tag,
            "Cache-Control": "private, no-cache",
            "Content-Disposition": "inline",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        return Response(found.data, media_type=found.media_type, headers=headers)

    async def explanation(request: Request) -> Response:
        text = read_ask(parameters(request)).text
        if not text:
            raise UsageError("the text to explain is missing", "pass it as q")
        data = await service.explanation(service.live.current, image_id_of(request), text)
        return Response(data, media_type="image/png")

    async def uploaded(request: Request) -> Response:
        upload = service.uploads.get(request.path_params["key"])
        return Response(upload.thumbnail, media_type="image/jpeg")

    async def status(_: Request) -> Response:
        served, layout = service.live.current, service.live.current.snapshot.layout

        def record() -> dict[str, Any]:
            last, success = next(newest_first(layout), None), last_success(layout)
            return status_record(service.settings.store, served.manifest, last, success)

        return as_json(await service.desk.run(record))

    async def openapi(_: Request) -> Response:
        return as_json(document())

    base = "/api/v1"
    return [
        Route(f"{base}/search", search, methods=["GET", "POST"], name="search"),
        Route(f"{base}/images/{{id:path}}/thumbnail", thumbnail, name="thumbnail"),
        Route(f"{base}/images/{{id:path}}/file", file, name="file"),
        Route(f"{base}/images/{{id:path}}/explanation", explanation, name="explanation"),
        Route(f"{base}/images/{{id:path}}", image, name="image"),
        Route(f"{base}/pictures/{{key}}", uploaded, name="uploaded"),
        Route(f"{base}/status", status, name="status"),
        Route(f"{base}/openapi.json", openapi, name="openapi"),
    ]


async def receive_image(service: Service, served: Served, request: Request) -> Upload:
    """Read the image in a form; raises as :meth:`Service.add_upload`, and for invalid forms."""
    async with service.receiving:
        return await service.add_upload(served, await _sent_image(request))


async def _sent_image(request: Request) -> bytes:
    """Return the bytes of the field ``picture`` in a form.

    Raises:
        UploadError: the form has no such file.
        RequestError: the form is damaged.
    """
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise UploadError("send an image as multipart/form-data, in the field `picture`")
    try:
        async with request.form(max_files=1, max_fields=20, max_part_size=64 << 10) as form:
            sent = form.get("picture")
            data = await sent.read() if isinstance(sent, UploadFile) else b""
    except MultiPartException as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the form: {error.message}") from error
    if not data:
        raise UploadError("the form has no file in its field `picture`")
    return data
