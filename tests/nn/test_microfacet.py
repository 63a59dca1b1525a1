"""The GGX lobe against its integrals."""

import math

import pytest
import torch

from dream3d.nn.microfacet import (
    alpha_of,
    distribution,
    frame,
    hammersley,
    lobe,
    masking,
    sample_cosine,
    sample_half,
    to_local,
    to_world,
    visibility,
)


def hemisphere(rows=1500):
    """Directions about z and their solid angles, float64."""
    z = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    phi = (torch.arange(700, dtype=torch.float64) + 0.5) / 700 * 2 * math.pi
    z, phi = torch.meshgrid(z, phi, indexing="ij")
    s = (1 - z**2).sqrt()
    return torch.stack([s * phi.cos(), s * phi.sin(), z], -1), 2 * math.pi / z.numel()


@pytest.mark.parametrize("roughness", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("nv", [0.15, 0.6, 1.0])
def test_the_table_holds_the_integrals(roughness, nv):
    light, area = hemisphere()
    view = torch.tensor([math.sqrt(1 - nv**2), 0, nv], dtype=torch.float64)
    alpha = alpha_of(torch.tensor(roughness, dtype=torch.float64))
    half = torch.nn.functional.normalize(light + view, dim=-1)
    nl, vh = light[..., 2], (half * view).sum(-1)
    f = distribution(half[..., 2], alpha) * visibility(torch.tensor(nv), nl, alpha) * nl * area
    edge = (1 - vh) ** 5
    mean = (f[..., None] * light).sum((0, 1)) / f.sum()
    found = lobe(torch.tensor([nv], dtype=torch.float64), torch.tensor([roughness], dtype=torch.float64))
    assert found.a.item() == pytest.approx(((1 - edge) * f).sum().item(), abs=4e-3)
    assert found.b.item() == pytest.approx((edge * f).sum().item(), abs=4e-3)
    assert found.up.item() == pytest.approx(mean[2].item(), abs=1e-2)
    if nv < 1:
        assert -found.along.item() * view[0].item() == pytest.approx(mean[0].item(), abs=1e-2)
    else:
        assert found.roughness.item() == pytest.approx(roughness, abs=0.01)


def test_normals_project_to_the_view():
    """Integral of D (n . h) over half vectors is 1, and masked visible normals project to nv (Heitz 2014, eq. 14)."""
    half, area = hemisphere()
    for nv in (0.3, 0.9):
        view = torch.tensor([math.sqrt(1 - nv**2), 0, nv], dtype=torch.float64)
        alpha = torch.tensor(0.4, dtype=torch.float64)
        d = distribution(half[..., 2], alpha)
        assert (d * half[..., 2]).sum().item() * area == pytest.approx(1, abs=2e-3)
        seen = masking(torch.tensor(nv), alpha) * d * (half * view).sum(-1).clamp_min(0)
        assert seen.sum().item() * area == pytest.approx(nv, abs=2e-3)


def test_samples_have_their_density():
    """Means of smooth functions over samples are those over the density."""
    light, area = hemisphere()
    u = hammersley(4096)
    cosine = sample_cosine(u)
    expected = (light * light[..., 2:] / math.pi * area).sum((0, 1))
    torch.testing.assert_close(cosine.mean(0), expected, atol=1e-3, rtol=0)
    view, alpha = torch.tensor([0.8, 0.0, 0.6], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    half = sample_half(view, alpha, u)
    density = masking(view[2], alpha) * distribution(light[..., 2], alpha) * (light @ view).clamp_min(0) / view[2]
    torch.testing.assert_close(half.mean(0), (light * density[..., None] * area).sum((0, 1)), atol=2e-3, rtol=0)


def test_hammersley_is_even():
    u = hammersley(64)
    assert torch.equal((u[:, 0] * 8).long().bincount(), torch.full((8,), 8))
    assert torch.equal((u[:, 1] * 8).long().bincount(), torch.full((8,), 8))
    assert u.min() > 0 and u.max() < 1


def test_frames_are_right_handed_and_undone():
    normal = torch.nn.functional.normalize(torch.randn(100, 3, dtype=torch.float64), dim=-1)
    normal = torch.cat([normal, torch.tensor([[0, 0, 1.0], [0, 0, -1.0]], dtype=torch.float64)])
    t, b = frame(normal)
    torch.testing.assert_close(torch.linalg.cross(t, b), normal)
    v = torch.randn(len(normal), 3, dtype=torch.float64)
    torch.testing.assert_close(to_local(to_world(v, normal), normal), v)
