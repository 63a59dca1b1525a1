"""Triangles as they are drawn: closed forms, outlines, gradients."""

from __future__ import annotations

from typing import final

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dream3d.cameras import turntable
from dream3d.checks import InputError, RunError
from dream3d.kernels import mesh as kernels
from dream3d.lights import Even, ShadingSwitch, Surroundings
from dream3d.materials import PBR, Lambert, MonteCarlo, NormalMap, Plain
from dream3d.nn.color import to_linear, to_srgb
from dream3d.renderers import Each, Raster
from dream3d.representations import Field, Particles
from dream3d.representations.base import Faceted, Surfaced
from dream3d.types import Mesh
from tests.kernels.mesh_scenes import DOUBLE, front, icosphere

EVEN = Surroundings(maps={"even": Even()})
PINNED = PBR(roughness=(0.5, 0.5), metallic=(0.0, 0.0))


@final
class Shape(Faceted):
    """Any triangles, and a colour that is linear in the place: sigmoid(base + tilt . p), for every number alike."""

    def __init__(self, vertices: Tensor, faces: Tensor, *, width: int = 3, uv: Tensor | None = None) -> None:
        super().__init__()
        self.width = width
        self.vertices = nn.Parameter(vertices.clone())
        self.base = nn.Parameter(torch.linspace(-1, 1, width, dtype=vertices.dtype))
        self.tilt = nn.Parameter(torch.zeros(3, dtype=vertices.dtype))
        self.faces, self.uv = faces, uv
        self.asked = 0

    def facets(self) -> Mesh:
        self.asked += 1
        return Mesh(self.vertices, self.faces, uv=self.uv)

    def paint(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        assert (uv is None) == (self.uv is None)
        return self.base + (points @ self.tilt)[:, None]

    def to_mesh(self) -> Mesh:
        return self.facets()

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        raise NotImplementedError


def ball(levels: int = 3, dtype: torch.dtype = torch.float32, **settings: int) -> Shape:
    vertices, faces = icosphere(levels, dtype)
    return Shape(vertices, faces, **settings)


def wall(depth: float = 2.0, *, flipped: bool = False, width: int = 3) -> Shape:
    """A square that covers all that `front(distance=0)` sees."""
    far = 3.0 * depth
    corners = torch.tensor([[-far, -far, -depth], [far, -far, -depth], [far, far, -depth], [-far, far, -depth]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Shape(corners.to(DOUBLE), faces.flip(1) if flipped else faces, width=width)


def test_a_wall_is_its_colour_its_depth_and_its_normal() -> None:
    shape = wall()
    render = Raster()(shape, front(), normals=True)
    colour = torch.sigmoid(shape.base).detach()
    torch.testing.assert_close(render.rgb, colour.expand(1, 20, 20, 3))
    torch.testing.assert_close(render.aux["albedo"], render.rgb)
    torch.testing.assert_close(render.alpha, torch.ones(1, 20, 20, 1, dtype=DOUBLE))
    assert render.normal is not None and render.depth is not None
    torch.testing.assert_close(render.normal, torch.tensor([0.0, 0, 1], dtype=DOUBLE).expand(1, 20, 20, 3))
    rays = front().rays()[1]
    torch.testing.assert_close(render.depth, -2.0 / rays[..., 2:])  # along the ray
    torch.testing.assert_close(render.aux["view"], rays)
    assert shape.asked == 1 and Raster()(shape, front()).normal is None


def test_colour_is_asked_for_at_the_places_that_are_seen() -> None:
    shape = wall()
    with torch.no_grad():
        shape.tilt += torch.tensor([0.4, -0.7, 0.2])
    origin, rays = front().rays()
    place = origin + rays * (-2.0 / rays[..., 2:])
    wanted = torch.sigmoid(shape.base + (place @ shape.tilt)[..., None])
    torch.testing.assert_close(Raster()(shape, front()).rgb, wanted)


def test_a_lamp_at_the_camera() -> None:
    """albedo * (ambient + (1 - ambient) cos), the wall being seen under the same angle as it is lit."""
    shape = wall()
    render = Raster(material=Lambert(), lights=ShadingSwitch(ambient=0.2))(shape, front())
    cosine = -front().rays()[1][..., 2:]
    wanted = to_srgb(to_linear(torch.sigmoid(shape.base)) * (0.2 + 0.8 * cosine))
    torch.testing.assert_close(render.rgb, wanted)


def test_in_even_light_a_ball_has_one_colour_under_any_material() -> None:
    """White furnace: what is white is white all over, up to what the tone takes."""
    shape = ball(4, width=5)
    with torch.no_grad():
        shape.base[:3] = 20.0
    views = turntable(2, 48)
    for material in (PBR(tone="clip"), MonteCarlo(tone="clip", samples=192, roughness=(0.6, 0.6))):
        render = Raster(material=material, lights=EVEN)(shape, views)
        assert ((render.rgb - render.alpha).abs().amax(-1, keepdim=True)[render.alpha > 0.999]).mean() < 0.01


@pytest.mark.parametrize("space", ["world", "camera"])
def test_normals_as_colours(space: str) -> None:
    """On a ball the normal is the place; in the camera's axes every view of it looks the same."""
    views = turntable(4, 40, elevation_deg=30)
    with torch.no_grad():
        render = Raster(material=NormalMap(space=space))(ball(4), views, normals=True)  # type: ignore[arg-type]
    origin, rays = views.rays()
    inside = (render.alpha[..., 0] > 0.999) & (render.aux["view"] == rays).all(-1)
    middle = (origin * rays).sum(-1, keepdim=True)
    away = (-middle - (middle**2 - (origin**2).sum(-1, keepdim=True) + 1).clamp_min(0).sqrt()) * rays + origin
    wanted = away if space == "world" else torch.einsum("bji,bhwj->bhwi", views.c2w[:, :3, :3], away)
    assert (2 * render.rgb - 1 - wanted)[inside].abs().max() < 0.08 and inside.sum() > 1000
    if space == "camera":
        assert (render.rgb - render.rgb[:1]).abs().mean() < 0.01
    assert render.normal is not None
    torch.testing.assert_close(render.normal[inside], 2 * render.rgb[inside] - 1 if space == "world" else away[inside],
                               atol=0.08, rtol=0)  # fmt: skip


@pytest.mark.parametrize(("levels", "pixels"), [(1, 64), (3, 96), (5, 96)])
def test_growing_spheres(levels: int, pixels: int) -> None:
    """d(opacity) / d(scale) of 80, 1,280 and 20,480 triangles against the outline's own growth, within 2 %."""
    vertices, faces = icosphere(levels, torch.float32)
    views = front(pixels, pixels, 3.0, torch.float32)
    found = []
    for radius in torch.linspace(0.9, 1.1, 11):
        shape = Shape(vertices * radius, faces)
        area = Raster()(shape, views).alpha.sum()
        (gradient,) = torch.autograd.grad(area, shape.vertices)
        found.append(float((gradient * vertices).sum()))
    fine = front(1024, 1024, 3.0, torch.float32)
    with torch.no_grad():
        ends = [
            kernels.rasterise(kernels.project_vertices(vertices * r, fine), faces.int()).mask.sum() for r in (0.9, 1.1)
        ]
    wanted = float(ends[1] - ends[0]) * (pixels / 1024) ** 2 / 0.2
    assert abs(sum(found) / len(found) / wanted - 1) < 0.02


def test_seams_of_a_texture_are_no_silhouettes() -> None:
    """The same ball with every corner doubled, as UVs may need it: the same picture, and no gradient from within."""
    vertices, faces = icosphere(2)
    whole = Shape(vertices, faces)
    split = Shape(
        vertices[faces.flatten()], torch.arange(faces.numel()).view(-1, 3), uv=torch.rand(faces.numel(), 2).to(DOUBLE)
    )
    one, two = (Raster()(shape, front(40, 40, 3.0), normals=True) for shape in (whole, split))
    torch.testing.assert_close(two.rgb, one.rgb)
    torch.testing.assert_close(two.normal, one.normal)
    slopes = []
    for shape, render in ((whole, one), (split, two)):
        (gradient,) = torch.autograd.grad(render.alpha.sum(), shape.vertices)
        slopes.append((gradient * shape.vertices).sum())
    torch.testing.assert_close(slopes[1], slopes[0])


def test_gradients_are_those_of_the_picture() -> None:
    """Colours by finite differences in every parameter, shaded by the place and by the shape's own normals."""
    shape = ball(1, DOUBLE, width=5)
    renderer = Raster(material=PBR(), lights=EVEN)
    views = front(14, 14, 2.4)
    weight = torch.rand(1, 14, 14, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))

    def loss(render: object = None) -> Tensor:
        drawn = renderer(shape, views, normals=True)
        assert drawn.normal is not None and drawn.depth is not None
        inside = (drawn.alpha.detach() > 1 - 1e-9) & (functional.avg_pool2d(
            drawn.alpha.detach().permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1) > 1 - 1e-9)  # fmt: skip
        return ((drawn.rgb + 0.3 * drawn.normal + 0.2 * drawn.depth + drawn.aux["roughness"]) * weight * inside).sum()

    found = torch.autograd.grad(loss(), list(shape.parameters()))
    step = 1e-6
    with torch.no_grad():
        for parameter, gradient in zip(shape.parameters(), found, strict=True):
            direction = torch.randn(parameter.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
            ends = []
            for sign in (1, -1):
                parameter += sign * step * direction
                ends.append(loss())
                parameter -= sign * step * direction
            slope = float(ends[0] - ends[1]) / (2 * step)
            assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_the_other_side_is_lit_too() -> None:
    one, two = (
        Raster(material=Lambert(), lights=ShadingSwitch(ambient=0.0))(wall(flipped=flipped), front(), normals=True)
        for flipped in (False, True)
    )
    torch.testing.assert_close(one.rgb, two.rgb)
    torch.testing.assert_close(one.normal, two.normal)


def test_a_bump_bends_normals_and_shading() -> None:
    shape = wall(width=8)
    with torch.no_grad():
        shape.base[5:] = torch.logit((torch.tensor([0.5, 0.0, 0.9]) + 1) / 2)
    render = Raster(material=PBR(bump=1.0), lights=EVEN)(shape, front(), normals=True)
    wanted = functional.normalize(torch.tensor([-0.5, 0.0, 1.0], dtype=DOUBLE), dim=0)  # the slope along z is no slope
    assert render.normal is not None
    torch.testing.assert_close(render.normal, wanted.expand_as(render.normal), rtol=0, atol=1e-6)
    assert "bump" not in render.aux and set(render.aux) == {"albedo", "roughness", "metallic", "view"}


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, views = ball(width=5), turntable(5, 32)
    renderer = Raster(material=PBR(), lights=Surroundings(turn="camera"))
    whole = renderer(shape, views, normals=True)
    monkeypatch.setattr("dream3d.renderers.raster.PIXELS_A_CHUNK", 2 * 32 * 32)
    monkeypatch.setattr("dream3d.renderers.raster.HITS_A_CHUNK", 97)
    with torch.no_grad():
        parts = renderer(shape, views, normals=True)
    for name in ("rgb", "alpha", "depth", "normal"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-5)


def test_more_samples_are_nearer_to_the_truth() -> None:
    """Rough paint on a small ball against 8 x 8 samples; in training, with a generator, there is one a pixel."""
    shape = ball(5)
    with torch.no_grad():
        shape.tilt += 30.0
    views = front(24, 24, 3.0, torch.float32)
    truth, one, many = (Raster(supersample=n)(shape, views) for n in (8, 1, 3))
    off = [(part.rgb - truth.rgb).abs().mean() for part in (one, many)]
    assert many.rgb.shape == one.rgb.shape and off[1] < 0.5 * off[0]
    trained = Raster(supersample=3)(shape, views, generator=torch.Generator())
    assert torch.equal(trained.rgb, one.rgb)


def test_lights_know_the_step_and_the_groups() -> None:
    shape, views = ball(), turntable(4, 16)
    renderer = Raster(material=Lambert(), lights=ShadingSwitch(start=10, shaded=1.0, textureless=1.0))
    renderer.before_step(3, 2)
    bare = renderer(shape, views, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bare.rgb, Raster()(shape, views).rgb)
    renderer.before_step(10, 2)
    lit = renderer(shape, views, generator=torch.Generator().manual_seed(0))
    assert (lit.rgb - lit.rgb.mean(-1, keepdim=True)).abs().max() < 1e-6  # no texture: grey
    renderer.before_step(10, 3)
    with pytest.raises(InputError, match="multiple of the prior's 3 views"):
        renderer(shape, views, generator=torch.Generator())


def test_nothing_in_sight() -> None:
    shape = ball(1, width=5)
    behind = front(12, 12, -5.0, torch.float32)
    render = Raster(material=PBR(), lights=EVEN)(shape, behind, normals=True)
    assert not render.rgb.any() and not render.alpha.any() and set(render.aux) > {"albedo", "roughness"}
    render.rgb.sum().backward()
    empty = Shape(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    assert not Raster()(empty, turntable(2, 8)).alpha.any()


def test_new_triangles_are_noticed() -> None:
    """A representation may change its index buffer in place or hand over another one."""
    renderer, shape, views = Raster(), ball(2), turntable(1, 24)
    before = renderer(shape, views).alpha.sum()
    assert torch.equal(renderer(shape, views).alpha.sum(), before)
    shape.faces[::2] = 0
    torch.testing.assert_close(renderer(shape, views).alpha, Raster()(shape, views).alpha)
    shape.faces = icosphere(1)[1]
    torch.testing.assert_close(renderer(shape, views).alpha, Raster()(shape, views).alpha)


def test_what_cannot_be_drawn_is_said() -> None:
    views = turntable(1, 8)
    with pytest.raises(InputError, match="Raster draws Triangles, not a Field"):
        Raster()(Field(levels=2, log2_table=8), views)
    with pytest.raises(InputError, match="Shape paints 3 numbers a point, PBR takes 5. Give both the same"):
        Raster(material=PBR())(ball(1), views)
    broken = ball(1)
    with torch.no_grad():
        broken.vertices[3, 1] = float("nan")
    with pytest.raises(RunError, match="1 of 42 vertices are not finite; lower the learning rate"):
        Raster()(broken, views)
    with pytest.raises(InputError, match="Raster: supersample"):
        Raster(supersample=0)


def test_particles_of_triangles_are_drawn_each() -> None:
    made = Particles(of=lambda start: ball(1), count=2)  # type: ignore[arg-type]
    render = Each(renderer=Raster(material=Plain()))(made, turntable(4, 16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(render.rgb, Raster()(ball(1), turntable(4, 16)).rgb)


def test_default_lights_fit_the_material() -> None:
    assert isinstance(Raster(material=PINNED).lights, Surroundings)
    assert isinstance(Raster(material=Lambert()).lights, ShadingSwitch)
    with pytest.raises(InputError, match="needs an Environment"):
        Raster(material=PINNED, lights=ShadingSwitch())(ball(1, width=5), turntable(1, 8))
