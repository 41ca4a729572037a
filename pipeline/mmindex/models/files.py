"""The local files and settings of a model."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mmindex.core.errors import DataError, MissingPackageError, NoInputError, UsageError
from mmindex.core.progress import get_logger
from mmindex.models import hub
from mmindex.models.adapted import Adaptation, Maps, load_maps, read_adaptation
from mmindex.models.fast_import import import_open_clip
from mmindex.models.preprocess import PreprocessSpec, spec_from_config
from mmindex.models.resolve import (
    ADAPTED_NETWORK,
    CONFIG_FILE,
    INDEX,
    PHOTOS_NETWORK,
    SAFE,
    VOCABULARY_FILE,
    ModelRequest,
    check_weights,
    find_weights,
    open_clip_dir,
    read_config,
    refuse_unknown,
)
from mmindex.models.sharded import is_index, shard_names, weight_files

_PICKLE_NAMES = ("open_clip_pytorch_model.bin", "pytorch_model.bin")
_DEFAULT_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    f"open_clip_model{INDEX}",
)
_DEFAULT_CONTEXT = 77
_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """The tokenizer of a model.

    Attributes:
        kind: ``simple`` is CLIP's byte-pair encoding, ``wordpiece`` BERT's; others need
            transformers.
        source: for ``hf`` a hub name or a folder; for ``siglip`` the name of the vocabulary.
        merges: the absolute path of the byte-pair merges (``simple``) or pieces (``wordpiece``).
        context_length: the number of positions of the text tower.
        options: other keyword arguments of open_clip's tokenizer class.
    """

    kind: Literal["simple", "wordpiece", "hf", "siglip"]
    source: str
    merges: Path | None
    context_length: int
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The parts of a model.

    Attributes:
        base: the name for open_clip's ``create_model``: an architecture or ``local-dir:``.
        config: the architecture, as open_clip's JSON.
        preprocess: the preprocessing of images.
        tokenizer: the tokenizer.
        weights: the weights file, or the index of several; None for untrained weights.
        config_file: the configuration in the folder, or None for open_clip's architectures.
        adapted: for an adapted model, its parent and the maps; otherwise None. All other
            attributes are then those of the parent.
    """

    base: str
    config: dict[str, Any]
    preprocess: PreprocessSpec
    tokenizer: TokenizerSpec
    weights: Path | None
    config_file: Path | None
    adapted: Adapted | None = None

    @property
    def built_in(self) -> bool:
        """Whether mmindex contains the network; otherwise open_clip builds it."""
        return self.config.get("network") == PHOTOS_NETWORK

    @property
    def dim(self) -> int:
        """The number of dimensions of a vector.

        Raises:
            DataError: the configuration does not contain it.
        """
        dim = self.config.get("embed_dim")
        if not isinstance(dim, int) or dim < 1:
            raise DataError(f"{self.base}: embed_dim {dim!r} is not a number of dimensions")
        return dim

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files outside installed packages that determine the vectors."""
        if self.adapted is not None:
            folder = self.adapted.adaptation
            return (folder.config_file, folder.maps_file, *self.adapted.parent.inputs)
        merges = self.tokenizer.merges
        if merges is not None and merges.is_relative_to(open_clip_dir()):
            merges = None  # covered by the version of the package
        weights = () if self.weights is None else weight_files(self.weights)
        return tuple(path for path in (self.config_file, *weights, merges) if path is not None)


@dataclass(frozen=True, slots=True)
class Adapted:
    """The additional parts of an adapted model.

    Attributes:
        adaptation: the folder.
        parent: the parts of the parent.
    """

    adaptation: Adaptation
    parent: ModelFiles

    def maps(self) -> Maps:
        """Read the maps.

        Raises:
            DataError: the file is damaged, or does not match the parent.
        """
        return load_maps(self.adaptation.maps_file, self.parent.dim)


def locate(request: ModelRequest) -> ModelFiles:
    """Find the files of the model; weights with a tag are downloaded from the hub if needed.

    Raises:
        NoInputError: a file is missing, or the model is unknown.
        DataError: a file is damaged or not safe to load.
        UsageError: the tag is unknown.
        MissingPackageError: the model needs an extra that is not installed; checked before large
            downloads.
        NetworkError: the hub cannot be reached.
    """
    refuse_unknown(request.name)
    if request.repository is not None:
        return _from_repository(request, request.repository)
    if request.folder is not None:
        return _from_folder(request, request.folder)
    return _from_architecture(request)


def _from_folder(request: ModelRequest, folder: Path) -> ModelFiles:
    if is_adapted(folder):
        if not request.trained:
            raise UsageError(
                f"model {request.name!r}: an adapted model has no untrained form",
                "leave out `pretrained=none`",
            )
        adaptation = read_adaptation(request, folder)
        parent = locate(adaptation.parent)
        return replace(parent, adapted=Adapted(adaptation, parent))
    weights = (
        find_weights(folder, allow_pickle=request.allow_pickle_weights) if request.trained else None
    )
    return _with_config(folder / CONFIG_FILE, weights, hub_name="")


def is_adapted(folder: Path) -> bool:
    """Return whether a model's folder contains an adapted model.

    Raises:
        MmindexError: its configuration cannot be read.
    """
    config = read_config(folder / CONFIG_FILE).get("model_cfg")
    return isinstance(config, dict) and config.get("network") == ADAPTED_NETWORK


def _from_repository(request: ModelRequest, repository: str) -> ModelFiles:
    config_file = hub.fetch(repository, [CONFIG_FILE])
    _require_extra(read_config(config_file).get("model_cfg"), repository)
    merges = _bpe_path(read_config(config_file).get("model_cfg"))
    if merges and not Path(merges).is_absolute():
        hub.fetch(repository, [merges])  # stored next to the configuration
    pickles = _PICKLE_NAMES if request.allow_pickle_weights else ()
    weights = hub.fetch(repository, [*_DEFAULT_WEIGHTS, *pickles]) if request.trained else None
    if weights is not None and is_index(weights):
        for shard in shard_names(weights):
            hub.fetch(repository, [shard])  # stored next to the index
    return _with_config(config_file, weights, hub_name=repository)


def _bpe_path(config: object) -> str:
    """Return the tokenizer file in a ``model_cfg``, or nothing."""
    for key in ("text_cfg", "tokenizer_kwargs", "bpe_path"):
        config = config.get(key) if isinstance(config, dict) else None
    return config if isinstance(config, str) else ""


def _with_config(config_file: Path, weights: Path | None, hub_name: str) -> ModelFiles:
    whole = read_config(config_file)
    config = whole.get("model_cfg")
    try:
        if not isinstance(config, dict):
            raise DataError("no model_cfg")
        _require_extra(config, str(config_file))
        tokenizer = _tokenizer(config, "", config_file.parent, hub_name)
        preprocess = spec_from_config(_image_size(config), whole.get("preprocess_cfg") or {})
    except DataError as error:
        raise DataError(f"{config_file}: {error.message}") from error
    if tokenizer.kind == "wordpiece" and weights is None:
        raise UsageError(
            f"{config_file}: this network cannot be used without weights",
            "remove `pretrained=none`",
        )
    base = f"local-dir:{config_file.parent}"
    return ModelFiles(base, config, preprocess, tokenizer, weights, config_file)


def _from_architecture(request: ModelRequest) -> ModelFiles:
    name = request.name
    config, tokenizer = architecture(name)
    weights, settings = request.weights_path, {}
    if weights is not None:
        check_weights(weights, allow_pickle=request.allow_pickle_weights)
        settings = _common_preprocess(name)
    elif request.trained:
        tag = _tag(name, request.pretrained)
        weights = _fetch_tag(request, tag)
        settings = {key: tag[key] for key in _PREPROCESS_KEYS if key in tag}
        if tag.get("quick_gelu") and not config.get("quick_gelu"):
            # open_clip would only warn, and use the wrong activation.
            config = {**config, "quick_gelu": True}
            get_logger("encode").info("weights were trained with QuickGELU: using it", model=name)
    preprocess = spec_from_config(_image_size(config), settings)
    return ModelFiles(name, config, preprocess, tokenizer, weights, None)


def architecture(name: str) -> tuple[dict[str, Any], TokenizerSpec]:
    """Return the configuration and the tokenizer of an architecture of open_clip.

    Raises:
        MissingPackageError: the architecture needs an extra that is not installed.
        MmindexError: the configuration cannot be read.
    """
    config = read_config(open_clip_dir() / "model_configs" / f"{name}.json")
    _require_extra(config, name)
    return config, _tokenizer(config, name, open_clip_dir(), hub_name="")


def needs_transformers(config: dict[str, Any]) -> bool:
    """Return whether the text tower or the tokenizer of a model needs transformers.

    Args:
        config: the architecture, as open_clip's JSON.
    """
    text = config.get("text_cfg")
    keys = ("hf_model_name", "hf_tokenizer_name")
    return isinstance(text, dict) and any(text.get(key) for key in keys)


def require_transformers(what: str) -> None:
    """Check that transformers is installed.

    Raises:
        MissingPackageError: it is not; the error names the extra.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingPackageError(f"{what} needs transformers", "pip install 'mmindex[hf]'")


def _require_extra(config: object, name: str) -> None:
    if isinstance(config, dict) and needs_transformers(config):
        require_transformers(f"the model {name!r}")


def _tag(name: str, tag: str) -> dict[str, Any]:
    import_open_clip()
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model

    found: dict[str, Any] = get_pretrained_cfg(name, tag)
    if not found:
        tags = ", ".join(sorted(list_pretrained_tags_by_model(name))) or "none at all"
        raise UsageError(
            f"model {name!r} has no pretrained tag {tag!r}",
            f"tags of {name}: {tags}; or pass the path of a .safetensors file",
        )
    return found


def _fetch_tag(request: ModelRequest, tag: dict[str, Any]) -> Path:
    repository, _, name = str(tag.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise NoInputError(
            f"{request.name} {request.pretrained}: these weights are not on the hub",
            f"download {tag.get('url', 'them')}, convert them to .safetensors, and use "
            "`pretrained=PATH`",
        )
    names = [str(Path(name).with_suffix(SAFE))] if name else [*_DEFAULT_WEIGHTS]
    if request.allow_pickle_weights:
        names.append(name or _PICKLE_NAMES[0])
    return hub.fetch(repository, names)


def _common_preprocess(name: str) -> dict[str, Any]:
    """Return the preprocessing of all published weights of an architecture, or open_clip's default.

    open_clip uses CLIP's default for weights from a file, which is wrong for SigLIP.
    """
    import_open_clip()
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model

    found = [get_pretrained_cfg(name, tag) for tag in list_pretrained_tags_by_model(name)]
    settings = [{key: one[key] for key in _PREPROCESS_KEYS if key in one} for one in found]
    return settings[0] if settings and all(one == settings[0] for one in settings) else {}


def _image_size(config: dict[str, Any]) -> object:
    vision = config.get("vision_cfg")
    if not isinstance(vision, dict):
        raise DataError("model_cfg has no vision_cfg")
    return vision.get("image_size", 224)


def _tokenizer(config: dict[str, Any], name: str, folder: Path, hub_name: str) -> TokenizerSpec:
    """Follow open_clip's rules (``open_clip.factory.get_tokenizer``), with absolute paths."""
    text = config.get("text_cfg")
    if not isinstance(text, dict):
        raise DataError("model_cfg has no text_cfg")
    context = int(text.get("context_length", _DEFAULT_CONTEXT))
    options = dict(text.get("tokenizer_kwargs") or {})
    if config.get("network") == PHOTOS_NETWORK:
        pieces = folder / VOCABULARY_FILE
        if not pieces.is_file():
            raise DataError(f"tokenizer file {pieces} is missing")
        return TokenizerSpec("wordpiece", "", pieces, context, {})
    if text.get("hf_tokenizer_name"):
        if text.get("tokenizer_mode"):
            options["tokenizer_mode"] = text["tokenizer_mode"]
        # A local folder contains its tokenizer; a model on the hub names it.
        source = str(text["hf_tokenizer_name"]) if name or hub_name else str(folder)
        return TokenizerSpec("hf", source, None, context, options)
    if "siglip" in name.lower():
        kind = (
            "gemma" if "siglip2" in name.lower() else "mc4" if "i18n" in name.lower() else "c4-en"
        )
        return TokenizerSpec("siglip", kind, None, context, {})
    given = options.pop("bpe_path", None)
    # A relative path would depend on the working directory, which is different under cron.
    merges = folder / given if given else open_clip_dir() / "bpe_simple_vocab_16e6.txt.gz"
    if not merges.is_file():
        raise DataError(f"tokenizer file {merges} is missing")
    return TokenizerSpec("simple", "", merges, context, options)


def canonical_json(value: object) -> str:
    """Return canonical JSON for hashing: equal values result in equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
