"""Build the embedded model for photographs from its parts and a corpus of captioned photos.

    fit_photos.py --image-weights efficientnet-lite2.pth --text-model all-MiniLM-L6-v2/ \
        --source flickr30k:~/flickr30k --work photos.work --out data/models/photos-clip

Both towers keep their weights. Only the two linear heads that join them are fitted: to pairs of a
photo and a caption, and to pairs of an ImageNet class and its name.

Features and text vectors are kept in --work, so a second fit takes seconds: ``features.npy``
(float16 (n, 1280)), ``captions.txt`` (one caption per line), ``owner.npy`` (the row of the photo of
each caption, ascending) and ``texts.npy``. With --hold-out N, the heads are first fitted without N
photos, and recall on these photos is printed. Everything is seeded: the same input gives the same
file.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmindex.models.packing import pack_rows, packed
from mmindex.models.photos import PhotosNetwork, spread
from mmindex.models.preprocess import spec_from_config
from mmindex.models.resolve import CONFIG_FILE, PHOTOS_NETWORK, VOCABULARY_FILE
from mmindex.models.trim import spans
from mmindex.models.wordpiece import WordPiece, read_vocabulary
from mmindex.sources.spec import SourceOptions
from mmindex.store.layout import Layout
from mmindex.train.corpus import LIMITS, Decoder, captioned_items

CONTEXT: Final = 128  # tokens of a text; the tower was trained with the same number
DIM: Final = 384
TOKENS_AT_ONCE: Final = 4_096
# EfficientNet-Lite2: expand, kernel, stride, width, repeat.
STAGES: Final = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 3),
    (6, 5, 2, 48, 3),
    (6, 3, 2, 88, 4),
    (6, 5, 1, 120, 4),
    (6, 5, 2, 208, 5),
    (6, 3, 1, 352, 1),
)
PREPROCESS: Final = {
    "mean": [127 / 255] * 3,
    "std": [128 / 255] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the fit; the defaults were chosen on held-out Flickr8k photos.

    Attributes:
        class_weight: weight of all class names together; that of all captions is 1.
        image_ridge, text_ridge: added to each covariance, relative to its mean variance.
        strength: directions are weighted by their correlation, raised to this power.
        steps, batch, classes: steps of the polish, captions and class names in a batch.
        rate: learning rate of Adam, relative to the spread of a map; cosine decay to zero.
        temperature: similarities are divided by it.
        drop: share of the features of a photo that are left out at random.
    """

    class_weight: float = 0.25
    image_ridge: float = 2.0
    text_ridge: float = 0.3
    strength: float = 0.7
    steps: int = 300
    batch: int = 1_024
    classes: int = 256
    rate: float = 0.01
    temperature: float = 0.06
    drop: float = 0.5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pairs:
    """The data to which the heads are fitted.

    Attributes:
        features: float32 (n, 1280), pooled features of photos.
        texts: float32 (m, 384), vectors of captions.
        owner: int64 (m,), the photo of each caption, ascending.
    """

    features: Tensor
    texts: Tensor
    owner: Tensor

    def only(self, photos: Tensor) -> Pairs:
        """Return the pairs of some photos; ``photos`` is int64, ascending."""
        place = torch.full((len(self.features),), -1)
        place[photos] = torch.arange(len(photos))
        kept = place[self.owner] >= 0
        return Pairs(self.features[photos], self.texts[kept], place[self.owner[kept]])


@dataclass(frozen=True, slots=True)
class Classes:
    """ImageNet's classes, as represented in the image tower and in the text tower.

    Attributes:
        rows: float32 (1000, 1280), the weights of the classifier.
        names: float32 (1000, 384), vectors of the names; the mean if a class has several.
    """

    rows: Tensor
    names: Tensor


@dataclass(frozen=True, slots=True)
class Heads:
    """Two affine maps: weights (features, dim) and biases (dim,)."""

    image: tuple[Tensor, Tensor]
    text: tuple[Tensor, Tensor]

    def images(self, features: Tensor) -> Tensor:
        return F.normalize(spread(features) @ self.image[0] + self.image[1], dim=1)

    def texts(self, texts: Tensor) -> Tensor:
        return F.normalize(texts @ self.text[0] + self.text[1], dim=1)


def fit(pairs: Pairs, classes: Classes, settings: Settings) -> Heads:
    """Regularised canonical correlation (H. Hotelling 1936), then a contrastive polish.

    There are no photos of the classes. The position of a class follows from its row w in the
    classifier: for classes with the same covariance S, a linear discriminant is
    w = S^-1 (mean of the class - mean of all). The deviation of the class is therefore S w, scaled
    to the length of that of a real photo.
    """
    features = spread(pairs.features)
    centre, middle = features.mean(0), pairs.texts.mean(0)
    deviation = features - centre
    spreads = features.std(0) + 1e-3
    covariance = deviation.T @ deviation / len(deviation)
    covariance += covariance.diagonal().mean() * torch.eye(len(covariance))
    prototypes = (classes.rows - classes.rows.mean(0)) @ covariance
    prototypes *= deviation.norm(dim=1).mean() / prototypes.norm(dim=1, keepdim=True)
    sides = Sides(
        photos=deviation / spreads,
        captions=pairs.texts - middle,
        owner=pairs.owner,
        prototypes=prototypes / spreads,
        names=classes.names - classes.names.mean(0),
    )
    image, text = polish(sides, *correlate(sides, settings), settings)
    image = image / spreads[:, None]
    return Heads((image, -centre @ image), (text, -middle @ text))


@dataclass(frozen=True, slots=True)
class Sides:
    """Standardised pairs: photos with captions, prototypes of classes with their names."""

    photos: Tensor
    captions: Tensor
    owner: Tensor
    prototypes: Tensor
    names: Tensor


def correlate(sides: Sides, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return the most correlated maps over all pairs: (1280, dim) and (384, dim)."""
    photos, captions, weight = sides.photos, sides.captions, settings.class_weight
    count = len(sides.names)
    image = photos.T @ photos / len(photos)
    image += weight * sides.prototypes.T @ sides.prototypes / count
    text = captions.T @ captions / len(captions) + weight * sides.names.T @ sides.names / count
    both = photos[sides.owner].T @ captions / len(captions)
    both += weight * sides.prototypes.T @ sides.names / count
    whiten_image = inverse_root(image, settings.image_ridge)
    whiten_text = inverse_root(text, settings.text_ridge)
    left, values, right = torch.linalg.svd(
        whiten_image @ both.double() @ whiten_text, full_matrices=False
    )
    strength = values[:DIM] ** settings.strength
    image_map = (whiten_image @ left[:, :DIM] * strength).float()
    text_map = (whiten_text @ right[:DIM].T * strength).float()
    return image_map, text_map


def inverse_root(covariance: Tensor, ridge: float) -> Tensor:
    """Return (covariance + ridge)^(-1/2), float64; the ridge is relative to the mean variance."""
    whole = covariance.double()
    whole += ridge * whole.diagonal().mean() * torch.eye(len(whole), dtype=whole.dtype)
    values, vectors = torch.linalg.eigh(whole)
    return (vectors * values.rsqrt()) @ vectors.T


def polish(sides: Sides, image: Tensor, text: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Minimise the symmetric contrastive loss (A. Radford et al., CLIP, ICML 2021) of both maps."""
    draw = torch.Generator().manual_seed(settings.seed)
    image, text = nn.Parameter(image.clone()), nn.Parameter(text.clone())
    adam = torch.optim.Adam(
        [
            {"params": [one], "lr": settings.rate * float(one.detach().std())}
            for one in (image, text)
        ]
    )
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, settings.steps)
    counts = torch.bincount(sides.owner)
    starts = counts.cumsum(0) - counts
    for _ in range(settings.steps):
        chosen = torch.randperm(len(sides.photos), generator=draw)[: settings.batch]
        photos = sides.photos[chosen]
        kept = torch.rand(photos.shape, generator=draw) >= settings.drop
        lots = (torch.rand(len(chosen), generator=draw) * counts[chosen]).long()
        known = torch.randperm(len(sides.names), generator=draw)[: settings.classes]
        one = torch.cat([photos * kept / (1 - settings.drop), sides.prototypes[known]]) @ image
        other = torch.cat([sides.captions[starts[chosen] + lots], sides.names[known]]) @ text
        logits = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T / settings.temperature
        goal = torch.arange(len(logits))
        loss = F.cross_entropy(logits, goal) + F.cross_entropy(logits.T, goal)
        adam.zero_grad()
        loss.backward()
        adam.step()
        fall.step()
    return image.detach(), text.detach()


def recall(heads: Heads, pairs: Pairs) -> dict[str, float]:
    """Return the percentage of queries with the right answer among the first K, both ways."""
    scores = heads.texts(pairs.texts) @ heads.images(pairs.features).T
    right = scores.gather(1, pairs.owner[:, None])
    text_ranks = (scores > right).sum(1)
    best = torch.full((len(pairs.features),), -2.0)
    best = best.scatter_reduce(0, pairs.owner, right[:, 0], "amax")
    image_ranks = (scores > best).sum(0)
    ranks = {"text to image": text_ranks, "image to text": image_ranks}
    return {
        f"{way} R@{k}": 100 * float((found < k).float().mean())
        for way, found in ranks.items()
        for k in (1, 5, 10)
    }


def hold_out(pairs: Pairs, classes: Classes, settings: Settings, count: int) -> dict[str, float]:
    """Fit without ``count`` photos; return the mean recall in galleries of 300 of them."""
    order = torch.randperm(len(pairs.features), generator=torch.Generator().manual_seed(1))
    heads = fit(pairs.only(order[count:].sort().values), classes, settings)
    galleries = [
        recall(heads, pairs.only(order[start : start + 300].sort().values))
        for start in range(0, count, 300)
    ]
    return {key: float(np.mean([one[key] for one in galleries])) for key in galleries[0]}


def image_tower(path: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Return the weights of the tower, including batch normalisation, and the classifier's rows.

    The file contains, for each block in the order of the network, a convolution and the weight,
    bias, mean and variance of its normalisation. Two tensors of the classifier come last.
    """
    stored = torch.load(path, weights_only=True)
    tensors = [value for key, value in stored.items() if not key.endswith("num_batches_tracked")]
    with torch.device("meta"):
        shapes = PhotosNetwork(configuration(8)).visual.state_dict()
    names = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]
    state = {}
    for number, name in enumerate(names):
        kernel, weight, bias, mean, variance = tensors[5 * number : 5 * number + 5]
        factor = weight / torch.sqrt(variance + 1e-3)
        folded = kernel * factor.view(-1, 1, 1, 1)
        state[f"visual.{name}.weight"] = folded.view(shapes[f"{name}.weight"].shape)
        state[f"visual.{name}.bias"] = bias - mean * factor
    return state, tensors[5 * len(names)]


def text_tower(folder: Path, rows: Sequence[int]) -> dict[str, Tensor]:
    """Return the text tower's weights, with only ``rows`` of the word table."""
    stored = load_file(folder / "model.safetensors")
    table, scale = pack_rows(stored["embeddings.word_embeddings.weight"][list(rows)])
    kinds = stored["embeddings.token_type_embeddings.weight"]
    state = {
        "text.words.packed": table,
        "text.words.scale": scale,
        "text.places": stored["embeddings.position_embeddings.weight"][:CONTEXT] + kinds[0],
    }
    renamed = {
        "attended": "attention.output.dense",
        "attended_norm": "attention.output.LayerNorm",
        "widen": "intermediate.dense",
        "narrow": "output.dense",
        "norm": "output.LayerNorm",
    }
    for kind in ("weight", "bias"):
        state[f"text.norm.{kind}"] = stored[f"embeddings.LayerNorm.{kind}"]
        for layer in range(6):
            here, there = f"text.layers.{layer}", f"encoder.layer.{layer}"
            for name, theirs in renamed.items():
                state[f"{here}.{name}.{kind}"] = stored[f"{there}.{theirs}.{kind}"]
            state[f"{here}.attend.{kind}"] = torch.cat(
                [
                    stored[f"{there}.attention.self.{part}.{kind}"]
                    for part in ("query", "key", "value")
                ]
            )
    return state


def write_vocabulary(folder: Path, path: Path) -> list[int]:
    """Write the word pieces of texts, one per line, and return their numbers in the original."""
    numbers = json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"]
    kept = [piece for piece in sorted(numbers, key=numbers.get) if "[unused" not in piece]
    path.write_bytes(gzip.compress("\n".join(kept).encode(), mtime=0))
    return [numbers[piece] for piece in kept]


def configuration(pieces: int) -> dict[str, Any]:
    """Return the ``model_cfg`` for the folder of the model."""
    names = ("expand", "kernel", "stride", "width", "repeat")
    return {
        "network": PHOTOS_NETWORK,
        "embed_dim": DIM,
        "vision_cfg": {
            "image_size": 260,
            "stem": 32,
            "stages": [dict(zip(names, stage, strict=True)) for stage in STAGES],
            "features": 1_280,
        },
        "text_cfg": {
            "vocab_size": pieces,
            "context_length": CONTEXT,
            "width": 384,
            "heads": 12,
            "layers": 6,
            "inner": 1_536,
        },
    }


def encode_texts(network: PhotosNetwork, tokenizer: WordPiece, texts: Sequence[str]) -> Tensor:
    """Return text vectors before the head: float32 (n, 384)."""
    rows = [tokenizer.encode(text) for text in texts]
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    vectors = torch.empty(len(rows), 384)
    for span in spans([len(rows[number]) for number in order], TOKENS_AT_ONCE):
        batch = [torch.tensor(rows[number]) for number in order[span]]
        with torch.inference_mode():
            vectors[order[span]] = network.text(nn.utils.rnn.pad_sequence(batch, batch_first=True))
    return vectors


def read_photos(network: PhotosNetwork, sources: Sequence[str], work: Path) -> None:
    """Write features, captions and owners of all captioned photos into ``work``."""
    spec = spec_from_config(260, PREPROCESS)
    options = SourceOptions(layout=Layout(work), max_bytes=LIMITS.max_bytes)
    decode = Decoder(spec)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (spec.mean, spec.std))
    features, captions, owner = [], [], []
    for item in (item for text in sources for item in captioned_items(text, options)):
        pixels = decode(item)
        if pixels is None:
            continue
        images = (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / std
        with torch.inference_mode():
            features.append(network.visual(images[None])[0].half().numpy())
        captions += [" ".join(caption.split()) for caption in item.captions]
        owner += [len(features) - 1] * len(item.captions)
    np.save(work / "owner.npy", np.array(owner, dtype=np.int32))
    (work / "captions.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    np.save(work / "features.npy", np.stack(features))


def read_pairs(network: PhotosNetwork, tokenizer: WordPiece, work: Path) -> Pairs:
    """Return the data in ``work``; text vectors are computed if they are not there."""
    captions = (work / "captions.txt").read_text(encoding="utf-8").splitlines()
    if not (work / "texts.npy").is_file():
        np.save(work / "texts.npy", encode_texts(network, tokenizer, captions).numpy())
    features, texts, owner = (
        np.load(work / f"{name}.npy") for name in ("features", "texts", "owner")
    )
    if not len(texts) == len(owner) == len(captions):
        raise SystemExit(f"{work}: texts.npy, owner.npy and captions.txt differ in length")
    return Pairs(
        *(
            torch.from_numpy(part)
            for part in (features.astype(np.float32), texts, owner.astype(np.int64))
        )
    )


def class_vectors(network: PhotosNetwork, tokenizer: WordPiece) -> Tensor:
    """Return the vectors of ImageNet's class names: float32 (1000, 384)."""
    info = ImageNetInfo()
    names = [info.index_to_description(number).split(", ") for number in range(info.num_classes())]
    vectors = encode_texts(
        network, tokenizer, [f"a photo of a {name}" for one in names for name in one]
    )
    return torch.stack([part.mean(0) for part in vectors.split([len(one) for one in names])])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--image-weights", type=Path, required=True, help=".pth file of EfficientNet-Lite2"
    )
    parser.add_argument("--text-model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument(
        "--source", nargs="*", default=[], help="sources of captioned photos, as in mmindex build"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for features and vectors")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--hold-out", type=int, default=0, help="photos to measure with first")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.work.mkdir(parents=True, exist_ok=True)

    rows = write_vocabulary(arguments.text_model, arguments.out / VOCABULARY_FILE)
    config = configuration(len(rows))
    image_state, class_rows = image_tower(arguments.image_weights)
    state = {**image_state, **text_tower(arguments.text_model, rows)}
    state["logit_scale"] = torch.tensor(1 / Settings().temperature).log()
    with torch.device("meta"):
        network = PhotosNetwork(config)
    network.load_state_dict(state, strict=False, assign=True)  # the heads come last
    network.requires_grad_(requires_grad=False).eval()
    tokenizer = WordPiece(read_vocabulary(arguments.out / VOCABULARY_FILE), CONTEXT)

    if not (arguments.work / "features.npy").is_file():
        read_photos(network, arguments.source, arguments.work)
    pairs = read_pairs(network, tokenizer, arguments.work)
    classes = Classes(class_rows, class_vectors(network, tokenizer))
    if arguments.hold_out:
        for key, value in hold_out(pairs, classes, Settings(), arguments.hold_out).items():
            print(f"{key:22} {value:5.1f}")
    heads = fit(pairs, classes, Settings())
    for name, (weight, bias) in (("image_head", heads.image), ("text_head", heads.text)):
        state[f"{name}.weight"], state[f"{name}.bias"] = weight.T.contiguous(), bias
    (arguments.out / "model.safetensors").write_bytes(save(packed(state)))
    whole = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (arguments.out / CONFIG_FILE).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
