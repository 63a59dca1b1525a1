"""Meshes with textures: what they show where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dream3d.checks import InputError
from dream3d.kernels.texture import mipmap
from dream3d.materials import PBR, Lambert, Plain
from dream3d.nn.color import to_linear, to_srgb
from dream3d.renderers import Raster
from dream3d.representations.textured import Look, Sheets, Textured
from dream3d.types import Mesh
from tests.kernels.mesh_scenes import front

SQUARE = torch.tensor([[-1.0, 1, -2], [1, 1, -2], [1, -1, -2], [-1, -1, -2]])
FACES = torch.tensor([[0, 3, 2], [0, 2, 1]])
CORNERS = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
ALONG = torch.tensor([[1.0, 0, 0, 1]]).expand(4, 4)


def square(
    *looks: Look, part: tuple[int, int] = (0, 0), uv: Tensor | None = CORNERS, colors: Tensor | None = None
) -> Textured:
    """Two metres wide, two metres away: it fills the middle half of what `front()` sees."""
    mesh = Mesh(SQUARE, FACES, colors=colors, uv=uv)
    return Textured(Sheets(mesh, torch.tensor(part), looks, ALONG))


def seen(shape: Textured, pixels: int = 32, material: object = None) -> Tensor:
    """The square's own pixels."""
    drawn = Raster(material=material)(shape, front(pixels, pixels, dtype=torch.float32))  # type: ignore[arg-type]
    inner = slice(pixels // 4, pixels - pixels // 4)
    return drawn.rgb[0, inner, inner]


def test_texels_come_out_as_they_are() -> None:
    """Upright, the first row on top, each under the pixel that has its place."""
    texels = torch.rand(16, 16, 3)
    torch.testing.assert_close(seen(square(Look(base=texels))), texels, atol=2e-5, rtol=0)


def test_textures_repeat() -> None:
    texels = torch.rand(8, 8, 3)
    shown = seen(square(Look(base=texels), uv=2 * CORNERS - 1))
    torch.testing.assert_close(shown, texels.repeat(2, 2, 1), atol=2e-5, rtol=0)


def test_far_textures_are_their_mean_light() -> None:
    """A chequered square of four pixels shows the mean of the light, not of the codes, and nothing of the pattern."""
    board = (torch.arange(256)[:, None] + torch.arange(256)[None]) % 2
    shown = seen(square(Look(base=board[..., None].expand(-1, -1, 3).float())), pixels=8)
    torch.testing.assert_close(shown, torch.full_like(shown, float(to_srgb(torch.tensor(0.5)))), atol=1e-4, rtol=0)


def test_factors_and_parts() -> None:
    """Every triangle its own look; factors are linear and multiply textures."""
    texels = torch.rand(3).expand(4, 4, 3)
    one = Look(base=texels, base_factor=(0.5, 0.25, 1.0), orm=torch.full((2, 2, 3), 0.5), orm_factor=(1.0, 0.8, 0.4))
    two = Look(base_factor=(0.1, 0.2, 0.3), orm_factor=(1.0, 0.3, 1.0))
    shape = square(one, two, part=(0, 1))
    drawn = Raster(material=PBR())(shape, front(32, 32, dtype=torch.float32))
    left, right = (drawn.aux[name][0, 20, 10] for name in ("roughness", "metallic"))
    assert left.item() == pytest.approx(0.4) and right.item() == pytest.approx(0.2)
    assert drawn.aux["roughness"][0, 10, 20].item() == pytest.approx(0.3)
    wanted = to_srgb(to_linear(texels) * torch.tensor([0.5, 0.25, 1.0]))
    torch.testing.assert_close(drawn.aux["albedo"][0, 22, 10], wanted[0, 0], atol=2e-5, rtol=0)
    torch.testing.assert_close(drawn.aux["albedo"][0, 10, 20], to_srgb(torch.tensor([0.1, 0.2, 0.3])))


def test_normal_maps_bend_normals() -> None:
    """+X of the map is the way of u, +Y the way against v: right and up here."""
    local = torch.nn.functional.normalize(torch.tensor([0.6, 0.3, 0.8]), dim=0)
    shape = square(Look(normal=(0.5 + 0.5 * local).expand(2, 2, 3)))
    drawn = Raster(material=Lambert())(shape, front(16, 16, dtype=torch.float32), normals=True)
    assert drawn.normal is not None
    torch.testing.assert_close(drawn.normal[0, 8, 8], local)
    assert (drawn.rgb[0, 8, 8] < 0.97).all()


def test_corner_colours_multiply_the_light() -> None:
    codes = torch.tensor([[0.2, 0.4, 0.9]]).expand(4, 3)
    shape = square(Look(base_factor=(0.5, 0.5, 0.5)), uv=None, colors=codes)
    wanted = to_srgb(0.5 * to_linear(codes[0]))
    torch.testing.assert_close(seen(shape), wanted.expand(16, 16, 3))


def test_what_shines_by_itself() -> None:
    shape = square(Look(base_factor=(0.0, 0.0, 0.0), emissive_factor=(0.1, 0.2, 0.3)))
    shown = seen(shape, material=Lambert())
    torch.testing.assert_close(shown, to_srgb(torch.tensor([0.1, 0.2, 0.3])).expand(16, 16, 3))
    assert not seen(shape, material=Plain()).any()


def test_any_material_takes_what_it_needs() -> None:
    shape = square(Look(base_factor=(0.5, 0.5, 0.5)))
    for material in (Plain(), Lambert(), PBR()):
        render = Raster(material=material)(shape, front(8, 8, dtype=torch.float32))
        assert set(render.aux) == {"albedo", "roughness", "metallic"} and render.rgb.max() > 0.2


def test_it_becomes_a_mesh_and_a_surface() -> None:
    """Corner colours are the texture's; points off the surface find their texel."""
    texels = torch.rand(32, 32, 3)
    shape = square(Look(base=texels, orm=torch.full((1, 1, 3), 0.5)))
    mesh = shape.to_mesh()
    assert mesh.colors is not None and mesh.colors.shape == (4, 3) and mesh.faces.dtype == torch.int64
    surfaced = shape.surface()
    place = torch.stack(torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")).flatten(1).t()
    x, y = ((place[:, k] + 0.5) / 16 - 1 for k in (1, 0))
    points = torch.stack([x, -y, torch.full_like(x, -1.7)], dim=1)
    baked = surfaced.bake(points)
    torch.testing.assert_close(baked["base_color"].view(32, 32, 3), texels, atol=1e-4, rtol=0)
    torch.testing.assert_close(baked["roughness"], torch.full((1024, 1), 0.5))
    torch.testing.assert_close(baked["normal"], torch.tensor([[0.0, 0, 1]]).expand(1024, 3), atol=1e-5, rtol=0)
    assert not list(shape.parameters()) and mipmap(texels).sizes[-1] == (1, 1)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(InputError, match=r"expected a mesh with its materials \(Sheets\), got NoneType"):
        Textured()
    with pytest.raises(InputError, match="one of 1 looks for each of 2 faces"):
        square(Look(), part=(0, 1))
    mesh = Mesh(SQUARE, FACES, uv=CORNERS)
    with pytest.raises(InputError, match="normal maps need tangents"):
        Textured(Sheets(mesh, torch.zeros(2).long(), (Look(normal=torch.rand(2, 2, 3)),)))
