"""Surfaces of Gaussians: by their density, by depth pictures fused, or by Poisson reconstruction of those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.checks import RunError
from dream3d.kernels.splat import composite_splats, project_splats
from dream3d.kernels.splat_reference import C0, to_rotation
from dream3d.nn.depth import depth_and_distortion, depth_planes, squared
from dream3d.nn.fusion import Draw, Views, fuse, point_cloud, poisson
from dream3d.nn.gaussian_sum import GaussianSum
from dream3d.nn.isosurface import automatic_iso, inward_colors, isosurface, sample_grid
from dream3d.representations.base import Surfaced
from dream3d.types import Cameras, Splats

Way = Literal["density", "fusion", "poisson"]
"""How the surface is found: where the density is high, at the depths that pictures show, or by Poisson from those."""

BLOCKS = 16
"""Blocks of space along an axis when the surface is looked for."""
CHUNK = 1 << 17
"""Surface points that are coloured at once."""
VISIBLE = 1 / 255
"""Opacity below which a Gaussian is in no picture."""


@torch.no_grad()
def surface_of(
    splats: Splats, radius: float, way: Way, *, iso: float | None = None, resolution: int = 128, steps: int = 0
) -> Surfaced:
    """The surface inside [-radius, radius]^3 and its colours.

    "density" is the level set of a density (1/metre) that absorbs what the splats do: along its shortest axis a
    Gaussian of opacity o has the optical depth -log(1 - o). It lies a standard deviation or so outside the centres, and
    a shell of Gaussians has a second one inside. "fusion" goes through the depths themselves: what `fuse` makes of
    pictures from all around, with levels in metres below the surface. "poisson" takes those pictures' points and
    normals, and closes what is open smoothly; its levels have no unit. Gaussians thinner than the grid are blurred to
    half a cell of it for the density and for all colours.

    Raises:
        RunError: there is no surface; the message says why.
    """
    cell = 2 * radius / resolution
    matter = _Matter(splats, radius, cell)
    if way == "density":
        values = matter.sampled(resolution)
        mesh = isosurface(values, automatic_iso(values, cell) if iso is None else iso, radius, steps=steps)
        return Surfaced(mesh, matter.bake)
    if not len(matter.seen.means):
        raise RunError(f"no surface: no Gaussian can be seen after {steps} steps; train longer.")
    grid = (radius, resolution)
    shown = (drawing(matter.seen), *grid, splats.means.device)
    values = fuse(*shown) if way == "fusion" else poisson(*point_cloud(*shown), *grid)
    # Along the crest of the density, on which this surface lies, the density's own slope points anywhere.
    bake = partial(matter.bake, slope=partial(_downhill, torch.stack(torch.gradient(values)), radius))
    return Surfaced(isosurface(values, iso or 0.0, radius, steps=steps), bake)


def _downhill(gradient: Float[Tensor, "3 R R R"], radius: float, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Against a gradient that is known on a grid over [-radius, radius]^3."""
    places = (points / radius).flip(-1)[None, None, None]
    return -functional.grid_sample(gradient[None], places, align_corners=True)[0, :, 0, 0].t()


def drawing(splats: Splats) -> Draw:
    """Depth pictures of Gaussians, each at the depth where a ray finds it densest."""

    @torch.no_grad()
    def draw(cameras: Cameras) -> Views:
        shape = (splats.means, splats.quaternions, splats.scales)
        projected = project_splats(*shape, splats.opacities, cameras)
        planes = depth_planes(projected, *shape, cameras)
        seen = composite_splats(projected, viewed=torch.cat([planes, squared(planes)], dim=-1))
        depth, distortion = depth_and_distortion(seen.features, seen.alpha, cameras)
        assert distortion is not None
        alpha = seen.alpha.clamp_min(1e-6)
        return Views(depth / alpha, distortion.sqrt() / alpha, seen.alpha)

    return draw


class _Matter:
    """Gaussians that can be seen, as an absorbing density whose mass a blur of half a cell does not change."""

    def __init__(self, splats: Splats, radius: float, cell: float) -> None:
        visible = splats.opacities > VISIBLE
        self.seen = Splats(*(getattr(splats, field.name)[visible] for field in fields(Splats)))
        self.radius, self.cell, self.block = radius, cell, 2 * radius / BLOCKS
        depth = -torch.log1p(-self.seen.opacities.clamp_max(0.99))
        across = self.seen.scales.sort(dim=1).values[:, 1:].prod(dim=1)
        half = to_rotation(self.seen.quaternions) * self.seen.scales[:, None]
        covariances = half @ half.mT + (0.5 * cell) ** 2 * torch.eye(3).to(half)
        # Over a plane across the shortest axis the optical depth is depth exp(-q / 2).
        self.sum = GaussianSum.of(self.seen.means, covariances, 2 * torch.pi * across * depth)
        self.one = torch.ones_like(self.sum.amplitudes)[:, None]
        self.colour = (0.5 + C0 * self.seen.sh[:, 0]).clamp(0, 1)
        slope = self.sum.precisions @ self.sum.means[:, :, None]
        self.turning = torch.cat([self.sum.precisions.flatten(1), slope[..., 0]], dim=1)

    def sampled(self, resolution: int) -> Float[Tensor, "R R R"]:
        """Density at the corners of a grid."""
        planes = min(16, -(-resolution // BLOCKS))  # a block's, unless there would be too many points in memory
        return sample_grid(
            lambda p: self.sum(p, self.one, block=self.block)[:, 0],
            self.radius, resolution, self.one.device, slabs=planes,
        )  # fmt: skip

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density and colour."""
        values = torch.cat([self.one, self.colour], dim=1)
        density, rgb = self.sum(points, values, block=self.block).split([1, 3], dim=1)
        return density[:, 0], rgb / density.clamp_min(1e-12)

    def downhill(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Where the density falls fastest."""
        precisions, slopes = self.sum(points, self.turning, block=self.block).split([9, 3], dim=1)
        return torch.einsum("nij,nj->ni", precisions.unflatten(1, (3, 3)), points) - slopes

    @torch.no_grad()
    def bake(
        self, points: Float[Tensor, "N 3"], *, slope: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Float[Tensor, "N C"]]:
        """Colours and normals of points on the surface; `slope` is what it falls along, the density if None."""
        colors, normals = [], []
        for chunk in points.to(self.one).split(CHUNK):
            normals.append(functional.normalize((slope or self.downhill)(chunk), dim=-1, eps=1e-8))
            colors.append(inward_colors(self.query, chunk, normals[-1], self.cell))
        return {"base_color": torch.cat(colors).cpu(), "normal": torch.cat(normals).cpu()}
