"""From a sampled density to triangles."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.checks import RunError, in_range
from dream3d.types import Mesh


def sample_grid(
    density: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]],
    radius: float,
    resolution: int,
    device: torch.device,
    *,
    slabs: int = 1,
) -> Float[Tensor, "R R R"]:
    """Density at the corners of a grid over [-radius, radius]^3; index order x, y, z.

    It is asked `slabs` planes of x at a time: one bounds the memory at any resolution, several suit a density that is
    quicker where points are close together.
    """
    in_range("resolution", resolution, 8, 1024)
    axis = torch.linspace(-radius, radius, resolution + 1, device=device)
    found = []
    with torch.no_grad():
        for some in axis.split(slabs):
            points = torch.stack(torch.meshgrid(some, axis, axis, indexing="ij"), dim=-1)
            found.append(density(points.reshape(-1, 3)).view(points.shape[:-1]))
    return torch.cat(found)


INWARDS, DEPTHS = (1.5, -3.0), 10
"""Of `inward_colors`: the ends of its rays in cells, outwards; samples on a ray."""


def inward_colors(
    query: Callable[[Float[Tensor, "N 3"]], tuple[Float[Tensor, "N"], Float[Tensor, "N C"]]],
    points: Float[Tensor, "P 3"],
    normals: Float[Tensor, "P 3"],
    cell: float,
) -> Float[Tensor, "P C"]:
    """Colour of surface points as a camera in front of each would see it.

    A decimated mesh is a fraction of a cell beside the level set, and the colour there may never have been seen in
    training: so a short ray goes inwards along the normal and composites.

    Args:
        query: density (1/metre) and colour, or any channels, at points.
        points: on a surface, or nearly.
        normals: unit, outwards.
        cell: size of a cell of the grid in which the surface was found, metres.
    """
    depth = torch.linspace(*INWARDS, DEPTHS, device=points.device) * cell
    along = points[:, None] + depth[:, None] * normals[:, None]
    density, rgb = query(along.reshape(-1, 3))
    alpha = -torch.expm1(-density.view(-1, DEPTHS) * (0.5 * cell))
    alpha = torch.cat([alpha[:, :-1], torch.ones_like(alpha[:, :1])], dim=1)
    clear = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1]], dim=1), dim=1)
    return ((alpha * clear)[..., None] * rgb.view(-1, DEPTHS, rgb.shape[-1])).sum(1)


OPAQUE, AGREE, LEVELS = 0.5, 0.98, 64
"""Of `automatic_iso`: lost light, share of the best overlap that is still good, levels tried."""


def automatic_iso(values: Float[Tensor, "R R R"], cell: float) -> float:
    """The level whose silhouettes agree best with what the renderer shows as opaque.

    Along each axis of the grid, a ray is opaque where it loses half of its light, and it meets the level set where its
    highest density exceeds the level. Levels are judged by the overlap (intersection over union) of the two. Hard
    surfaces leave a wide range of levels equally good: the geometric middle of it is neither swollen nor torn. A soft
    blob, early in training, that is opaque nowhere is cut at half its peak; for mere fog the level is one that a
    single cell would need to absorb a quarter of the light, above its peak.
    """
    peaks, opaque = [], []
    for axis in range(3):
        peaks.append(values.amax(axis).flatten())
        opaque.append(-torch.expm1(-values.sum(axis).flatten() * cell) > OPAQUE)
    seen, solid = torch.cat(peaks), torch.cat(opaque)
    if not bool(solid.any()):
        peak = float(values.max())
        return 0.5 * peak if peak * cell * len(values) > 1 else 0.2877 / cell
    low, high = (float(f(seen[solid])) for f in (torch.min, torch.max))
    levels = torch.logspace(math.log10(0.1 * low), math.log10(high), LEVELS)
    hit = seen[None] > levels[:, None].to(seen)
    overlap = (hit & solid).sum(1) / (hit | solid).sum(1)
    good = levels[(overlap >= AGREE * overlap.max()).cpu()]
    return float((good[0] * good[-1]).sqrt())


def isosurface(values: Float[Tensor, "R R R"], iso: float, radius: float, *, steps: int | None = None) -> Mesh:
    """Marching cubes (Lewiner) at level `iso`; faces counter-clockwise seen from the low side.

    Args:
        values: samples at grid corners over [-radius, radius]^3, index order x, y, z.
        iso: level of the surface.
        radius: half the side of the sampled cube.
        steps: how long the field was trained, for the error's wording.

    Raises:
        RunError: nowhere does the density exceed `iso`.
    """
    from skimage.measure import marching_cubes

    peak = float(values.max())
    if not peak > iso:
        trained = f" after {steps} steps" if steps is not None else ""
        raise RunError(
            f"no surface at iso {iso:.3g}: density never exceeds {peak:.3g}. "
            f"The field is empty{trained}; train longer or try --iso auto."
        )
    level = iso
    if iso > 0:
        # Density rises by orders of magnitude within a cell: between logarithms, linear interpolation puts the
        # surface where it is instead of at the outer corner, which shows as terraces.
        values, level = (values / iso).clamp_min(1e-3).log(), 0.0
    # A border of emptiness closes surfaces that touch the box.
    padded = torch.nn.functional.pad(values, (1,) * 6, value=min(float(values.min()), level - 1.0)).cpu().numpy()
    cell = 2 * radius / (values.shape[0] - 1)
    vertices, faces, _, _ = marching_cubes(padded, level=level, spacing=(cell,) * 3, gradient_direction="ascent")
    points = torch.from_numpy(vertices.copy()).float() - (radius + cell)
    return Mesh(points, torch.from_numpy(faces.astype("int64")))
