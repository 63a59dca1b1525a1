"""Materials found again from pictures: what the whole chain, from texels to antialiased pixels, is there for."""

from __future__ import annotations

from typing import final

import pytest
import torch
from torch import Tensor, nn

from dream3d.cameras import turntable
from dream3d.kernels.texture import sample_texture
from dream3d.lights import Sky, Studio, Surroundings
from dream3d.materials import PBR
from dream3d.renderers import Raster
from dream3d.representations.base import Faceted, Surfaced
from dream3d.types import Mesh
from tests.kernels.mesh_scenes import icosphere

MATERIAL = PBR(roughness=(0.08, 0.9), metallic=(0.0, 1.0))
LIGHTS = {
    "studio": Studio(),
    "sky": Sky(azimuth_deg=60),
    "evening": Sky(azimuth_deg=-110, elevation_deg=15, sun=0.6),
}
ROWS = 8
"""Of the texture; it is twice as wide."""
STEPS = 210


@final
class Ball(Faceted):
    """A ball whose paint is a texture by longitude and latitude of the place."""

    width = MATERIAL.width

    def __init__(self, raw: Tensor) -> None:
        super().__init__()
        self.raw = nn.Parameter(raw)
        self.vertices, self.faces = icosphere(3, torch.float32)

    def facets(self) -> Mesh:
        return Mesh(self.vertices, self.faces, normals=self.vertices)

    def paint(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        x, y, z = torch.nn.functional.normalize(points, dim=-1).unbind(-1)
        place = torch.stack([0.5 + torch.atan2(x, z) / (2 * torch.pi), torch.acos(y.clamp(-1, 1)) / torch.pi], dim=-1)
        return sample_texture(self.raw, place)

    def to_mesh(self) -> Mesh:
        return self.facets()

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        raise NotImplementedError


def truth() -> Tensor:
    """Patches of colour, rough and smooth ones, some of metal; in the numbers that `activate` takes."""
    generator = torch.Generator().manual_seed(4)
    albedo = 0.15 + 0.7 * torch.rand(ROWS, 2 * ROWS, 3, generator=generator)
    rough = torch.where(torch.arange(2 * ROWS) % 8 < 4, 0.3, 0.7).expand(ROWS, -1)
    metal = torch.where(torch.arange(ROWS)[:, None] < ROWS // 2, 0.05, 0.9).expand(-1, 2 * ROWS)
    return torch.cat(
        [torch.logit(albedo), torch.logit((rough[..., None] - 0.08) / 0.82), torch.logit(metal[..., None])], dim=-1
    )


def renderers() -> list[Raster]:
    made = [Surroundings(maps={name: panorama}, height=32) for name, panorama in LIGHTS.items()]
    return [Raster(material=MATERIAL, lights=lights) for lights in made]


@pytest.mark.slow
def test_albedo_roughness_and_metallic_are_found_again() -> None:
    """From grey, half rough, half metal, by twelve pictures of a known ball under three known lights."""
    views = turntable(4, 40)
    above, below = (turntable(4, 40, elevation_deg=e) for e in (40.0, -25.0))
    cameras = [views, above, below]
    drawing = renderers()
    with torch.no_grad():
        known = Ball(truth())
        wanted = [[renderer(known, some) for some in cameras] for renderer in drawing]
    found = Ball(torch.zeros_like(known.raw))
    optimizer = torch.optim.Adam(found.parameters(), lr=0.1)
    for step in range(STEPS):
        which, where = step % 3, step // 3 % 3
        render = drawing[which](found, cameras[where])
        loss = (render.rgb - wanted[which][where].rgb).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / STEPS) + 0.005
    # Where a picture shows it: the poles' texels are hardly ever seen.
    with torch.no_grad():
        errors: dict[str, list[Tensor]] = {name: [] for name in MATERIAL.channels}
        for where, some in enumerate(cameras):
            one, two = drawing[0](found, some), wanted[0][where]
            inside = two.alpha[..., 0] > 0.999
            for name, off in errors.items():
                off.append((one.aux[name] - two.aux[name])[inside].abs().flatten())
    mean = {name: float(torch.cat(off).mean()) for name, off in errors.items()}
    assert mean["albedo"] < 0.05 and mean["roughness"] < 0.08 and mean["metallic"] < 0.1, mean
