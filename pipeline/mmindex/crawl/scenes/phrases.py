"""Short phrases for each scene, as people type them into a search box; for training only.

Captions tell mostly of everything in a picture. A model trained on them alone ranks pictures well
for a whole sentence, and worse for "a castle" or "a dog left of a red car".
"""

from typing import Final

from mmindex.crawl.scenes.captions import Caption, _named, _where
from mmindex.crawl.scenes.claims import RELATIONS, Claim, Relation, holds
from mmindex.crawl.scenes.scene import Lot, Scene
from mmindex.crawl.scenes.words import RELATION_WORDS, SCENE_HEADS, SKY_WORDS

PHRASES_PER_SCENE: Final = 6


def phrases(scene: Scene) -> tuple[Caption, ...]:
    """Six phrases, all true of `scene`: parts of it, alone or in a place, and relations."""
    lot = Lot(scene.seed, scene.number, "phrases")
    writers = (_thing, _thing_there, _thing_there, _pair, _pair, _place)
    return tuple(writer(scene, lot) for writer in writers)


def _thing(scene: Scene, lot: Lot) -> Caption:
    named = _named(lot.one_of(scene.things), lot)
    return Caption(named.text, Claim((named.mention,)))


def _thing_there(scene: Scene, lot: Lot) -> Caption:
    thing = lot.one_of(scene.things)
    named = _named(thing, lot)
    words, place = _where(scene, [thing], lot)
    return Caption(f"{named.text} {words}", Claim((named.mention,), background=place))


def _pair(scene: Scene, lot: Lot) -> Caption:
    """Two things as they stand to each other, or side by side in words where they do not."""
    if len(scene.things) < 2:
        return _thing(scene, lot)
    thing, other = lot.shuffled(scene.things)[:2]
    one, two = _named(thing, lot), _named(other, lot)
    mentions = (one.mention, two.mention)
    true = [name for name in RELATIONS if holds(name, thing, other)]
    if not true or lot.chance(0.25):
        return Caption(f"{one.text} and {two.text}", Claim(mentions))
    name = lot.one_of(true)
    words = lot.one_of((*RELATION_WORDS[name], name))
    return Caption(f"{one.text} {words} {two.text}", Claim(mentions, (Relation(0, name, 1),)))


def _place(scene: Scene, lot: Lot) -> Caption:
    """The place with its sky, or with one thing."""
    head, place = lot.one_of(SCENE_HEADS[scene.background])
    skies = SKY_WORDS.get((scene.time, scene.weather))
    if skies is None or lot.chance(0.5):
        named = _named(lot.one_of(scene.things), lot)
        return Caption(f"{head} with {named.text}", Claim((named.mention,), background=place))
    claim = Claim(background=place, time=scene.time, weather=scene.weather)
    return Caption(f"{head} {lot.one_of(skies)}", claim)
