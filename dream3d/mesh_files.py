"""Reading of mesh files with their materials: GLB, glTF, OBJ, PLY, STL, OFF. Files are a stranger's: sizes are checked
before anything is unpacked."""

from __future__ import annotations

import json
import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dream3d.checks import InputError
from dream3d.nn.color import to_linear, to_srgb
from dream3d.representations.textured import Look, Sheets, Textured
from dream3d.texturing import DEFAULT_ROUGHNESS, tangents
from dream3d.types import Mesh

log = logging.getLogger(__name__)

ENDINGS = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
MOST_BYTES = 1 << 30
MOST_FACES = 20_000_000
MOST_NUMBERS = 1 << 28
"""Rows of all accessors of a glTF together: an accessor without data is as long as it says."""
MOST_PIXELS = 1 << 28
"""Of all textures together."""
LARGEST_TEXTURE = 4096
"""Pixels a side; larger textures are averaged down to this."""
FIT = 0.9
"""Radius of the sphere around the origin into which meshes are scaled, metres: what the cameras look at."""
GREY = 0.7
"""sRGB code of what has no colour of its own."""
KNOWN_EXTENSIONS = ("KHR_materials_pbrSpecularGlossiness", "EXT_texture_webp")
"""What trimesh and Pillow take care of."""


def read_mesh(path: str | Path, *, fit: bool = True) -> Textured:
    """A mesh file with its materials, as something to draw.

    Scenes become one mesh, with a look for each material; factors, base colour, occlusion-roughness-metallic, normal
    and emissive textures are read. Alpha is drawn opaque. What a glTF asks for beyond that (extensions, alpha) is named
    in a warning. MTL's specular exponents become roughness, unless it says `Pr` and `Pm`.

    Args:
        path: of the file; textures beside it are found.
        fit: centre its bounding box and scale it into the sphere of radius 0.9 that the cameras look at.

    Raises:
        InputError: no such file, another format, too large, damaged, or no triangles; one line each.
    """
    path = Path(path)
    _check_file(path)
    pieces = _pieces(path)
    count = sum(len(piece.faces) for piece in pieces)
    if not count:
        raise InputError(f"{path.name}: expected a triangle mesh, got none.")
    vertices = np.concatenate([piece.vertices for piece in pieces])
    if not np.isfinite(vertices).all():
        raise InputError(f"{path.name} is damaged: it has vertices that are not finite.")
    if fit:
        vertices = _fitted(vertices)
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces[:-1])])
    looks: list[Look] = []
    numbers: dict[int, int] = {}
    part = []
    for piece in pieces:
        number = numbers.setdefault(piece.key, len(looks))
        if number == len(looks):
            looks.append(piece.look)
        part.append(np.full(len(piece.faces), number))
    mesh = Mesh(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(np.concatenate([p.faces + s for p, s in zip(pieces, starts, strict=True)])),
        normals=torch.from_numpy(np.concatenate([piece.normals for piece in pieces]).astype(np.float32)),
        colors=_joined([piece.colors for piece in pieces], pieces, 3, 1.0),
        uv=_joined([piece.uv for piece in pieces], pieces, 2, 0.0),
    )
    bent = mesh.uv is not None and any(look.normal is not None for look in looks)
    return Textured(
        Sheets(mesh, torch.from_numpy(np.concatenate(part)), tuple(looks), tangents(mesh) if bent else None)
    )


@dataclass(frozen=True)
class _Piece:
    """One mesh of one material, in the world. `key` tells materials apart."""

    vertices: NDArray
    faces: NDArray
    normals: NDArray
    uv: NDArray | None
    colors: NDArray | None
    look: Look
    key: int


def _check_file(path: Path) -> None:
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: expected a mesh file ({', '.join(ENDINGS)}), got '{path.suffix or path.name}'.")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if size > MOST_BYTES:
        raise InputError(f"{path.name}: expected at most {MOST_BYTES:,} bytes, got {size:,}.")
    if path.suffix.lower() in (".glb", ".gltf"):
        for what in _left_out(_gltf(path)):
            log.warning("%s: %s; drawn without.", path.name, what)


def _gltf(path: Path) -> dict[str, Any]:
    """The JSON of a glTF file; GLB is a header of 12 bytes and chunks, the first of which is JSON."""
    data = path.read_bytes()
    try:
        if path.suffix.lower() == ".glb":
            magic, _, _, length, kind = struct.unpack("<4sIIII", data[:20])
            if magic != b"glTF" or kind != 0x4E4F534A:
                raise ValueError
            data = data[20 : 20 + length]
        tree = json.loads(data)
        if not isinstance(tree, dict):
            raise ValueError
    except (ValueError, struct.error, RecursionError):
        raise InputError(f"{path.name} is damaged: it has no glTF header.") from None
    rows = sum(int(a.get("count", 0)) for a in tree.get("accessors") or () if isinstance(a, dict))
    if rows > MOST_NUMBERS:
        raise InputError(f"{path.name}: expected accessors of at most {MOST_NUMBERS:,} rows, got {rows:,}.")
    if missing := [name for name in tree.get("extensionsRequired") or () if "draco" in name or "meshopt" in name]:
        raise InputError(f"{path.name}: compressed with {missing[0]}, which is not read. Save it uncompressed.")
    return tree


def _left_out(tree: dict[str, Any]) -> list[str]:
    names = [f"extension {name}" for name in tree.get("extensionsUsed") or () if name not in KNOWN_EXTENSIONS]
    modes = {material.get("alphaMode") for material in tree.get("materials") or () if isinstance(material, dict)}
    return names + [f"alpha mode {mode}" for mode in ("BLEND", "MASK") if mode in modes]


def _pieces(path: Path) -> list[_Piece]:
    import trimesh

    try:
        scene = trimesh.load_scene(path, process=False)
        shown = [(matrix, scene.geometry[name]) for matrix, name in map(scene.graph.get, scene.graph.nodes_geometry)]
        shown = [(matrix, mesh) for matrix, mesh in shown if len(getattr(mesh, "faces", ()))]
        count = sum(len(mesh.faces) for _, mesh in shown)
        if count > MOST_FACES:
            raise InputError(f"{path.name}: expected at most {MOST_FACES:,} triangles, got {count:,}.")
        reader = _Reader(path)
        return [reader.piece(matrix, mesh) for matrix, mesh in shown]
    except InputError:
        raise
    except Exception as error:  # trimesh and Pillow raise whatever they meet
        raise InputError(f"{path.name}: no mesh could be read ({type(error).__name__}).") from error


class _Reader:
    """Meshes and materials of one file; a material that several meshes share is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # glTF's factors and vertex colours are linear; the other formats mean what a display is sent.
        self.linear = path.suffix.lower() in (".glb", ".gltf")
        self.looks: dict[int, Look] = {}
        self.images: dict[int, torch.Tensor] = {}
        self.pixels = 0

    def piece(self, matrix: NDArray, mesh: Any) -> _Piece:
        turn, shift = np.asarray(matrix, float)[:3, :3], np.asarray(matrix, float)[:3, 3]
        faces = np.asarray(mesh.faces, np.int64)
        if np.linalg.det(turn) < 0:
            faces = faces[:, ::-1].copy()
        normals = np.asarray(mesh.vertex_normals, float) @ np.linalg.pinv(turn)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = np.where(length > 1e-12, normals / np.maximum(length, 1e-12), (0.0, 1.0, 0.0))
        visual, count = mesh.visual, len(mesh.vertices)
        vertices = np.asarray(mesh.vertices, float) @ turn.T + shift
        uv = getattr(visual, "uv", None)
        uv = None if uv is None or len(uv) != count else np.asarray(uv, float)[:, :2] * (1, -1) + (0, 1)
        colors = None
        if visual.kind == "vertex":
            colors = self._coded(visual.vertex_colors)
        elif visual.kind == "texture" and len(visual.vertex_attributes.get("color", ())) == count:
            colors = self._coded(visual.vertex_attributes["color"])
        material = getattr(visual, "material", None) if visual.kind == "texture" else None
        key = id(material) if material is not None else (-1 if colors is None else -2)
        if key not in self.looks:
            self.looks[key] = self._look(material, 1.0 if colors is not None else GREY)
        return _Piece(vertices, faces, normals, uv, colors, self.looks[key], key)

    def _coded(self, colors: NDArray) -> NDArray:
        """Vertex colours, sRGB-coded."""
        colors = np.asarray(colors)[:, :3]
        scale = np.iinfo(colors.dtype).max if colors.dtype.kind in "iu" else 1.0
        return self._to_code(colors.astype(float) / scale)

    def _to_code(self, colors: NDArray) -> NDArray:
        return to_srgb(torch.from_numpy(colors.clip(0, 1))).numpy() if self.linear else colors.clip(0, 1)

    def _look(self, material: Any, bare: float) -> Look:
        """The look of a trimesh material; None is `bare`, an sRGB code."""
        if material is None:
            return Look(base_factor=_linear(np.full(3, bare)), orm_factor=(1.0, DEFAULT_ROUGHNESS, 0.0))
        if not hasattr(material, "baseColorTexture"):
            return self._plain_look(material)
        factor = material.baseColorFactor
        factor = np.ones(3) if factor is None else np.asarray(factor, float)[:3] / 255
        rough, metal = (1.0 if f is None else float(f) for f in (material.roughnessFactor, material.metallicFactor))
        glow = np.zeros(3) if material.emissiveFactor is None else np.asarray(material.emissiveFactor, float)[:3]
        return Look(
            base=self._image(material.baseColorTexture),
            orm=self._orm(material.occlusionTexture, material.metallicRoughnessTexture),
            normal=self._image(material.normalTexture),
            emissive=self._image(material.emissiveTexture),
            base_factor=_three(factor),
            orm_factor=(1.0, rough, metal),
            emissive_factor=_three(glow),
        )

    def _plain_look(self, material: Any) -> Look:
        """Of an MTL: diffuse colour or texture, and whatever roughness can be made out."""
        image = getattr(material, "image", None)
        color = getattr(material, "diffuse", None)
        coded = np.asarray(color, float)[:3] / 255 if color is not None and np.ndim(color) == 1 else np.full(3, GREY)
        told = {str(k).lower(): v for k, v in (getattr(material, "kwargs", None) or {}).items()}
        rough, metal = (_number(told.get(key)) for key in ("pr", "pm"))
        if rough is None and (shine := _number(told.get("ns"))) is not None:
            # Blinn-Phong's exponent as a microfacet roughness: alpha^2 = 2 / (n + 2), and alpha = roughness^2.
            rough = (2 / (max(shine, 0.0) + 2)) ** 0.25
        return Look(
            base=self._image(image),
            base_factor=(1.0, 1.0, 1.0) if image is not None else _linear(coded),
            orm_factor=(1.0, DEFAULT_ROUGHNESS if rough is None else min(rough, 1.0), min(metal or 0.0, 1.0)),
        )

    def _orm(self, occlusion: Any, rest: Any) -> torch.Tensor | None:
        if occlusion is None or occlusion is rest:
            image = self._image(rest)
            if image is not None and occlusion is None:
                image = torch.cat([torch.ones_like(image[..., :1]), image[..., 1:]], dim=-1)
            return image
        shade, image = self._image(occlusion), self._image(rest)
        assert shade is not None
        if image is None:
            image = torch.ones_like(shade)
        if shade.shape != image.shape:
            small = shade[..., :1].permute(2, 0, 1)[None]
            small = torch.nn.functional.interpolate(small, image.shape[:2], mode="bilinear", antialias=True)
            shade = small[0].permute(1, 2, 0)
        return torch.cat([shade[..., :1], image[..., 1:]], dim=-1)

    def _image(self, picture: Any) -> torch.Tensor | None:
        """Texels in [0, 1]."""
        if picture is None:
            return None
        if id(picture) not in self.images:
            width, height = picture.size
            self.pixels += width * height
            if self.pixels > MOST_PIXELS:
                raise InputError(f"{self.path.name}: expected textures of at most {MOST_PIXELS:,} pixels, got more.")
            if max(width, height) > LARGEST_TEXTURE:
                scale = LARGEST_TEXTURE / max(width, height)
                picture.draft("RGB", (LARGEST_TEXTURE, LARGEST_TEXTURE))
                size = (max(1, round(width * scale)), max(1, round(height * scale)))
                small = picture.convert("RGB").resize(size, resample=4)  # a box: the mean of what a texel covers
                self.images[id(picture)] = _texels(small)
            else:
                self.images[id(picture)] = _texels(picture.convert("RGB"))
        return self.images[id(picture)]


def _texels(picture: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)


def _three(values: NDArray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _linear(coded: NDArray) -> tuple[float, float, float]:
    return _three(to_linear(torch.from_numpy(coded.clip(0, 1))).numpy())


def _number(value: Any) -> float | None:
    """MTL's values come as text, alone or in a list."""
    try:
        number = float(np.asarray(value, float).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _fitted(points: NDArray) -> NDArray:
    low, high = points.min(0), points.max(0)
    points = points - 0.5 * (low + high)
    return points * (FIT / max(float(np.linalg.norm(points, axis=1).max()), 1e-30))


def _joined(values: list[NDArray | None], pieces: list[_Piece], width: int, missing: float) -> torch.Tensor | None:
    if all(value is None for value in values):
        return None
    filled = [
        np.full((len(p.vertices), width), missing) if v is None else v for v, p in zip(values, pieces, strict=True)
    ]
    return torch.from_numpy(np.concatenate(filled).astype(np.float32))
