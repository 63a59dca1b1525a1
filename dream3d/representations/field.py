"""A density and colour field over a box: hash grid and a small MLP."""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from dream3d.checks import in_range, one_of
from dream3d.kernels.reference import Occupancy
from dream3d.nn.encodings import HashEncoding
from dream3d.nn.isosurface import automatic_iso, inward_colors, isosurface, sample_grid
from dream3d.nn.mlp import MLP
from dream3d.representations.base import Representation, Surfaced
from dream3d.types import Mesh

CHUNK = 1 << 18
"""Points a query without gradient takes at once: bounds the memory of exports."""


@final
class Field(Representation):
    """Volumetric density (1/metre) and display-referred colour, without view dependence.

    density = sharpness * softplus(MLP(hash(x)) + blob(x)) with the linear blob `blob_density * (1 - |x| / blob_radius)`
    of Magic3D (arXiv:2211.10440): the object starts as a soft ball in the middle instead of a fog everywhere.

    Args:
        start: the stage before; a Field of the same shape hands over its parameters, anything else is ignored here.
        radius: half the side of the box, metres.
        levels: grids of the hash encoding.
        log2_table: log2 of the rows of a level; 15 to 17 on a CPU, 19 on a GPU.
        base: cells along an axis of the coarsest grid.
        finest: cells along an axis of the finest grid.
        hidden: width of the MLP.
        sharpness: how fast density rises with the network's output: more gives harder surfaces in fewer steps.
        blob_density: strength of the starting ball.
        blob_radius: where the starting ball's bias crosses zero, metres.
        occupancy: cells along an axis of the occupancy grid; a multiple of 8.
        refresh: optimiser steps between two refreshes of the occupancy grid.
        network_lr_scale: learning rate of the MLP relative to the hash table's.
    """

    peaks: Tensor
    means: Tensor

    def __init__(
        self,
        start: Representation | None = None,
        *,
        radius: float = 1.0,
        levels: int = 10,
        log2_table: int = 15,
        base: int = 8,
        finest: int = 192,
        hidden: int = 32,
        sharpness: float = 3.0,
        blob_density: float = 10.0,
        blob_radius: float = 0.5,
        occupancy: int = 48,
        refresh: int = 16,
        network_lr_scale: float = 0.2,
    ) -> None:
        super().__init__()
        in_range("Field: radius", radius, 1e-3)
        in_range("Field: blob_radius", blob_radius, 1e-3)
        in_range("Field: sharpness", sharpness, 1e-3)
        in_range("Field: occupancy", occupancy, 8, 512)
        in_range("Field: refresh", refresh, 1)
        self.radius = radius
        self.sharpness = sharpness
        self.blob_density = blob_density
        self.blob_radius = blob_radius
        self.refresh = refresh
        self.network_lr_scale = network_lr_scale
        self.encoding = HashEncoding(levels=levels, log2_table=log2_table, base=base, finest=finest)
        self.mlp = MLP(self.encoding.width, 4, hidden=hidden)
        cells = -(-occupancy // 8) * 8
        self.register_buffer("peaks", torch.zeros(cells, cells, cells))  # decaying maximum, index order z, y, x
        self.register_buffer("means", torch.zeros(cells, cells, cells))  # running mean
        self.register_buffer("trained", torch.zeros((), dtype=torch.long))
        self._occupancy: Occupancy | None = None
        self.register_load_state_dict_post_hook(Field._forget_occupancy)
        if isinstance(start, Field):
            self.load_state_dict(start.state_dict())

    def _raw(self, points: Float[Tensor, "N 3"], *, twice: bool = False) -> Float[Tensor, "N 4"]:
        raw = self.mlp(self.encoding((points / self.radius + 1) * 0.5, twice=twice))
        blob = self.blob_density * (1 - points.norm(dim=-1, keepdim=True) / self.blob_radius)
        return raw + functional.pad(blob, (0, 3))

    def query(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
        """Density (1/metre, 0 or more) and colour ([0, 1]) at world points; gradients to the parameters."""
        raw = self._raw(points)
        return self.sharpness * functional.softplus(raw[:, 0]), torch.sigmoid(raw[:, 1:])

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Density alone (1/metre), 0 or more."""
        return self.sharpness * functional.softplus(self._raw(points)[:, 0])

    def normals(
        self, points: Float[Tensor, "N 3"], *, mode: Literal["finite", "analytic"] = "finite", eps: float | None = None
    ) -> Float[Tensor, "N 3"]:
        """Unit outward normals: the direction in which density falls fastest.

        "finite" takes central differences over `eps` metres (default: half a cell of the finest grid at most 0.01
        of the radius; Neuralangelo, arXiv:2306.03092, uses the same step as the active cell) and its gradient reaches
        the parameters through the kernels. "analytic" differentiates the interpolation itself, exact but piecewise
        constant-ish across cells; its gradient goes through the plain-torch twin, which costs about ten times as much.
        """
        one_of("normals: mode", mode, ("finite", "analytic"))
        if mode == "analytic":
            with torch.enable_grad():
                leaf = points.detach().requires_grad_()
                track = torch.is_grad_enabled()
                total = functional.softplus(self._raw(leaf, twice=track)[:, 0]).sum()
                (gradient,) = torch.autograd.grad(total, leaf, create_graph=track)
            return -functional.normalize(gradient, dim=-1, eps=1e-8)
        step = eps or max(self.radius / self.encoding.spec.finest, 0.01 * self.radius)
        offsets = step * torch.eye(3, dtype=points.dtype, device=points.device)
        around = torch.stack([points[:, None] + offsets, points[:, None] - offsets])
        plus, minus = self.density(around.view(-1, 3)).view(2, -1, 3)
        return -functional.normalize(plus - minus, dim=-1, eps=1e-8)

    @property
    def occupancy(self) -> Occupancy:
        """Which cells of the box may hold matter; refreshed as training goes on."""
        if self._occupancy is None:
            if not bool(self.peaks.any()):
                self._refresh(torch.zeros_like(self.peaks)[..., None].expand(*self.peaks.shape, 3) + 0.5)
            # A cell counts when crossing it absorbs one percent of the light, or less in fields thin everywhere.
            thin = 0.01 * self.peaks.shape[0] / (2 * self.radius)
            threshold = min(thin, float(self.peaks.mean()))
            self._occupancy = Occupancy.pack(self.peaks > threshold)
        return self._occupancy

    def _forget_occupancy(self, _: object = None) -> None:
        self._occupancy = None

    @torch.no_grad()
    def _refresh(self, inside: Float[Tensor, "R R R 3"]) -> None:
        """Look at every cell once, at the relative position `inside` (x, y, z in [0, 1])."""
        cells = self.peaks.shape[0]
        index = torch.arange(cells, device=self.peaks.device, dtype=torch.float32)
        z, y, x = torch.meshgrid(index, index, index, indexing="ij")
        corner = torch.stack([x, y, z], dim=-1)
        points = ((corner + inside) * (2 / cells) - 1).view(-1, 3) * self.radius
        seen = torch.cat([self.density(chunk) for chunk in points.split(CHUNK)]).view_as(self.peaks)
        self.peaks.copy_(torch.maximum(self.peaks * 0.9, seen))
        self.means.lerp_(seen, 0.5)
        self._occupancy = None

    def after_step(self, step: int, optimizer: Optimizer, generator: torch.Generator | None = None) -> None:
        self.trained += 1
        if step % self.refresh == 0:
            # Seeded by the step, so that a resumed run looks at the same points.
            generator = torch.Generator().manual_seed(step)
            self._refresh(torch.rand(*self.peaks.shape, 3, generator=generator).to(self.peaks))

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": [self.encoding.table], "lr_scale": 1.0},
            {"params": list(self.mlp.parameters()), "lr_scale": self.network_lr_scale},
        ]

    def to_mesh(self) -> Mesh:
        mesh = self.surface(resolution=64).mesh
        with torch.no_grad():
            _, colors = self.query(mesh.vertices.to(self.peaks.device))
        return Mesh(mesh.vertices, mesh.faces, colors=colors.cpu())

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        values = sample_grid(self.density, self.radius, resolution, self.peaks.device)
        cell = 2 * self.radius / resolution
        level = automatic_iso(values, cell) if iso is None else iso
        mesh = isosurface(values, level, self.radius, steps=int(self.trained))
        return Surfaced(mesh, lambda points: self._bake(points, cell))

    @torch.no_grad()
    def _bake(self, points: Float[Tensor, "N 3"], cell: float) -> dict[str, Float[Tensor, "N C"]]:
        """Colour as a camera in front of each point would see it, and the field's normal there."""
        colors, normals = [], []
        for chunk in points.to(self.peaks.device).split(CHUNK // 8):
            normals.append(self.normals(chunk, eps=cell))
            colors.append(inward_colors(self.query, chunk, normals[-1], cell))
        return {"base_color": torch.cat(colors).cpu(), "normal": torch.cat(normals).cpu()}
