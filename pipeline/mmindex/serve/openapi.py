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
    _parameter("q", "The text to search for.", _TEXT),
    _parameter("image", "Ids of images to add to the query.", _TEXTS),
    _parameter("minus", "Texts to exclude from the query.", _TEXTS),
    _parameter("unlike", "Ids of images to exclude from the query.", _TEXTS),
    _parameter("where", "An SQL condition on the columns of the images.", _TEXT),
    _parameter("to", "What to find.", {"enum": ["image", "text"], "default": "image"}),
    _parameter(
        "k",
        "Number of hits.",
        {"type": "integer", "minimum": 1, "maximum": MAX_HITS, "default": 20},
    ),
    _parameter("offset", "Number of best hits to skip.", {"type": "integer", "default": 0}),
    _parameter("sort", "Sort the hits by a column: COLUMN or COLUMN:desc.", _TEXT),
    _parameter("min_score", "Lowest score (cosine similarity).", {"type": "number"}),
    _parameter("good", "1: leave out weak hits.", {"enum": ["0", "1"]}),
    _parameter(
        "by",
        "Rank by the meaning of the text, by its words, or by both.",
        {"enum": ["meaning", "words", "both"], "default": "meaning"},
    ),
    _parameter("columns", "Additional columns, separated by commas.", _TEXT),
    _parameter("others", "1: leave out the images in the query.", {"enum": ["0", "1"]}),
]
_ID: Final = _parameter("id", "The percent-encoded id of an image.", _TEXT, "path")
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
                    "probability": {"type": ["number", "null"]},
                    "weak": {"type": ["boolean", "null"]},
                    "columns": {"type": "object"},
                },
            },
        },
    },
}
_PROBLEM: Final = {
    "description": "The error (RFC 9457).",
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
        "200": {"description": "The result.", "content": {media: {"schema": schema}}},
        "default": _PROBLEM,
    }


_BYTES: Final = {"type": "string", "format": "binary"}


def document() -> dict[str, Any]:
    """Return the description."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "mmindex", "version": mmindex.__version__},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
        "paths": {
            "/api/v1/search": {
                "get": {
                    "summary": "Find images or captions with texts and images of the corpus.",
                    "parameters": _SEARCH,
                    "responses": _ok(_ANSWER),
                },
                "post": {
                    "summary": "Find images or captions with an uploaded image.",
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
                    "summary": "The columns and captions of an image.",
                    "parameters": [_ID],
                    "responses": _ok({"type": "object"}),
                }
            },
            "/api/v1/images/{id}/thumbnail": {
                "get": {
                    "summary": "A thumbnail (JPEG).",
                    "parameters": [_ID],
                    "responses": _ok(_BYTES, "image/jpeg"),
                }
            },
            "/api/v1/images/{id}/file": {
                "get": {
                    "summary": "The image file without metadata, or a JPEG of the image.",
                    "parameters": [_ID],
                    "responses": _ok(_BYTES, "image/*"),
                }
            },
            "/api/v1/images/{id}/explanation": {
                "get": {
                    "summary": "The parts of an image that match a text, as a PNG.",
                    "parameters": [_ID, _parameter("q", "The text.", _TEXT)],
                    "responses": _ok(_BYTES, "image/png"),
                }
            },
            "/api/v1/status": {
                "get": {
                    "summary": "The served version, as in `mmindex status --format json`.",
                    "responses": _ok({"type": "object"}),
                }
            },
        },
    }
