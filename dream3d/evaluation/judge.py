"""An independent judge of pictures: what is it, which colour has it, from where is it seen.

Two small networks that never serve as a loss: a matcher of pictures and texts, and a classifier of views and colours.
They have their own architecture, their own training seed and their own, worse pictures (blurred, noisy, badly lit).
`card.json` beside them says how well they do on renders that they have not seen; every figure is to be read beside it.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dream3d.checks import MissingError
from dream3d.priors.static_text import StaticText

PACKAGED = Path(__file__).parent / "weights"
WORDS = Path(__file__).parents[1] / "priors" / "weights" / "builtin" / "text"
SIZE = 64
"""Pixels a side of the pictures that the judge looks at."""
CELLS = 4
BINS = 24
"""Azimuths in steps of 15 degrees."""
FRONT = math.radians(30)
"""Views judged to be less than this away from the front show the front: two of them are up to 60 degrees apart, and a
quarter of a turn only if both are misjudged by 15 degrees."""
TOKENS = 12
CURE = "Reinstall dream3d, or train it: python -m dream3d.prior_training train --member matcher, and --member views."


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.second = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class Trunk(nn.Sequential):
    """64 x 64 pictures to a vector: two convolutions with stride, then pairs of blocks at 16, 8 and 4 pixels.

    Args:
        widths: channels at these.
        cells: a side that the last are averaged to: 1 forgets where things are, 4 keeps it.
    """

    def __init__(self, widths: tuple[int, int, int], cells: int = 1) -> None:
        fine, middle, coarse = widths
        super().__init__(
            nn.Conv2d(3, fine // 2, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(fine // 2, fine, 4, stride=2, padding=1),
            _Block(fine),
            nn.Conv2d(fine, middle, 2, stride=2),
            _Block(middle),
            _Block(middle),
            nn.Conv2d(middle, coarse, 2, stride=2),
            _Block(coarse),
            nn.GroupNorm(8, coarse),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(cells),
            nn.Flatten(),
        )


@final
class Matcher(nn.Module):
    """Pictures and texts as unit vectors, near each other where they belong together (CLIP, arXiv:2103.00020).

    Args:
        words: length of a word's vector.
        size: length of the common vectors.
        widths: of the trunk.
    """

    def __init__(self, *, words: int = 128, size: int = 128, widths: Sequence[int] = (40, 80, 160)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.trunk = Trunk((fine, middle, coarse))
        self.image_head = nn.Linear(coarse, size)
        self.word = nn.Sequential(nn.Linear(words, 2 * size), nn.SiLU(), nn.Linear(2 * size, size))
        self.text_head = nn.Sequential(nn.SiLU(), nn.Linear(size, size))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def images(self, images: Float[Tensor, "B 3 64 64"]) -> Float[Tensor, "B d"]:
        return nn.functional.normalize(self.image_head(self.trunk(2 * images - 1)), dim=1)

    def texts(self, tokens: Float[Tensor, "T n w"]) -> Float[Tensor, "T d"]:
        """Of `StaticText.embed`'s tokens: every word counts, none has a place."""
        said = (tokens.abs().sum(-1, keepdim=True) > 0).to(tokens)
        mixed = (self.word(tokens * math.sqrt(tokens.shape[-1])) * said).sum(1)
        return nn.functional.normalize(self.text_head(mixed), dim=1)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Scaled similarity of every picture with every text."""
        return self.log_scale.exp().clamp_max(100) * self.images(images) @ self.texts(tokens).T


@final
class Viewer(nn.Module):
    """From where an object is seen, and which colour it has.

    Args:
        colors: how many colours.
        widths: of the trunk.
    """

    def __init__(self, *, colors: int = 12, widths: Sequence[int] = (40, 80, 160)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        # What is left and what is right tells the azimuth.
        self.trunk = Trunk((fine, middle, coarse), CELLS)
        self.azimuth = nn.Sequential(nn.Linear(CELLS**2 * coarse, coarse), nn.SiLU(), nn.Linear(coarse, BINS))
        self.color = nn.Linear(CELLS**2 * coarse, colors)

    def forward(self, images: Float[Tensor, "B 3 64 64"]) -> tuple[Tensor, Tensor]:
        """Logits of the azimuth's bins and of the colours."""
        seen = self.trunk(2 * images - 1)
        return self.azimuth(seen), self.color(seen)


def bin_of(azimuth: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Number of an azimuth's bin; bin 0 is centred on the front."""
    return (azimuth * (BINS / (2 * math.pi))).round().long() % BINS


def angle_of(logits: Float[Tensor, "B bins"]) -> Float[Tensor, "B"]:
    """The most likely azimuth in (-pi, pi]: the best bin, pulled towards its neighbours by their probabilities."""
    chance, best = logits.softmax(1), logits.argmax(1)
    near = (best[:, None] + torch.tensor([-1, 0, 1], device=best.device)) % BINS
    angle = near * (2 * math.pi / BINS)
    weight = chance.gather(1, near)
    return torch.atan2((weight * angle.sin()).sum(1), (weight * angle.cos()).sum(1))


class Judge(ABC):
    """What a judge answers. Pictures are in [0, 1], of any size."""

    names: tuple[str, ...]
    """Everything it can tell apart, as nouns without an article."""
    synonyms: Mapping[str, str]
    """Other words for some of the names."""
    colors: tuple[str, ...]
    turning: frozenset[str]
    """Names whose front it finds; for the others (a vase, a sphere) views mean nothing."""
    card: Mapping[str, Any]
    """How well it does on held-out renders, and how it was made."""

    @abstractmethod
    def similarity(self, images: Float[Tensor, "B 3 H W"], texts: Sequence[str]) -> Float[Tensor, "B T"]:
        """Cosine of every picture with every text, -1 to 1."""

    @abstractmethod
    def azimuth(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B"]:
        """From where each object is seen, radians, 0 for the front."""

    @abstractmethod
    def color(self, images: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B"]:
        """Index into `colors`."""

    @abstractmethod
    def nearest_name(self, text: str) -> str:
        """The name that means most nearly what `text` says."""


@final
class TrainedJudge(Judge):
    """The judge of a folder, or the packaged one.

    Args:
        folder: with `matcher.safetensors`, `views.safetensors` and `card.json`.
        words: folder of the words' table.
        device: where it looks at pictures.

    Raises:
        MissingError: on the first question, if a file is missing or damaged: one line that names the cure.
    """

    def __init__(self, *, folder: Path | None = None, words: Path | None = None, device: str = "cpu") -> None:
        self.folder = PACKAGED if folder is None else folder
        self.words = WORDS if words is None else words
        self.device = device

    def load(self) -> None:
        """Open everything now, so that what is missing is said at once."""
        _ = self.names, self.synonyms, self.colors, self.turning, self._text, self._matcher, self._viewer

    @cached_property
    def card(self) -> Mapping[str, Any]:  # type: ignore[override]
        try:
            return json.loads((self.folder / "card.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._unusable("card.json", error) from error

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self._fact("matcher", "names"))

    @property
    def synonyms(self) -> Mapping[str, str]:  # type: ignore[override]
        return self._fact("matcher", "synonyms")

    @property
    def colors(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self._fact("views", "colors"))

    @property
    def turning(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset(self._fact("views", "turning"))

    @torch.no_grad()
    def similarity(self, images: Float[Tensor, "B 3 H W"], texts: Sequence[str]) -> Float[Tensor, "B T"]:
        matcher = self._matcher
        tokens = self._text.embed(list(texts), TOKENS).tokens.to(self.device)
        return (matcher.images(self._looked_at(images)) @ matcher.texts(tokens).T).cpu()

    @torch.no_grad()
    def azimuth(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B"]:
        return angle_of(self._viewer(self._looked_at(images))[0]).cpu()

    @torch.no_grad()
    def color(self, images: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B"]:
        return self._viewer(self._looked_at(images))[1].argmax(1).cpu()

    def nearest_name(self, text: str) -> str:
        return self._text.nearest(text, list(self.names))

    def _looked_at(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (SIZE, SIZE):
            size = (SIZE, SIZE)
            images = nn.functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return images.to(self.device)

    @cached_property
    def _text(self) -> StaticText:
        return StaticText.load(self.words)

    @cached_property
    def _matcher(self) -> Matcher:
        return cast(Matcher, self._open("matcher", Matcher))

    @cached_property
    def _viewer(self) -> Viewer:
        return cast(Viewer, self._open("views", Viewer))

    def _open(self, name: str, kind: type[nn.Module]) -> nn.Module:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        config = self._fact(name, "config")
        try:
            network = kind(**config)
            network.load_state_dict({k: v.float() for k, v in load_file(self.folder / f"{name}.safetensors").items()})
        except (OSError, RuntimeError, TypeError, SafetensorError) as error:
            raise self._unusable(f"{name}.safetensors", error) from error
        return network.eval().requires_grad_(False).to(self.device)

    def _fact(self, part: str, name: str) -> Any:
        try:
            return self.card[part][name]
        except KeyError as error:
            raise self._unusable("card.json", error) from error

    def _unusable(self, what: str, error: Exception) -> MissingError:
        return MissingError(
            f"the judge's {what} in {self.folder} is missing or damaged ({type(error).__name__}). {CURE}"
        )
