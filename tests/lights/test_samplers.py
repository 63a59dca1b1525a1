"""Who chooses the light: the shading switch, and sets of environments."""

import dataclasses

import pytest
import torch

from dream3d.cameras import OrbitCameras
from dream3d.checks import InputError
from dream3d.lights import Even, LightSampler, PointLight, ShadingSwitch, Sky, Studio, Surroundings


def cameras(count=8, seed=0):
    return OrbitCameras()(count, 1, 0, torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_point_light_closed_form():
    one = torch.ones(1)
    light = PointLight(torch.tensor([0.0, 0, 2]), 0.9 * one, 0.1 * one, one)
    n = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 0.6, 0.8], [0, 0, -1]])
    seen = light.diffuse(torch.zeros(4, 3), n)
    torch.testing.assert_close(seen, torch.tensor([1.0, 0.1, 0.82, 0.1])[:, None].expand(4, 3))


def test_the_switch_keeps_its_chances():
    sampler, views = ShadingSwitch(start=10, shaded=0.75, textureless=0.5), cameras(4000)
    before = sampler(views, step=9, generator=generator())
    assert before.intensity.eq(0).all() and before.ambient.eq(1).all() and before.texture.eq(1).all()
    after = sampler(views, step=10, generator=generator())
    lit, bare = after.intensity > 0.5, after.texture == 0
    assert lit.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert bare.float().mean().item() == pytest.approx(0.375, abs=0.03) and (lit | ~bare).all()
    torch.testing.assert_close(after.ambient[lit].unique(), torch.tensor([0.1]))
    torch.testing.assert_close(after.ambient + after.intensity, torch.ones(4000, 1))
    away = after.position.norm(dim=-1) / views.distance
    assert 0.7 <= away.min() and away.max() <= 1.2
    # The light is on the camera's side more often than not.
    assert ((after.position * views.position).sum(-1) > 0).float().mean() > 0.8
    soft = ShadingSwitch(start=0, shaded=1.0, soft=True)(views, generator=generator())
    assert soft.ambient.mean().item() == pytest.approx(0.5, abs=0.02)


def test_groups_share_their_light():
    light = ShadingSwitch(start=0)(cameras(8), views=4, generator=generator())
    for part in dataclasses.astuple(light):
        assert torch.equal(part[0].expand_as(part[:4]), part[:4]) and torch.equal(part[4].expand_as(part[4:]), part[4:])
    with pytest.raises(InputError, match="multiple"):
        ShadingSwitch()(cameras(6), views=4, generator=generator())


@pytest.mark.parametrize("sampler", [ShadingSwitch(start=0), Surroundings(turn="free", height=8)])
def test_same_seed_same_light(sampler: LightSampler):
    n = torch.nn.functional.normalize(torch.randn(8, 3), dim=-1)

    def seen(seed):
        g = None if seed is None else generator(seed)
        return sampler(cameras(), generator=g).at(torch.arange(8)).diffuse(n, n)

    assert torch.equal(seen(3), seen(3)) and torch.equal(seen(None), seen(None))
    assert not torch.equal(seen(3), seen(4))


def test_surroundings_turn_and_change():
    maps = {"a": Even(strength=1.0), "b": Even(strength=3.0)}
    fixed = Surroundings(maps=maps, height=8)
    strengths = {round(float(fixed(cameras(), generator=generator(s)).panorama.max())) for s in range(20)}
    assert strengths == {1, 3}
    assert fixed(cameras()).panorama.max() == 1
    assert fixed.environment("a") is fixed.environment("a")
    sky, views = Surroundings(maps={"sky": Sky(azimuth_deg=0, height=16)}, turn="camera", height=16), cameras()
    facing = torch.nn.functional.normalize(views.position * torch.tensor([1.0, 0, 1]), dim=-1)
    seen = sky(views).at(torch.arange(8)).diffuse(facing, facing)
    torch.testing.assert_close(seen, seen[:1].expand_as(seen), rtol=1e-4, atol=1e-5)


def test_what_is_refused(as_users_run):
    with pytest.raises(InputError, match="at least one map"):
        Surroundings(maps={})
    with pytest.raises(InputError, match="turn"):
        Surroundings(maps={"studio": Studio()}, turn="round")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shaded"):
        ShadingSwitch(shaded=1.5)
