"""Shards without rows that no table needs, and a vector after a failure."""

from __future__ import annotations

import numpy as np

from mmindex.core.records import Reason
from mmindex.encode.backlog import plan_backlog
from mmindex.encode.decoding import Failure
from mmindex.encode.prune import prune_shard
from mmindex.encode.shards import Shard, read_shard, write_shard
from mmindex.store.keys import DistinctKeys, binary_keys, distinct
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from support.index_stores import key_of
from support.models import fake_info

INFO = fake_info()
BROKEN = Failure(Reason.CORRUPT, "broken")


def vector(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=INFO.dim).astype(np.float16)


def shard_of(
    objects: Objects, numbers: range | list[int], failed: tuple[int, ...] = (), name: int = 0
) -> ObjectRef:
    keys = [key_of(number) for number in numbers]
    vectors = np.array([vector(number) for number in numbers]).reshape(len(keys), INFO.dim)
    failures = {key_of(number): BROKEN for number in failed}
    return write_shard(objects, f"embeddings/image/{name:05d}", INFO, (keys, vectors), failures)


def live(*numbers: int) -> DistinctKeys:
    """Return the live keys of a table with these rows."""
    return distinct(binary_keys([key_of(number) for number in numbers]))


def test_a_pruned_shard_equals_one_without_the_removed_rows(objects):
    whole = shard_of(objects, range(10), failed=(20, 21))
    pruned = prune_shard(objects, whole, live(2, 3, 7, 21, 99))
    assert pruned == shard_of(objects, [2, 3, 7], failed=(21,))


def test_a_pruned_shard_does_not_reveal_the_keys_of_its_unit(objects):
    keys, vectors = [key_of(1), key_of(2)], np.array([vector(1), vector(2)])
    name = "embeddings/image/00000"
    whole = write_shard(objects, name, INFO, (keys, vectors), {}, unit="ab" * 32)
    assert prune_shard(objects, whole, live(2)) == shard_of(objects, [2])


def test_a_shard_with_nothing_to_drop_is_itself_and_one_with_nothing_to_keep_is_none(objects):
    whole = shard_of(objects, range(4), failed=(20,))
    assert prune_shard(objects, whole, live(0, 1, 2, 3, 20, 50)) == whole
    assert prune_shard(objects, whole, live(50)) is None


def test_a_shard_of_failures_alone_can_stay(objects):
    whole = shard_of(objects, range(4), failed=(20,))
    pruned = prune_shard(objects, whole, live(20))
    assert pruned is not None
    shard = read_shard(objects, pruned, INFO)
    assert shard is not None
    assert len(shard.keys) == 0
    assert list(shard.failed) == [key_of(20)]


def read(objects: Objects, *refs: ObjectRef) -> list[Shard]:
    return [shard for ref in refs if (shard := read_shard(objects, ref, INFO)) is not None]


def test_a_vector_has_priority_over_a_failure_in_any_shard(objects):
    wanted = live(0, 1, 2)
    first = shard_of(objects, [0], failed=(1, 2), name=0)
    second = shard_of(objects, [1], name=1)
    backlog = plan_backlog(wanted, read(objects, first, second))
    assert list(backlog.failed) == [key_of(2)]
    assert backlog.reused == 2
    assert backlog.kept == (first, second)
    assert backlog.missing == 0


def test_a_retry_encodes_failed_items_again(objects):
    wanted = live(0, 1, 2)
    first = shard_of(objects, [0], failed=(1,))
    backlog = plan_backlog(wanted, read(objects, first), retry=True)
    assert backlog.rows.tolist() == [False, True, True]
    assert backlog.kept == (first,)


def test_a_shard_whose_only_failure_was_overcome_is_left_out(objects):
    wanted = live(1)
    first = shard_of(objects, [], failed=(1,), name=0)
    second = shard_of(objects, [1], name=1)
    assert plan_backlog(wanted, read(objects, first, second)).kept == (second,)
