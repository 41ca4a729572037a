"""Download weights from the hub, with a time limit, and verify them before use.

``HF_ENDPOINT``, ``HF_HUB_CACHE``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN`` have the same meaning as in
huggingface_hub. Cached files are used without network access.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from mmindex.core.errors import (
    DataError,
    MmindexError,
    NetworkError,
    NoInputError,
    first_lines,
    from_os_error,
)
from mmindex.core.model_names import PHOTOS
from mmindex.core.progress import get_logger
from mmindex.store.objects import hash_file

# Long enough for a HEAD request on a slow connection; huggingface_hub itself would retry for
# minutes.
TIMEOUT_S = 10.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Known in advance: 151,277,313 parameters in float32. For other models, the hub returns the size.
# The name of the repository in open_clip, and the size of its weights.
_KNOWN = {"laion/CLIP-ViT-B-32-laion2B-s34B-b79K": ("ViT-B-32", " (605 MB)")}


_FORBIDDEN: ContextVar[bool] = ContextVar("forbidden", default=False)


class WouldFetchError(NetworkError):
    """A download is needed inside :func:`without_network`."""


@contextmanager
def without_network() -> Iterator[None]:
    """Use only the cache during the block.

    Raises:
        WouldFetchError: a file is not in the cache.
    """
    token = _FORBIDDEN.set(True)
    try:
        yield
    finally:
        _FORBIDDEN.reset(token)


def fetch(repository: str, names: Sequence[str]) -> Path:
    """Return the cached path of the first of ``names`` in the repository.

    Raises:
        NetworkError: the hub cannot be reached, or returns an error.
        NoInputError: the hub has no such repository, or none of the files.
        DataError: the content of the file differs from the sha256 of the hub.
    """
    cached = _find_cached(repository, names)
    if cached is None:
        _refuse_offline(repository, names[0])
        if _FORBIDDEN.get():
            raise WouldFetchError(f"the weights of hub model {repository!r} are not in the cache")
        cached = _download(repository, _first_present(repository, names))
    _check_content(cached)
    return cached


def _find_cached(repository: str, names: Sequence[str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        path = try_to_load_from_cache(repository, name)
        if isinstance(path, str):
            return Path(path)
    return None


def _ways_out(repository: str, name: str) -> str:
    """Return the alternatives to the hub: another model, or a manual download."""
    from huggingface_hub import hf_hub_url

    model, size = _KNOWN.get(repository, ("ARCHITECTURE", ""))
    return (
        f"for photographs, `model={PHOTOS}` needs no network; or download "
        f"{hf_hub_url(repository, name)}{size} on another machine and use it with "
        f"`model={model}` and `pretrained=PATH`"
    )


def _refuse_offline(repository: str, name: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise NetworkError(
            f"hub model {repository!r} is not in the cache, and HF_HUB_OFFLINE is set",
            _ways_out(repository, name),
        )


def _first_present(repository: str, names: Sequence[str]) -> str:
    """Check each name once, with a short timeout, before any long transfer."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        with _hub_errors(repository, name):
            try:
                get_hf_file_metadata(hf_hub_url(repository, name), timeout=TIMEOUT_S)
            except EntryNotFoundError:
                continue
            return name
    raise NoInputError(
        f"hub model {repository!r} has none of {', '.join(names)}",
        "another `pretrained` tag may have safe weights; pickles need allow_pickle_weights = true",
    )


def _download(repository: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    get_logger("encode").info("downloading weights", repository=repository, file=name)
    with _hub_errors(repository, name):
        return Path(hf_hub_download(repository, name, etag_timeout=TIMEOUT_S))


@contextmanager
def _hub_errors(repository: str, name: str) -> Iterator[None]:
    from huggingface_hub import errors

    # huggingface_hub has changed its HTTP library twice; the base class of its errors is stable.
    http_error: type[BaseException] = errors.HfHubHTTPError.__bases__[0]
    what = f"hub model {repository!r}, {name}"
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise NetworkError(
            f"{what}: the hub cannot be reached", _ways_out(repository, name)
        ) from error
    except errors.EntryNotFoundError:
        raise
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise NoInputError(
            f"{what}: the hub has no such repository, or it needs HF_TOKEN",
            "check the name, or use `pretrained=PATH`",
        ) from error
    except errors.HFValidationError as error:
        raise NoInputError(f"{what}: {first_lines(error)}") from error
    except (errors.HfHubHTTPError, http_error) as error:
        raise NetworkError(f"{what}: {first_lines(error)}", _ways_out(repository, name)) from error
    except OSError as error:
        raise _from_os_error(error, what, _ways_out(repository, name)) from error


def _from_os_error(error: OSError, what: str, hint: str) -> MmindexError:
    """Convert an OSError; a full disk is not a network error."""
    if error.errno is not None and error.filename is not None:
        return from_os_error(error, error.filename)
    return NetworkError(f"{what}: {first_lines(error)}", hint)


def _check_content(path: Path) -> None:
    """Compare large files with the sha256 from the hub, which is the name in the cache."""
    blob = Path(os.path.realpath(path))
    if _SHA256.fullmatch(blob.name) and hash_file(blob) != blob.name:
        raise DataError(
            f"{blob}: damaged (sha256 differs from the hub's)", f"remove {blob} and run again"
        )
