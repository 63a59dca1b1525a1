"""March against the integral it approximates."""

import math

import pytest
import torch

from dream3d.cameras import orbit, turntable
from dream3d.checks import InputError, MissingError
from dream3d.config import load
from dream3d.lights import ShadingSwitch, Surroundings
from dream3d.materials import PBR, Lambert
from dream3d.renderers.march import March
from dream3d.representations.base import Representation
from dream3d.representations.field import Field
from dream3d.representations.sdf import SDFField, laplace_density


def ball(**changes):
    torch.manual_seed(0)
    return Field(levels=4, log2_table=10, base=4, finest=32, hidden=16, occupancy=32, **changes)


def dense_truth(field, cameras, samples=4000):
    """Opacity, colour and depth by a plain Riemann sum along every ray."""
    origins, directions = (r.reshape(-1, 3) for r in cameras.rays())
    far = float(cameras.distance.max()) + 2
    t = (torch.arange(samples) + 0.5) * (far / samples)
    points = origins[:, None] + t[:, None] * directions[:, None]
    occupied = field.occupancy.unpack()
    cells = len(occupied)
    x, y, z = ((points / field.radius + 1) * 0.5 * cells).long().clamp(0, cells - 1).unbind(-1)
    # What the occupancy grid leaves out (the blob's thin halo) is not the renderer's to draw.
    inside = (points.abs() <= field.radius).all(-1) & occupied[z, y, x]
    density, rgb = field.query(points.view(-1, 3))
    tau = torch.where(inside, density.view(inside.shape), 0.0) * (far / samples)
    clear = torch.exp(-(tau.cumsum(1) - tau))
    weight = clear * -torch.expm1(-tau)
    return weight.sum(1), (weight[..., None] * rgb.view(*inside.shape, 3)).sum(1), (weight * t).sum(1)


def test_matches_a_dense_integral():
    field = ball()
    torch.nn.init.normal_(field.encoding.table, std=0.3)
    cameras = turntable(1, 12)
    with torch.no_grad():
        render = March(samples=512, early_stop=0.0)(field, cameras)
        opacity, rgb, depth = dense_truth(field, cameras)
    torch.testing.assert_close(render.alpha.view(-1), opacity, atol=0.02, rtol=0)
    torch.testing.assert_close(render.rgb.view(-1, 3), rgb, atol=0.02, rtol=0)
    torch.testing.assert_close(render.depth.view(-1), depth, atol=0.06, rtol=0)


def test_front_back_left_right_and_up():
    """The axis gnomon: a field coloured by position shows the right side from every direction."""
    field = ball()

    def query(points):
        density = torch.where(points.norm(dim=-1) < 0.6, 80.0, 0.0)
        return density, (points / 1.2 + 0.5).clamp(0, 1)  # x, y, z become r, g, b

    field.along = lambda points, directions, lengths: (query(points)[0], torch.logit(query(points)[1], eps=1e-6))
    field.density = lambda points: query(points)[0]
    for azimuth, channel, high in ((0, 2, True), (180, 2, False), (90, 0, True), (-90, 0, False)):
        radian = torch.tensor([math.radians(azimuth)])
        cameras = orbit(radian, torch.zeros(1), torch.full((1,), 3.0), torch.full((1,), 0.7), 33, 33)
        with torch.no_grad():
            render = March(samples=128)(field, cameras)
        middle = render.rgb[0, 16, 16, channel]
        assert (middle > 0.9) if high else (middle < 0.1)
        assert render.rgb[0, 10, 16, 1] > 0.6 > 0.4 > render.rgb[0, 22, 16, 1]  # +y is up in the picture
    # From the front, the object's left (+X) is on the picture's right.
    cameras = orbit(torch.zeros(1), torch.zeros(1), torch.full((1,), 3.0), torch.full((1,), 0.7), 33, 33)
    with torch.no_grad():
        render = March(samples=128)(field, cameras)
    assert render.rgb[0, 16, 22, 0] > 0.6 > 0.4 > render.rgb[0, 16, 10, 0]


def test_hidden_samples_do_not_change_the_picture(monkeypatch):
    field = ball(blob_density=60.0)
    cameras = turntable(2, 24)
    with torch.no_grad():
        fast = March(samples=128)(field, cameras)
        monkeypatch.setattr("dream3d.renderers.march.HIDDEN", math.inf)
        full = March(samples=128)(field, cameras)
    torch.testing.assert_close(fast.rgb, full.rgb, atol=2e-3, rtol=0)
    torch.testing.assert_close(fast.alpha, full.alpha, atol=2e-3, rtol=0)


def test_gradient_matches_finite_differences_through_the_whole_chain():
    field = ball()
    cameras = turntable(1, 8)
    bias = field.mlp.net[-1].bias
    renderer = March(samples=64, early_stop=0.0)

    def loss():
        render = renderer(field, cameras)
        return (render.rgb * torch.linspace(0.5, 1.5, 3)).sum() + render.alpha.sum()

    loss().backward()
    for channel in range(4):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[channel] += sign * 1e-2
                values.append(loss().item())
                bias[channel] -= sign * 1e-2
        assert bias.grad[channel].item() == pytest.approx((values[0] - values[1]) / 2e-2, rel=0.02)


def test_jitter_comes_from_the_generator():
    field, cameras = ball(), turntable(1, 16)
    draws = [March()(field, cameras, generator=torch.Generator().manual_seed(seed)).rgb for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_normals_and_view_come_along():
    field, cameras = ball(), turntable(1, 16)
    render = March()(field, cameras, normals=True)
    assert render.normal is not None and render.aux["view"].shape == render.rgb.shape
    facing = (render.normal * render.aux["view"]).sum(-1)[render.alpha[..., 0] > 0.9]
    assert (facing < 0).all()


def test_refuses_what_it_cannot_draw():
    class Nothing(Representation):
        def to_mesh(self):
            raise AssertionError

        def surface(self, *, iso=None, resolution=128):
            raise AssertionError

    with pytest.raises(InputError, match="March draws a Field or an SDFField, not a Nothing"):
        March()(Nothing(), turntable(1, 8))
    with pytest.raises(MissingError, match="needs CUDA"):
        March(backend="nerfacc")(ball(), turntable(1, 8))


def sphere(**changes):
    torch.manual_seed(0)
    small = {"levels": 2, "log2_table": 8, "base": 4, "finest": 16, "hidden": 8, "occupancy": 32}
    return SDFField(**{**small, **changes})


def offsets(cameras):
    """How far each ray passes from the origin, and the distance along it to that place."""
    origins, way = (r.reshape(-1, 3) for r in cameras.rays())
    middle = -(origins * way).sum(-1)
    return (origins + middle[:, None] * way).norm(dim=-1), middle


def test_a_neus_sphere_in_closed_form():
    """A ray keeps sigmoid(s f) of the light at the deepest f; where it goes straight in, half of it at the surface."""
    field, cameras = sphere(sharpness=60.0), turntable(1, 31)
    renderer = March(samples=96, early_stop=0.0)
    with torch.no_grad():
        render = renderer(field, cameras, normals=True)
    away, middle = offsets(cameras)
    expected = 1 - torch.sigmoid(60 * (away - 0.5))
    torch.testing.assert_close(render.alpha.view(-1), expected, atol=0.01, rtol=0)
    hit = away < 0.3
    depth = (render.depth / render.alpha).view(-1)[hit]
    surface = (middle - (0.25 - away.square()).sqrt())[hit]
    assert (depth - surface).abs().max() < 2 / 96
    origins, way = (r.reshape(-1, 3) for r in cameras.rays())
    normal = (origins[hit] + surface[:, None] * way[hit]) / 0.5
    torch.testing.assert_close(render.normal.view(-1, 3)[hit], normal, atol=0.03, rtol=0)
    # Coarse steps give the same opacity: the products of the pieces telescope.
    with torch.no_grad():
        coarse = March(samples=24, early_stop=0.0)(field, cameras).alpha.view(-1)
    torch.testing.assert_close(coarse[hit], expected[hit], atol=0.01, rtol=0)


def test_a_volsdf_sphere_is_its_integral():
    field, cameras = sphere(density="volsdf", sharpness=20.0), turntable(1, 31)
    with torch.no_grad():
        render = March(samples=256, early_stop=0.0)(field, cameras)
    away, _ = offsets(cameras)
    t = (torch.arange(4000) + 0.5) / 2000 - 1
    distance = (away[:, None].square() + t.square()).sqrt() - 0.5
    expected = 1 - torch.exp(-laplace_density(distance, torch.tensor(20.0)).sum(1) / 2000)
    torch.testing.assert_close(render.alpha.view(-1), expected, atol=0.02, rtol=0)
    # through the middle: 2 s r + exp(-s r) is the optical depth
    assert expected[away.argmin()].item() == pytest.approx(1 - math.exp(-20), abs=1e-4)


def test_what_is_hidden_in_a_solid_does_not_change_it(monkeypatch):
    field, cameras = sphere(sharpness=150.0), turntable(2, 24)
    with torch.no_grad():
        fast = March(samples=64)(field, cameras)
        monkeypatch.setattr("dream3d.renderers.march.HIDDEN", math.inf)
        full = March(samples=64)(field, cameras)
    torch.testing.assert_close(fast.alpha, full.alpha, atol=2e-3, rtol=0)
    torch.testing.assert_close(fast.depth, full.depth, atol=6e-3, rtol=0)


def lambert_sphere(cameras):
    """Where rays meet the sphere of the field below: positions, normals, and which rays do."""
    away, middle = offsets(cameras)
    hit = away < 0.4
    origins, way = (r.reshape(-1, 3)[hit] for r in cameras.rays())
    position = origins + (middle - (0.25 - away.square()).clamp_min(0).sqrt())[hit, None] * way
    return position, position / 0.5, hit


@pytest.mark.parametrize("deferred", [False, True])
def test_lambert_under_a_point_light(deferred):
    """The sphere is grey 0.5 (its network starts near 0); for pictures the light stands at the camera."""
    field, cameras = sphere(sharpness=150.0, material=Lambert()), turntable(2, 24)
    renderer = March(samples=128, material=Lambert(linear=False), lights=ShadingSwitch(ambient=0.2), deferred=deferred)
    with torch.no_grad():
        render = renderer(field, cameras)
    position, normal, hit = lambert_sphere(cameras)
    source = cameras.position.repeat_interleave(24 * 24, dim=0)[hit]
    towards = torch.nn.functional.normalize(source - position, dim=-1)
    expected = 0.5 * (0.2 + 0.8 * (normal * towards).sum(-1, keepdim=True).clamp_min(0)).expand(-1, 3)
    torch.testing.assert_close(render.rgb.view(-1, 3)[hit], expected, atol=0.02, rtol=0)
    torch.testing.assert_close(render.aux["albedo"], 0.5 * render.alpha.expand_as(render.rgb), atol=0.01, rtol=0)
    assert render.normal is None and "normal" not in render.aux


def test_the_switch_follows_the_steps():
    """Base colour alone at first, to the bit; shaded afterwards, one light a group of views."""
    field, cameras = ball(), turntable(4, 12)
    renderer = March(material=Lambert(), lights=ShadingSwitch(start=10, shaded=1.0, textureless=1.0))

    def drawn(step, *, by=renderer):
        by.before_step(step, 2)
        return by(field, cameras, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        plain, early, late = drawn(0, by=March()), drawn(0), drawn(10)
    torch.testing.assert_close(early.rgb, plain.rgb, atol=1e-6, rtol=0)
    assert (late.rgb - plain.rgb).abs().max() > 0.1
    assert torch.equal(late.alpha, plain.alpha)
    drawn(10).rgb.sum().backward()
    assert field.encoding.table.grad.abs().sum() > 0


@pytest.mark.parametrize("deferred", [False, True])
def test_pbr_draws_every_channel(deferred):
    field = sphere(material=PBR())
    torch.nn.init.normal_(field.encoding.table, std=0.3)
    cameras = turntable(1, 12)
    renderer = March(samples=48, lights=Surroundings(height=8), deferred=deferred)
    render = renderer(field, cameras, generator=torch.Generator().manual_seed(0), normals=True)
    channels = {name: value.shape[-1] for name, value in render.aux.items()}
    assert channels == {"albedo": 3, "roughness": 1, "metallic": 1, "away": 1, "view": 3}
    render.rgb.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in field.parameters())
    assert field.mlp.net[-1].weight.grad[1:].abs().sum(1).min() > 0  # each of the channels is trained
    assert bool(render.rgb.isfinite().all())


def test_materials_must_fit():
    with pytest.raises(InputError, match="PBR needs 5 numbers a point, the Field has 3; give the representation the"):
        March(material=PBR())(ball(), turntable(1, 8))
    with pytest.raises(InputError, match="lights need a material, e.g. Lambert"):
        March(lights=ShadingSwitch())(ball(), turntable(1, 8))


def test_lights_that_are_not_named_suit_the_material():
    assert March().lights is None
    assert isinstance(March(material=Lambert()).lights, ShadingSwitch)
    assert isinstance(March(material=PBR()).lights, Surroundings)


def test_recipes_name_materials_and_lights():
    made, text = load("default", [
        "stages.nerf.representation={class_path: SDFField, init_args: {material: PBR, levels: 2, log2_table: 8}}",
        "stages.nerf.renderer.lights=Surroundings", "stages.nerf.renderer.deferred=true",
    ])  # fmt: skip
    stage = made.stages["nerf"]
    assert isinstance(stage.representation(None), SDFField) and stage.representation(None).width == 5
    assert isinstance(stage.renderer.lights, Surroundings) and "class_path: PBR" in text
    made, _ = load("default", ["stages.nerf.renderer.material=Lambert", "stages.nerf.renderer.lights=ShadingSwitch"])
    assert isinstance(made.stages["nerf"].renderer.lights, ShadingSwitch)


@pytest.mark.cuda
def test_nerfacc_agrees_on_cuda():
    field = ball().cuda()
    cameras = turntable(2, 32).to("cuda")
    with torch.no_grad():
        ours = March(samples=256)(field, cameras)
        theirs = March(samples=256, backend="nerfacc")(field, cameras)
    torch.testing.assert_close(ours.rgb, theirs.rgb, atol=0.02, rtol=0)
