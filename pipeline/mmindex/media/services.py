"""Clients of object stores: addresses, credentials, retries and errors.

Credentials come from the chain of each provider (environment, files, the machine's role). Messages
name the bucket and the key. They never quote a service or a library, because responses can contain
access keys, signatures and tokens.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mmindex.core.errors import (
    DataError,
    MissingPackageError,
    MmindexError,
    NetworkError,
    NoInputError,
    PermissionDeniedError,
    UsageError,
)
from mmindex.core.records import ItemError, Reason

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES: Final = ("s3://", "gs://", "az://")
ENDPOINT_VARIABLE: Final = "MMINDEX_S3_ENDPOINT"
# Passes the settings to worker processes, which inherit the environment: JSON, by bucket.
_SETTING_VARIABLE: Final = "MMINDEX_S3_ENDPOINTS_OF_STORES"
_AWS_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")

# Together below 60 s, after which a decode worker counts as hung (`limits.decode_timeout_s`).
_RETRY_S: Final = 40
_READ_S: Final = 15
_RETRIES: Final = 40  # as many as fit into that time
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 8
_STATUS: Final = re.compile(r"status code: ([0-9]{3})")
_S3_BUCKET: Final = re.compile(r"\bs3://([^/#]+)")
_PARTS: Final = re.compile(r"(s3|gs|az)://([^/]*)/?(.*)", re.DOTALL)
# `$` is for Azure's container `$web`; no provider allows other characters.
_BUCKET: Final = re.compile(r"\$?[A-Za-z0-9][A-Za-z0-9._-]*")


def is_remote(location: str) -> bool:
    """Return whether a location or URI refers to an object in an object store."""
    return location.startswith(SCHEMES)


def use_endpoint(endpoint: str | None, specs: Iterable[str]) -> None:
    """Set the address of the S3 service of some buckets.

    It counts for this process and the workers that it starts. If stores with the same bucket name
    have different addresses, that of the store that was opened last counts.

    Args:
        endpoint: from the settings; None for the address in the environment, or that of Amazon.
        specs: source specs, which name the buckets.
    """
    known = _endpoints()
    for bucket in {found[1] for spec in specs if (found := _S3_BUCKET.search(spec))}:
        known.pop(bucket, None)
        if endpoint is not None:
            known[bucket] = endpoint
    os.environ[_SETTING_VARIABLE] = json.dumps(known)


def _endpoints() -> dict[str, str]:
    """Return the addresses from :func:`use_endpoint` by bucket."""
    found: dict[str, str] = json.loads(os.environ.get(_SETTING_VARIABLE) or "{}")
    return found


def split_location(location: str) -> tuple[str, str, str]:
    """Return scheme, bucket and key of a location.

    Raises:
        UsageError: the bucket has no valid name.
    """
    found = _PARTS.fullmatch(location)
    if found is None or not _BUCKET.fullmatch(found[2]):
        # Not quoted: it may be a URL with a password.
        raise UsageError(
            f"{location[:5]}...: not a valid bucket name",
            "write s3://BUCKET/KEY; credentials come from the environment or the provider's files",
        )
    return found[1], found[2], found[3]


def obstore() -> Any:
    """Import obstore.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import obstore as module
    except ImportError as error:
        raise _missing("object stores (s3://, gs://, az://) need obstore") from error
    return module


@contextmanager
def service_errors(location: str) -> Iterator[None]:
    """Convert the errors of obstore; ``from None``, because their texts can contain credentials.

    Raises:
        NoInputError: there is no such bucket or object.
        ItemError: the object has changed since it was listed.
        PermissionDeniedError: the service refuses access.
        DataError: a key cannot be used.
        MissingPackageError: obstore is not installed.
        NetworkError: the service cannot be reached, even after several attempts.
    """
    exceptions = obstore().exceptions
    try:
        yield
    except FileNotFoundError:
        raise NoInputError(f"{location}: no such bucket or object") from None
    except exceptions.PreconditionError:
        raise ItemError(Reason.CHANGED, "the object has changed since it was listed") from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
        raise _refused(location) from None
    except (exceptions.InvalidPathError, ValueError):
        raise DataError(
            f"{location}: a key here has an empty part, or one that is . or .. or not printable",
            "such objects cannot be read; rename them, or choose another prefix",
        ) from None
    except exceptions.BaseError as error:
        raise _unreachable(location, str(error)) from None


def _missing(what: str) -> MissingPackageError:
    return MissingPackageError(f"{what}, which is not installed", "pip install 'mmindex[objects]'")


def _refused(location: str) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"{location}: the service refuses access",
        "check the credentials in the environment, and that they may read and list the bucket",
    )


def _unreachable(location: str, text: str) -> MmindexError:
    status = _STATUS.search(text)
    if status is None:
        low = text.lower()
        what = "timed out" if "timed out" in low or "timeout" in low else "cannot be reached"
        hint = "check the network and the endpoint; finished work is kept, run the command again"
        if "credential" in low:
            what, hint = "no usable credentials", "check the credentials in the environment"
        return NetworkError(f"{location}: the service {what}", hint)
    code = int(status[1])
    if code in (401, 403):
        return _refused(location)
    if code == 404:
        return NoInputError(f"{location}: no such bucket or object")
    hint = "finished work is kept, run the command again"
    if code < 500:
        hint = "check the region (AWS_REGION), the endpoint, and whether credentials have expired"
    return NetworkError(f"{location}: the service answers with HTTP status {code}", hint)


def store_of(scheme: str, bucket: str) -> ObjectStore:
    """Return the client of a bucket."""
    return _made(scheme, bucket, _endpoint(bucket) if scheme == "s3" else None)


def _endpoint(bucket: str) -> str | None:
    from_variables = [os.environ.get(name) for name in _AWS_VARIABLES]
    ways = (os.environ.get(ENDPOINT_VARIABLE), _endpoints().get(bucket), *from_variables)
    return next(filter(None, ways), None)


@functools.lru_cache(maxsize=64)
def _made(scheme: str, bucket: str, endpoint: str | None) -> ObjectStore:
    from obstore import exceptions, store

    backoff = {
        "init_backoff": timedelta(seconds=_FIRST_PAUSE_S),
        "max_backoff": timedelta(seconds=_LONGEST_PAUSE_S),
        "base": 2,
    }
    options: dict[str, Any] = {
        "retry_config": {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=_RETRY_S),
            "backoff": backoff,
        },
        "client_options": {
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=_READ_S),
            "timeout": timedelta(seconds=600),  # a large object can take long on a slow connection
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
        },
    }
    makers: dict[str, Callable[..., Any]] = {"gs": store.GCSStore, "az": store.AzureStore}
    if scheme == "s3":
        options |= _aws_identity() | ({"endpoint": endpoint} if endpoint is not None else {})
        makers["s3"] = store.S3Store
    try:
        made: ObjectStore = makers[scheme](bucket, **options)
    except exceptions.BaseError:
        raise UsageError(
            f"{scheme}://{bucket}: the settings of the service are not complete or not valid",
            "for az://, set AZURE_STORAGE_ACCOUNT_NAME; for gs://, check "
            "GOOGLE_APPLICATION_CREDENTIALS; for s3://, check the endpoint",
        ) from None
    return made


def _aws_identity() -> dict[str, Any]:
    """Return the credentials of Amazon's own chain; unsigned requests if it has none."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise _missing("the credentials for s3:// need boto3") from error
    try:
        session = boto3.Session()
        if session.get_credentials() is not None:
            return {"credential_provider": Boto3CredentialProvider(session)}
    except BotoCoreError as error:
        # The class is informative ("ProfileNotFound"); the text may contain credentials.
        raise PermissionDeniedError(
            f"the credentials for s3:// cannot be loaded: {type(error).__name__}",
            "check AWS_PROFILE and the files in ~/.aws",
        ) from None
    region = {"region": session.region_name} if session.region_name else {}
    return {"config": {"skip_signature": True, **region}}
