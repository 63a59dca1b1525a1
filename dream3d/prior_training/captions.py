"""Which catalogue models the built-in prior learns, what they are called, and how often they are shown."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.85, 0.15),
    "green": (0.15, 0.60, 0.20),
    "turquoise": (0.15, 0.75, 0.72),
    "blue": (0.15, 0.30, 0.85),
    "purple": (0.50, 0.20, 0.70),
    "pink": (0.95, 0.50, 0.70),
    "brown": (0.45, 0.28, 0.15),
    "black": (0.12, 0.12, 0.13),
    "white": (0.97, 0.97, 0.97),
    "gray": (0.55, 0.55, 0.55),
}
"""Names and sRGB-coded values of the recoloured copies."""


RARE = 0.15
"""Weight of the subjects that the first version only meets now and then: its time is spent on about fifty."""


@dataclass(frozen=True)
class Subject:
    """One thing the prior can draw.

    Args:
        name: catalogue name; `which` counts the models of that name in the order of `read_catalogues`.
        captions: nouns for it, the first one most often.
        which: which of the models with that name.
        weight: how often it is shown relative to the others.
        recolor: whether "a red ..." copies make sense.
        color: the colour it has by itself, for captions such as "a red fire hydrant"; empty for none.
        turn: degrees about y by which the catalogue's model has to be turned for its front to face +Z.
    """

    name: str
    captions: tuple[str, ...]
    which: int = 0
    weight: float = 1.0
    recolor: bool = False
    color: str = ""
    turn: float = 0.0


def _s(
    name: str,
    *captions: str,
    which: int = 0,
    weight: float = RARE,
    recolor: bool = False,
    color: str = "",
    turn: float = 0.0,
) -> Subject:
    return Subject(name, captions or (name.lower(),), which, weight, recolor, color, turn)


SUBJECTS: tuple[Subject, ...] = (
    _s("Teddy bear", "teddy bear", "teddy", weight=6.0),
    _s("Horse", which=1, weight=4.0),
    _s("Rabbit", "rabbit", "bunny", recolor=True, weight=2.0),
    _s("Cat", "cat", "kitten", weight=3.0),
    _s("Dog", "dog", "puppy", weight=4.0),
    _s("Bulldog", weight=0.5),
    _s("Deer", "deer", "reindeer", recolor=True),
    _s("Chicken", "chicken", "hen", weight=2.5),
    _s("Snowman", weight=3.0),
    _s("Boy"),
    _s("Girl"),
    _s("Male", "man", "person", which=1, weight=0.5),
    _s("Female", "woman", which=2, weight=0.5),
    _s("Doll", "doll", "baby"),
    _s("Rocking horse", weight=0.7),
    _s("Hamburger", "hamburger", "burger", "cheeseburger", weight=1.0),
    _s("Birthday cake", "birthday cake", "cake", weight=1.0),
    _s("Cup cake", "cupcake", "muffin", weight=0.8),
    _s("Hot dog"),
    _s("Roasted chicken", "roasted chicken", "roast turkey"),
    _s("Apples", "bowl of apples"),
    _s("Bowl with fruits", "bowl of fruit"),
    _s("Electric guitar", "electric guitar", "guitar", weight=2.5),
    _s("Grand piano", weight=0.5),
    _s("Upright piano", "upright piano", "piano"),
    _s("Bus", recolor=True, weight=1.2),
    _s("City bus"),
    _s("Truck", "truck", "lorry", which=2),
    _s("Van", recolor=True),
    _s("SUV", recolor=True),
    _s("Smart car", "smart car", "small car"),
    _s("VW new beetle", "car", "yellow car", "beetle car", weight=6.0),
    _s("Chevrolet", "sports car", "red sports car", weight=5.0),
    _s("Yamaha YZR R6", "motorcycle", "motorbike", weight=4.0),
    _s("Scooter", "scooter", "motor scooter"),
    _s("Biplane", "biplane", "airplane", weight=2.0),
    _s("Fork lift", "forklift"),
    _s("Tricycle"),
    _s("Toy train", "toy train", "train"),
    _s("Rowboat", "boat", "rowing boat"),
    _s("Car model", "vintage car", "old car", weight=0.7),
    _s("Cactus", weight=1.0),
    _s("Palm tree"),
    _s("Christmas tree", which=1, weight=0.8),
    _s("Bonsai tree", "bonsai tree", "bonsai", weight=0.7),
    _s("Flowers", "vase of flowers", "flowers"),
    _s("Tulips", "tulips", "vase of tulips", weight=1.0),
    _s("Cypress", "cypress", "cypress tree"),
    _s("Flower box"),
    _s("Chair", recolor=True, weight=2.0),
    _s("Chair", "swivel chair", "tulip chair", which=1),
    _s("Armchair", "armchair", "easy chair", which=1, recolor=True, weight=3.5),
    _s("Winchester armchair", "leather armchair", "red leather armchair"),
    _s("Sofa", "sofa", "couch", "settee", recolor=True, weight=6.0),
    _s("Couch", "black leather couch", "leather sofa", which=2),
    _s("Table", "table", "wooden table", which=2, recolor=True, weight=1.0),
    _s("Round table", which=1, recolor=True),
    _s("Desk"),
    _s("Bed", which=1, weight=0.7),
    _s("Bunk bed"),
    _s("Stool", "stool", "wooden stool", which=2, recolor=True, weight=0.7),
    _s("Bar stool", recolor=True),
    _s("Chest", "chest", "wooden chest"),
    _s("Wardrobe", "wardrobe", "closet", which=1),
    _s("Deck chair", "deck chair", "beach chair"),
    _s("Teapot", "teapot", "tea pot", recolor=True, weight=1.2),
    _s("Coffee mug", "mug", "coffee mug", "cup", recolor=True, weight=1.5),
    _s("Vase", which=1, recolor=True, weight=0.8),
    _s("Vase", "dark vase", "slender vase", which=2),
    _s("Lamp", "lamp", "table lamp", which=1, weight=0.8),
    _s("Desk lamp", which=2),
    _s("Candle", "candlestick", "candle", which=1),
    _s("Fire hydrant", "fire hydrant", "hydrant", weight=1.5),
    _s("Mailbox", "mailbox", "letter box", weight=0.7),
    _s("Barrel", "barrel", "wooden barrel", weight=0.6),
    _s("Fountain", weight=0.7),
    _s("Reflex camera", "camera", "photo camera"),
    _s("Headphones"),
    _s("Helmet", "helmet", "motorcycle helmet", weight=0.7),
    _s("Hat", recolor=True, weight=1.0),
    _s("Basketball", weight=0.6),
    _s("Soccer ball", "soccer ball", "football", weight=0.6),
    _s("Rubik's cube", weight=2.5),
    _s("Umbrella", "parasol", "beach umbrella"),
    _s("Umbrella", "umbrella", "blue umbrella", which=1),
    _s("Toaster"),
    _s("Washing machine"),
    _s("Microwave", "microwave", "microwave oven"),
    _s("Refrigerator", "refrigerator", "fridge"),
    _s("Laptop", "laptop", "notebook computer"),
    _s("TV", "television", "tv"),
    _s("Phone", "telephone", "phone"),
    _s("Radio", "radio", "old radio"),
    _s("Backpack", recolor=True),
    _s("Handbag", recolor=True),
    _s("Suitcase", recolor=True, weight=4.0),
    _s("Wine bottle", "wine bottle", "bottle of wine", "bottle", which=1, weight=0.7),
    _s("Gift", "gift", "present", "gift box", recolor=True, weight=1.0),
    _s("Doll house", "doll house", "house", weight=0.7),
    _s("Dog house", "dog house", "kennel"),
    _s("Fireplace"),
    _s("Toilets unit", "toilet", which=1),
    _s("Bath", "bathtub", "bath tub"),
    _s("Wheelchair"),
    _s("Stone lantern"),
    _s("Cone", "traffic cone", weight=0.7),
    _s("Sneakers", "sneakers", "red shoes"),
    _s("Pool table", "pool table", "billiard table"),
    _s("Crate", "crate", "wooden crate", "wooden box", weight=0.6),
    _s("Camping tent", "tent", "camping tent"),
    _s("Shopping basket", "basket", "wicker basket", weight=0.7),
    _s("Extinguisher", "fire extinguisher"),
    _s("Table fan", "fan", "table fan"),
    _s("Old jar", "clay jug", "jug"),
    _s("Pottery", "pot", "cooking pot", recolor=True, weight=0.6),
    _s("Rock", "rock", "stone"),
    _s("Yucca", "potted plant", "plant"),
)


SOLIDS: tuple[Subject, ...] = (
    _s("sphere", "sphere", "ball", weight=0.7, recolor=True),
    _s("cube", "cube", weight=0.7, recolor=True),
    _s("cone", weight=0.7, recolor=True),
    _s("torus", "torus", "ring", weight=0.7, recolor=True),
    _s("cylinder", weight=0.7, recolor=True),
    _s("pyramid", weight=0.7, recolor=True),
)
"""Made by `data.solid`."""


def article(noun: str) -> str:
    """`noun` with its indefinite article, plurals without; what follows a comma does not count."""
    head = noun.partition(",")[0]
    if head.endswith("s") and not head.endswith("ss") and head.split()[0] not in ("bowl", "vase", "bus", "cactus"):
        if head not in ("cactus", "bus", "city bus", "cypress", "bonsai"):
            return noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def held_out(color: str, noun: str) -> bool:
    """Whether this pair is kept from all training, so that compositions can be tested: a tenth, fixed for ever.

    Only what stands before a comma counts: "chair, seat, office" is a chair.
    """
    digest = hashlib.sha256(f"{color} {noun.partition(',')[0]}".encode()).digest()
    return digest[0] < 26


def held_out_pairs(subjects: Sequence[Subject] = (*SUBJECTS, *SOLIDS)) -> list[str]:
    """Every held-out "color noun" of these subjects."""
    nouns = sorted({s.captions[0].partition(",")[0] for s in subjects if s.recolor})
    return [f"{color} {noun}" for noun in nouns for color in COLORS if held_out(color, noun)]
