"""Our physically based shading beside Mitsuba 3: 25 balls, five roughnesses by five shares of metal, one surrounding.

    pip install dream3d[eval]
    python benchmarks/mitsuba_balls.py [--light studio|sky] [--samples 128] [--pixels 48] [--sheet PICTURE]

Mitsuba draws its `principled` BSDF (specular 0.5, which is glTF's 4 %) by emitter and BSDF sampling. Two things differ
on purpose: it has no light that bounces between microfacets more than once, and its diffuse part is Disney's, which is
brighter towards the light's own direction. Errors are means over a ball's inner pixels of the displayed picture, in per
cent of its range.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dream3d.cameras import look_at
from dream3d.commands.base import table
from dream3d.lights import Panorama, Sky, Studio, Surroundings
from dream3d.materials import PBR, Material, MonteCarlo, metallic
from dream3d.media import to_bytes, write_picture
from dream3d.nn.color import display
from dream3d.renderers import Raster
from dream3d.representations.textured import Look, Sheets, Textured
from dream3d.types import Cameras, Mesh

ROUGH = (0.3, 0.475, 0.65, 0.825, 1.0)
METAL = (0.0, 0.25, 0.5, 0.75, 1.0)
BASE = (0.78, 0.32, 0.10)
"""Linear."""
PLACE, FOV = (1.2, 0.9, 4.5), 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--light", choices=("studio", "sky"), default="studio")
    parser.add_argument("--samples", type=int, default=128, help="of Mitsuba, a pixel")
    parser.add_argument("--pixels", type=int, default=32, help="of a ball's picture, a side")
    parser.add_argument("--sheet", type=Path, help="picture to write: Mitsuba, split sum, Monte Carlo")
    args = parser.parse_args()
    light: Panorama = {"studio": Studio, "sky": Sky}[args.light]()
    cameras = camera(args.pixels)
    grid = [(rough, metal) for rough in ROUGH for metal in METAL]
    theirs = torch.stack([display(mitsuba_ball(light, r, m, args.pixels, args.samples)) for r, m in grid])
    lights = Surroundings(maps={"it": light})
    kinds: dict[str, Material] = {"split sum": PBR(), "Monte Carlo": MonteCarlo(samples=384)}
    mesh, ours, alpha = ball_mesh(), {}, torch.zeros(())
    for once in (False, True):
        with one_bounce() if once else contextlib.nullcontext(), torch.no_grad():
            for name, material in kinds.items():
                drawn = [Raster(material=material, lights=lights)(ball(mesh, r, m), cameras) for r, m in grid]
                ours[f"{name}, one bounce" if once else name] = torch.cat([render.rgb for render in drawn])
                alpha = drawn[0].alpha[0, ..., 0]
    # One pixel in from the outline, where a facet may stand for a sphere.
    inside = ((alpha > 0.999) & ~torch.isnan(theirs[0, ..., 0])).float()
    inside = torch.nn.functional.avg_pool2d(inside[None, None], 3, 1, 1)[0, 0] > 0.999
    errors = {name: off(rgb, theirs, inside) for name, rgb in ours.items()}
    errors["the first two beside each other"] = off(ours["split sum"], ours["Monte Carlo"], inside)
    rows = [("per cent of the range", "mean of 25", "not metal", "metal", "worst")]
    for name, each in errors.items():
        rows.append(
            (name, *(f"{float(x):.2f}" for x in (each.mean(), each[:, 0].mean(), each[:, -1].mean(), each.max())))
        )
    print("\n".join(table(rows)))
    for name in ("Monte Carlo", "Monte Carlo, one bounce"):
        lines = [(str(r), *(f"{float(x):.2f}" for x in row)) for r, row in zip(ROUGH, errors[name], strict=True)]
        print("\n".join([f"\n{name}; metal to the right", *table([("roughness", *map(str, METAL)), *lines])]))
    if args.sheet:
        shown = inside[None, ..., None].float()
        three = (theirs, ours["split sum"], ours["Monte Carlo"])
        write_picture(args.sheet, np.concatenate([sheet(rgb, shown) for rgb in three], axis=1))


def off(one: Tensor, two: Tensor, inside: Tensor) -> Tensor:
    """Mean absolute difference of each ball of the grid, per cent."""
    return 100 * (one - two)[:, inside].abs().mean((1, 2)).view(len(ROUGH), len(METAL))


@contextlib.contextmanager
def one_bounce() -> Iterator[None]:
    """Our model without what is scattered between microfacets more than once, as Mitsuba's."""
    whole = metallic._bounced
    metallic._bounced = lambda f0, lobe: (f0 * lobe.a + lobe.b, torch.zeros_like(f0))
    try:
        yield
    finally:
        metallic._bounced = whole


def camera(pixels: int) -> Cameras:
    place = torch.tensor([PLACE])
    return Cameras(look_at(place, torch.zeros(1, 3), torch.tensor([[0.0, 1, 0]])), torch.tensor([FOV]), pixels, pixels)


def ball_mesh() -> Mesh:
    """A fine unit ball."""
    import trimesh

    made = trimesh.creation.icosphere(subdivisions=4)
    points = torch.from_numpy(np.ascontiguousarray(made.vertices)).float()
    return Mesh(points, torch.from_numpy(np.ascontiguousarray(made.faces)), normals=points)


def ball(mesh: Mesh, rough: float, metal: float) -> Textured:
    look = Look(base_factor=BASE, orm_factor=(1.0, rough, metal))
    return Textured(Sheets(mesh, torch.zeros(len(mesh.faces), dtype=torch.long), (look,)))


def mitsuba_ball(light: Panorama, rough: float, metal: float, pixels: int, samples: int) -> Tensor:
    """Linear radiance (H W 3) of the same ball under the same panorama; NaN where there is none."""
    import mitsuba as mi

    mi.set_variant("scalar_rgb")
    scene = mi.load_dict({
        "type": "scene",
        "integrator": {"type": "direct", "hide_emitters": True},
        "sensor": {
            "type": "perspective",
            "fov": float(np.degrees(FOV)),
            "fov_axis": "y",
            "to_world": mi.ScalarTransform4f().look_at(origin=PLACE, target=[0, 0, 0], up=[0, 1, 0]),
            "film": {
                "type": "hdrfilm", "width": pixels, "height": pixels, "pixel_format": "rgba", "rfilter": {"type": "box"}
            },
            "sampler": {"type": "independent", "sample_count": samples},
        },
        "light": {"type": "envmap", "bitmap": mi.Bitmap(light.radiance().numpy()), "scale": 1.0},
        "ball": {
            "type": "sphere",
            "bsdf": {
                "type": "principled",
                "base_color": {"type": "rgb", "value": list(BASE)},
                "roughness": rough,
                "metallic": metal,
                "specular": 0.5,
            },
        },
    })  # fmt: skip
    picture = torch.from_numpy(np.array(mi.render(scene)))
    return torch.where(picture[..., 3:] > 0.999, picture[..., :3], torch.nan)


def sheet(balls: Tensor, shown: Tensor) -> np.ndarray:
    """Pictures of the grid on grey, roughness downwards, metal to the right."""
    flat = torch.nan_to_num(balls) * shown + 0.5 * (1 - shown)
    cells = to_bytes(flat.permute(0, 3, 1, 2)).reshape(len(ROUGH), len(METAL), *flat.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in cells], axis=0)


if __name__ == "__main__":
    main()
