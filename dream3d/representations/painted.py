"""From what a surface is painted with to what its files say."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.materials.base import Material
from dream3d.nn.paint import Paint
from dream3d.representations.base import Bake, Representation
from dream3d.types import Mesh

CHUNK = 1 << 16
"""Surface points that are painted at once."""
NAMES = {"albedo": "base_color", "roughness": "roughness", "metallic": "metallic"}
"""Of a material's inputs in `Bake`. A bump bends the shading only: files have it in no channel."""


def baked(
    paint: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N width"]], material: Material, device: torch.device
) -> Bake:
    """What texture baking asks for, out of raw numbers at points and the material that gives them their ranges.

    Args:
        paint: as `Faceted.paint`.
        material: whose inputs these are.
        device: on which `paint` computes.
    """

    @torch.no_grad()
    def bake(points: Float[Tensor, "N 3"]) -> dict[str, Float[Tensor, "N C"]]:
        parts = [material.activate(paint(some.to(device))) for some in points.split(CHUNK)]
        known = [name for name in NAMES if name in material.channels]
        return {NAMES[name]: torch.cat([part[name] for part in parts]).cpu() for name in known}

    return bake


def inherit(paint: Paint, start: Representation | None, mesh: Mesh | None) -> None:
    """Appearance survives a change of representation: paint of the same shape is copied, else colours are fitted.

    Args:
        paint: to be filled.
        start: the stage before.
        mesh: its surface, in float32 on the CPU.
    """
    source = getattr(start, "paint_field", None)
    if isinstance(source, Paint) and source.radius == paint.radius and source.encoding.spec == paint.encoding.spec:
        if source.mlp.net[-1].weight.shape == paint.mlp.net[-1].weight.shape:
            paint.load_state_dict(source.state_dict())
            return
    if mesh is not None and mesh.colors is not None and len(mesh.vertices):
        paint.fit(mesh.vertices.detach().float().cpu(), mesh.colors.detach().float().cpu())
