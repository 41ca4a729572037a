"""Five captions for each scene in natural wording, with their assertions."""

from dataclasses import dataclass, replace
from typing import Final

from mmindex.scenes.claims import RELATIONS, Claim, Mention, Relation, RelationName, holds
from mmindex.scenes.scene import Lot, Scene, Thing
from mmindex.scenes.words import (
    COLOUR_WORDS,
    COUNT_WORDS,
    DOING,
    MANY_WORDS,
    MIXED_PLACE_WORDS,
    NOUNS,
    PLACE_WORDS,
    RELATION_WORDS,
    SCENE_HEADS,
    SIZE_WORDS,
    SKY_WORDS,
    WEARERS,
    WEARERS_PLURAL,
    joined,
    with_article,
)

CAPTIONS_PER_SCENE: Final = 5
_THE_ONLY: Final = ("sun", "moon")  # kinds that take "the" without further description


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence and its meaning."""

    text: str
    claim: Claim


@dataclass(frozen=True, slots=True)
class _Named:
    """A thing as named in one caption."""

    text: str
    mention: Mention
    thing: Thing


def captions(scene: Scene) -> tuple[Caption, ...]:
    """Return five different captions, all true of `scene`, from nearly complete to partial."""
    lot = Lot(scene.seed, scene.number, "captions")
    writers = (_everything, _relation, _placed, _relation, _some)
    written: list[Caption] = []
    while len(written) < CAPTIONS_PER_SCENE:
        caption = writers[len(written)](scene, lot)
        # A single thing allows few sentences; those that differ only in the full stop are the same.
        plain = caption.text.lower().rstrip(".")
        if all(plain != other.text.lower().rstrip(".") for other in written):
            written.append(caption)
    return tuple(lot.shuffled(written))


def complete(scene: Scene, lot: Lot) -> Caption:
    """Return one more caption: of all things with colour, size and number, and their place.

    It states how two of the things are placed relative to each other, if a relation is true.
    """
    true = _true_relations(scene)
    if not true:
        named = [_named(thing, lot, complete=True) for thing in lot.shuffled(scene.things)]
        claim = Claim(objects=tuple(one.mention for one in named))
        text = joined([one.text for one in named])
    else:
        thing, name, other = lot.one_of(true)
        rest = lot.shuffled([one for one in scene.things if one is not thing and one is not other])
        named = [_named(one, lot, complete=True) for one in (thing, other, *rest)]
        claim = Claim(tuple(one.mention for one in named), (Relation(0, name, 1),))
        text = f"{named[0].text} {lot.one_of(RELATION_WORDS[name])} {named[1].text}"
        if rest:
            text = f"{text}, and {joined([one.text for one in named[2:]])}"
    words, place = _where(scene, list(scene.things), lot)
    return _finished(f"{text} {words}", replace(claim, background=place), scene, 1.0, lot)


def _everything(scene: Scene, lot: Lot) -> Caption:
    """Describe all things, the place, and often the sky."""
    named = [_named(thing, lot) for thing in lot.shuffled(scene.things)]
    claim = Claim(objects=tuple(one.mention for one in named))
    listed = joined([one.text for one in named])
    if lot.chance(0.35):
        head, place = lot.one_of(SCENE_HEADS[scene.background])
        text = f"{head} with {listed}"
    else:
        words, place = _where(scene, [one.thing for one in named], lot)
        text = f"{listed} {words}"
    return _finished(text, replace(claim, background=place), scene, 0.45, lot)


def _placed(scene: Scene, lot: Lot) -> Caption:
    """Describe one or two things with their actions, the place and often the sky."""
    named = [_named(thing, lot) for thing in lot.shuffled(scene.things)[: 1 + lot.below(2)]]
    claim = Claim(objects=tuple(one.mention for one in named))
    words, place = _where(scene, [one.thing for one in named], lot)
    subject = joined([one.text for one in named])
    if len(named) == 1 and named[0].thing.kind in DOING and lot.chance(0.5):
        subject = f"{subject} {lot.one_of(DOING[named[0].thing.kind])}"
    claim = replace(claim, background=place)
    alone = len(named) == 1
    form = lot.below(5)
    if form == 0:
        verb = "is" if named[0].mention.count == 1 else "are"
        return _finished(
            f"there {verb} {subject} {words}", claim, scene, 0.7 if alone else 0.4, lot
        )
    if form == 1:
        lead = lot.one_of(("a picture of", "a drawing of", "I see", "here we see"))
        return _finished(f"{lead} {subject} {words}", claim, scene, 0.7 if alone else 0.4, lot)
    return _finished(f"{subject} {words}", claim, scene, 0.75 if alone else 0.45, lot)


def _some(scene: Scene, lot: Lot) -> Caption:
    """Describe some of the things, often without the place."""
    most = max(1, len(scene.things) - lot.below(2))
    named = [_named(thing, lot) for thing in lot.shuffled(scene.things)[:most]]
    claim = Claim(objects=tuple(one.mention for one in named))
    text = joined([one.text for one in named])
    if len(named) < 3 or lot.chance(0.3):
        words, place = _where(scene, [one.thing for one in named], lot)
        text, claim = f"{text} {words}", replace(claim, background=place)
    return _finished(text, claim, scene, 0.6, lot)


def _relation(scene: Scene, lot: Lot) -> Caption:
    """Describe two things and their relative position; other captions for a single thing."""
    true = _true_relations(scene)
    if not true:
        return (_placed if lot.chance(0.6) else _everything)(scene, lot)
    thing, name, other = lot.one_of(true)
    one, two = _named(thing, lot), _named(other, lot)
    words = lot.one_of(RELATION_WORDS[name])
    claim = Claim((one.mention, two.mention), (Relation(0, name, 1),))
    verb = "is" if one.mention.count == 1 else "are"
    form = lot.below(6)
    if form == 0:
        text = f"{one.text} {verb} {words} {two.text}"
    elif form == 1 and words.startswith(("to the", "on the")):
        text = f"{words} {two.text} there {verb} {one.text}"
    elif form == 2:
        text = f"there {verb} {one.text} {words} {two.text}"
    else:
        text = f"{one.text} {words} {two.text}"
    if form > 2 and lot.chance(0.35) and len(scene.things) > 2:
        third = lot.one_of([t for t in scene.things if t is not thing and t is not other])
        more = _named(third, lot)
        claim = replace(claim, objects=(*claim.objects, more.mention))
        text = f"{text}, and {more.text}"
    elif lot.chance(0.5):
        place_words, place = lot.one_of(MIXED_PLACE_WORDS[scene.background])
        text, claim = f"{text} {place_words}", replace(claim, background=place)
    return _finished(text, claim, scene, 0.4, lot)


def _true_relations(scene: Scene) -> list[tuple[Thing, RelationName, Thing]]:
    pairs = [(a, b) for a in scene.things for b in scene.things if a is not b]
    return [(a, name, b) for a, b in pairs for name in RELATIONS if holds(name, a, b)]


def _named(thing: Thing, lot: Lot, *, complete: bool = False) -> _Named:
    """Return a noun phrase for `thing`: "a small red boat", "two people in blue", "the moon".

    It can omit colour, size and number, unless it must be complete.
    """
    colour = thing.colour if complete or lot.chance(0.88) else None
    size = thing.size if thing.size != "medium" and (complete or lot.chance(0.5)) else None
    count = thing.count if thing.count == 1 or complete or lot.chance(0.85) else None
    mention = Mention(thing.kind, colour, size, count)
    noun, nouns = lot.one_of(NOUNS[thing.kind])
    worn = ""
    before = [lot.one_of(SIZE_WORDS[size])] if size else []
    if colour is not None:
        word = lot.one_of(COLOUR_WORDS.get(colour, (colour,)))
        if thing.kind in WEARERS:
            forms = WEARERS if count == 1 else WEARERS_PLURAL
            clothes = lot.one_of(forms[thing.kind])
            article_fits = "a {}" not in clothes or word[0] not in "aeiou"
            worn = " " + (clothes if article_fits else clothes.replace("a {}", "an {}")).format(
                word
            )
        else:
            before.append(word)
    if count == 1:
        phrase = " ".join((*before, noun))
        bare = thing.kind in _THE_ONLY and not before
        return _Named((f"the {phrase}" if bare else with_article(phrase)) + worn, mention, thing)
    amount = lot.one_of(MANY_WORDS[thing.count] if count is None else COUNT_WORDS[count])
    return _Named(" ".join((amount, *before, nouns)) + worn, mention, thing)


def _where(scene: Scene, things: list[Thing], lot: Lot) -> tuple[str, str]:
    """Return (words, place) that apply to all of `things`."""
    lanes = {thing.lane_type for thing in things}
    if len(lanes) == 1:
        return lot.one_of(PLACE_WORDS[scene.background, things[0].lane_type])
    return lot.one_of(MIXED_PLACE_WORDS[scene.background])


def _finished(text: str, claim: Claim, scene: Scene, sky_share: float, lot: Lot) -> Caption:
    """Add time and weather in `sky_share` of the cases, the capital letter and the full stop."""
    skies = SKY_WORDS.get((scene.time, scene.weather))
    if skies is not None and lot.chance(sky_share):
        words = lot.one_of(skies)
        text = f"{words}, {text}" if lot.chance(0.15) else f"{text} {words}"
        claim = replace(claim, time=scene.time, weather=scene.weather)
    if lot.chance(0.6):
        text = f"{text[0].upper()}{text[1:]}."
    return Caption(text, claim)
