"""The description of the HTTP API (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any, Final

import mmindex
from mmindex.serve.settings import MAX_HITS

_JSON: Final = "application/json"


def _parameter(name: str, text: str, kind: dict[str, Any], place: str = "query") -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "description": text,
        "required": place == "path",
        "schema": kind,
    }


_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_SEARCH: Final = [
    _parameter("q", "What to look for.", _TEXT),
    _parameter("image", "Ids of images like those wanted.", _TEXTS),
    _parameter("minus", "Texts that are not wanted.", _TEXTS),
    _parameter("unlike", "Ids of images that are not wanted.", _TEXTS),
    _parameter("where", "An SQL condition on the images' columns.", _TEXT),
    _parameter("to", "What to find.", {"enum": ["image", "text"], "default": "image"}),
    _parameter(
        "k", "Hits wanted.", {"type": "integer", "minimum": 1, "maximum": MAX_HITS, "default": 20}
    ),
    _parameter("offset", "Best hits to leave out.", {"type": "integer", "default": 0}),
    _parameter("sort", "Put the hits in order of a column: COLUMN or COLUMN:desc.", _TEXT),
    _parameter("min_score", "Least cosine similarity.", {"type": "number"}),
    _parameter("columns", "Further columns, separated by commas.", _TEXT),
    _parameter("others", "1: leave out the images asked with.", {"enum": ["0", "1"]}),
]
_ID: Final = _parameter("id", "An image's id, percent-encoded.", _TEXT, "path")
_ANSWER: Final = {
    "type": "object",
    "properties": {
        "query": _TEXT,
        "to": _TEXT,
        "version": {"type": "integer"},
        "hits": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "rank": {"type": "integer"},
                    "score": {"type": "number"},
                    "id": _TEXT,
                    "uri": _TEXT,
                    "caption": {"type": ["string", "null"]},
                    "columns": {"type": "object"},
                },
            },
        },
    },
}
_PROBLEM: Final = {
    "description": "What is wrong (RFC 9457).",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "properties": {
                    "title": _TEXT,
                    "status": {"type": "integer"},
                    "detail": _TEXT,
                    "remedy": _TEXT,
                },
            }
        }
    },
}


def _ok(schema: dict[str, Any], media: str = _JSON) -> dict[str, Any]:
    return {
        "200": {"description": "The answer.", "content": {media: {"schema": schema}}},
        "default": _PROBLEM,
    }


_BYTES: Final = {"type": "string", "format": "binary"}


def document() -> dict[str, Any]:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "mmindex", "version": mmindex.__version__},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
        "paths": {
            "/api/v1/search": {
                "get": {
                    "summary": "Find images or captions by texts and images of the corpus.",
                    "parameters": _SEARCH,
                    "responses": _ok(_ANSWER),
                },
                "post": {
                    "summary": "The same with a picture that is sent.",
                    "parameters": _SEARCH,
                    "requestBody": {
                        "content": {
                            "multipart/form-data": {
                                "schema": {"type": "object", "properties": {"picture": _BYTES}}
                            }
                        }
                    },
                    "responses": _ok(_ANSWER),
                },
            },
            "/api/v1/images/{id}": {
                "get": {
                    "summary": "What is known of an image: its columns and captions.",
                    "parameters": [_ID],
                    "responses": _ok({"type": "object"}),
                }
            },
            "/api/v1/images/{id}/thumbnail": {
                "get": {
                    "summary": "A small JPEG.",
                    "parameters": [_ID],
                    "responses": _ok(_BYTES, "image/jpeg"),
                }
            },
            "/api/v1/images/{id}/file": {
                "get": {
                    "summary": "The picture's file without metadata, or a JPEG of it.",
                    "parameters": [_ID],
                    "responses": _ok(_BYTES, "image/*"),
                }
            },
            "/api/v1/images/{id}/explanation": {
                "get": {
                    "summary": "Where an image matches a text: a PNG.",
                    "parameters": [_ID, _parameter("q", "The text.", _TEXT)],
                    "responses": _ok(_BYTES, "image/png"),
                }
            },
            "/api/v1/status": {
                "get": {
                    "summary": "The version served, as `mmindex status --format json` has it.",
                    "responses": _ok({"type": "object"}),
                }
            },
        },
    }
