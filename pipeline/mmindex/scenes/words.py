"""The words of captions: nouns, colours, places, times of day, and how they are joined."""

from typing import Final

from mmindex.scenes.vocabulary import LaneType

Noun = tuple[str, str]
"""A noun and its plural."""

NOUNS: Final[dict[str, tuple[Noun, ...]]] = {
    "sun": (("sun", "suns"),),
    "moon": (("moon", "moons"), ("crescent moon", "crescent moons")),
    "bird": (("bird", "birds"),),
    "kite": (("kite", "kites"),),
    "balloon": (("hot air balloon", "hot air balloons"), ("balloon", "balloons")),
    "plane": (("plane", "planes"), ("airplane", "airplanes")),
    "butterfly": (("butterfly", "butterflies"),),
    "house": (("house", "houses"), ("house", "houses"), ("cottage", "cottages")),
    "tree": (("tree", "trees"),),
    "car": (("car", "cars"),),
    "bus": (("bus", "buses"),),
    "bicycle": (("bicycle", "bicycles"), ("bike", "bikes")),
    "person": (("person", "people"),),
    "dog": (("dog", "dogs"), ("dog", "dogs"), ("puppy", "puppies")),
    "cat": (("cat", "cats"), ("cat", "cats"), ("kitty", "kitties")),
    "horse": (("horse", "horses"),),
    "cow": (("cow", "cows"),),
    "sheep": (("sheep", "sheep"),),
    "rabbit": (("rabbit", "rabbits"), ("bunny", "bunnies")),
    "flower": (("flower", "flowers"), ("daisy", "daisies")),
    "mushroom": (("mushroom", "mushrooms"), ("toadstool", "toadstools")),
    "ball": (("ball", "balls"),),
    "tent": (("tent", "tents"),),
    "umbrella": (("umbrella", "umbrellas"), ("parasol", "parasols")),
    "chair": (("chair", "chairs"),),
    "cactus": (("cactus", "cacti"),),
    "snowman": (("snowman", "snowmen"),),
    "windmill": (("windmill", "windmills"),),
    "castle": (("castle", "castles"),),
    "boat": (("boat", "boats"), ("boat", "boats"), ("sailboat", "sailboats")),
    "duck": (("duck", "ducks"),),
    "whale": (("whale", "whales"),),
    "fish": (("fish", "fish"),),
    "turtle": (("turtle", "turtles"), ("sea turtle", "sea turtles")),
    "octopus": (("octopus", "octopuses"),),
    "crab": (("crab", "crabs"),),
    "starfish": (("starfish", "starfish"), ("sea star", "sea stars")),
    "submarine": (("submarine", "submarines"),),
    "jellyfish": (("jellyfish", "jellyfish"),),
}

COLOUR_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "grey": ("grey", "gray"),
    "purple": ("purple", "purple", "violet"),
}
"""Other words for a colour; colours that are not listed use their own name."""

SIZE_WORDS: Final = {
    "small": ("small", "little", "tiny"),
    "large": ("big", "large", "huge"),
}
COUNT_WORDS: Final = {2: ("two", "two", "2", "a pair of"), 3: ("three", "three", "3")}
MANY_WORDS: Final = {2: ("some",), 3: ("some", "several", "a few")}
"""Words for two or more, by number; two are never "several"."""

WEARERS: Final = {
    "person": ("in {}", "in a {} shirt", "dressed in {}", "wearing {}"),
    "snowman": ("with a {} scarf", "with a {} hat", "in a {} hat and scarf"),
}
"""Kinds whose colour is that of their clothes. Plural forms are in `WEARERS_PLURAL`."""
WEARERS_PLURAL: Final = {
    "person": ("in {}", "in {} shirts", "dressed in {}", "wearing {}"),
    "snowman": ("with {} scarves", "with {} hats", "in {} hats and scarves"),
}

DOING: Final[dict[str, tuple[str, ...]]] = {
    "sun": ("shining",),
    "moon": ("shining",),
    "bird": ("flying",),
    "plane": ("flying",),
    "kite": ("flying",),
    "balloon": ("floating", "drifting"),
    "butterfly": ("fluttering", "flying"),
    "person": ("standing",),
    "dog": ("standing",),
    "cat": ("sitting",),
    "horse": ("standing",),
    "cow": ("standing",),
    "sheep": ("standing",),
    "rabbit": ("sitting",),
    "car": ("parked",),
    "bicycle": ("parked",),
    "boat": ("sailing", "floating"),
    "fish": ("swimming",),
    "turtle": ("swimming",),
    "whale": ("swimming",),
    "jellyfish": ("drifting", "swimming"),
}

Phrase = tuple[str, str]
"""Words for a place and the key of `PLACES` that they assert."""


def _all(place: str, *words: str) -> tuple[Phrase, ...]:
    return tuple((text, place) for text in words)


_SKY_OVER_SEA: Final = _all("sea", "over the sea", "above the sea")
PLACE_WORDS: Final[dict[tuple[str, LaneType], tuple[Phrase, ...]]] = {
    ("meadow", "sky"): _all("meadow", "over a meadow", "above the meadow", "above a green field"),
    ("meadow", "ground"): _all("meadow", "in a meadow", "on the grass", "in a green field"),
    ("sea", "sky"): _SKY_OVER_SEA,
    ("sea", "surface"): (
        *_all("sea", "on the sea", "on the water", "on the sea"),
        *_all("open sea", "on the open sea", "out on the open sea"),
    ),
    ("sea", "water"): (
        *_all("sea", "in the sea", "in the water"),
        *_all("open sea", "in the open sea"),
    ),
    ("beach", "sky"): (*_SKY_OVER_SEA, *_all("beach", "over the beach", "above a sandy beach")),
    ("beach", "surface"): (
        *_all("sea", "on the sea", "on the water"),
        *_all("beach", "off the beach", "off a sandy beach"),
    ),
    ("beach", "ground"): _all(
        "beach", "on the beach", "on a sandy beach", "on the sand by the sea"
    ),
    ("snow", "sky"): _all("snow", "over the snow", "above a snowy field", "over snowy hills"),
    ("snow", "ground"): _all("snow", "in the snow", "on the snow", "in a snowy field"),
    ("desert", "sky"): _all("desert", "over the desert", "above the dunes", "over a sandy desert"),
    ("desert", "ground"): _all("desert", "in the desert", "in a sandy desert", "among the dunes"),
    ("city", "sky"): _all("city", "over the city", "above the city", "above tall buildings"),
    ("city", "ground"): _all("city", "in the city", "on a city street", "in town", "in the street"),
    ("forest", "sky"): _all("forest", "over the forest", "above the woods", "over a forest"),
    ("forest", "ground"): _all("forest", "in the forest", "in the woods", "in a forest clearing"),
    ("mountains", "sky"): _all("mountains", "over the mountains", "above the mountains"),
    ("mountains", "ground"): _all(
        "mountains", "in the mountains", "in a mountain valley", "in front of snow-capped mountains"
    ),
    ("underwater", "water"): (
        *_all("underwater", "underwater", "deep under water", "under the sea"),
        *_all("sea", "in the sea"),
    ),
    ("underwater", "floor"): _all("underwater", "on the sea floor", "on the sea bed", "underwater"),
}
"""The location of one thing, by background and by the thing's lane."""

MIXED_PLACE_WORDS: Final[dict[str, tuple[Phrase, ...]]] = {
    "meadow": _all("meadow", "in a meadow", "in a green field"),
    "sea": _all("sea", "at sea"),
    "beach": _all("beach", "at the beach", "by the sea"),
    "snow": _all("snow", "in the snow", "in a snowy landscape"),
    "desert": _all("desert", "in the desert", "in a desert landscape"),
    "city": _all("city", "in the city", "in town"),
    "forest": _all("forest", "in the forest", "in the woods"),
    "mountains": _all("mountains", "in the mountains", "in a mountain landscape"),
    "underwater": _all("underwater", "underwater", "under the sea", "deep under water"),
}
"""The location of several things in different lanes."""

SCENE_HEADS: Final[dict[str, tuple[Phrase, ...]]] = {
    "meadow": _all("meadow", "a green meadow", "a meadow", "a grassy field"),
    "sea": _all("sea", "a seascape", "the sea", "the ocean"),
    "beach": _all("beach", "a beach", "a sandy beach", "a beach scene"),
    "snow": _all("snow", "a snowy landscape", "a winter scene", "a snowy field"),
    "desert": _all("desert", "a desert", "a desert scene", "sand dunes"),
    "city": _all("city", "a city street", "a city scene", "a city"),
    "forest": _all("forest", "a forest", "a forest scene", "the woods"),
    "mountains": _all("mountains", "a mountain landscape", "a valley in the mountains"),
    "underwater": _all("underwater", "an underwater scene", "the bottom of the sea"),
}
"""Possible openings of a caption: "a beach with a crab"."""

SKY_WORDS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("day", "clear"): ("on a clear day", "under a clear blue sky", "on a fine day"),
    ("day", "cloudy"): ("on a cloudy day", "under a cloudy sky", "under grey clouds"),
    ("day", "rain"): ("in the rain", "on a rainy day", "in rainy weather"),
    ("day", "rainbow"): ("under a rainbow", "with a rainbow in the sky", "beneath a rainbow"),
    ("day", "snowfall"): ("while it is snowing", "on a day of falling snow", "in falling snow"),
    ("sunset", "clear"): ("at sunset", "at dusk", "under an orange evening sky"),
    ("night", "clear"): ("at night", "under a starry sky", "on a starry night"),
}
"""Time and weather. "none" (under water) has no words."""

RELATION_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "behind": ("behind",),
    "in front of": ("in front of",),
    "next to": ("next to", "beside", "near"),
}


def with_article(words: str) -> str:
    """Return `words` after "a" or "an", by its first letter, which suits every word used here."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def joined(parts: list[str]) -> str:
    """Join words as "x", "x and y", "x, y and z"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
