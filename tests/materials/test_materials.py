"""All materials: furnaces, the reference, closed forms, gradients."""

import dataclasses
import functools
import math

import pytest
import torch
from torch.nn import functional

from dream3d.checks import InputError
from dream3d.lights import Even, PointLight, Sky, Studio, about_y, prefiltered
from dream3d.materials import PBR, Lambert, Material, MonteCarlo, NormalMap, Plain, Points
from dream3d.nn.color import display, to_linear, to_srgb

VIEW = torch.tensor([0.0, 0.0, 1.0])


def sphere(size, dtype=torch.float32):
    """Points of a unit ball as an orthographic camera on +Z sees them, one a pixel."""
    at = (torch.arange(size, dtype=dtype) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-at, at, indexing="ij")
    inside = x**2 + y**2 < 0.98
    x, y = x[inside], y[inside]
    n = torch.stack([x, y, (1 - x**2 - y**2).sqrt()], dim=-1)
    return Points(n, n, VIEW.to(n).expand_as(n))


def filled(points, albedo, roughness, metallic):
    one = torch.ones_like(points.normal[..., :1])
    albedo = torch.as_tensor(albedo).to(one).expand_as(points.normal)
    return {"albedo": albedo, "roughness": roughness * one, "metallic": metallic * one}


@functools.cache
def lit(name):
    return prefiltered({"even": Even(), "sky": Sky(), "studio": Studio()}[name].radiance())


GRID = [(r, m) for r in (0.3, 0.475, 0.65, 0.825, 1.0) for m in (0.0, 0.25, 0.5, 0.75, 1.0)]


def both(points, values, light, samples):
    with torch.no_grad():
        return sum(PBR().linear(points, values, light)), MonteCarlo(samples=samples).linear(points, values, light)


@pytest.mark.parametrize("roughness", [0.0, 0.1, 0.5, 1.0])
def test_white_furnace(roughness):
    """White in white light is not to be seen: no light is lost and none is made, metal or not."""
    points = sphere(10)
    for metallic in (0.0, 0.4, 1.0):
        split = sum(PBR().linear(points, filled(points, 1.0, roughness, metallic), lit("even")))
        assert (split - 1).abs().max() < 1e-3
        if roughness >= 0.1:
            sampled = MonteCarlo(samples=768).linear(points, filled(points, 1.0, roughness, metallic), lit("even"))
            assert (sampled.mean() - 1).abs() < 0.01 and (sampled - 1).abs().mean() < 0.01


def test_energy_is_conserved():
    """Nothing reflects more than it gets, and a darker base colour never more than a lighter one."""
    points = sphere(14, torch.float64)
    for roughness, metallic in [(0.05, 0.0), (0.05, 1.0), *GRID]:
        seen = [sum(PBR().linear(points, filled(points, a, roughness, metallic), lit("even"))) for a in (0.0, 0.5, 1.0)]
        assert 0 <= seen[0].min() and seen[2].max() <= 1 + 1e-9
        assert (seen[0] < seen[1]).all() and (seen[1] < seen[2]).all()


@pytest.mark.parametrize(("name", "linear"), [("studio", 0.04), ("sky", 0.035)])
def test_split_sum_agrees_with_the_integral(name, linear):
    """25 balls in one surrounding: the picture of each is off by less than 2 % of its range on average; the light by
    more of its own mean, the worst being half-rough metal, whose lobe is not round."""
    points, shown, light = sphere(10), [], []
    for roughness, metallic in GRID:
        a, b = both(points, filled(points, (0.9, 0.6, 0.35), roughness, metallic), lit(name), 768)
        shown.append((display(a) - display(b)).abs().mean().item())
        light.append(((a - b).abs().mean() / b.mean()).item())
    assert max(shown) < 0.02 and sum(shown) / 25 < 0.01
    assert max(light) < 0.09 and sum(light) / 25 < linear


def test_head_on_the_split_sum_is_the_integral():
    """Where n = v the lobe is round: nothing is approximated but the map's resolution."""
    turns = about_y(torch.linspace(0, 6, 40))
    points = Points(torch.zeros(40, 3), VIEW.expand(40, 3), VIEW.expand(40, 3))
    light = lit("studio").rotated(turns)
    for roughness in (0.4, 0.7, 1.0):
        a, b = both(points, filled(points, 1.0, roughness, 1.0), light, 1536)
        assert ((a - b).abs().mean() / b.mean()).item() < 0.01


def test_turning_everything_changes_nothing():
    points = sphere(10, torch.float64)
    q = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    q = q * q.det()
    turned = Points(points.position @ q.t(), points.normal @ q.t(), points.view @ q.t())
    values = filled(points, (0.7, 0.4, 0.2), 0.5, 0.6)
    light = lit("studio").to(q)
    before, after = PBR()(points, values, light), PBR()(turned, values, light.rotated(q))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


def test_shadows():
    """What sees only the upper half of a white surrounding, lying flat, loses nothing; standing upright, half."""
    up = torch.tensor([[0.0, 1, 0]])
    side = torch.tensor([[0.0, 0, 1]])

    def sky_only(position, direction):
        assert direction.shape[1:] == position.shape
        return (direction[..., 1:2] > 0).to(direction)

    for normal, share in ((up, 1.0), (side, 0.5)):
        values = filled(Points(normal, normal, normal), 0.8, 1.0, 0.0)
        open_, shaded = (
            MonteCarlo(samples=1536).linear(Points(normal, normal, normal, visible), values, lit("even"))
            for visible in (None, sky_only)
        )
        torch.testing.assert_close(shaded, share * open_, rtol=5e-3, atol=0)


def test_jitter_is_seeded_and_unbiased():
    points = sphere(8)
    values = filled(points, 0.7, 0.4, 0.5)
    material = MonteCarlo(samples=48)
    one, same, other = (
        material.linear(points, values, lit("studio"), generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    many = sum(
        material.linear(points, values, lit("studio"), generator=torch.Generator().manual_seed(s)) for s in range(24)
    )
    truth = MonteCarlo(samples=1536).linear(points, values, lit("studio"))
    assert ((many / 24 - truth).abs().mean() / truth.mean()).item() < 0.02


def test_plain_and_lambert_closed_forms():
    points = Points(torch.zeros(2, 3), torch.tensor([[0.0, 0, 1], [0, 0.8, 0.6]]), VIEW.expand(2, 3))
    one = torch.ones(1)
    light = PointLight(torch.tensor([0.0, 0, 3]), 0.9 * one, 0.1 * one, one)
    values = {"albedo": torch.tensor([[0.2, 0.5, 0.8], [0.9, 0.1, 0.4]])}
    shade = torch.tensor([[1.0], [0.64]])
    assert Plain()(points, values, light) is values["albedo"]
    torch.testing.assert_close(Lambert()(points, values, light), to_srgb(to_linear(values["albedo"]) * shade))
    torch.testing.assert_close(Lambert(linear=False)(points, values, light), values["albedo"] * shade)
    bare = dataclasses.replace(light, texture=0 * one)
    torch.testing.assert_close(Lambert(linear=False)(points, values, bare), shade.expand(2, 3))
    albedo_only = PointLight(light.position, 0 * one, one, one)
    torch.testing.assert_close(Lambert()(points, values, albedo_only), values["albedo"])
    torch.testing.assert_close(Lambert()(points, values, lit("even")), values["albedo"])


def small():
    """Nine points, double precision, away from the edges of tables and texels."""
    n = functional.normalize(torch.tensor([[0.2, 0.1, 1.0], [0.5, -0.3, 0.7], [-0.4, 0.45, 0.8]]).double(), dim=-1)
    v = functional.normalize(torch.tensor([0.1, 0.05, 1.0]).double(), dim=0).expand(3, 3)
    panorama = 0.2 + torch.rand(8, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    albedo = torch.tensor([[0.3, 0.5, 0.7], [0.8, 0.2, 0.4], [0.6, 0.6, 0.1]]).double()
    rough = torch.tensor([[0.33], [0.52], [0.77]]).double()
    metal = torch.tensor([[0.1], [0.45], [0.9]]).double()
    return n, v, panorama, albedo, rough, metal


def test_gradients_of_the_split_sum():
    """Albedo, roughness, metallic, normals, bump and light, by finite differences."""
    n, v, panorama, *rest = small()

    def shade(albedo, rough, metal, normal, bump, panorama):
        values = {"albedo": albedo, "roughness": rough, "metallic": metal, "bump": bump}
        light = prefiltered(panorama, height=8, levels=3)
        return PBR()(Points(n, functional.normalize(normal, dim=-1), v), values, light)

    inputs = [x.clone().requires_grad_() for x in (*rest, n, 0.1 * n.flip(-1), panorama)]
    assert torch.autograd.gradcheck(shade, inputs, eps=1e-7, atol=1e-5, fast_mode=True)


def test_gradients_of_lambert():
    n, v, _, albedo, *_ = small()
    one = torch.ones(1).double()

    def shade(albedo, normal, place):
        light = PointLight(place, 0.8 * one, 0.2 * one, one)
        return Lambert()(Points(n, functional.normalize(normal, dim=-1), v), {"albedo": albedo}, light)

    place = torch.tensor([0.5, 1.0, 2.0]).double()
    assert torch.autograd.gradcheck(shade, [x.clone().requires_grad_() for x in (albedo, n, place)])


def test_gradients_of_monte_carlo():
    """With its directions held fixed it differentiates the integral: finite differences of many samples agree."""
    n, v, panorama, albedo, rough, metal = small()
    light, material = prefiltered(panorama, height=8, levels=3), MonteCarlo(samples=12000)

    def shade(albedo, rough, metal):
        values = {"albedo": albedo, "roughness": rough, "metallic": metal}
        return material.linear(Points(n, n, v), values, light)

    inputs = [x.clone().requires_grad_() for x in (albedo, rough, metal)]
    found = torch.autograd.grad(shade(*inputs).sum(), inputs)
    with torch.no_grad():
        for i, step in ((0, 1e-4), (1, 3e-2), (2, 1e-4)):
            ends = []
            for sign in (1, -1):
                moved = [x + sign * step * (j == i) for j, x in enumerate(inputs)]
                ends.append(shade(*moved).sum(-1, keepdim=True))
            slope = (ends[0] - ends[1]) / (2 * step)
            torch.testing.assert_close(found[i].sum(-1, keepdim=True), slope, rtol=0.03, atol=3e-3)


@pytest.mark.parametrize("family", [family for family in Material.__subclasses__() if family().width])
def test_every_material(family):
    """Any leading shape, one light for all or one a view; ranges; errors that name what is missing."""
    material = family()
    raw = torch.randn(2, 3, 5, material.width, requires_grad=True)
    values = material.activate(raw)
    assert list(values) == list(material.channels)
    for name, (width, low, high) in material.channels.items():
        assert values[name].shape == (2, 3, 5, width) and low <= values[name].min() and values[name].max() <= high
    n = functional.normalize(torch.randn(2, 3, 5, 3), dim=-1)  # some of them look away
    v = functional.normalize(torch.randn(2, 3, 5, 3), dim=-1)
    views = lit("studio").rotated(about_y(torch.tensor([0.5, 2.0]))).at(torch.arange(2).view(2, 1, 1))
    color = material(Points(n, n, v), values, views)
    assert color.shape == n.shape and 0 <= color.min() and color.max() <= 1
    color.sum().backward()
    assert torch.isfinite(raw.grad).all() and raw.grad.abs().sum() > 0
    with pytest.raises(InputError, match=f"expected {material.width} numbers a point, got 1"):
        material.activate(raw[..., :1])
    with pytest.raises(InputError, match="needs the channel 'albedo', got none"):
        material(Points(n, n, v), {}, views)


@pytest.mark.parametrize("family", [PBR, MonteCarlo])
def test_what_physics_refuses(family):
    points, one = sphere(4), torch.ones(1)
    with pytest.raises(InputError, match="needs an Environment, not a PointLight"):
        family()(points, filled(points, 0.5, 0.5, 0.5), PointLight(VIEW, one, one, one))
    with pytest.raises(InputError, match="needs the channel 'roughness'"):
        family()(points, {"albedo": points.normal}, lit("even"))
    with pytest.raises(InputError, match="roughness"):
        family(roughness=(0.5, 0.2))
    pinned = family(metallic=(0.0, 0.0), bump=0.2)
    values = pinned.activate(torch.randn(7, pinned.width))
    assert pinned.width == 8 and values["metallic"].eq(0).all() and values["bump"].abs().max() <= 0.2


def test_mirrors_show_the_light():
    light = lit("sky")
    points = sphere(10)
    values = filled(points, 1.0, 0.0, 1.0)
    mirrored = 2 * points.normal * points.normal[:, 2:] - points.view
    diffuse, specular = PBR().linear(points, values, light)
    assert diffuse.abs().max() == 0
    seen = light.specular(mirrored, torch.zeros(len(mirrored), 1))
    assert ((specular - seen).abs().mean() / seen.mean()).item() < 0.05
    assert math.isfinite(float(specular.sum()))


def test_normals_as_colours():
    """No inputs and no light; along the camera's own axes a wall that faces it is blue."""
    q = torch.linalg.qr(torch.randn(5, 3, 3))[0]
    points = Points(q[..., 2], q[..., 2], q[..., 2], axes=q)
    values = NormalMap().activate(torch.zeros(5, 0))
    assert values == {} and NormalMap().width == 0
    torch.testing.assert_close(NormalMap()(points, {}, lit("even")), 0.5 * q[..., 2] + 0.5)
    blue = NormalMap(space="camera")(points, {}, lit("even"))
    torch.testing.assert_close(blue, torch.tensor([0.5, 0.5, 1.0]).expand(5, 3))
    with pytest.raises(InputError, match="points that know their camera"):
        NormalMap(space="camera")(dataclasses.replace(points, axes=None), {}, lit("even"))


def test_what_glows_adds_light_and_what_is_hidden_loses_it():
    points = sphere(6)
    values = filled(points, 0.5, 0.6, 0.2)
    glowing = values | {"emissive": torch.full_like(points.normal, 0.07)}
    for material in (Lambert(), PBR(tone="clip"), MonteCarlo(tone="clip", samples=48)):
        more, less = (to_linear(material(points, v, lit("even"))) for v in (glowing, values))
        torch.testing.assert_close(more, less + 0.07, atol=1e-5, rtol=1e-5)
    half = values | {"occlusion": torch.full_like(values["roughness"], 0.5)}
    more, less = (to_linear(PBR(tone="clip")(points, v, lit("even"))) for v in (values, half))
    torch.testing.assert_close(less, 0.5 * more, atol=1e-5, rtol=1e-5)
