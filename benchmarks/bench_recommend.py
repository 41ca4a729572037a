"""Quality of ``recommend`` for simulated users, against random, popular and last-click answers.

    python benchmarks/bench_recommend.py [--store DIR] [--seed 4242] [--users 300] [--tune]

DIR is a store of ``scenes:1000@SEED`` with a seed that the model has not seen. Each user has one to
three interests (a kind of thing, a kind in one colour, or a place) and may dislike another kind. A
user clicks 20 images in 60 days: mostly images of the interests, later clicks more often of the
later interests, popular images more often than others, and one in ten at random.

- hit@10: at least one of the next five clicks is among the ten answers;
- nDCG@10: an answer is relevant if it matches an interest that the user still has.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmindex
from benchkit.process import MMINDEX, run
from mmindex.insight.history import Event
from mmindex.scenes import make_scene
from mmindex.scenes.scene import Scene
from mmindex.scenes.write import number_of

DAYS, CLICKS, NEXT, K = 60, 20, 5, 10
LEAST = 40  # matching scenes of an interest
Interest = Callable[[Scene], bool]


@dataclass(frozen=True)
class User:
    """Clicks (number of the scene, seconds), disliked scenes, the next clicks, and all relevant."""

    clicks: tuple[tuple[int, float], ...]
    dislikes: tuple[tuple[int, float], ...]
    following: frozenset[int]
    relevant: frozenset[int]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, help="default: built first")
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--tune", action="store_true", help="also try other settings")
    options = parser.parse_args()
    scenes = [make_scene(options.seed, number) for number in range(options.count)]
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or Path(folder) / "store"
        if options.store is None:
            source = f"scenes:{options.count}@{options.seed}"
            run([*MMINDEX, "build", "--store", store, "--source", source])
        users = simulated(scenes, options.users)
        with mmindex.open(store) as index:
            report(index, users, options.count, tune=options.tune)


def simulated(scenes: Sequence[Scene], count: int) -> list[User]:
    """Return users with histories over the scenes."""
    rng = random.Random(0)
    ranks = list(range(1, len(scenes) + 1))
    rng.shuffle(ranks)
    popular = [1 / math.sqrt(rank) for rank in ranks]
    return [user(scenes, popular, rng) for _ in range(count)]


def user(scenes: Sequence[Scene], popular: Sequence[float], rng: random.Random) -> User:
    wanted = [interest(scenes, rng) for _ in range(rng.choice((1, 2, 3)))]
    end, free = time.time(), set(range(len(scenes)))

    def click(progress: float) -> int:
        if rng.random() < 0.1:
            choice = rng.choice(sorted(free))
        else:
            weights = [0.2 + progress * place for place in range(len(wanted))]
            [matching] = rng.choices(wanted, weights)
            options = sorted(matching & free) or sorted(free)
            [choice] = rng.choices(options, [popular[one] for one in options])
        free.discard(choice)
        return choice

    clicks = [
        (click(step / CLICKS), end - DAYS * 86_400 * (1 - step / CLICKS)) for step in range(CLICKS)
    ]
    hated = interest(scenes, rng) - set().union(*wanted)
    dislikes = [
        (one, end - rng.random() * DAYS * 86_400)
        for one in rng.sample(sorted(hated & free), min(3, len(hated & free)))
    ]
    free -= {one for one, _ in dislikes}
    unseen = frozenset(free)
    following = frozenset(click(1.0) for _ in range(NEXT))
    return User(tuple(clicks), tuple(dislikes), following, unseen & frozenset().union(*wanted))


def interest(scenes: Sequence[Scene], rng: random.Random) -> frozenset[int]:
    """Return the scenes of a random interest with enough of them."""
    while True:
        scene = rng.choice(scenes)
        thing = rng.choice(scene.things)
        kind, colour, place = thing.kind, thing.colour, scene.background
        matches: Interest = rng.choice((
            lambda one, kind=kind: any(each.kind == kind for each in one.things),
            lambda one, kind=kind, colour=colour: any(
                (each.kind, each.colour) == (kind, colour) for each in one.things
            ),
            lambda one, place=place: one.background == place,
        ))  # fmt: skip
        found = frozenset(number for number, one in enumerate(scenes) if matches(one))
        if len(found) >= LEAST:
            return found


def report(index: mmindex.Index, users: Sequence[User], count: int, *, tune: bool) -> None:
    ids, _ = index.vectors()
    by_number = {number_of(str(one)): str(one) for one in ids}
    everyone = Counter(one for each in users for one, _ in each.clicks)
    rng = random.Random(1)

    def events(one: User) -> list[Event]:
        likes = [Event(by_number[number], 1.0, at) for number, at in one.clicks]
        return likes + [Event(by_number[number], -1.0, at) for number, at in one.dislikes]

    def seen(one: User) -> set[int]:
        return {number for number, _ in (*one.clicks, *one.dislikes)}

    def at_random(one: User) -> list[int]:
        return rng.sample(sorted(set(by_number) - seen(one)), K)

    def most_clicked(one: User) -> list[int]:
        others = everyone - Counter(number for number, _ in one.clicks)
        return [number for number, _ in others.most_common() if number not in seen(one)][:K]

    def last_click(one: User) -> list[int]:
        hits = index.search(image=by_number[one.clicks[-1][0]], k=K + len(seen(one)))
        return [n for hit in hits if (n := number_of(hit.id)) not in seen(one)][:K]

    def recommended(**settings: float) -> Callable[[User], list[int]]:
        def answer(one: User) -> list[int]:
            found = index.recommend(events(one), k=K, **settings)  # type: ignore[arg-type]
            return [number_of(hit.id) for hit in found]

        return answer

    answers = {
        "random": at_random,
        "popular": most_clicked,
        "last click": last_click,
        "recommend": recommended(),
    }
    if tune:
        answers |= {f"interests {n}": recommended(interests=n) for n in (1, 2, 4, 6, 10, 20)}
        answers |= {f"diversity {d}": recommended(diversity=d) for d in (0.0, 0.1, 0.4, 0.6)}
        answers |= {f"half-life {h:g}": recommended(half_life=h) for h in (7.0, 15.0, 60.0, 1e6)}
    print(f"{len(users)} users, {count} scenes   hit@{K}   nDCG@{K}   ms")
    for name, answer in answers.items():
        begun = time.perf_counter()
        lists = [answer(one) for one in users]
        ms = 1000 * (time.perf_counter() - begun) / len(users)
        pairs = list(zip(lists, users, strict=True))
        hit = 100 * sum(bool(one.following & set(found)) for found, one in pairs) / len(users)
        gain = 100 * sum(ndcg(found, one.relevant) for found, one in pairs) / len(users)
        print(f"  {name:<20} {hit:6.1f}  {gain:6.1f}  {ms:6.1f}", flush=True)


def ndcg(found: Sequence[int], relevant: frozenset[int]) -> float:
    gained = sum(1 / math.log2(rank + 2) for rank, one in enumerate(found) if one in relevant)
    return gained / sum(1 / math.log2(rank + 2) for rank in range(min(K, len(relevant))))


if __name__ == "__main__":
    main()
