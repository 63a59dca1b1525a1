"""Environments: lookups, convolutions, rotations."""

import math

import pytest
import torch

from dream3d.checks import InputError
from dream3d.lights import Even, HDRFile, Panorama, Sky, Studio, about_y, prefiltered, write_hdr
from dream3d.lights.environment import directions, lookup, solid_angles
from dream3d.nn.microfacet import alpha_of, round_lobe

ONE = torch.zeros((), dtype=torch.float64)


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape, 3, dtype=torch.float64), dim=-1)


def noise(height):
    return torch.rand(height, 2 * height, 3, dtype=torch.float64)


def test_axes():
    d = directions(64, like=ONE)
    assert d[32, 63:65].mean(0)[2] > 0.99  # the middle is +Z
    assert d[32, 31:33].mean(0)[0] > 0.99  # a quarter is +X
    assert d[0, :, 1].min() > 0.99  # the top row is up
    assert solid_angles(64, like=ONE).sum().item() * 128 == pytest.approx(4 * math.pi)


def test_lookup_meets_texels_and_has_no_seams():
    panorama = noise(16)
    torch.testing.assert_close(lookup(panorama[None], directions(16, like=ONE)), panorama)
    for point in ([0, 0, -1.0], [0, 1.0, 0], [0, -1.0, 0], [0.3, 0.2, -1e-9]):
        around = torch.tensor(point, dtype=torch.float64) + 1e-7 * unit(20)
        seen = lookup(panorama[None], around / around.norm(dim=-1, keepdim=True))
        assert (seen - seen[0]).abs().max() < 1e-5


def test_rotation_is_exact():
    env = prefiltered(noise(16), height=16, levels=3)
    n, r = unit(50), torch.rand(50, 1, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    q = q * q.det()
    turned = env.rotated(q)
    for before, after in (
        (env.radiance(n), turned.radiance(n @ q.t())),
        (env.specular(n, r), turned.specular(n @ q.t(), r)),
        (env.diffuse(n, n), turned.diffuse(n, n @ q.t())),
        (env.radiance(n), turned.rotated(q.t()).radiance(n)),
    ):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    # A turn by whole texels is a shift of columns: towards +X is to the left.
    shifted = prefiltered(env.panorama.roll(-5, dims=1), height=16, levels=3)
    same = env.rotated(about_y(ONE + 5 * 2 * math.pi / 32))
    torch.testing.assert_close(same.specular(n, r), shifted.specular(n, r), rtol=0, atol=1e-12)


def test_every_view_may_have_its_rotation():
    env = prefiltered(noise(8), height=8, levels=3)
    angles = torch.tensor([0.3, 2.0], dtype=torch.float64)
    both, n = env.rotated(about_y(angles)), unit(2, 4, 5)
    seen = both.at(torch.arange(2).view(2, 1, 1)).radiance(n)
    for i in range(2):
        torch.testing.assert_close(seen[i], env.rotated(about_y(angles[i])).radiance(n[i]))


def test_convolutions_are_the_sums_over_all_texels():
    panorama = noise(16)
    env = prefiltered(panorama, height=16, levels=3)
    d, area = directions(16, like=ONE), solid_angles(16, like=ONE).expand(-1, 32, 1).reshape(-1, 1)
    for row, column in ((0, 3), (7, 0), (12, 30)):
        cosine = d.view(-1, 3) @ d[row, column]
        weights = (cosine.clamp_min(0), round_lobe(cosine, alpha_of(ONE + 0.5)), round_lobe(cosine, alpha_of(ONE + 1)))
        for weight, found in zip(weights, (env.even, env.glossy[1], env.glossy[2]), strict=True):
            w = weight[:, None] * area
            torch.testing.assert_close(found[row, column], (w * panorama.view(-1, 3)).sum(0) / w.sum())


def test_irradiance_of_a_single_light():
    """A small light of solid angle w and radiance L gives w L (n . l) / pi."""
    panorama = torch.zeros(32, 64, 3, dtype=torch.float64)
    panorama[10, 20] = 7.0
    light = directions(32, like=ONE)[10, 20]
    n = directions(64, like=ONE)[20:40, ::7]
    expected = 7 * solid_angles(32, like=ONE)[10] / math.pi * (n @ light).clamp_min(0)[..., None]
    assert (prefiltered(panorama, height=32).diffuse(n, n) - expected).abs().max() < 0.02 * expected.max()


def test_samples_follow_brightness_and_density_is_theirs():
    panorama = 0.1 + noise(8) ** 4
    env = prefiltered(panorama, height=8, levels=5).rotated(about_y(ONE + 1.0))
    d = directions(64, like=ONE)
    total = env.density(d) * solid_angles(64, like=ONE)
    assert total.sum().item() == pytest.approx(1, abs=1e-9)
    u = torch.rand(200000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = env.sample(u)
    torch.testing.assert_close(s.norm(dim=-1), torch.ones(len(s), dtype=torch.float64))
    torch.testing.assert_close(s.mean(0), (d * total).sum((0, 1)), atol=6e-3, rtol=0)
    assert (1 / env.density(s)).mean().item() == pytest.approx(4 * math.pi, rel=0.01)


def test_shrinking_keeps_the_light():
    panorama = torch.zeros(48, 96, 3, dtype=torch.float64)
    panorama[20, 30] = 100.0
    for height in (16, 32, 48):
        small = prefiltered(panorama, height=height, levels=2).glossy[0]
        light = (small * solid_angles(height, like=ONE)).sum()
        assert light.item() == pytest.approx((panorama * solid_angles(48, like=ONE)).sum().item(), rel=0.08)


def test_gradient_reaches_the_panorama():
    panorama = noise(8).requires_grad_()
    n, r = unit(3), torch.rand(3, 1, dtype=torch.float64)

    def light(p):
        env = prefiltered(p, height=8, levels=3)
        return env.specular(n, r) + env.diffuse(n, n)

    assert torch.autograd.gradcheck(light, panorama, fast_mode=True)


@pytest.mark.parametrize("family", [c for c in Panorama.__subclasses__() if c is not HDRFile])
def test_made_panoramas(family):
    panorama = family(strength=2.0).radiance()
    height = len(panorama)
    assert panorama.shape == (height, 2 * height, 3) and panorama.min() >= 0
    luminance = panorama @ torch.tensor([0.2126, 0.7152, 0.0722])
    mean = (luminance * solid_angles(height, like=panorama)[..., 0]).sum() / (4 * math.pi)
    assert mean.item() == pytest.approx(2.0, rel=1e-4)


def test_the_sun_stands_where_it_is_asked_to():
    panorama = Sky(azimuth_deg=90, elevation_deg=30, sun=0.5).radiance()
    d = directions(len(panorama), like=panorama).view(-1, 3)
    brightest = d[panorama.sum(-1).argmax()]
    assert brightest @ torch.tensor([math.cos(math.pi / 6), 0.5, 0.0]) > 0.997
    assert Studio().radiance().max() > 5 and Even().radiance().unique().tolist() == [1.0]


def test_a_file_is_a_panorama(tmp_path, as_users_run):
    write_hdr(tmp_path / "a.hdr", Studio(height=16).radiance())
    seen = HDRFile(path=str(tmp_path / "a.hdr"), strength=2.0).radiance()
    torch.testing.assert_close(seen, 2 * Studio(height=16).radiance(), rtol=0.01, atol=0.02)
    write_hdr(tmp_path / "b.hdr", torch.ones(4, 4, 3))
    with pytest.raises(InputError, match="twice as wide as high, got 4 x 4"):
        HDRFile(path=str(tmp_path / "b.hdr")).radiance()
    with pytest.raises(InputError, match=r"\(H, 2 H, 3\)"):
        prefiltered(torch.ones(4, 4, 3))
