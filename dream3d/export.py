"""From a representation to files that other programs open."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dream3d.checks import InputError, RunError, in_range, one_of
from dream3d.gltf import JSON as JSON
from dream3d.gltf import TEXTURES, write_textures
from dream3d.gltf import write_glb as write_glb
from dream3d.gltf import write_obj as write_obj
from dream3d.media import sheet, to_bytes, write_picture
from dream3d.meshing import clean, decimate, topology, vertex_normals
from dream3d.representations.base import Representation
from dream3d.representations.image import Image
from dream3d.runs import write_atomically
from dream3d.splat_files import Axes, write_splats
from dream3d.splat_files.base import AXES
from dream3d.texturing import bake, unwrap
from dream3d.types import Mesh, Splats

GUTTER = 4
"""Texels between charts; two mip levels below, charts are still one texel apart."""

SPLATS = {
    "ply": ".ply",
    "compressed-ply": ".compressed.ply",
    "splat": ".splat",
    "spz": ".spz",
    "splat-glb": ".splats.glb",
}
"""Formats of Gaussians, and how their files end."""

FORMATS = ("glb", "obj", "png", *SPLATS)

VISIBLE = 0.1
"""Opacity from which a Gaussian counts when the size of an asset is asked for."""


@runtime_checkable
class HasSplats(Protocol):
    """A representation that is made of Gaussians."""

    def to_splats(self) -> Splats: ...


class Export:
    """Surface, clean-up, decimation, UV atlas, baked textures, files.

    Args:
        formats: "glb" (glTF 2.0, everything in one file), "obj" (with MTL and PNGs); "png", for an `Image` alone: its
            pictures, and a contact sheet where there are several. For Gaussians also "ply" (3DGS), "compressed-ply"
            (SuperSplat), "splat", "spz" and "splat-glb" (KHR_gaussian_splatting, experimental); with none but these, no
            surface is looked for.
        faces: triangles at most, about. The UV atlas takes 2 s at 20 000 and four times that at 50 000.
        texture_size: side of the square textures, texels.
        resolution: cells along an axis when the surface is looked for.
        iso: level of the surface in the representation's own unit; None chooses it.
        size_m: length of the longest side in metres; None keeps the training size (about 2 m).
        ground: put the lowest point on y = 0 and the middle over the origin.
        unlit: write KHR_materials_unlit: viewers show the baked colours without lighting them.
        seconds: time limit of the UV atlas, after which a coarser one is used.
        splat_axes: of PLY and .splat files: "opengl" (y up) or "opencv" (y down); see `write_splats`.
    """

    def __init__(
        self,
        *,
        formats: tuple[Literal["glb", "obj", "png", "ply", "compressed-ply", "splat", "spz", "splat-glb"], ...] = (
            "glb",
        ),
        faces: int = 20000,
        texture_size: int = 1024,
        resolution: int = 128,
        iso: float | None = None,
        size_m: float | None = None,
        ground: bool = False,
        unlit: bool = False,
        seconds: float = 60.0,
        splat_axes: Axes = "opengl",
    ) -> None:
        if not formats:
            raise InputError(f"formats: expected one or more of {', '.join(FORMATS)}, got none.")
        for name in formats:
            one_of("format", name, FORMATS)
        in_range("faces", faces, 4, 5_000_000)
        in_range("texture size", texture_size, 64, 8192)
        in_range("resolution", resolution, 8, 1024)
        in_range("seconds", seconds, 0)
        if size_m is not None:
            in_range("size_m", size_m, 1e-6, 1e6)
        one_of("splat_axes", splat_axes, AXES)
        self.formats = tuple(formats)
        self.faces = faces
        self.texture_size = texture_size
        self.resolution = resolution
        self.iso = iso
        self.size_m = size_m
        self.ground = ground
        self.unlit = unlit
        self.seconds = seconds
        self.splat_axes: Axes = splat_axes

    def __call__(
        self,
        representation: Representation,
        folder: Path,
        name: str,
        extras: Mapping[str, JSON],
        *,
        say: Callable[[str], None] | None = None,
    ) -> list[Path]:
        """Write `folder/name.glb` and what belongs to it; returns the files, the asked-for formats first.

        Args:
            representation: what was trained.
            folder: made if absent; files of the same names are replaced, each in one step.
            name: file name without ending.
            extras: JSON values to embed (prompt, seed, ...).
            say: receives a line before each part of the work.

        Raises:
            RunError: there is no surface. No file is written.
            InputError: the representation has not what a format needs.
        """
        if not name or name != Path(name).name or name.startswith("."):
            raise InputError(f"export name: expected a plain file name, got '{name}'.")
        if "png" in self.formats:
            return self._pictures(representation, Path(folder), name)
        endings = [SPLATS[form] for form in self.formats if form in SPLATS]
        splats = self._splats(representation) if endings else None
        surface = len(endings) < len(self.formats)
        mesh = self.textured(representation, say=say) if surface else None
        say = say or _silent
        folder = Path(folder)
        written = [] if mesh is None else self._surface_files(mesh, folder, name, extras, say)
        meshes = [path for path in written if path.suffix in (".glb", ".obj")]
        facts = {} if mesh is None else check(mesh, meshes)
        if splats is not None:
            say(f"writing {len(splats):,} Gaussians")
            files = [folder / f"{name}{ending}" for ending in endings]
            for path in files:
                write_splats(splats, path, axes=self.splat_axes, extras=extras)
            facts["splats"] = check_splats(splats, files)
            written += files
        write_atomically(folder / "check.json", json.dumps(facts, indent=2) + "\n")
        return [*written, folder / "check.json"]

    def _surface_files(
        self, mesh: Mesh, folder: Path, name: str, extras: Mapping[str, JSON], say: Callable[[str], None]
    ) -> list[Path]:
        written: list[Path] = []
        if "glb" in self.formats:
            say(f"writing {name}.glb")
            write_glb(mesh, folder / f"{name}.glb", extras, unlit=self.unlit)
            written.append(folder / f"{name}.glb")
        if "obj" in self.formats:
            say(f"writing {name}.obj")
            written += write_obj(mesh, folder / f"{name}.obj")
        elif mesh.material is not None:
            written += write_textures(mesh.material, folder / "textures")
        return written

    def _splats(self, representation: Representation) -> Splats:
        if not isinstance(representation, HasSplats):
            forms = ", ".join(form for form in self.formats if form in SPLATS)
            raise InputError(f"formats: {forms} are for Gaussians; a {type(representation).__name__} has glb and obj.")
        splats = representation.to_splats()
        if not len(splats):
            raise RunError("no Gaussians are left to export.")
        visible = splats.means[splats.opacities > VISIBLE]
        scale, shift = self._placement(visible if len(visible) > 1 else splats.means)
        return replace(splats, means=splats.means * scale + shift, scales=splats.scales * scale)

    def _pictures(self, representation: Representation, folder: Path, name: str) -> list[Path]:
        """`folder/name.png`, or for several name-1.png ... and name-sheet.png."""
        if not isinstance(representation, Image):
            raise InputError(f"formats: png is for image planes; a {type(representation).__name__} has glb and obj.")
        if self.formats != ("png",):
            raise InputError(f"formats: an image has no surface; expected [png], got {', '.join(self.formats)}.")
        folder.mkdir(parents=True, exist_ok=True)
        pictures = representation.pictures.detach()
        several = len(pictures) > 1
        written = [folder / (f"{name}-{i}.png" if several else f"{name}.png") for i in range(1, len(pictures) + 1)]
        for path, pixels in zip(written, to_bytes(pictures), strict=True):
            write_picture(path, pixels)
        if several:
            written.insert(0, folder / f"{name}-sheet.png")
            write_picture(written[0], sheet(pictures))
        return written

    def textured(self, representation: Representation, *, say: Callable[[str], None] | None = None) -> Mesh:
        """The finished mesh without writing it: UVs, normals and material; placed by `size_m` and `ground`."""
        say = say or _silent
        say(f"looking for the surface in {self.resolution}³ cells")
        surfaced = representation.surface(iso=self.iso, resolution=self.resolution)
        whole = clean(surfaced.mesh)
        say(f"surface of {len(whole.faces):,} faces; reducing to {self.faces:,}")
        # Decimation can pinch off crumbs.
        mesh = clean(decimate(whole, self.faces))
        mesh = replace(mesh, normals=vertex_normals(mesh), colors=None)
        say(f"UV atlas of {len(mesh.faces):,} faces")
        mesh = unwrap(mesh, texture=self.texture_size, gutter=GUTTER, seconds=self.seconds)
        say(f"baking textures of {self.texture_size}²")
        detailed = whole if len(whole.faces) > len(mesh.faces) else None
        mesh = replace(mesh, material=bake(mesh, surfaced.bake, texture=self.texture_size, surface=detailed))
        return self._placed(mesh)

    def _placed(self, mesh: Mesh) -> Mesh:
        scale, shift = self._placement(mesh.vertices)
        return replace(mesh, vertices=mesh.vertices * scale + shift)

    def _placement(self, points: Float[Tensor, "N 3"]) -> tuple[float, Float[Tensor, "3"]]:
        """How much to scale, and by what to shift after that."""
        scale, shift = 1.0, torch.zeros_like(points[0])
        if self.size_m is not None:
            extent = float((points.amax(0) - points.amin(0)).max())
            scale = self.size_m / extent if extent > 0 else 1.0
        if self.ground:
            low, high = scale * points.amin(0), scale * points.amax(0)
            shift = -torch.stack([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
        return scale, shift


def check(mesh: Mesh, files: list[Path]) -> dict[str, Any]:
    """Facts about an exported mesh, as JSON: what a user asks before putting it into a scene.

    `uv_use` is the share of the texture inside UV triangles; `bounds` and `size` are metres.
    """
    shape = topology(mesh)
    low, high = (x.tolist() for x in (mesh.vertices.amin(0).double(), mesh.vertices.amax(0).double()))
    material = mesh.material
    images = {} if material is None else {field: getattr(material, field) for field in TEXTURES}
    return {
        "faces": len(mesh.faces),
        "vertices": len(mesh.vertices),
        "components": shape.components,
        "watertight": shape.watertight,
        "manifold": shape.manifold,
        "uv_use": None if mesh.uv is None else round(_area(mesh.uv[mesh.faces].double().numpy()), 4),
        "bounds": {"low": _short(low), "high": _short(high)},
        "size": _short([b - a for a, b in zip(low, high, strict=True)]),
        "textures": {TEXTURES[field]: list(image.shape[:2]) for field, image in images.items() if image is not None},
        "bytes": {path.name: path.stat().st_size for path in files},
    }


def check_splats(splats: Splats, files: list[Path]) -> dict[str, Any]:
    """Facts about exported Gaussians, as JSON; `bounds` and `size` (metres) are those of their centres."""
    low, high = (x.tolist() for x in (splats.means.amin(0).double(), splats.means.amax(0).double()))
    return {
        "gaussians": len(splats),
        "sh_degree": math.isqrt(splats.sh.shape[1]) - 1,
        "bounds": {"low": _short(low), "high": _short(high)},
        "size": _short([b - a for a, b in zip(low, high, strict=True)]),
        "bytes": {path.name: path.stat().st_size for path in files},
    }


def _area(triangles: NDArray) -> float:
    """Of triangles in the plane, together: (F, 3, 2)."""
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    return 0.5 * float(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum())


def _short(values: list[float]) -> list[float]:
    return [round(value, 6) for value in values]


def _silent(line: str) -> None:
    pass
