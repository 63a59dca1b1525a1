"""The field: blob, gradients, normals, occupancy, surface."""

import math

import pytest
import torch

from dream3d.checks import InputError, RunError
from dream3d.materials import PBR
from dream3d.representations.field import Field


def tiny(**changes):
    torch.manual_seed(0)
    small = {"levels": 4, "log2_table": 10, "base": 4, "finest": 32, "hidden": 16, "occupancy": 16}
    return Field(**{"sharpness": 1.0, **small, **changes})


def test_starts_as_the_blob():
    field = tiny()
    density, rgb = field.query(torch.tensor([[0.0, 0, 0], [0.9, 0, 0]]))
    # softplus(10 * (1 - |x| / 0.5)) but for the MLP's start near 0
    assert density[0].item() == pytest.approx(10.0, rel=0.02)
    assert density[1].item() < 2e-3
    assert (rgb - 0.5).abs().max() < 0.05
    # card D1: a ray through the centre is opaque at step 0, one that passes outside the blob is not
    t = torch.linspace(-1, 1, 2001)
    for offset, low, high in ((0.0, 0.97, 1.0), (0.8, 0.0, 0.05)):
        points = torch.stack([t, torch.full_like(t, offset), torch.zeros_like(t)], dim=-1)
        opacity = 1 - math.exp(-field.density(points).sum().item() * 2 / 2000)
        assert low <= opacity <= high


def test_sharpness_multiplies_density():
    points = torch.rand(64, 3) - 0.5
    torch.testing.assert_close(tiny(sharpness=3.0).density(points), 3 * tiny().density(points))


def test_gradients_reach_every_parameter():
    field = tiny()
    torch.nn.init.normal_(field.encoding.table)
    density, rgb = field.query(torch.rand(256, 3) * 1.8 - 0.9)
    (density.sum() + rgb.square().sum()).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_normals_agree_and_point_outwards():
    field = tiny(levels=2, base=4, finest=6)
    torch.nn.init.normal_(field.encoding.table, std=0.05)
    direction = torch.nn.functional.normalize(torch.randn(128, 3), dim=-1)
    points = 0.4 * direction
    finite = field.normals(points, mode="finite", eps=1e-3)
    analytic = field.normals(points, mode="analytic")
    torch.testing.assert_close(finite.norm(dim=-1), torch.ones(128))
    # Trilinear interpolation has kinks at cell faces: a few differences straddle one.
    assert (finite * analytic).sum(-1).quantile(0.05) > 0.999
    assert (analytic * direction).sum(-1).min() > 0.8


def test_analytic_normals_train_the_table():
    field = tiny()
    torch.nn.init.normal_(field.encoding.table, std=0.1)
    points = torch.rand(64, 3) - 0.5
    field.normals(points, mode="analytic").square()[:, 0].sum().backward()
    assert field.encoding.table.grad.abs().sum() > 0
    with pytest.raises(InputError, match="normals: mode"):
        field.normals(points, mode="guess")


def test_occupancy_covers_the_matter_and_little_else():
    field = tiny()
    occupied = field.occupancy.unpack()
    assert bool(occupied[8, 8, 8]) and not bool(occupied[0, 0, 0])
    assert 0.02 < occupied.float().mean() < 0.5
    optimizer = torch.optim.SGD(field.parameters(), lr=0.0)
    before = field.grid.peaks.clone()
    field.after_step(0, optimizer)
    assert not torch.equal(before, field.grid.peaks)
    with torch.no_grad():
        field.mlp.net[-1].bias[0] = -50.0
    for step in range(0, 16 * 60, 16):
        field.after_step(step, optimizer)
    assert field.occupancy.unpack().float().mean() < 0.5  # a thin field is never declared full


def test_same_shaped_start_hands_over():
    first = tiny()
    torch.nn.init.normal_(first.encoding.table)
    second = Field(first, sharpness=1.0, levels=4, log2_table=10, base=4, finest=32, hidden=16, occupancy=16)
    points = torch.rand(32, 3) - 0.5
    torch.testing.assert_close(first.density(points), second.density(points), rtol=0, atol=0)


def test_opens_what_was_saved_before_the_grid_was_a_part():
    first, second = tiny(), tiny(blob_density=3.0)
    first.after_step(0, torch.optim.SGD(first.parameters(), lr=0.0))
    second.load_state_dict({name.removeprefix("grid."): value for name, value in first.state_dict().items()})
    assert torch.equal(first.grid.peaks, second.grid.peaks)


def test_a_material_is_baked():
    field = tiny(material=PBR())
    assert field.width == 5 and field.query(torch.zeros(2, 3))[1].shape == (2, 5)
    baked = field.surface(resolution=24).bake(field.to_mesh().vertices)
    assert set(baked) == {"base_color", "roughness", "metallic", "normal"}
    assert baked["roughness"].shape[1] == 1


def test_surface_of_the_blob_is_a_sphere():
    field = tiny()
    surfaced = field.surface(iso=5.0, resolution=48)
    radii = surfaced.mesh.vertices.norm(dim=-1)
    # softplus(x) = 5 at x = 4.993: |p| = 0.5 * (1 - 0.4993)
    assert radii.mean().item() == pytest.approx(0.2503, abs=0.01)
    v = surfaced.mesh.vertices[surfaced.mesh.faces]
    outward = (torch.linalg.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]) * v.mean(1)).sum(-1)
    assert (outward > 0).all()
    baked = surfaced.bake(surfaced.mesh.vertices)
    assert baked["base_color"].shape == surfaced.mesh.vertices.shape
    assert (baked["normal"] * torch.nn.functional.normalize(surfaced.mesh.vertices, dim=-1)).sum(-1).min() > 0.95
    assert len(field.to_mesh().colors) == len(field.to_mesh().vertices)


def test_no_surface_says_why():
    field = tiny()
    with torch.no_grad():
        field.mlp.net[-1].bias[0] = -30.0
    with pytest.raises(RunError, match=r"no surface at iso .* density never exceeds .* after 0 steps; train longer"):
        field.surface(resolution=16)
