"""Explain weights files that cannot be loaded."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Final

from mmindex.core.errors import DataError

# torch's message for an object that the weights-only loader does not create.
_FOREIGN: Final = re.compile(r"GLOBAL (\S+)")
_CONVERT: Final = (
    "save only its tensors with the code that trained it: "
    "safetensors.torch.save_file(model.state_dict(), 'open_clip_model.safetensors')"
)


def refuse_torchscript(path: Path) -> None:
    """Reject files saved by torch.jit, which contain code that torch would run.

    Raises:
        DataError: the file is such an archive.
    """
    if _is_torchscript(path):
        raise DataError(f"weights {path}: a TorchScript archive, not a checkpoint", _CONVERT)


def recognised(path: Path, error: Exception) -> DataError | None:
    """Return an error that explains why a weights file cannot be loaded, or None.

    Args:
        path: the file.
        error: the error from safetensors or torch.
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
    """Return whether a zip contains the code of torch.jit."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(re.match(r"[^/]+/(code/|constants\.pkl$)", name) for name in archive.namelist())


def _is_cut(path: Path) -> bool:
    """Return whether a file is shorter than its header states."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PK"):  # torch's format is a zip file, whose directory is at the end
        return not zipfile.is_zipfile(path)
    if path.suffix == ".safetensors":  # the first 8 bytes are the length of the JSON that follows
        return len(head) < 8 or int.from_bytes(head, "little") + 8 > path.stat().st_size
    return not head
