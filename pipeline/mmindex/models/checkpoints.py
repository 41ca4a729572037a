"""Explains weights files that cannot be loaded."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Final

from mmindex.core.errors import DataError

# torch's own words for an object that loading with weights only does not make.
_FOREIGN: Final = re.compile(r"GLOBAL (\S+)")
_CONVERT: Final = (
    "save only its tensors with the code that trained it: "
    "safetensors.torch.save_file(model.state_dict(), 'open_clip_model.safetensors')"
)


def refuse_torchscript(path: Path) -> None:
    """Refuse files saved by torch.jit: they contain code, which torch would run.

    Raises:
        DataError: the file is such an archive.
    """
    if _is_torchscript(path):
        raise DataError(f"weights {path}: a TorchScript archive, not a checkpoint", _CONVERT)


def recognised(path: Path, error: Exception) -> DataError | None:
    """The error that explains an unloadable weights file; None for an unknown kind of file.

    Args:
        path: the file.
        error: what safetensors or torch raised.
    """
    foreign = _FOREIGN.search(str(error))
    if foreign is not None:
        return DataError(
            f"weights {path}: a training checkpoint that contains objects other than tensors "
            f"({foreign[1]}), which are not loaded",
            _CONVERT,
        )
    if _is_cut(path):
        return DataError(f"weights {path}: the file is truncated", "copy or fetch the file again")
    return None


def _is_torchscript(path: Path) -> bool:
    """Whether a zip holds the code that torch.jit saves beside the tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(re.match(r"[^/]+/(code/|constants\.pkl$)", name) for name in archive.namelist())


def _is_cut(path: Path) -> bool:
    """Whether a file is shorter than its header says."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PK"):  # torch's format is a zip, whose directory stands last
        return not zipfile.is_zipfile(path)
    if path.suffix == ".safetensors":  # 8 bytes: the length of the JSON that follows
        return len(head) < 8 or int.from_bytes(head, "little") + 8 > path.stat().st_size
    return not head
