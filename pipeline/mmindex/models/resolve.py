"""Resolve ``--model`` and ``--pretrained`` to local files.

Nothing here imports torch or open_clip, so a wrong name or path is reported immediately.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmindex.core import resources
from mmindex.core.errors import DataError, InternalError, NoInputError, UsageError, os_errors
from mmindex.core.model_names import (
    DEFAULT_MODEL,
    DEFAULT_PRETRAINED,
    EMBEDDED,
    PHOTOS,
    UNKNOWN,
)
from mmindex.sources.kinds import images_of, only_scenes

NO_WEIGHTS = "none"
LOCAL_DIR = "local-dir:"
HF_HUB = "hf-hub:"
CONFIG_FILE = "open_clip_config.json"
# ``model_cfg.network`` of folders whose network is mmindex.models.photos; folders of open_clip have
# no such key. Their tokenizer reads the second file.
PHOTOS_NETWORK = "photos"
VOCABULARY_FILE = "vocab.txt.gz"
# The same for folders written by `mmindex adapt`; see mmindex.models.adapted.
ADAPTED_NETWORK = "adapted"
# The models included in mmindex, by their name for ``--model``: folders of data/models.
BUILT_IN = {EMBEDDED: "scenes-clip", PHOTOS: "photos-clip"}

PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl"})
SAFE = ".safetensors"
INDEX = f"{SAFE}.index.json"  # the index of weights in several files; see mmindex.models.sharded
# The order of preference in open_clip.
_WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
)
# The names that transformers uses for a large model: model-00001-of-00002.safetensors.
_SHARD = re.compile(r"-\d+-of-\d+\.[a-z]+$")
_JOIN = (
    'python -c "from glob import glob; from safetensors.torch import load_file, save_file; '
    "save_file({k: v for f in glob('*-of-*.safetensors') for k, v in load_file(f).items()}, "
    "'open_clip_model.safetensors')\""
)
_PICKLE_HINT = (
    "convert them to .safetensors, or, if you trust their source, set `allow_pickle_weights`"
)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A requested model, with defaults and absolute paths.

    Attributes:
        name: one of :data:`BUILT_IN`, ``local-dir:/path``, ``hf-hub:org/repo``, or an architecture
            that open_clip knows.
        pretrained: for an architecture a tag or an absolute path; ``none`` for untrained weights;
            otherwise empty.
        allow_pickle_weights: whether pickled weights are allowed (with plain tensors only).
    """

    name: str
    pretrained: str
    allow_pickle_weights: bool = False

    @property
    def trained(self) -> bool:
        """Whether the model has trained weights."""
        return self.pretrained != NO_WEIGHTS

    @property
    def folder(self) -> Path | None:
        """The folder of the model, if it has one."""
        if self.name in BUILT_IN:
            return resources.data_dir() / "models" / BUILT_IN[self.name]
        return Path(self.name[len(LOCAL_DIR) :]) if self.name.startswith(LOCAL_DIR) else None

    @property
    def repository(self) -> str | None:
        """The hub repository, for ``hf-hub:``."""
        return self.name[len(HF_HUB) :] if self.name.startswith(HF_HUB) else None

    @property
    def weights_path(self) -> Path | None:
        """The weights file, if ``pretrained`` is a path."""
        return Path(self.pretrained) if Path(self.pretrained).is_absolute() else None


def unfit(model: str, specs: Iterable[str]) -> str | None:
    """Return why a model is not suitable for a corpus, or None.

    Args:
        model: the name of the model.
        specs: the sources of the corpus.
    """
    read = list(images_of(specs))
    if model != EMBEDDED or not read or only_scenes(read):
        return None
    return (
        f"the model {EMBEDDED!r} is for drawn scenes only: its answers for other images are "
        f"arbitrary; for photographs, build with the model {PHOTOS!r}"
    )


def resolve_model(
    name: str | None,
    pretrained: str | None,
    *,
    specs: Iterable[str] | None = None,
    allow_pickle_weights: bool = False,
) -> ModelRequest:
    """Apply the defaults and check everything that can be checked early.

    Args:
        name: ``--model``, or None.
        pretrained: ``--pretrained``, or None.
        specs: the sources of the corpus, which determine the default; None: no particular corpus.
        allow_pickle_weights: also read ``.pt``, ``.pth`` and ``.bin`` files.

    Raises:
        UsageError: the name is unknown, or cannot be combined with ``pretrained``.
        NoInputError: a path does not exist, or a built-in model is not part of this install.
        DataError: weights are pickled, which can run code when loaded.
    """
    if name is None and pretrained is None:
        name = _default_model(list(specs or ()))
    elif name is None:
        name = DEFAULT_MODEL
    if name == UNKNOWN:
        return _unknown(pretrained)
    if name.startswith((LOCAL_DIR, HF_HUB)) or name in BUILT_IN:
        return _resolve_whole(name, pretrained, allow_pickle_weights)
    known = architectures()
    if name not in known:
        near = difflib.get_close_matches(name, [*known, *BUILT_IN], n=3)
        guess = f"; did you mean {', '.join(near)}?" if near else ""
        raise UsageError(
            f"unknown model {name!r}{guess}",
            "`mmindex models` lists them; a folder is local-dir:PATH, a hub model hf-hub:ORG/NAME",
        )
    if pretrained is None:
        if name != DEFAULT_MODEL:
            raise UsageError(
                f"model {name!r} needs `pretrained`",
                f"a tag (`mmindex models {name}` lists them), a .safetensors file, or none",
            )
        pretrained = DEFAULT_PRETRAINED
    if _looks_like_path(pretrained):
        path = resources.user_path(pretrained).absolute()
        check_weights(path, allow_pickle=allow_pickle_weights)
        pretrained = str(path)
    return ModelRequest(name, pretrained, allow_pickle_weights)


def _default_model(specs: Sequence[str]) -> str:
    if only_scenes(specs):
        return EMBEDDED
    read = list(images_of(specs))
    if specs and not read:
        return UNKNOWN
    if len(read) < len(specs):
        raise UsageError(
            f"images of {read[0]} must be encoded with the model that made the vectors of "
            "`embeddings:` sources, but it is not named",
            "name it with `model`, or build a store of its own from the vectors",
        )
    return DEFAULT_MODEL


def _unknown(pretrained: str | None) -> ModelRequest:
    if pretrained:
        raise UsageError(f"model {UNKNOWN!r} has no `pretrained`", "remove `pretrained`")
    return ModelRequest(UNKNOWN, "")


def refuse_unknown(name: str) -> None:
    """Raise an error if a model is unknown: its files cannot be found.

    Raises:
        NoInputError: it is.
    """
    if name == UNKNOWN:
        raise NoInputError(
            "the model that made the vectors is unknown, so texts and new images cannot be encoded",
            "search with a vector or an image of the corpus, or name the model: `mmindex build "
            "--model NAME`",
        )


def _resolve_whole(name: str, pretrained: str | None, allow_pickle: bool) -> ModelRequest:
    """Resolve kinds of models with their own weights."""
    if pretrained not in (None, "", NO_WEIGHTS):
        raise UsageError(
            f"model {name!r} has its own weights and cannot be used with "
            f"`pretrained={pretrained!r}`",
            "remove `pretrained`, or set `model` to an architecture",
        )
    if name.startswith(LOCAL_DIR):
        name = f"{LOCAL_DIR}{resources.user_path(name[len(LOCAL_DIR) :]).absolute()}"
    request = ModelRequest(name, pretrained or "", allow_pickle)
    repository = request.repository
    if repository is not None and repository.count("/") != 1:
        raise UsageError(f"{name!r} is not of the form hf-hub:ORGANISATION/NAME")
    if request.folder is not None:
        if not (request.folder / CONFIG_FILE).is_file():
            hint = (
                "choose another model with `model` and `pretrained`"
                if name in BUILT_IN
                else f"the folder of a model must contain {CONFIG_FILE} and the weights"
            )
            raise NoInputError(f"model {name!r}: {request.folder / CONFIG_FILE} is missing", hint)
        if request.trained:
            find_weights(request.folder, allow_pickle=allow_pickle)
    return request


def _looks_like_path(pretrained: str) -> bool:
    path = Path(pretrained)
    return "/" in pretrained or path.suffix in PICKLES | {SAFE} or path.is_file()


def check_weights(path: Path, *, allow_pickle: bool) -> None:
    """Check that weights exist and are safe to load.

    Raises:
        NoInputError: there is no such file.
        DataError: it is a pickle, which is not allowed, or an unknown kind of file.
    """
    if not path.is_file():
        raise NoInputError(
            f"weights {path}: no such file", "`pretrained` takes a tag or a .safetensors file"
        )
    if path.suffix in PICKLES:
        if not allow_pickle:
            raise DataError(f"weights {path} are a pickle, which can run code", _PICKLE_HINT)
    elif path.suffix != SAFE and not path.name.endswith(INDEX):
        raise DataError(f"weights {path}: not a {SAFE} file")


def find_weights(folder: Path, *, allow_pickle: bool) -> Path:
    """Return the weights file in the folder of a model; safetensors have priority over pickles.

    If the weights are in several safetensors files, it is their index.

    Raises:
        NoInputError: there is none.
        UsageError: there are several, and none has a standard name.
        DataError: there are only pickles, which are not allowed.
    """
    with os_errors(folder):
        files = sorted(path for path in folder.iterdir() if path.is_file())
    safe = [path for path in files if path.suffix == SAFE]
    pickles = [path for path in files if path.suffix in PICKLES]
    indexes = [path for path in files if path.name.endswith(INDEX)]
    for name in (*_WEIGHT_NAMES, *(path.name for path in indexes[:1])):
        if folder / name in files:
            return folder / name
    candidates = safe or pickles
    if not candidates:
        raise NoInputError(
            f"{folder}: no weights next to {CONFIG_FILE}",
            "add open_clip_model.safetensors, or use `pretrained=none` to test without weights",
        )
    if shards := [path for path in candidates if _SHARD.search(path.name)]:
        raise UsageError(
            f"{folder}: the weights are in {len(shards)} shards, but their index is missing",
            f"put model{INDEX} there, or join them in that folder: {_JOIN}",
        )
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates[:5])
        raise UsageError(
            f"{folder}: several weights files ({names})",
            f"rename the right one to {_WEIGHT_NAMES[0]}",
        )
    check_weights(candidates[0], allow_pickle=allow_pickle)
    return candidates[0]


def open_clip_dir() -> Path:
    """Return the folder of the installed open_clip package without importing it.

    Raises:
        InternalError: open_clip is not installed.
    """
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise InternalError("open_clip is not installed", "pip install open-clip-torch")
    return Path(spec.submodule_search_locations[0])


def architectures() -> list[str]:
    """Return the sorted names of open_clip's architectures."""
    return sorted(path.stem for path in (open_clip_dir() / "model_configs").glob("*.json"))


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: it is not a JSON object.
        MmindexError: the file cannot be read.
    """
    with os_errors(path):
        data = path.read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object")
    return value
