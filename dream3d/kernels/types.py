"""What kernels and twins take and give: specifications, packed samples, and the checks at their door."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int16, Int32
from torch import Tensor

from dream3d.checks import InputError, in_range
from dream3d.types import Cameras

MOST_SPLAT_FEATURES = 64
"""As in custom_cuda/splat_composite.h."""
WIDEST_SPLAT_IMAGE = 32767
"""Pixels along a side; boxes are 16-bit numbers."""


@dataclass(frozen=True)
class HashGridSpec:
    """Geometry of a multiresolution hash grid with two features a level (Instant-NGP, arXiv:2201.05989, section 3).

    Args:
        levels: number of grids, 1 to 32.
        log2_table: log2 of the largest number of rows a level may have, 1 to 24; a level with more corners is hashed.
        base: cells along an axis of the coarsest grid.
        finest: cells along an axis of the finest grid, at most 1024; between them the cells grow geometrically.
    """

    levels: int = 12
    log2_table: int = 15
    base: int = 16
    finest: int = 512

    def __post_init__(self) -> None:
        in_range("HashGridSpec: levels", self.levels, 1, 32)
        in_range("HashGridSpec: log2_table", self.log2_table, 1, 24)
        in_range("HashGridSpec: base", self.base, 1, 1024)
        in_range("HashGridSpec: finest", self.finest, self.base, 1024)

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Cells along an axis, per level (eqs. 2 and 3)."""
        growth = (math.log(self.finest) - math.log(self.base)) / max(self.levels - 1, 1)
        # The little more keeps the last level at `finest` where the exponential lands just below.
        return tuple(math.floor(self.base * math.exp(growth * level) + 1e-6) for level in range(self.levels))

    @cached_property
    def hashed(self) -> tuple[bool, ...]:
        """Whether the corners of a level share rows."""
        return tuple((r + 1) ** 3 > 1 << self.log2_table for r in self.resolutions)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Rows per level; those of dense levels are rounded up to a cache line."""
        return tuple(
            1 << self.log2_table if hashed else -(-((r + 1) ** 3) // 8) * 8
            for r, hashed in zip(self.resolutions, self.hashed, strict=True)
        )

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First row per level."""
        return tuple(sum(self.sizes[:level]) for level in range(self.levels))

    @property
    def rows(self) -> int:
        """Rows of the whole table."""
        return sum(self.sizes)

    @property
    def width(self) -> int:
        """Features of an encoded point."""
        return 2 * self.levels


@dataclass(frozen=True)
class Occupancy:
    """Which cells of a cubic grid may hold matter, as bits; index order z, y, x.

    Args:
        bits: cells, 32 to a word, the lowest bit first.
        coarse: the same for blocks of 8 x 8 x 8 cells; a block is set if any of its cells is.
        resolution: cells along an axis.
    """

    bits: Int32[Tensor, "words"]
    coarse: Int32[Tensor, "coarse_words"]
    resolution: int

    @staticmethod
    def pack(occupied: Bool[Tensor, "R R R"]) -> Occupancy:
        """From one boolean a cell."""
        if occupied.dtype != torch.bool or occupied.ndim != 3 or len(set(occupied.shape)) != 1 or not len(occupied):
            raise InputError(f"Occupancy.pack: expected a bool (R, R, R) tensor, got {describe(occupied)}.")
        in_range("Occupancy.pack: resolution", len(occupied), 1, 1024)
        blocks = torch.nn.functional.max_pool3d(occupied[None].float(), kernel_size=8, ceil_mode=True)[0] > 0
        return Occupancy(_to_bits(occupied), _to_bits(blocks), len(occupied))

    def unpack(self) -> Bool[Tensor, "R R R"]:
        """One boolean a cell."""
        places = torch.arange(32, dtype=torch.int32, device=self.bits.device)
        cells = ((self.bits[:, None] >> places) & 1).bool().view(-1)[: self.resolution**3]
        return cells.view(self.resolution, self.resolution, self.resolution)

    def to(self, device: torch.device | str) -> Occupancy:
        return Occupancy(self.bits.to(device), self.coarse.to(device), self.resolution)


@dataclass(frozen=True)
class Samples:
    """Pieces of `R` rays, packed: those of ray r are `offsets[r]` to `offsets[r + 1]`, from near to far.

    Args:
        offsets: R + 1 numbers; the last is `M`.
        t_start: where a piece starts, in units of the ray's direction.
        t_end: where it ends.
        ray: to which ray it belongs.
    """

    offsets: Int32[Tensor, "rays_and_one"]
    t_start: Float[Tensor, "M"]
    t_end: Float[Tensor, "M"]
    ray: Int32[Tensor, "M"]


@dataclass(frozen=True)
class Composited:
    """What `R` rays see.

    Args:
        weights: share of a sample in its ray's colour.
        rgb: premultiplied colour.
        depth: sum of weight times the middle of the sample; premultiplied too.
        opacity: sum of the weights.
    """

    weights: Float[Tensor, "M"]
    rgb: Float[Tensor, "R 3"]
    depth: Float[Tensor, "R"]
    opacity: Float[Tensor, "R"]


@dataclass(frozen=True)
class ProjectedSplats:
    """`N` Gaussians as `C` cameras see them, in pixels: x right, y down, (0, 0) the picture's upper left corner.

    Whatever is not drawn (outside the picture, not between near and far, too faint, flat to nothing, broken) has zeros
    throughout. Call `retain_grad()` on `means` to read the screen-space gradient that densification goes by.

    Args:
        means: centres.
        depths: along the viewing axis, metres.
        conics: xx, xy, yy of the inverse covariance, 1 / pixel^2.
        opacities: 0 to 1, those of the Gaussians or, with antialiasing, less.
        boxes: x0, y0, x1, y1; all pixels at which alpha is `alpha_min` or more are in x0 <= x < x1, y0 <= y < y1.
        tiles: how many of the 16 x 16 tiles the box touches; 0 where nothing is drawn.
        broken: Gaussians with a NaN, an infinity or a zero quaternion. They are drawn nowhere and have no gradient; it
            is for the caller to make noise about them.
        height: of the pictures, pixels.
        width: of the pictures, pixels.
        alpha_min: below it a Gaussian is not there.
    """

    means: Float[Tensor, "C N 2"]
    depths: Float[Tensor, "C N"]
    conics: Float[Tensor, "C N 3"]
    opacities: Float[Tensor, "C N"]
    boxes: Int16[Tensor, "C N 4"]
    tiles: Int32[Tensor, "C N"]
    broken: Bool[Tensor, "N"]
    height: int
    width: int
    alpha_min: float

    @property
    def visible(self) -> Bool[Tensor, "C N"]:
        """Which Gaussians reach a pixel of a picture."""
        return self.tiles > 0


@dataclass(frozen=True)
class SplatImage:
    """What `C` cameras see; everything is premultiplied: a sum over Gaussians of weight times value.

    Args:
        features: the viewed ones, then the shared ones.
        depth: along the viewing axis (not along the ray), metres.
        alpha: sum of the weights.
    """

    features: Float[Tensor, "C H W K"]
    depth: Float[Tensor, "C H W"]
    alpha: Float[Tensor, "C H W"]


Box = tuple[float, float, float, float, float, float]
"""Smallest x, y, z, then largest x, y, z."""


def check_hash_grid(positions: Tensor, table: Tensor, spec: HashGridSpec) -> None:
    """Raise unless positions (N, 3) and table (rows, 2) fit the specification and each other."""
    expect("hash_grid: table", table, (spec.rows, 2))
    expect("hash_grid: positions", positions, (None, 3), like=table)


def check_march(
    origins: Tensor,
    directions: Tensor,
    occupancy: Occupancy,
    *,
    aabb: Box,
    step: float,
    max_samples: int,
    jitter: Tensor | None,
) -> None:
    """Raise unless the rays, the grid and the numbers make sense together."""
    expect("march: origins", origins, (None, 3))
    expect("march: directions", directions, tuple(origins.shape), like=origins)
    if jitter is not None:
        expect("march: jitter", jitter, (len(origins),), like=origins)
    if occupancy.bits.device != origins.device:
        raise InputError(f"march: the rays are on {origins.device}, the occupancy on {occupancy.bits.device}.")
    if len(aabb) != 6 or not all(low < high for low, high in zip(aabb[:3], aabb[3:], strict=True)):
        raise InputError(f"march: aabb must be (min x, y, z, max x, y, z) with min < max, got {tuple(aabb)}.")
    if not step > 0 or math.isinf(step):
        raise InputError(f"march: step must be more than 0, got {step}.")
    in_range("march: max_samples", max_samples, 1)


def check_composite(density: Tensor, rgb: Tensor, samples: Samples, early_stop: float) -> None:
    """Raise unless one density and one colour came for every sample."""
    number = len(samples.t_start)
    expect("composite: density", density, (number,))
    expect("composite: rgb", rgb, (number, 3), like=density)
    expect("composite: samples.t_start", samples.t_start, (number,), like=density)
    expect("composite: samples.t_end", samples.t_end, (number,), like=density)
    expect("composite: samples.offsets", samples.offsets, (None,), dtype=torch.int32, device=density.device)
    expect("composite: samples.ray", samples.ray, (number,), dtype=torch.int32, device=density.device)
    if not len(samples.offsets):
        raise InputError("composite: samples.offsets must have one number more than there are rays, got none.")
    in_range("composite: early_stop", early_stop, 0, 1)


def check_project_splats(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor,
    cameras: Cameras,
    *,
    near: float,
    far: float,
    blur: float,
    alpha_min: float,
) -> None:
    """Raise unless the Gaussians fit each other and the numbers make sense."""
    number = len(means)
    expect("project_splats: means", means, (None, 3))
    expect("project_splats: quaternions", quaternions, (number, 4), like=means)
    expect("project_splats: scales", scales, (number, 3), like=means)
    expect("project_splats: opacities", opacities, (number,), like=means)
    in_range("project_splats: width and height", max(cameras.height, cameras.width), 1, WIDEST_SPLAT_IMAGE)
    if not 0 < near < far:
        raise InputError(f"project_splats: near and far must be 0 < near < far, got {near:g} and {far:g}.")
    in_range("project_splats: blur", blur, 0)
    in_range("project_splats: alpha_min", alpha_min, 1e-30, 1)


def check_composite_splats(
    projected: ProjectedSplats,
    viewed: Tensor | None,
    shared: Tensor | None,
    probe: Tensor | None,
    transmittance_min: float,
) -> None:
    """Raise unless there is a finite row of features for every Gaussian (and camera)."""
    cameras, number = projected.depths.shape
    features = 0
    for name, tensor, shape in (("viewed", viewed, (cameras, number)), ("shared", shared, (number,))):
        if tensor is None:
            continue
        expect(f"composite_splats: {name}", tensor, (*shape, None), like=projected.means)
        features += tensor.shape[-1]
        # One sum is much quicker than looking at every number, and one bad number is enough to spoil it.
        if not bool(tensor.detach().sum().isfinite()) and (wrong := int((~tensor.detach().isfinite()).sum())):
            raise InputError(
                f"composite_splats: {name}: expected finite features, got {wrong} that are not; "
                "lower the learning rate, or remove the Gaussians they belong to."
            )
    if probe is not None:
        expect("composite_splats: probe", probe, (cameras, number, 2), like=projected.means)
    in_range("composite_splats: number of features", features, 0, MOST_SPLAT_FEATURES)
    in_range("composite_splats: transmittance_min", transmittance_min, 0, 1)


def check_splat_colours(means: Tensor, coefficients: Tensor, degree: int | None) -> int:
    """Raise unless every Gaussian has the coefficients of the degree; return the degree (None: as stored)."""
    expect("splat_colours: means", means, (None, 3))
    expect("splat_colours: coefficients", coefficients, (len(means), None, 3), like=means)
    stored = math.isqrt(coefficients.shape[1]) - 1
    if coefficients.shape[1] not in (1, 4, 9, 16):
        raise InputError(
            "splat_colours: coefficients: expected 1, 4, 9 or 16 harmonics (degree 0 to 3), "
            f"got {coefficients.shape[1]}."
        )
    in_range("splat_colours: degree", stored if degree is None else degree, 0, stored)
    return stored if degree is None else degree


def expect(
    what: str,
    tensor: Tensor,
    shape: tuple[int | None, ...],
    *,
    like: Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> None:
    """Raise unless `tensor` has this shape (None: any size), a floating type, and type and device of `like`."""
    fits = tensor.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("N" if size is None else str(size) for size in shape) + ("," if len(shape) == 1 else "")
        raise InputError(f"{what}: expected shape ({wanted}), got {describe(tensor)}.")
    if dtype is None and not tensor.is_floating_point():
        raise InputError(f"{what}: expected floating point, got {describe(tensor)}.")
    dtype = dtype or (like.dtype if like is not None else tensor.dtype)
    device = device or (like.device if like is not None else tensor.device)
    if tensor.dtype != dtype or tensor.device != device:
        raise InputError(f"{what}: expected {dtype} on {device}, got {describe(tensor)}; convert it with .to().")


def describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"


def _to_bits(flags: Tensor) -> Tensor:
    """32 booleans to an int32 word, lowest bit first."""
    flat = flags.reshape(-1)
    words = torch.nn.functional.pad(flat, (0, -len(flat) % 32)).view(-1, 32).long()
    places = torch.arange(32, device=flags.device)
    packed = (words << places).sum(dim=1)
    return torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32)
