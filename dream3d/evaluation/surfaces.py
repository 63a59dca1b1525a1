"""Textured triangle meshes as plain arrays, read from GLB, OBJ and whatever else trimesh opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dream3d.checks import InputError
from dream3d.srgb import to_srgb

FIT = 0.9
"""Radius of the sphere around the origin into which every object is scaled, metres."""
UNPAINTED = 0.7
"""Grey of what has no colour of its own."""


@dataclass
class Surface:
    """Triangles with a colour each, or a texture. All colours are sRGB-coded, in [0, 1]."""

    vertices: np.ndarray  # V 3
    faces: np.ndarray  # F 3
    normals: np.ndarray  # V 3
    uv: np.ndarray  # V 2, origin at the bottom left
    part: np.ndarray  # F, index into `images` and `colors`
    colors: np.ndarray  # P 3
    images: list[np.ndarray | None]  # H W 3
    painted: np.ndarray | None = None  # V 3, colours of the vertices: they multiply the others


def fit(points: np.ndarray, size: tuple[float, float, float] | None = None) -> np.ndarray:
    """Centre the bounding box on the origin, stretch it to the proportions of `size` (None keeps them), and scale the
    points (V 3) into the sphere of radius `FIT`."""
    low, high = points.min(0), points.max(0)
    points = points - 0.5 * (low + high)
    if size is not None:
        points = points * (np.asarray(size) / np.maximum(high - low, 1e-9))
    return points * (FIT / max(float(np.linalg.norm(points, axis=1).max()), 1e-9))


def read_surface(
    path: Path, rotation: np.ndarray | None = None, size: tuple[float, float, float] | None = None
) -> Surface:
    """Read a mesh file with its materials, turn it, give it the proportions of `size`, and fit it into the sphere.

    Args:
        path: of the file; textures beside it are found.
        rotation: 3 x 3, applied first.
        size: width, height and depth whose proportions it gets.

    Raises:
        InputError: no mesh could be read from it.
    """
    import trimesh

    try:
        meshes = [m for m in trimesh.load(path, force="scene", process=False).dump() if len(getattr(m, "faces", ()))]
    except Exception as error:  # trimesh raises whatever its readers meet
        raise InputError(f"{path}: no mesh could be read ({type(error).__name__}).") from error
    if not meshes:
        raise InputError(f"{path}: expected a triangle mesh, got none.")
    turn = np.eye(3) if rotation is None else rotation
    coded = path.suffix.lower() in (".glb", ".gltf")  # glTF's factors and vertex colours are linear
    looks = [_look(mesh.visual, len(mesh.vertices), coded) for mesh in meshes]
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes[:-1])])
    counts = [len(m.faces) for m in meshes]
    painted = [np.ones((len(m.vertices), 3)) if p is None else p for m, (_, _, _, p) in zip(meshes, looks, strict=True)]
    return Surface(
        fit(np.concatenate([m.vertices for m in meshes]) @ turn.T, size),
        np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=True)]),
        np.concatenate([m.vertex_normals for m in meshes]) @ turn.T,
        np.concatenate([uv for uv, _, _, _ in looks]),
        np.repeat(np.arange(len(meshes)), counts),
        np.stack([color for _, color, _, _ in looks]),
        [image for _, _, image, _ in looks],
        np.concatenate(painted) if any(p is not None for _, _, _, p in looks) else None,
    )


def _look(visual: Any, count: int, linear: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Texture coordinates, colour, texture and vertex colours of one mesh with `count` vertices."""
    uv, painted, code = np.zeros((count, 2)), None, to_srgb if linear else lambda c: c
    if visual.kind == "vertex":
        return uv, np.ones(3), None, code(np.asarray(visual.vertex_colors)[:, :3] / 255.0)
    material, coordinates = getattr(visual, "material", None), getattr(visual, "uv", None)
    texture, color = getattr(material, "image", None), getattr(material, "diffuse", None)
    if hasattr(material, "baseColorTexture"):
        texture, factor = material.baseColorTexture, material.baseColorFactor  # type: ignore[union-attr]
        color = 255 * np.ones(3) if factor is None else 255 * code(np.asarray(factor, float)[:3] / 255)
    if texture is not None and coordinates is not None and len(coordinates) == count:
        return np.asarray(coordinates)[:, :2], np.ones(3), np.asarray(texture.convert("RGB"), np.float32) / 255, painted
    known = np.asarray(color, float)[:3] / 255 if color is not None and np.ndim(color) == 1 else np.full(3, UNPAINTED)
    return uv, known, None, painted
