"""A zip file of stored (not deflated) members, written in constant memory.

The standard library's `zipfile` keeps an object for each member until it closes, about 600 bytes:
0.6 GB for a million images. Here the directory is kept in a temporary file instead. The bytes
depend only on names and contents. Format: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3 (zip64).
"""

import shutil
import tempfile
import zlib
from pathlib import Path
from struct import pack
from types import TracebackType
from typing import Final, Self

_VERSION: Final = 20
_VERSION_64: Final = 45
_MADE_ON_UNIX: Final = 3 << 8 | _VERSION_64
_FLAGS: Final = 0x0800  # names are UTF-8
_TIME: Final = 0
_DATE: Final = 0x21  # 1980-01-01, the earliest date in a zip file; equal bytes in every run
_MODE: Final = 0o100644 << 16
_MAX_32: Final = 0xFFFFFFFF
_MAX_16: Final = 0xFFFF


class StoredZip:
    """Writes a zip file one member at a time.

    Usage: `with StoredZip(path) as archive: archive.add(name, data)`. The file is complete once the
    block ends without an error. A member must be below 4 GiB; their number and the file's size are
    not limited.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._file = self._path.open("xb")
        self._directory = tempfile.TemporaryFile(dir=self._path.parent)
        self._members = 0
        self._offset = 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._directory.close()
            self._file.close()

    def add(self, name: str, data: bytes) -> None:
        """Append one member. The caller must not add a name twice."""
        encoded = name.encode()
        sizes = (zlib.crc32(data), len(data), len(data), len(encoded))
        local = pack("<4s5H3L2H", b"PK\x03\x04", _VERSION, _FLAGS, 0, _TIME, _DATE, *sizes, 0)
        far = self._offset >= _MAX_32
        extra = pack("<2HQ", 1, 8, self._offset) if far else b""
        central = pack(
            "<4s6H3L5H2L",
            b"PK\x01\x02",
            _MADE_ON_UNIX,
            _VERSION_64 if far else _VERSION,
            _FLAGS,
            0,
            _TIME,
            _DATE,
            *sizes,
            len(extra),
            0,
            0,
            0,
            _MODE,
            min(self._offset, _MAX_32),
        )
        self._directory.write(central + encoded + extra)
        self._file.write(local + encoded)
        self._file.write(data)
        self._offset += len(local) + len(encoded) + len(data)
        self._members += 1

    def _finish(self) -> None:
        size = self._directory.tell()
        self._directory.seek(0)
        shutil.copyfileobj(self._directory, self._file)
        start, members = self._offset, self._members
        if members >= _MAX_16 or start + size >= _MAX_32:
            versions = (_MADE_ON_UNIX, _VERSION_64, 0, 0)
            record = (44, *versions, members, members, size, start)
            self._file.write(pack("<4sQ2H2L4Q", b"PK\x06\x06", *record))
            self._file.write(pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1))
        counts = (min(members, _MAX_16), min(members, _MAX_16))
        places = (min(size, _MAX_32), min(start, _MAX_32))
        self._file.write(pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *counts, *places, 0))
