"""Take vectors from the files of ``embeddings:`` sources instead of encoding.

The crawl used the sha256 of each vector as the key of its row, so this module reads the files again
and finds rows by their keys. Each block of a file results in one shard, the unit of resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mmindex.core.config import Config
from mmindex.core.errors import DataError, ModelMismatchError
from mmindex.core.modality import Modality
from mmindex.core.model_names import UNKNOWN
from mmindex.encode.backlog import Backlog, Mask
from mmindex.encode.units import ShardWriter, UnitResult
from mmindex.models.adapted import Maps
from mmindex.models.fingerprint import made_with, same_model
from mmindex.sources.vector_files import VectorFile, unit_vectors
from mmindex.sources.vector_sets import VectorSet, vector_sets
from mmindex.store.keys import DistinctKeys, Keys, binary_keys, places_of
from mmindex.store.manifest import EncoderInfo
from mmindex.store.objects import Objects

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A file of vectors of one side.

    Attributes:
        file: the file.
        is_own: whether its vectors are those of the encoder itself, and not of an adapted model's
            parent.
    """

    file: VectorFile
    is_own: bool = True


@dataclass(frozen=True, slots=True)
class GivenFiles:
    """All files of vectors of a build.

    Attributes:
        images, texts: the files of each side, in the order of the sources.
    """

    images: tuple[GivenFile, ...] = ()
    texts: tuple[GivenFile, ...] = ()

    @classmethod
    def of(cls, config: Config, info: EncoderInfo) -> Self:
        """Find the files of the sources, and compare them with the model.

        Raises:
            NoInputError, DataError: see :func:`mmindex.sources.vector_sets.open_vectors`.
            ModelMismatchError: the vectors have other dimensions, or another model made them.
        """
        sets = vector_sets([source.spec for source in config.source])
        for found in sets:
            _check_model(found, info)
        own = {id(one): not info.parent or made_with(info, one.fingerprint) for one in sets}
        return cls(
            tuple(GivenFile(file, own[id(one)]) for one in sets for file in one.image_files),
            tuple(GivenFile(file, own[id(one)]) for one in sets for file in one.text_files),
        )

    def side(self, side: Modality) -> tuple[GivenFile, ...]:
        """Return the files of one side."""
        return self.images if side is Modality.IMAGE else self.texts


def _check_model(found: VectorSet, info: EncoderInfo) -> None:
    if found.dim not in (0, info.dim):
        raise ModelMismatchError(
            f"{found.path}: its vectors have {found.dim} dimensions, but those of the model "
            f"{info.model} have {info.dim}",
            "name the model that made the vectors with `model`",
        )
    if info.model == UNKNOWN or not found.fingerprint or made_with(info, found.fingerprint):
        return
    if found.fingerprint != info.parent:
        raise ModelMismatchError(
            f"{found.path}: another model than {info.model} made these vectors, according to its "
            f"mmindex.json (fingerprint {found.fingerprint[:12]})",
            "name the model that made the vectors with `model` and `pretrained`",
        )


@dataclass(frozen=True, slots=True)
class GivenPart:
    """The vectors to take from one block of a file.

    Attributes:
        source: the file.
        block: the number of the block.
        rows: int64 (n,), the rows of the block to take, ascending.
        keys: S32 (n,), their keys.
        first: the first row of the table among the rows that they are for.
    """

    source: GivenFile
    block: int
    rows: Int64
    keys: Keys
    first: int


@dataclass(frozen=True, slots=True)
class Given:
    """The missing items that have a vector in a file.

    Attributes:
        parts: in the order of the files.
        covered: bool (rows of the table,): the rows with a vector in a file, missing or not.
        rest: the items that must still be encoded.
    """

    parts: tuple[GivenPart, ...]
    covered: Mask
    rest: Backlog

    @property
    def vectors(self) -> int:
        """The number of vectors to take."""
        return sum(len(part.rows) for part in self.parts)


def plan_given(files: Sequence[GivenFile], live: DistinctKeys, backlog: Backlog) -> Given:
    """Look for missing items in files of vectors; earlier files take precedence.

    Memory: a block, and the keys of the vectors to take.
    """
    missing = backlog.rows[live.rows]
    found = np.zeros(len(live.unique), dtype=np.bool_)
    parts = []
    for source in files:
        for number, block in enumerate(source.file.blocks()):
            units = unit_vectors(block)
            keys = binary_keys(units.keys())
            places = places_of(keys, live)
            rows = np.flatnonzero(units.good & (places >= 0))
            found[places[rows]] = True
            rows = rows[missing[places[rows]]]
            rows = rows[np.sort(np.unique(places[rows], return_index=True)[1])]
            missing[places[rows]] = False
            if len(rows):
                first = int(live.rows[places[rows]].min())
                parts.append(GivenPart(source, number, rows, keys[rows], first))
    covered = np.zeros(live.of_rows, dtype=np.bool_)
    covered[live.rows[found]] = True
    rest = replace(backlog, rows=backlog.rows & ~covered)
    return Given(tuple(parts), covered, rest)


def take_vectors(
    objects: Objects, given: Given, side: Modality, info: EncoderInfo, maps: Maps | None
) -> Iterator[tuple[int, UnitResult]]:
    """Write the vectors as shards; yield each with its first row of the table.

    Args:
        objects: the store's objects.
        given: the vectors to take.
        side: images or texts.
        info: the encoder.
        maps: the maps of an adapted model, for vectors of its parent.

    Raises:
        DataError: a file has changed since the plan.
        StorageError: a shard cannot be written.
    """
    for source in dict.fromkeys(part.source for part in given.parts):
        wanted = {part.block: part for part in given.parts if part.source == source}
        for number, block in enumerate(source.file.blocks()):
            if (part := wanted.get(number)) is None:
                continue
            units = unit_vectors(block[part.rows])
            keys = units.keys()
            if not np.array_equal(binary_keys(keys), part.keys):
                raise DataError(
                    f"{source.file.path}: it changed while it was read", "run the command again"
                )
            vectors = units.vectors.astype(np.float32)
            if not source.is_own and maps is not None:
                vectors = maps.of(side)(vectors)
            writer = ShardWriter(objects, side, info, 0)
            writer.add(keys, vectors)
            yield part.first, UnitResult(0, writer.publish(), dict(writer.failed), writer.encoded)


def refuse_renamed(
    given: Given, live: DistinctKeys, shards: Sequence[Keys], old: EncoderInfo, new: EncoderInfo
) -> None:
    """Refuse to take vectors as those of a model if the store has them as those of another one.

    Args:
        given: the vectors in the files.
        live: the live keys.
        shards: the keys of each shard of the store's model.
        old: the store's model.
        new: the model of this build.

    Raises:
        ModelMismatchError: the store has one of these vectors.
    """
    if UNKNOWN in (old.model, new.model) or same_model(old, new) or old.fingerprint == new.parent:
        return
    for keys in shards:
        places = places_of(keys, live)
        if given.covered[live.rows[places[places >= 0]]].any():
            raise ModelMismatchError(
                f"the store has these vectors as vectors of {old.model}, not of {new.model}",
                "vectors of files cannot be encoded again: build a new store for another model",
            )
