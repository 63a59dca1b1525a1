"""The SDF field: ball, densities in closed form, derivatives, conversions."""

import math

import pytest
import torch

from dream3d.cameras import orbit
from dream3d.checks import InputError, RunError
from dream3d.materials import PBR, Lambert
from dream3d.nn.solid import Solid
from dream3d.regularizers import Eikonal
from dream3d.renderers import March
from dream3d.representations.field import Field
from dream3d.representations.sdf import SDFField, laplace_density, neus_depth
from dream3d.types import Mesh

SMALL = {"levels": 4, "log2_table": 10, "base": 4, "finest": 32, "hidden": 16, "occupancy": 16}


def tiny(start=None, **changes):
    torch.manual_seed(0)
    return SDFField(start, **{**SMALL, **changes})


def directions(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)


def test_starts_as_a_ball():
    field = tiny(sphere=0.4)
    points = directions(200) * torch.linspace(0, 0.9, 200)[:, None]
    torch.testing.assert_close(field.distance(points), points.norm(dim=-1) - 0.4, atol=1e-3, rtol=0)
    torch.testing.assert_close(field.gradients(points[50:]), directions(200)[50:], atol=5e-3, rtol=0)
    assert field.sharpness.item() == pytest.approx(30)
    # 2 / r, twice the mean curvature of the sphere through the point
    away = points[100:]
    torch.testing.assert_close(field.laplacian(away, eps=0.05), 2 / away.norm(dim=-1), atol=0.15, rtol=0)


def test_densities_in_closed_form():
    s = torch.tensor(50.0)
    at = torch.tensor([-1.0, -0.02, 0.0, 0.02, 1.0])
    e = 0.5 * math.exp(-1)
    expected = 50 * torch.tensor([1, 1 - e, 0.5, e, 0])
    torch.testing.assert_close(laplace_density(at, s), expected)
    # alpha of NeuS, eq. 13, where sigmoids do not underflow; all of the light where the distance rises
    first, last = torch.tensor([0.1, 0.0, -0.05, 0.0]), torch.tensor([0.02, -0.1, -0.1, 0.1])
    phi_first, phi_last = torch.sigmoid(s * first), torch.sigmoid(s * last)
    alpha = ((phi_first - phi_last) / phi_first).clamp_min(0)
    torch.testing.assert_close(-torch.expm1(-neus_depth(first, last, s)), alpha)
    deep = neus_depth(torch.tensor([-10.0]), torch.tensor([-10.1]), s)
    assert deep.item() == pytest.approx(50 * 0.1, rel=1e-3)  # sigmoids are 0 here


@pytest.mark.parametrize("density", ["neus", "volsdf"])
def test_gradients_reach_every_parameter(density):
    field = tiny(density=density)
    torch.nn.init.normal_(field.encoding.table, std=0.1)
    way = directions(256, seed=1)
    density_of, raw = field.along(0.5 * directions(256), way, torch.full((256,), 0.03))
    (density_of.sum() + raw.square().sum()).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_analytic_gradients_agree_and_train():
    field = tiny(levels=2, base=4, finest=6)
    torch.nn.init.normal_(field.encoding.table, std=0.1)
    points = 0.4 * directions(128)
    finite, exact = field.gradients(points, eps=1e-3), field.gradients(points, mode="analytic")
    assert (finite - exact).norm(dim=-1).quantile(0.9) < 0.02  # trilinear interpolation has kinks at cell faces
    ((exact.norm(dim=-1) - 1) ** 2).mean().backward()
    assert field.encoding.table.grad.abs().sum() > 0


@pytest.mark.parametrize("density", ["neus", "volsdf"])
def test_the_grid_covers_the_surface_and_hides_only_the_core(density):
    field = tiny(density=density, sharpness=100.0, occupancy=32)
    occupied = field.occupancy.unpack()
    x, y, z = ((0.5 * directions(4000) + 1) * 16).long().unbind(-1)
    assert bool(occupied[z, y, x].all()) and not bool(occupied[0, 0, 0])
    hides = field.grid.hidden_by(torch.tensor([[0.0, 0, 0], [0.499, 0, 0], [0.9, 0, 0]]))
    assert hides[0] > 10 and hides[2] < 1e-3
    if density == "neus":
        assert hides[1] == 0  # a grazing ray would be cut short


def test_probes_change_with_the_steps_alone():
    field = tiny()
    first = field.probes(64)
    assert torch.equal(first, field.probes(64)) and first.shape == (64, 3)
    assert field.distance(first[32:]).abs().max() < 0.7 and first[:32].abs().max() > 0.8
    field.after_step(0, torch.optim.SGD(field.parameters(), lr=0.0))
    assert not torch.equal(first, field.probes(64))


def test_sharpness_is_kept_below_its_limit():
    field = tiny(sharpest=40.0)
    with torch.no_grad():
        field.log_sharpness.add_(5.0)
    field.after_step(1, torch.optim.SGD(field.parameters(), lr=0.0))
    assert field.sharpness.item() == pytest.approx(40, rel=1e-4)


def test_surface_is_the_zero_set():
    field = tiny()
    surfaced = field.surface(resolution=32)
    assert (surfaced.mesh.vertices.norm(dim=-1) - 0.5).abs().max() < 3e-3
    assert (field.surface(iso=0.1, resolution=32).mesh.vertices.norm(dim=-1) - 0.6).abs().max() < 3e-3
    v = surfaced.mesh.vertices[surfaced.mesh.faces]
    outward = (torch.linalg.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]) * v.mean(1)).sum(-1)
    assert (outward > 0).all()
    baked = surfaced.bake(surfaced.mesh.vertices)
    assert set(baked) == {"base_color", "normal"}
    assert (baked["normal"] * torch.nn.functional.normalize(surfaced.mesh.vertices, dim=-1)).sum(-1).min() > 0.99
    with torch.no_grad():
        field.mlp.net[-1].bias[0] = 20.0
    with pytest.raises(RunError, match=r"no surface: after 0 steps the distance is nowhere below 0 m"):
        field.surface(resolution=16)


def test_materials_are_baked():
    field = tiny(material=PBR(bump=0.5))
    mesh = field.to_mesh()
    baked = field.surface(resolution=24).bake(mesh.vertices[:100])
    assert {name: value.shape[1] for name, value in baked.items()} == {
        "base_color": 3, "roughness": 1, "metallic": 1, "normal": 3
    }  # fmt: skip
    assert mesh.colors.shape == mesh.vertices.shape
    assert baked["roughness"].mean().item() == pytest.approx(0.49, abs=0.02)  # the middle of its range
    with pytest.raises(InputError, match="expected 8 numbers"):
        field.looks(torch.zeros(2, 5))


def test_another_material_keeps_shape_and_colour():
    first = tiny(material=Lambert())
    torch.nn.init.normal_(first.encoding.table, std=0.3)
    second = tiny(first, material=PBR())
    points = 2 * torch.rand(64, 3) - 1
    assert torch.equal(first.distance(points), second.distance(points))
    torch.testing.assert_close(first.query(points)[1], second.query(points)[1][:, :3])


SEMI_AXES = torch.tensor([0.6, 0.35, 0.45])


def ellipsoid_normals(cameras):
    """Premultiplied normals of an ellipsoid, exactly: rays in the space where it is the unit sphere."""
    origins, way = cameras.rays()
    o, d = origins / SEMI_AXES, way / SEMI_AXES
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    root = b * b - a * c
    t = (-b - root.clamp_min(0).sqrt()) / a
    normal = torch.nn.functional.normalize((origins + t[..., None] * way) / SEMI_AXES**2, dim=-1)
    return torch.where(root[..., None] > 0, normal, 0.0)


def chamfer(first, second):
    """Mean distance of the vertices of each mesh from the other one's surface, averaged."""
    pairs = ((first, second), (second, first))
    return 0.5 * sum(Solid(b.vertices, b.faces).nearest(a.vertices).distance.mean() for a, b in pairs)


@pytest.mark.slow
def test_geometry_is_recovered_from_normals():
    """Of an ellipsoid, from a ball, from nothing but rendered normals in closed form."""
    import trimesh

    torch.manual_seed(0)
    field = SDFField(levels=4, log2_table=11, base=4, finest=24, hidden=16, occupancy=24)
    views = orbit(
        torch.arange(6) * (2 * math.pi / 6), torch.tensor([0.4, -0.4, 0.1] * 2), torch.full((6,), 2.5),
        torch.full((6,), 0.8), 20, 20,
    )  # fmt: skip
    target, renderer, eikonal = ellipsoid_normals(views), March(samples=40), Eikonal(points=512)
    rates = [{**group, "lr": 0.02 * group["lr_scale"]} for group in field.parameter_groups()]
    optimizer, generator = torch.optim.Adam(rates, betas=(0.9, 0.99), eps=1e-15), torch.Generator().manual_seed(0)
    for step in range(120):
        which = torch.randperm(6, generator=generator)[:2]
        render = renderer(field, views[which], generator=generator, normals=True)
        loss = (render.normal - target[which]).square().sum(-1).mean() + 0.1 * eikonal.loss(field, render)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        field.after_step(step, optimizer)
    ball = trimesh.creation.icosphere(subdivisions=3)
    truth = Mesh(torch.from_numpy(ball.vertices.copy()).float() * SEMI_AXES, torch.from_numpy(ball.faces.copy()).long())
    found = chamfer(field.surface(resolution=40).mesh, truth)
    assert found < 0.01 * 2 * SEMI_AXES.norm()
    assert field.sharpness > 30  # it has become harder by itself


def test_becomes_what_came_before():
    """A colourful field, by its mesh: the surfaces agree within a fraction of a cell, and so do the colours."""
    torch.manual_seed(3)
    field = Field(**SMALL, blob_radius=0.7)
    torch.nn.init.normal_(field.encoding.table, std=0.5)
    mesh = field.to_mesh()
    made = SDFField(field, levels=5, log2_table=12, base=8, finest=48, hidden=16, occupancy=16, fit_steps=150)
    with torch.no_grad():
        off = made.distance(mesh.vertices).abs()
        colors = made.query(mesh.vertices)[1]
    assert off.mean() < 0.005 and off.quantile(0.95) < 0.02
    assert (colors - mesh.colors).abs().mean() < 0.04
    with pytest.raises(InputError, match=r"the surface reaches .* the box 0\.2 m. Raise radius"):
        SDFField(field, radius=0.2, sphere=0.1)
