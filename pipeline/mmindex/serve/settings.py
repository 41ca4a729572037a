"""Settings and limits of the service."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from mmindex.core.errors import UsageError, os_errors

# A token must not be guessable: 16 characters of base64 have 96 bits.
LEAST_TOKEN: Final = 16
_REMEDY: Final = "create one with: openssl rand -base64 24"
MAX_UPLOAD_BYTES: Final = 32 << 20
MAX_HITS: Final = 1_000  # hits per response; `offset` selects later ones
MAX_DEPTH: Final = 10_000  # the sum of offset and hits
MAX_QUERY_CHARACTERS: Final = 2_000
MAX_PARTS: Final = 16  # texts and images of a query
PAGE_HITS: Final = 60
BODY_TIMEOUT_S: Final = 60.0
HEADER_TIMEOUT_S: Final = 10.0
SEND_TIMEOUT_S: Final = 60.0  # time in which a client must read a part of its response
SHUTDOWN_S: Final = 7  # the time for active requests after a signal ...
EXIT_S: Final = 9.0  # ... and the time after which the process ends
WHERE_TIMEOUT_S: Final = 5.0  # time limit of a condition; on the command line it is a minute


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """The settings of the service.

    Attributes:
        store: the folder of the store.
        host: the address to listen on.
        port: the port to listen on; 0 for any free port.
        token: the token for clients; None: no token, only on loopback.
        allow_hosts: additional host names of the service.
        certfile, keyfile: for TLS; None: plain HTTP.
        device: the device for the model.
        queue: the number of searches that can wait; more get a 503 response.
        cache: the folder for thumbnails.
        cache_bytes: the size limit of the thumbnails.
        with_location: whether responses can contain locations.
    """

    store: Path
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    allow_hosts: tuple[str, ...] = ()
    certfile: Path | None = None
    keyfile: Path | None = None
    device: str = "auto"
    queue: int = 256
    cache: Path | None = None
    cache_bytes: int = 1 << 30
    with_location: bool = False

    def check(self) -> None:
        """Reject settings that are insecure or cannot work.

        Raises:
            UsageError: the address is not loopback and there is no token, the token is too short,
                or the certificate and its key are invalid.
            MmindexError: their files cannot be read.
        """
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise UsageError(
                f"the token has {len(self.token)} characters; it needs at least {LEAST_TOKEN}",
                _REMEDY,
            )
        if not is_loopback(self.host) and self.token is None:
            raise UsageError(
                f"{self.host} can be reached from other machines, so the service needs a token",
                "write a secret to a file and pass it as `token`, or serve on 127.0.0.1",
            )
        if (self.certfile is None) != (self.keyfile is None):
            raise UsageError("TLS needs a certificate and a key", "pass `certfile` and `keyfile`")
        if self.certfile is not None and self.keyfile is not None:
            _check_tls(self.certfile, self.keyfile)


def _check_tls(certfile: Path, keyfile: Path) -> None:
    for path in (certfile, keyfile):
        with os_errors(path):
            path.read_bytes()
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certfile, keyfile, password="")  # no question in the terminal
    except ssl.SSLError as error:
        raise UsageError(
            f"{certfile} and {keyfile} are not a certificate and its key: {error.reason}",
            "`certfile` and `keyfile` must be PEM files, and the key must not have a password",
        ) from error


def is_loopback(host: str) -> bool:
    """Return whether an address is a loopback address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: Path) -> str:
    """Read the token in the first line of a file.

    Raises:
        MmindexError: the file cannot be read.
        UsageError: it is not ASCII, or empty.
    """
    with os_errors(path):
        data = path.read_bytes()
    try:
        token = data.decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: the token must be ASCII", _REMEDY) from error
    if not token or "\n" in token:
        raise UsageError(f"{path}: contains no token", _REMEDY)
    return token
