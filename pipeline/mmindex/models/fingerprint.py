"""Fingerprints of encoders. Vectors with equal fingerprints are comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from mmindex.core.errors import MmindexError, ModelMismatchError
from mmindex.core.model_names import UNKNOWN
from mmindex.models.devices import PRECISIONS
from mmindex.models.files import Adapted, ModelFiles, TokenizerSpec, canonical_json, locate
from mmindex.models.resolve import ModelRequest
from mmindex.models.sharded import weight_files
from mmindex.models.tokenizer import MAX_CHARACTERS
from mmindex.store.manifest import EncoderInfo, InputFile
from mmindex.store.objects import hash_file

# The seed of untrained weights, so that every run has the same model.
UNTRAINED_SEED = 0

_PARTS = ("architecture", "weights", "preprocess", "tokenizer", "precision")
# Keys of text_cfg that affect tokenisation, but not the network.
_TOKENIZER_KEYS = frozenset({"hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"})
# Keys that only name the source of initial weights.
_INIT_KEYS = frozenset({"hf_model_pretrained", "timm_model_pretrained"})


def fingerprint_of(
    request: ModelRequest, precision: str, parent: EncoderInfo | None = None
) -> EncoderInfo:
    """Identify the encoder of a request without loading it.

    If ``parent`` is from the same request, with unchanged files and packages, it is returned:
    nothing is downloaded, and neither torch nor open_clip is imported.

    Args:
        request: the model.
        precision: the precision, see :class:`mmindex.models.devices.Placement`.
        parent: the encoder of the published version.

    Raises:
        MmindexError: the files of the model cannot be found or read, see :func:`files.locate`.
    """
    if parent is not None and _unchanged(request, precision, parent):
        return parent
    return describe(request, locate(request), precision)


def describe_unchanged(
    request: ModelRequest, known: EncoderInfo, precision: str
) -> EncoderInfo | None:
    """Return a known description, in another precision; None if files or packages have changed.

    This downloads nothing, and imports neither torch nor open_clip.

    Raises:
        MmindexError: a file cannot be read.
    """
    if not _unchanged(request, known.precision, known):
        return None
    fingerprint = _in_precision(known, precision)
    return msgspec.structs.replace(known, fingerprint=fingerprint, precision=precision)


def has_architecture(info: EncoderInfo, config: dict[str, Any]) -> bool:
    """Return whether an encoder has this configuration (open_clip's JSON)."""
    return info.architecture == _digest(_architecture(config))


def _in_precision(info: EncoderInfo, precision: str) -> str:
    """Return the fingerprint of an encoder in another precision."""
    parts = {name: getattr(info, name) for name in _PARTS}
    return _digest({"scheme": 1, **parts, "precision": precision})


def _unchanged(request: ModelRequest, precision: str, parent: EncoderInfo) -> bool:
    asked = (request.name, request.pretrained, precision, package_versions(trained=request.trained))
    had = (parent.model, parent.pretrained, parent.precision, parent.package)
    if asked != had:
        return False
    if request.folder is not None and not parent.parent:
        # Look again, because a new file may take precedence; this costs nothing.
        try:
            paths = locate(request).inputs
        except MmindexError:
            return False  # the full computation reports the error
    else:
        paths = tuple(Path(known.path) for known in parent.inputs)
    if not all(path.is_file() for path in paths):
        return False
    # By path and content, so a model that was moved is described again.
    return input_files(paths) == parent.inputs


def describe(request: ModelRequest, files: ModelFiles, precision: str) -> EncoderInfo:
    """Return the description of the encoder with these files.

    Raises:
        DataError: the configuration is incomplete.
        ModelMismatchError: the parent of an adapted model has changed.
        MmindexError: a file cannot be read.
    """
    if files.adapted is not None:
        return _describe_adapted(request, files.adapted, precision)
    inputs = input_files(files.inputs)
    hashes = dict(zip(files.inputs, (known.sha256 for known in inputs), strict=True))
    parts = {
        "architecture": _digest(_architecture(files.config)),
        "weights": _weights(files.weights, hashes),
        "preprocess": _digest(files.preprocess.to_json()),
        "tokenizer": _digest(_tokenizer(files.tokenizer)),
        "precision": precision,
    }
    return EncoderInfo(
        fingerprint=_digest({"scheme": 1, **parts}),
        model=request.name,
        pretrained=request.pretrained,
        dim=files.dim,
        image_size=files.preprocess.height,
        trained=files.weights is not None,
        inputs=inputs,
        package=package_versions(trained=files.weights is not None),
        **parts,
    )


def _weights(path: Path | None, hashes: Mapping[Path, str]) -> str:
    if path is None:
        return _untrained()
    found = [hashes[one] for one in weight_files(path)]
    return found[0] if len(found) == 1 else _digest(found)


def _describe_adapted(request: ModelRequest, adapted: Adapted, precision: str) -> EncoderInfo:
    """Describe an adapted model: its parent, with weights that include the maps."""
    folder = adapted.adaptation
    parent = describe(folder.parent, adapted.parent, precision)
    folder.require_parent(parent)
    own = input_files((folder.config_file, folder.maps_file))
    weights = _digest({"parent": parent.weights, "maps": own[1].sha256})
    parts = {
        "architecture": parent.architecture,
        "weights": weights,
        "preprocess": parent.preprocess,
        "tokenizer": parent.tokenizer,
        "precision": precision,
    }
    return msgspec.structs.replace(
        parent,
        fingerprint=_digest({"scheme": 1, **parts}),
        model=request.name,
        pretrained=request.pretrained,
        weights=weights,
        inputs=(*own, *parent.inputs),
        parent=parent.fingerprint,
    )


def input_files(paths: Iterable[Path]) -> tuple[InputFile, ...]:
    """Return files with their sha256."""
    return tuple(InputFile(path=str(path), sha256=hash_file(path)) for path in paths)


def package_versions(*, trained: bool) -> str:
    """Return the packages that build the network, with versions."""
    # Initial weights come from torch's generator, so its version affects them.
    names = ("open_clip_torch", "timm") if trained else ("open_clip_torch", "timm", "torch")
    return " ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _untrained() -> str:
    return f"untrained seed {UNTRAINED_SEED} torch {_version('torch')}"


def _architecture(config: dict[str, Any]) -> dict[str, Any]:
    clean = dict(config)
    for section in ("text_cfg", "vision_cfg"):
        drop = _TOKENIZER_KEYS | _INIT_KEYS
        values = config.get(section) or {}
        clean[section] = {key: value for key, value in values.items() if key not in drop}
    return clean


def _tokenizer(spec: TokenizerSpec) -> dict[str, Any]:
    source = spec.source
    if spec.kind == "hf" and Path(source).is_dir():
        # The content must affect the digest, but not the path.
        files = sorted(path for path in Path(source).glob("*token*") if path.is_file())
        source = canonical_json([[path.name, hash_file(path)] for path in files])
    return {
        "kind": spec.kind,
        "source": source,
        "merges": hash_file(spec.merges) if spec.merges is not None else "",
        "context_length": spec.context_length,
        "options": spec.options,
        "max_characters": MAX_CHARACTERS,
    }


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def unknown_encoder(dim: int) -> EncoderInfo:
    """Return the description of an unknown model, whose vectors have ``dim`` dimensions."""
    parts = dict.fromkeys(_PARTS, UNKNOWN)
    return EncoderInfo(
        fingerprint=_digest({"scheme": 1, **parts, "dim": dim}),
        model=UNKNOWN,
        pretrained="",
        dim=dim,
        image_size=0,
        trained=True,
        inputs=(),
        package="",
        **parts,
    )


def made_with(info: EncoderInfo, fingerprint: str) -> bool:
    """Return whether a fingerprint is that of an encoder in any precision."""
    return fingerprint == info.fingerprint or any(
        fingerprint == _in_precision(info, precision) for precision in PRECISIONS
    )


def same_model(one: EncoderInfo, other: EncoderInfo) -> bool:
    """Return whether the vectors of two encoders are comparable.

    The precision can differ: queries encoded in float32 on a CPU can search an index that was built
    in bfloat16 on a GPU; cosines between such vectors are at least 0.997.
    """
    return (one.architecture, one.weights, one.preprocess, one.tokenizer, one.dim) == (
        other.architecture,
        other.weights,
        other.preprocess,
        other.tokenizer,
        other.dim,
    )


def require_same_model(index: EncoderInfo, query: EncoderInfo) -> None:
    """Raise an error if two encoders have different models.

    Raises:
        ModelMismatchError: names both models.
    """
    if not same_model(index, query):
        raise ModelMismatchError(
            f"the index was built with {_name(index)}, but this model is {_name(query)}",
            "query with the model of the index, or run `mmindex build` to encode again",
        )


def _name(info: EncoderInfo) -> str:
    return f"{info.model} {info.pretrained}".strip() + f" ({info.fingerprint[:12]})"
