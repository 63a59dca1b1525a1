"""The words' table against the sentence encoder that it was distilled from: does another word find the thing?

    python benchmarks/text.py [--encoder FOLDER]

Sixty words that no caption has are each compared with the names of everything that the built-in prior was shown; a hit
is when the nearest name is the one that is meant. FOLDER holds the encoder (`transformers` opens it); without it only
the table is measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dream3d.commands.base import table
from dream3d.priors.static_text import StaticText

BUILTIN = Path(__file__).parents[1] / "dream3d" / "priors" / "weights" / "builtin"
SAID = """\
puppy dog: dog; kitty: cat; pony: horse; stallion: horse; hare: rabbit; doe: deer; rooster: chicken; lady:
woman; guy: man; gentleman: man; lad: boy; plush bear: teddy bear; stuffed bear: teddy bear; snow man:
snowman; big mac: hamburger; sandwich with meat: hamburger; pastry: cupcake; pie: birthday cake; automobile:
car; vehicle: car; coach: bus; aircraft: biplane; plane: biplane; bike with engine: motorcycle; moped:
scooter; locomotive: toy train; canoe: boat; pine tree: christmas tree; fir: christmas tree; succulent:
cactus; divan: sofa; loveseat: sofa; seat: chair; recliner: armchair; cot: bed; bunk: bunk bed; cupboard:
wardrobe; kettle: teapot; jar for flowers: vase; coffee cup: mug; tankard: mug; lantern: stone lantern; floor
lamp: lamp; cask: barrel; keg: barrel; cap: hat; sombrero: hat; football ball: soccer ball; luggage: suitcase;
parcel: gift; purse: handbag; rucksack: backpack; icebox: refrigerator; telly: television; notebook pc:
laptop; stereo: radio; box of wood: crate; boulder: rock; commode: toilet; violin like guitar: electric guitar"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, help="folder of the sentence encoder")
    args = parser.parse_args()
    objects = json.loads((BUILTIN / "card.json").read_text(encoding="utf-8"))["objects"]
    names = list(dict.fromkeys(name for one in objects for name in one["names"][:1]))
    pairs = [tuple(part.strip() for part in pair.split(":")) for pair in SAID.replace("\n", " ").split(";")]
    first = {name: one["names"][0] for one in objects for name in one["names"]}
    rows = [("text", "hits", "seconds to start", "ms a prompt", "MiB")]
    makers: list[tuple[str, Callable, float]] = [("table", packaged, size_of(BUILTIN / "text"))]
    if args.encoder:
        makers.append(("encoder", lambda: encoder(args.encoder), size_of(args.encoder)))
    for label, make, size in makers:
        began = time.perf_counter()
        embed = make()
        embed(["a bear"])
        started = time.perf_counter() - began
        known = embed(names)
        began = time.perf_counter()
        found = [names[int((known @ embed([said])[0]).argmax())] for said, _ in pairs]
        each = 1e3 * (time.perf_counter() - began) / len(pairs)
        hits = sum(name == first[right] for name, (_, right) in zip(found, pairs, strict=True))
        rows.append((label, f"{hits} of {len(pairs)}", f"{started:.2f}", f"{each:.2f}", f"{size:.1f}"))
        missed = [f"{s} -> {n}" for n, (s, r) in zip(found, pairs, strict=True) if n != first[r]]
        print(f"{label} misses: {'; '.join(missed)}")
    print("\n".join(table(rows)))


def size_of(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def packaged() -> Callable[[list[str]], torch.Tensor]:
    text = StaticText.load(BUILTIN / "text")
    return lambda texts: text.embed(texts).pooled


def encoder(folder: Path) -> Callable[[list[str]], torch.Tensor]:
    from transformers import AutoModel, AutoTokenizer

    network, words = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def embed(texts: list[str]) -> torch.Tensor:
        said = words(texts, padding=True, return_tensors="pt")
        hidden, mask = network(**said).last_hidden_state, said["attention_mask"][..., None]
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    return embed


if __name__ == "__main__":
    main()
