"""How the number of Gaussians changes while they are trained."""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim import Optimizer

from dream3d.checks import in_range
from dream3d.kernels.splat_reference import to_rotation
from dream3d.representations.gaussians import FAINTEST, Densification, Gaussians

SHRINK = 1.6
"""Both halves of a split Gaussian are smaller by this (3DGS, section 5.2)."""
COPIES = 51
"""Most copies of one Gaussian at once (3DGS-MCMC's implementation)."""
ALIVE = 0.005
"""Opacity below which MCMC's noise wakes up, and 3DGS and MCMC take a Gaussian for dead."""
STEEP = 100.0
"""How sharply it wakes up (3DGS-MCMC)."""


def due(step: int, begin: int, end: int | None, every: int) -> bool:
    """Whether something happens after step `step` (from 0): every so many steps after `begin`, up to `end`."""
    done = step + 1 - begin
    return done > 0 and done % every == 0 and (end is None or step < end)


def check_schedule(who: str, begin: int, end: int | None, every: int) -> None:
    """Raise unless the three make sense together."""
    in_range(f"{who}: begin", begin, 0)
    in_range(f"{who}: every", every, 1)
    if end is not None:
        in_range(f"{who}: end", end, begin)


@final
class Classic(Densification):
    """Clone, split and prune (3D Gaussian Splatting, arXiv:2308.04079, section 5.2).

    Gaussians at whose centres the loss pulls hard are cloned where they are small and split where they are large; faint
    ones are removed. Two things are left to choose: `absolute` (AbsGS, arXiv:2404.10484) counts pulls of pixels that
    cancel; `revised` (arXiv:2404.06109, section 4.2) makes clones fainter, so that two look like the one before, where
    the original doubles them. How hard is hard depends on the objective and its weight: look at `Gaussians.pull`.

    Args:
        threshold: mean pull a view that is hard, in 3DGS's unit (a gradient in a picture from -1 to 1); 3DGS 2e-4,
            AbsGS 8e-4, DreamGaussian 0.01.
        size: largest scale up to which a Gaussian is small, metres.
        faint: opacity below which a Gaussian is removed.
        largest: scale above which a Gaussian is removed, metres; None for no limit.
        most: Gaussians above which none are added.
        begin: step of the first; statistics begin there.
        end: step after which nothing changes; None for the last.
        every: steps between two times.
        reset_every: steps between two resets of all opacities to at most twice `faint`; 0 for none.
        absolute: go by the sizes of the pixels' pulls, not by their sum.
        revised: make clones fainter.
    """

    def __init__(
        self,
        *,
        threshold: float = 2e-4,
        size: float = 0.02,
        faint: float = ALIVE,
        largest: float | None = 0.5,
        most: int = 50_000,
        begin: int = 100,
        end: int | None = None,
        every: int = 100,
        reset_every: int = 0,
        absolute: bool = False,
        revised: bool = True,
    ) -> None:
        check_schedule("Classic", begin, end, every)
        in_range("Classic: threshold", threshold, 0)
        in_range("Classic: size", size, 0)
        in_range("Classic: faint", faint, FAINTEST, 0.5)
        in_range("Classic: most", most, 1)
        in_range("Classic: reset_every", reset_every, 0)
        if largest is not None:
            in_range("Classic: largest", largest, size)
        self.threshold = threshold
        self.size = size
        self.faint = faint
        self.largest = math.inf if largest is None else largest
        self.most = most
        self.begin = begin
        self.end = end
        self.every = every
        self.reset_every = reset_every
        self.absolute = absolute
        self.revised = revised

    def before_step(self, gaussians: Gaussians, step: int) -> None:
        active = step >= self.begin and (self.end is None or step < self.end)
        gaussians.watch = ("absolute" if self.absolute else "mean") if active else None

    @torch.no_grad()
    def after_step(self, gaussians: Gaussians, step: int, optimizer: Optimizer, generator: torch.Generator) -> None:
        if due(step, self.begin, self.end, self.every):
            keep = (gaussians.opacities >= self.faint) & (gaussians.scales.amax(dim=1) <= self.largest)
            pull = torch.where(keep, gaussians.pull / gaussians.views.clamp_min(1), 0)
            room = max(0, self.most - int(keep.sum()))
            grown = _highest(pull, min(room, int((pull > self.threshold).sum())))
            grow(gaussians, keep, grown, optimizer, generator, size=self.size, revised=self.revised)
        if self.reset_every and due(step, 0, self.end, self.reset_every):
            dim(gaussians, 2 * self.faint, optimizer)


@final
class MCMC(Densification):
    """Gaussians as samples of a distribution (3DGS-MCMC, arXiv:2404.09591): the dead are moved to the living.

    Every so many steps what is transparent moves to a random Gaussian, drawn in proportion to opacity, and the number
    rises by `growth` in the same way; opacities and scales become such that the picture stays (eq. 9). Every step adds
    noise to the centres of what is nearly transparent. No threshold depends on the loss. The paper also regularises
    opacities and scales.

    Args:
        most: Gaussians at the end.
        growth: share by which their number rises each time.
        begin: step after which they move and multiply.
        end: step after which they do no more; None for the last.
        every: steps between two times.
        noise: strength of the noise, relative to the learning rate of the centres; 5e5 in the paper, where that is
            1.6e-4 and less; 0 for none.
    """

    def __init__(
        self,
        *,
        most: int = 5000,
        growth: float = 0.05,
        begin: int = 100,
        end: int | None = None,
        every: int = 100,
        noise: float = 5e4,
    ) -> None:
        check_schedule("MCMC", begin, end, every)
        in_range("MCMC: most", most, 1)
        in_range("MCMC: growth", growth, 0)
        in_range("MCMC: noise", noise, 0)
        self.most = most
        self.growth = growth
        self.begin = begin
        self.end = end
        self.every = every
        self.noise = noise

    def before_step(self, gaussians: Gaussians, step: int) -> None:
        gaussians.watch = None

    @torch.no_grad()
    def after_step(self, gaussians: Gaussians, step: int, optimizer: Optimizer, generator: torch.Generator) -> None:
        if due(step, self.begin, self.end, self.every):
            now = len(gaussians)
            more = max(0, min(self.most, math.floor((1 + self.growth) * now)) - now)
            relocate(gaussians, gaussians.opacities <= ALIVE, more, optimizer, generator)
        if self.noise:
            self._shake(gaussians, optimizer, generator)

    def _shake(self, gaussians: Gaussians, optimizer: Optimizer, generator: torch.Generator) -> None:
        """Langevin noise of each Gaussian's own shape, for those that are nearly transparent."""
        (rate,) = (g["lr"] for g in optimizer.param_groups if any(p is gaussians.means for p in g["params"]))
        half = to_rotation(gaussians.quaternions) * gaussians.scales[:, None]
        normal = torch.randn(len(gaussians), 3, 1, generator=generator).to(half)
        awake = torch.sigmoid(-STEEP * (gaussians.opacities - ALIVE))
        gaussians.means.add_((half @ (half.mT @ normal))[..., 0] * (rate * self.noise * awake)[:, None])


@final
class Budgeted(Densification):
    """At most so many Gaussians: those that the pictures are made of.

    Every so many steps the Gaussians with the hardest pull are cloned or split, and those whose share of the pictures
    since the last time is smallest (the sum of their weights over all pixels) are removed until the budget holds. Both
    are ranks: no threshold depends on the loss.

    Args:
        most: Gaussians, from the end of the first step on; it removes what `start` brought above that.
        growth: share of them that is cloned or split each time.
        size: largest scale up to which a Gaussian is cloned rather than split, metres.
        faint: opacity below which a Gaussian is removed.
        begin: step of the first; statistics begin there.
        end: step after which nothing changes; None for the last.
        every: steps between two times.
        absolute: go by the sizes of the pixels' pulls (AbsGS, arXiv:2404.10484), not by their sum.
    """

    def __init__(
        self,
        *,
        most: int = 5000,
        growth: float = 0.1,
        size: float = 0.02,
        faint: float = ALIVE,
        begin: int = 100,
        end: int | None = None,
        every: int = 100,
        absolute: bool = True,
    ) -> None:
        check_schedule("Budgeted", begin, end, every)
        in_range("Budgeted: most", most, 1)
        in_range("Budgeted: growth", growth, 0, 1)
        in_range("Budgeted: size", size, 0)
        in_range("Budgeted: faint", faint, 0, 1)
        self.most = most
        self.growth = growth
        self.size = size
        self.faint = faint
        self.begin = begin
        self.end = end
        self.every = every
        self.absolute = absolute

    def before_step(self, gaussians: Gaussians, step: int) -> None:
        active = step >= self.begin and (self.end is None or step < self.end)
        gaussians.watch = ("absolute" if self.absolute else "mean") if active else None

    @torch.no_grad()
    def after_step(self, gaussians: Gaussians, step: int, optimizer: Optimizer, generator: torch.Generator) -> None:
        now = due(step, self.begin, self.end, self.every)
        if not now and len(gaussians) <= self.most:
            return
        keep = gaussians.opacities >= self.faint if now else torch.ones_like(gaussians.logits, dtype=torch.bool)
        pulled = int((keep & (gaussians.pull > 0)).sum())
        number = min(int(self.growth * int(keep.sum())), self.most // 2, pulled) if now else 0
        worth = gaussians.share if now else gaussians.opacities
        keep = _highest(torch.where(keep, worth, -1), min(int(keep.sum()), self.most - number))
        pull = torch.where(keep, gaussians.pull / gaussians.views.clamp_min(1), 0)
        grown = _highest(pull, min(number, int((pull > 0).sum())))
        grow(gaussians, keep, grown, optimizer, generator, size=self.size, revised=True)


def grow(
    gaussians: Gaussians,
    keep: Bool[Tensor, "N"],
    grown: Bool[Tensor, "N"],
    optimizer: Optimizer,
    generator: torch.Generator,
    *,
    size: float,
    revised: bool,
) -> None:
    """Two in the place of each Gaussian of `grown`: a clone beside it, or two halves if it is larger than `size`.

    The halves' centres are samples of the Gaussian, their scales 1 / 1.6 of it. What is not in `keep` goes.
    """
    large = gaussians.scales.amax(dim=1) > size
    cloned, split = (grown & ~large).nonzero()[:, 0], (grown & large).nonzero()[:, 0]
    stay = (keep & ~(grown & large)).nonzero()[:, 0]
    source = torch.cat([stay, cloned, split, split])
    if torch.equal(source, torch.arange(len(gaussians)).to(source)):
        gaussians.forget()
        return
    fresh = torch.arange(len(source), device=source.device) >= len(stay)
    logits = gaussians.logits.clone()
    if revised:
        logits[cloned] = (1 - (1 - gaussians.opacities[cloned]).sqrt()).logit(FAINTEST)
    means, log_scales = gaussians.means[source], gaussians.log_scales[source]
    halves = slice(len(stay) + len(cloned), None)
    axes = to_rotation(gaussians.quaternions[source[halves]]) * gaussians.scales[source[halves]][:, None]
    normal = torch.randn(2 * len(split), 3, 1, generator=generator).to(axes)
    means[halves] += (axes @ normal)[..., 0]
    log_scales[halves] -= math.log(SHRINK)
    changed = {"means": means, "log_scales": log_scales, "logits": logits[source]}
    gaussians.rearrange(source, optimizer, fresh=fresh, changed=changed)


def dim(gaussians: Gaussians, opacity: float, optimizer: Optimizer) -> None:
    """Lower all opacities to at most so much; their running means begin anew."""
    gaussians.logits.clamp_(max=math.log(opacity / (1 - opacity)))
    for value in optimizer.state.get(gaussians.logits, {}).values():
        if isinstance(value, Tensor) and value.shape == gaussians.logits.shape:
            value.zero_()


def relocate(
    gaussians: Gaussians, dead: Bool[Tensor, "N"], more: int, optimizer: Optimizer, generator: torch.Generator
) -> None:
    """Move the dead to living Gaussians and put `more` there, drawn in proportion to opacity; the picture stays.

    3DGS-MCMC (arXiv:2404.09591). Running means begin anew for all that were moved or had company.
    """
    living, number = (~dead).nonzero()[:, 0], int(dead.sum()) + more
    if not len(living) or not number:
        return
    # A cumulative sum rather than multinomial, which takes no more than 2^24 Gaussians.
    ends = gaussians.opacities[living].double().cumsum(0)
    chance = torch.rand(number, generator=generator, dtype=torch.float64).to(ends)
    host = living[torch.searchsorted(ends, chance * ends[-1]).clamp_max(len(living) - 1)]
    together = 1 + torch.bincount(host, minlength=len(gaussians))
    opacities, shrink = shared_out(gaussians.opacities, together)
    source = torch.arange(len(gaussians), device=host.device)
    source[dead] = host[more:]
    source = torch.cat([source, host[:more]])
    changed = {
        "log_scales": (gaussians.log_scales + shrink.log()[:, None])[source],
        "logits": torch.where(together > 1, opacities.logit(FAINTEST), gaussians.logits)[source],
    }
    gaussians.rearrange(source, optimizer, fresh=together[source] > 1, changed=changed)


def shared_out(
    opacities: Float[Tensor, "N"], copies: Int[Tensor, "N"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Opacity of each of `copies` equal Gaussians that together look like one, and the factor to its scales.

    3DGS-MCMC (arXiv:2404.09591), eq. 9. With o' = 1 - (1 - o)^(1/n) the middle stays as it is. The scales keep the
    integral over a line, for which the paper's double sum is one over binomials: 1 - (1 - o' g)^n, integrated term by
    term, is sum over j = 1..n of C(n, j) (-1)^(j - 1) o'^j / sqrt(j).
    """
    n = copies.clamp(1, COPIES).double()[:, None]
    o = opacities.double()[:, None]
    each = -torch.expm1(torch.log1p(-o.clamp_max(1 - FAINTEST)) / n)
    j = torch.arange(1, COPIES + 1, device=o.device).double()
    binomial = (torch.lgamma(n + 1) - torch.lgamma(j + 1) - torch.lgamma((n - j).clamp_min(0) + 1)).exp()
    terms = torch.where(j <= n, binomial * (-1) ** (j - 1) * each**j / j.sqrt(), 0)
    shrink = torch.where(copies > 1, o[:, 0] / terms.sum(dim=1).clamp_min(1e-12), 1)
    return torch.where(copies > 1, each[:, 0], o[:, 0]).to(opacities), shrink.to(opacities)


def _highest(score: Float[Tensor, "N"], number: int) -> Bool[Tensor, "N"]:
    """The `number` Gaussians with the highest score; of equal ones the first."""
    order = score.argsort(descending=True, stable=True)
    chosen = torch.zeros_like(score, dtype=torch.bool)
    chosen[order[:number]] = True
    return chosen
