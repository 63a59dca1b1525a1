"""What the page shows in 3D, as the numbers that are sent: meshes, Gaussians, and pictures from a visitor's camera."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dream3d.cameras import opencv_to_opengl
from dream3d.checks import InputError
from dream3d.kernels.splat_reference import C0, to_rotation
from dream3d.media import to_bytes
from dream3d.renderers.base import Renderer
from dream3d.representations.base import Representation
from dream3d.splat_files import read_splats
from dream3d.types import Cameras, Splats

LARGEST = 256_000_000
"""Bytes of a file that is sent to a browser."""
MOST = 1_000_000
"""Gaussians that are sent; of more, the most opaque."""
FIT = 0.9
"""Radius of the sphere that a file's content is scaled into: what a run's cameras look at is as large."""
TALLEST, WIDEST = 1024, 4.0
"""Limits of a visitor's picture: pixels high, and how many times as wide."""


@dataclass(frozen=True)
class Placed:
    """How a file's content gets to the origin: scaled, then moved."""

    scale: float = 1.0
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Points:
    """Gaussians as the page takes them: N x 3 centres, N x 3 x 3 covariances, N x 3 colours and N x 1 opacities."""

    centers: np.ndarray
    covariances: np.ndarray
    rgbs: np.ndarray
    opacities: np.ndarray


def place(low: Sequence[float], high: Sequence[float]) -> Placed:
    """What brings a box into the sphere of radius `FIT` around the origin."""
    corner = np.subtract(high, low).astype(float) / 2
    scale = FIT / max(float(np.linalg.norm(corner)), 1e-9)
    x, y, z = (-scale * (np.asarray(low, float) + corner)).tolist()
    return Placed(scale, (x, y, z))


def read_glb(path: Path) -> tuple[bytes, Placed]:
    """A GLB that may be handed to a browser, and what brings it into view.

    Raises:
        InputError: no such file, too large, no GLB, or one that would fetch something from elsewhere.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: larger than {LARGEST // 1_000_000} MB.")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    try:
        magic, version, length, inside, kind = struct.unpack_from("<4sIII4s", data)
        tree = json.loads(data[20 : 20 + inside]) if (magic, version, kind) == (b"glTF", 2, b"JSON") else None
        if not isinstance(tree, dict) or length > len(data):
            raise ValueError
        outside = [part["uri"] for kind in ("buffers", "images") for part in tree.get(kind, []) if "uri" in part]
        low, high = _bounds(tree)
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise InputError(f"{path}: expected a GLB (glTF 2.0 binary), got something else or a damaged one.") from None
    if not all(str(uri).startswith("data:") for uri in outside):
        raise InputError(f"{path}: refers to files outside of it, which are not fetched.")
    return data, place(low, high)


@np.errstate(all="ignore")  # what is not finite is refused at the end
def _bounds(tree: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Bounding box of the scene: that of every mesh, as its accessors state it, with its nodes' motions."""
    nodes, scenes = tree.get("nodes", []), tree.get("scenes", [])
    roots = scenes[tree.get("scene", 0)].get("nodes", []) if scenes else range(len(nodes))
    waiting = [(index, np.eye(4)) for index in roots]
    corners, left = [], len(nodes)
    while waiting and left:  # a tree has every node once; another graph might go on for ever
        (index, above), left = waiting.pop(), left - 1
        node = nodes[index]
        motion = above @ _motion(node)
        waiting += [(child, motion) for child in node.get("children", [])]
        for part in tree["meshes"][node["mesh"]]["primitives"] if "mesh" in node else ():
            about = tree["accessors"][part["attributes"]["POSITION"]]
            box = np.array([about["min"], about["max"]], float).reshape(2, 3)
            inside = np.stack(np.meshgrid(*box.T), axis=-1).reshape(8, 3)
            corners.append(inside @ motion[:3, :3].T + motion[:3, 3])
    if not corners:
        return [-1.0] * 3, [1.0] * 3
    found = np.concatenate(corners)
    if not np.isfinite(found).all():
        raise ValueError
    return found.min(axis=0).tolist(), found.max(axis=0).tolist()


def _motion(node: dict[str, Any]) -> np.ndarray:
    """A node's matrix, 4 x 4; glTF writes columns first, and quaternions as x, y, z, w."""
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    x, y, z, w = (float(n) for n in node.get("rotation", (0, 0, 0, 1)))
    turn = to_rotation(torch.tensor([[w, x, y, z]], dtype=torch.float64))[0].numpy()
    motion = np.eye(4)
    motion[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), float).reshape(3)
    motion[:3, 3] = np.array(node.get("translation", (0, 0, 0)), float).reshape(3)
    return motion


def read_points(path: Path) -> tuple[Points, Placed]:
    """A splat file.

    Raises:
        InputError: no such file, too large, or not one.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: larger than {LARGEST // 1_000_000} MB.")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    splats = read_splats(path)
    if not len(splats):
        return points(splats), Placed()
    low, high = (torch.quantile(splats.means[: 1 << 20], q, dim=0).tolist() for q in (0.02, 0.98))
    return points(splats), place(low, high)


@torch.no_grad()
def points(splats: Splats) -> Points:
    """Gaussians for the page, which knows no colour that depends on the direction: degree 0 alone."""
    if len(splats) > MOST:
        best = splats.opacities.topk(MOST).indices
        splats = Splats(
            splats.means[best], splats.quaternions[best], splats.scales[best], splats.opacities[best], splats.sh[best]
        )
    axes = to_rotation(splats.quaternions.float()) * splats.scales.float()[:, None, :]
    covariances = axes @ axes.mT
    rgbs = (0.5 + C0 * splats.sh[:, 0].float()).clamp(0, 1)
    arrays = (splats.means.float(), covariances, rgbs, splats.opacities.float()[:, None])
    return Points(*(array.detach().cpu().numpy() for array in arrays))


def camera_at(wxyz: Sequence[float], position: Sequence[float], fov_y: float, aspect: float, pixels: int) -> Cameras:
    """A visitor's camera. The page speaks OpenCV: x right, y down, z forward, camera to world.

    Args:
        wxyz: rotation.
        position: metres.
        fov_y: radians.
        aspect: width over height.
        pixels: height of the picture.
    """
    c2w = torch.eye(4)
    c2w[:3, :3] = to_rotation(torch.tensor([list(wxyz)], dtype=torch.float32))[0]
    c2w[:3, 3] = torch.tensor(list(position), dtype=torch.float32)
    height = min(max(pixels, 16), TALLEST)
    width = min(max(round(height * min(max(aspect, 1 / WIDEST), WIDEST)), 16), round(WIDEST * TALLEST))
    return Cameras(opencv_to_opengl(torch.linalg.inv(c2w)[None]), torch.tensor([float(fov_y)]), height, width)


@torch.no_grad()
def draw(renderer: Renderer, representation: Representation, camera: Cameras) -> np.ndarray:
    """The representation over white, H W 3 bytes. Draws no random number."""
    device = next((p.device for p in representation.parameters()), torch.device("cpu"))
    return to_bytes(renderer(representation, camera.to(device)).over(torch.ones(3, device=device)))[0]
