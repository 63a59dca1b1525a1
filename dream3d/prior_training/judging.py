"""The training of the judge of `dream3d.evaluation`: pictures of the same subjects, made worse, and other networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dream3d.evaluation.judge import BINS, FRONT, Matcher, Viewer, angle_of, bin_of
from dream3d.evaluation.measures import angle_between, is_janus, median, recall, share
from dream3d.prior_training.batches import Batches
from dream3d.prior_training.captions import COLORS, Subject, held_out
from dream3d.prior_training.pictures import RING
from dream3d.prior_training.train import Task

WIDTHS = (40, 80, 160)
COLOR_WEIGHT, PAINTED = 0.5, 0.7
"""How much colours count beside views, and the share of the paintable things that is painted for it."""
PRACTISED = 4.0
"""How much more often a judge sees the things with hand-written captions: what it is asked about; of all others it only
has to know that they are something else."""
FINDS_FRONT_DEG = 30.0
"""Names with a smaller median error than this have a front that the judge finds."""


def worsened(images: Float[Tensor, "B 3 H W"], generator: torch.Generator) -> Float[Tensor, "B 3 H W"]:
    """Pictures as a distilled object might look: half of them blurred, brighter or darker, of more or less contrast,
    shifted by up to 4 pixels, with noise."""
    device = images.device
    draw = torch.rand(6, len(images), generator=generator, device=device)[..., None, None, None]
    soft = images
    for _ in range(2):
        soft = nn.functional.avg_pool2d(nn.functional.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    much = nn.functional.avg_pool2d(nn.functional.pad(soft, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    mixed = torch.where(draw[0] < 0.5, images, torch.where(draw[0] < 0.8, soft, much))
    mean = mixed.mean((1, 2, 3), keepdim=True)
    mixed = (mixed - mean) * (0.6 + 0.7 * draw[1]) + mean
    mixed = mixed * (0.7 + 0.6 * draw[2])
    mixed = _shifted(mixed, (8 * draw[3:5, :, 0, 0, 0].T - 4).round().long())
    noise = torch.randn(images.shape, generator=generator, device=device)
    return (mixed + 0.08 * draw[5] ** 2 * noise).clamp(0, 1)


def _shifted(images: Tensor, by: Int[Tensor, "B 2"]) -> Tensor:
    """Each picture moved by whole pixels; the border is repeated."""
    height, width = images.shape[-2:]
    y = (torch.arange(height, device=images.device) + by[:, :1]).clamp(0, height - 1)
    x = (torch.arange(width, device=images.device) + by[:, 1:]).clamp(0, width - 1)
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return images[index, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def for_judges(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """The same subjects, each shown as often as the others, or `PRACTISED` times as often."""
    chosen = (all("," not in caption for caption in subject.captions) for subject in subjects)
    return tuple(
        replace(s, weight=PRACTISED if practised else 1.0) for s, practised in zip(subjects, chosen, strict=True)
    )


def short_names(subjects: Sequence[Subject]) -> tuple[list[str], list[int]]:
    """The distinct names, what stands before a caption's comma; and each subject's number among them."""
    of_each = [s.captions[0].partition(",")[0] for s in subjects]
    names = list(dict.fromkeys(of_each))
    return names, [names.index(name) for name in of_each]


def synonyms(subjects: Sequence[Subject]) -> dict[str, str]:
    """Further nouns of the captions, and the names that they stand for."""
    names, which = short_names(subjects)
    found: dict[str, str] = {}
    for subject, index in zip(subjects, which, strict=True):
        for noun in subject.captions[1:]:
            if "," not in noun and noun not in names:
                found.setdefault(noun, names[index])
    return found


class Judging(Task):
    """What both judges share: pictures made worse, and held-out views to be examined on.

    Args:
        batches: views to learn from.
        held_out: views of the same subjects that it never sees.
        widths: of the network's trunk.
    """

    def __init__(self, batches: Batches, held_out: Batches, *, widths: Sequence[int] = WIDTHS) -> None:
        self.batches, self.held_out = batches, held_out
        self.config = {"widths": list(widths)}
        self.names, which = short_names(batches.subjects)
        self.name_of = torch.tensor(which, device=batches.device)

    def _rows(self, subject: int) -> Int[Tensor, "V"]:
        """Held-out pictures of one subject, in whole rings."""
        return torch.arange(self.held_out.views, device=self.held_out.device) + subject * self.held_out.views


@final
class Matching(Judging):
    """Pictures and captions: cross entropy both ways over the batch (CLIP, arXiv:2103.00020); captions of the same
    subject in the same colour are not held against one another. And pictures against all names, since a batch of a few
    dozen seldom holds two things that look alike; there the logits carry the log of how often a name is shown (balanced
    softmax, arXiv:2007.10740), so that what is practised more is not named more when in doubt."""

    def __init__(self, batches: Batches, held_out: Batches, *, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__(batches, held_out, widths=widths)
        self.config["words"] = batches.text.size
        self.tokens = batches.text.embed(self.names).tokens.to(batches.device)
        shown = torch.zeros(len(self.names), device=batches.device).index_add_(0, self.name_of, batches.weights)
        self.log_shown = (shown / shown.sum()).log()

    def network(self) -> nn.Module:
        return Matcher(**self.config)

    def loss(self, net: Callable[..., Any], count: int, generator: torch.Generator) -> Tensor:
        drawn = self.batches.pictures(count, generator)
        tokens, _ = self.batches.captions.embed(drawn.caption)
        both = net(worsened(drawn.images, generator), torch.cat([tokens, self.tokens])).float()
        logits, names = both.split([count, len(self.names)], 1)
        name = self.name_of[drawn.subject]
        kind = name * (len(COLORS) + 1) + drawn.paint
        same = kind[:, None] == kind[None, :]
        # A twin's text is as right as one's own, so it is left out of the sum.
        twins = same & ~torch.eye(count, dtype=torch.bool, device=same.device)
        logits = logits.masked_fill(twins, -torch.inf)
        right = torch.arange(count, device=logits.device)
        cross = nn.functional.cross_entropy
        return 0.5 * (cross(logits, right) + cross(logits.T, right)) + cross(names + self.log_shown, name)

    @torch.no_grad()
    def facts(self, net: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """R@1 and R@5 over all names on held-out views, one average a name."""
        matcher, top1, top5 = cast(Matcher, net), [], []
        texts = matcher.texts(self.tokens)
        for subject, name in enumerate(self.name_of.tolist()):
            images = self.held_out.over_grey(self._rows(subject))
            similarity = matcher.images(images) @ texts.T
            right = torch.full((len(images),), name, device=images.device)
            top1.append(recall(similarity, right, 1))
            top5.append(recall(similarity, right, min(5, len(self.names))))
        return {
            "names": self.names, "synonyms": synonyms(self.batches.subjects),
            "own_top1": sum(top1) / len(top1), "own_top5": sum(top5) / len(top5),
        }  # fmt: skip


@final
class Viewing(Judging):
    """Azimuth in bins, blurred by one bin, and the colour of what is painted.

    Args:
        batches: views to learn from.
        held_out: views of the same subjects that it never sees.
        widths: of the network's trunk.
        trunk: weights that its trunk begins with: those of a trained matcher, which knows what things are. From where
            one is seen depends on what it is, and takes ten times as many pictures to learn without.
    """

    def __init__(
        self,
        batches: Batches,
        held_out: Batches,
        *,
        widths: Sequence[int] = WIDTHS,
        trunk: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(batches, held_out, widths=widths)
        self.trunk = trunk

    def network(self) -> nn.Module:
        viewer = Viewer(**self.config, colors=len(COLORS))
        if self.trunk is not None:
            viewer.trunk.load_state_dict(self.trunk)
        return viewer

    def loss(self, net: Callable[..., Any], count: int, generator: torch.Generator) -> Tensor:
        drawn = self.batches.pictures(count, generator, recolor=PAINTED)
        azimuth, color = net(worsened(drawn.images, generator))
        best = bin_of(self.batches.cameras[drawn.rows].azimuth)
        near = nn.functional.one_hot(best, BINS).float()
        target = 0.5 * near + 0.25 * (near.roll(1, 1) + near.roll(-1, 1))
        loss = nn.functional.cross_entropy(azimuth.float(), target)
        painted = (drawn.paint >= 0).float()
        each = nn.functional.cross_entropy(color.float(), drawn.paint.clamp_min(0), reduction="none")
        return loss + COLOR_WEIGHT * (each * painted).sum() / painted.sum().clamp_min(1)

    @torch.no_grad()
    def facts(self, net: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Median view error and Janus rate on held-out views of the names whose front it finds, and accuracy of the
        colours on held-out views in held-out pairs of colour and name."""
        viewer, found, errors, doubles = cast(Viewer, net), {}, [], []
        for subject, name in enumerate(self.name_of.tolist()):
            rows = self._rows(subject)
            azimuth = self.held_out.cameras[rows].azimuth
            seen = angle_of(viewer(self.held_out.over_grey(rows))[0])
            error = angle_between(seen, azimuth)
            found.setdefault(self.names[name], []).append(error)
            # Rings: views that are a quarter of a turn apart.
            doubles.append((self.names[name], seen.view(RING, -1).T, azimuth.view(RING, -1).T))
        turning = [name for name, parts in found.items() if median(torch.cat(parts)) < FINDS_FRONT_DEG]
        errors = [part for name in turning for part in found[name]]
        janus = [
            is_janus(one.abs() <= FRONT, where)
            for name, seen, azimuth in doubles
            if name in turning
            for one, where in zip(seen, azimuth, strict=True)
        ]
        return {
            "colors": list(COLORS), "turning": turning, "own_janus": share(janus) if janus else None,
            "own_view_error_deg": median(torch.cat(errors)) if errors else None,
            "own_color": self._color_accuracy(viewer),
        }  # fmt: skip

    def _color_accuracy(self, viewer: Viewer) -> float | None:
        """Share of right colours over the pairs of colour and name that no training shows; None if there are none."""
        right = []
        for index, subject in enumerate(self.batches.subjects):
            for color, word in enumerate(COLORS):
                if subject.recolor and held_out(word, subject.captions[0]):
                    images = self.held_out.over_grey(self._rows(index)[:RING], color)
                    right.append(viewer(images)[1].argmax(1) == color)
        return share(torch.cat(right)) if right else None
