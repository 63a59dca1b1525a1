"""The bundles in which tensors travel. Units, axes and colour spaces are fixed here, once.

World: right-handed, y-up, +Z is the object's front, metres. Cameras: OpenGL axes (x right, y up, -z forward),
camera-to-world. Angles: radians. Colour: display-referred (sRGB-coded), in [0, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.checks import InputError


@dataclass(frozen=True)
class Cameras:
    """`B` pinhole cameras with square pixels and the principal point in the middle of the image."""

    c2w: Float[Tensor, "B 4 4"]
    fov_y: Float[Tensor, "B"]
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.c2w.ndim != 3 or self.c2w.shape[1:] != (4, 4) or self.fov_y.shape != self.c2w.shape[:1]:
            raise InputError(
                f"Cameras: expected c2w (B, 4, 4) and fov_y (B,), got {tuple(self.c2w.shape)} and "
                f"{tuple(self.fov_y.shape)}"
            )
        if self.height < 1 or self.width < 1:
            raise InputError(f"Cameras: height and width must be 1 or more, got {self.height} x {self.width}")

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Cameras:
        """A subset of the cameras; an int keeps the batch axis."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):  # what ends `for camera in cameras`
                raise IndexError(f"camera {index} of {len(self)}")
            index = slice(index, index + 1) if index != -1 else slice(-1, None)
        return Cameras(self.c2w[index], self.fov_y[index], self.height, self.width)

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(self.c2w.to(device), self.fov_y.to(device), self.height, self.width)

    def resized(self, height: int, width: int) -> Cameras:
        """The same cameras with another number of pixels."""
        return dataclasses.replace(self, height=height, width=width)

    @property
    def position(self) -> Float[Tensor, "B 3"]:
        return self.c2w[:, :3, 3]

    @property
    def distance(self) -> Float[Tensor, "B"]:
        """From the world's origin, in metres."""
        return self.position.norm(dim=-1)

    @property
    def azimuth(self) -> Float[Tensor, "B"]:
        """0 looks at the object's front from +Z, pi/2 from +X (the object's left), in (-pi, pi]."""
        return torch.atan2(self.position[:, 0], self.position[:, 2])

    @property
    def elevation(self) -> Float[Tensor, "B"]:
        """0 at the horizon, pi/2 above, in [-pi/2, pi/2]."""
        return torch.asin((self.position[:, 1] / self.distance.clamp_min(1e-12)).clamp(-1, 1))

    def rays(self) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 3"]]:
        """Origins and unit directions through the pixel centres; row 0 is the top of the image."""
        like = {"device": self.c2w.device, "dtype": self.c2w.dtype}
        focal = 0.5 * self.height / torch.tan(0.5 * self.fov_y)
        x = torch.arange(self.width, **like) + 0.5 - 0.5 * self.width
        y = 0.5 * self.height - torch.arange(self.height, **like) - 0.5
        yy, xx = torch.meshgrid(y, x, indexing="ij")
        local = torch.stack([xx, yy, torch.zeros_like(xx)], dim=-1)[None] / focal[:, None, None, None]
        local = local - torch.tensor([0.0, 0.0, 1.0], **like)
        directions = torch.einsum("bij,bhwj->bhwi", self.c2w[:, :3, :3], local)
        directions = directions / directions.norm(dim=-1, keepdim=True)
        return self.position[:, None, None].expand_as(directions), directions


@dataclass(frozen=True)
class Render:
    """What a renderer returns: colour premultiplied by `alpha`, over black.

    `depth` is the expected distance along the ray (premultiplied, metres), `normal` the world-space normal
    (premultiplied, not normalised), `aux` holds named channels such as "albedo" or "roughness".
    """

    rgb: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"] | None = None
    normal: Float[Tensor, "B H W 3"] | None = None
    aux: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))

    def over(self, background: Tensor) -> Float[Tensor, "B 3 H W"]:
        """Composite over a background and turn channels first, ready for a prior's door.

        Args:
            background: colour in [0, 1]: (3,), (B, 3) or (B, H, W, 3).
        """
        if background.ndim == 2:
            background = background[:, None, None, :]
        return (self.rgb + (1 - self.alpha) * background).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Material:
    """Metallic-roughness material of glTF 2.0. Textures have v = 0 at the top row.

    `base_color` is sRGB-coded; `orm` is linear (R occlusion, G roughness, B metallic); `normal` is tangent space,
    +Y up, coded to [0, 1] (flat = 0.5, 0.5, 1). A missing texture means the factor alone.
    """

    base_color: Float[Tensor, "H W 3"] | None = None
    orm: Float[Tensor, "H W 3"] | None = None
    normal: Float[Tensor, "H W 3"] | None = None
    roughness: float = 1.0
    metallic: float = 0.0


@dataclass(frozen=True)
class Mesh:
    """Triangles, counter-clockwise seen from outside; optional smooth normals, vertex colours and UVs with a material.

    `uv` has its origin at the top left of the texture (glTF). Vertices on a UV seam are duplicated.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    normals: Float[Tensor, "V 3"] | None = None
    colors: Float[Tensor, "V 3"] | None = None
    uv: Float[Tensor, "V 2"] | None = None
    material: Material | None = None

    def __post_init__(self) -> None:
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3 or self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise InputError(
                f"Mesh: expected vertices (V, 3) and faces (F, 3), got {tuple(self.vertices.shape)} and "
                f"{tuple(self.faces.shape)}"
            )


@dataclass(frozen=True)
class Splats:
    """`N` 3D Gaussians as files hold them, activated: what is drawn, without what training needs.

    `quaternions` are w, x, y, z, of unit length; `scales` are standard deviations along the Gaussian's own axes, in
    metres; `opacities` are in [0, 1]. Colour is display-referred: max(0, 1/2 + spherical harmonics), with the basis and
    the signs of 3D Gaussian Splatting (arXiv:2308.04079); `sh` has K = 1, 4, 9 or 16 rows, by degree, then by order.
    """

    means: Float[Tensor, "N 3"]
    quaternions: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, "N"]
    sh: Float[Tensor, "N K 3"]

    def __post_init__(self) -> None:
        number = len(self.means)
        rows = self.sh.shape[1] if self.sh.ndim == 3 and self.sh.shape[1] in (1, 4, 9, 16) else "1 | 4 | 9 | 16"
        shapes = {"means": (3,), "quaternions": (4,), "scales": (3,), "opacities": (), "sh": (rows, 3)}
        for name, rest in shapes.items():
            if getattr(self, name).shape != (number, *rest):
                wanted = ", ".join(map(str, (number, *rest)))
                raise InputError(f"Splats: expected {name} ({wanted}), got {tuple(getattr(self, name).shape)}")

    def __len__(self) -> int:
        return len(self.means)
