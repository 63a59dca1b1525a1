"""How much detail survives decimation: assets of few and many faces against their source's own pictures, in dB.

    python benchmarks/rebake.py [RUN] [--faces 2000,8000,40000] [--texture-size 1024] [--sheet docs/images/rebake.jpg]

RUN is the folder of a run, or latest; without it the source is a bumpy ball in closed form. "Rendered" compares the
bare colours with what the run's own renderer draws. "Colour" and "lit" compare with the full surface, asked for colour
and normal at every pixel; "no map" is lit without the normal map. Only pixels count that either picture covers.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dream3d.cameras import turntable
from dream3d.commands.base import open_run, table
from dream3d.export import Export
from dream3d.kernels.mesh import interpolate, mip_levels, project_vertices, rasterise
from dream3d.kernels.texture import sample_texture
from dream3d.materials.normals import tangent_space
from dream3d.media import row, write_picture
from dream3d.meshing import clean
from dream3d.nn.color import to_linear, to_srgb
from dream3d.nn.isosurface import isosurface, sample_grid
from dream3d.representations.base import Representation, Surfaced
from dream3d.texturing import tangents
from dream3d.types import Cameras, Mesh

FINE = 2
"""Samples a pixel and axis."""
LAMP, AMBIENT = (0.5, 0.7, 0.5), 0.25


class Bumps(Representation):
    """A ball with bumps of two sizes and a pattern, in closed form."""

    def depth(self, points: Tensor) -> Tensor:
        bumps = 0.05 * torch.sin(9 * points).prod(-1) + 0.012 * torch.sin(31 * points).prod(-1)
        return 0.65 + bumps - points.norm(dim=-1)

    def colour(self, points: Tensor) -> dict[str, Tensor]:
        with torch.enable_grad():
            leaf = points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.depth(leaf).sum(), leaf)
        color = 0.5 + 0.4 * torch.sin(torch.tensor([17.0, 23.0, 13.0]) * points)
        return {"base_color": color, "normal": -functional.normalize(slope, dim=-1)}

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        values = sample_grid(self.depth, 1.0, resolution, torch.device("cpu"))
        return Surfaced(isosurface(values, iso or 0.0, 1.0), self.colour)

    def to_mesh(self) -> Mesh:
        return self.surface().mesh


class Found(Representation):
    """A surface that is not looked for again."""

    def __init__(self, surfaced: Surfaced) -> None:
        super().__init__()
        self.surfaced = surfaced

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        return self.surfaced

    def to_mesh(self) -> Mesh:
        return self.surfaced.mesh


@dataclass(frozen=True)
class Pictures:
    """B H W 3 over white, sRGB-coded, and what is covered (B H W 1)."""

    color: Tensor
    lit: Tensor
    alpha: Tensor


def pictures(color: Tensor, normal: Tensor, hit: Tensor) -> Pictures:
    """Of values at the samples that hit something (N 3) and which those are (B H W)."""
    lamp = functional.normalize(torch.tensor(LAMP), dim=0)
    light = AMBIENT + (1 - AMBIENT) * (normal @ lamp).clamp_min(0)[:, None]
    layers = []
    for values in (color, to_srgb(to_linear(color) * light)):
        image = torch.ones(*hit.shape, 3)
        image[hit] = values
        layers.append(image)
    color, lit, alpha = (
        functional.avg_pool2d(x.permute(0, 3, 1, 2), FINE).permute(0, 2, 3, 1)
        for x in (*layers, hit[..., None].float())
    )
    return Pictures(color, lit, alpha)


def of_surface(surfaced: Surfaced, cameras: Cameras) -> Pictures:
    """The full surface, which is asked at every sample."""
    mesh = clean(surfaced.mesh)
    fragments = rasterise(project_vertices(mesh.vertices, cameras), mesh.faces)
    hit = fragments.face >= 0
    points = interpolate(mesh.vertices, mesh.faces, fragments)[hit]
    parts = [surfaced.bake(some) for some in points.split(1 << 16)]
    color, normal = (torch.cat([part[name] for part in parts]) for name in ("base_color", "normal"))
    return pictures(color, normal, hit)


def of_asset(mesh: Mesh, cameras: Cameras, *, mapped: bool = True) -> Pictures:
    """The exported mesh with its textures of eight bits, through mip levels; `mapped`: with the normal map."""
    assert mesh.material is not None and mesh.uv is not None and mesh.normals is not None
    projected = project_vertices(mesh.vertices, cameras)
    fragments = rasterise(projected, mesh.faces)
    hit = fragments.face >= 0
    uv = interpolate(mesh.uv, mesh.faces, fragments)
    texels = torch.cat([mesh.material.base_color, mesh.material.normal], dim=-1).mul(255).round() / 255
    levels = mip_levels(projected, mesh.faces, fragments, mesh.uv, mesh.faces, size=texels.shape[:2])
    seen = sample_texture(texels, uv, levels=levels, wrap="clamp")[hit]
    normal = functional.normalize(interpolate(mesh.normals, mesh.faces, fragments)[hit], dim=-1)
    if mapped:
        frame = interpolate(tangents(mesh), mesh.faces, fragments)[hit]
        frame = torch.cat([functional.normalize(frame[:, :3], dim=-1), frame[:, 3:].sign()], dim=-1)
        normal = tangent_space(normal, frame, seen[:, 3:])
    return pictures(seen[:, :3], normal, hit)


def psnr(a: Tensor, b: Tensor, covered: Tensor) -> float:
    """dB over the pixels that are covered at all."""
    inside = covered[..., 0] > 0
    return -10 * math.log10(max(float((a - b)[inside].square().mean()), 1e-12))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", help="folder of a run, or latest")
    parser.add_argument("--out", default="outputs", help="where runs are looked for")
    parser.add_argument("--faces", default="2000,8000,40000")
    parser.add_argument("--texture-size", type=int, default=1024)
    parser.add_argument("--resolution", type=int, default=192, help="cells along an axis of the surface")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument(
        "--sheet", type=Path, help="picture to write: the source, then every face count without and with map"
    )
    args = parser.parse_args()
    args.device, args.quiet = "cpu", True
    cameras = turntable(args.views, args.pixels)
    source, rendered = Bumps(), None
    if args.run:
        run, pipeline = open_run(args)
        source = pipeline.restore(run)
        white = torch.ones(3)
        rendered = torch.cat([pipeline.renderer(source, cameras[i]).over(white) for i in range(args.views)])
        rendered = rendered.permute(0, 2, 3, 1)
    fine = cameras.resized(FINE * args.pixels, FINE * args.pixels)
    surfaced = source.surface(resolution=args.resolution)
    truth = of_surface(surfaced, fine)
    rows, strips = [("faces", "rendered", "colour", "lit", "lit, no map")], [truth.lit]
    for faces in map(int, args.faces.split(",")):
        mesh = Export(faces=faces, texture_size=args.texture_size).textured(Found(surfaced))
        made, bare = of_asset(mesh, fine), of_asset(mesh, fine, mapped=False)
        covered = truth.alpha + made.alpha
        compared = [(made.color, rendered), (made.color, truth.color), (made.lit, truth.lit), (bare.lit, truth.lit)]
        found = ["-" if b is None else f"{psnr(a, b, covered):.1f}" for a, b in compared]
        rows.append((f"{len(mesh.faces):,}", *found))
        strips += [bare.lit, made.lit]
        print("\n".join(table(rows[:1] + rows[-1:])), flush=True)
    full = f"{len(clean(surfaced.mesh).faces):,}"
    print(f"source of {full} faces, textures of {args.texture_size}², {args.views} views of {args.pixels}²; dB")
    print("\n".join(table(rows)))
    if args.sheet:
        write_picture(args.sheet, np.concatenate([row(strip.permute(0, 3, 1, 2)) for strip in strips]))


if __name__ == "__main__":
    main()
