"""Splats against closed forms and against gsplat's torch functions: the twins, and with them the kernels."""

import pytest
import torch

from dream3d.cameras import opengl_to_opencv
from dream3d.kernels import splat, splat_reference
from tests.kernels.conftest import cameras, gaussians, off_by, one_splat

DOUBLE = torch.float64


# ---- closed forms


@pytest.mark.parametrize("antialias", [False, True])
def test_a_round_gaussian_in_the_middle(double_library, antialias):
    parameters, views, pixels = one_splat()
    variance = (0.3 * pixels) ** 2 + 0.3
    opacity = 0.8 * (1 - 0.3 / variance if antialias else 1)
    steps = torch.arange(21, dtype=DOUBLE) - 10
    squared = steps[:, None] ** 2 + steps**2
    expected = opacity * torch.exp(-0.5 * squared / variance)
    expected[expected < 1 / 255] = 0
    for module, library in ((splat, {"library": double_library}), (splat_reference, {})):
        projected = module.project_splats(*parameters, views, antialias=antialias, **library)
        image = module.composite_splats(projected, shared=torch.full((1, 2), 0.5, dtype=DOUBLE), **library)
        torch.testing.assert_close(image.alpha[0], expected)
        torch.testing.assert_close(image.depth[0], 3 * expected)
        torch.testing.assert_close(image.features[0], 0.5 * expected[..., None].expand(-1, -1, 2))


def test_right_is_right_and_up_is_up(double_library):
    parameters, views, pixels = one_splat(means=[[0.6, 1.2, 0.0]])
    projected = splat.project_splats(*parameters, views, library=double_library)
    torch.testing.assert_close(projected.means[0, 0], 10.5 + pixels * torch.tensor([0.6, -1.2], dtype=DOUBLE))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_nearer_covers_the_farther_and_ties_go_by_number(double_library, order):
    z = torch.tensor([1.0, 0.0, 0.0])[list(order)]
    means = [[0.0, 0.0, float(v)] for v in z]
    many = {"quaternions": [[1.0, 0, 0, 0]] * 3, "scales": [[5.0, 5, 5]] * 3, "opacities": [0.5, 0.5, 0.5]}
    parameters, views, _ = one_splat(means=means, **many)
    projected = splat.project_splats(*parameters, views, library=double_library)
    seen = splat.composite_splats(projected, shared=torch.eye(3, dtype=DOUBLE), library=double_library)
    sequence = sorted(range(3), key=lambda n: (-z[n], n))
    weights = seen.features[0, 10, 10, sequence].tolist()
    assert weights == pytest.approx([0.5, 0.25, 0.125], abs=0.01) and weights[1] > weights[2]


def test_normals_are_shortest_axes_that_face_the_camera(generator):
    means, quaternions, scales, _ = gaussians(30, DOUBLE, generator)
    views = cameras()
    normals = splat.splat_normals(means, quaternions, scales, views)
    axes = splat_reference.to_rotation(quaternions)
    assert torch.equal((axes.mT @ normals[0, :, :, None]).abs().argmax(dim=1)[:, 0], scales.argmin(dim=1))
    assert (((means - views.position[:, None]) * normals).sum(dim=-1) <= 0).all()
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(2, 30, dtype=DOUBLE))


# ---- a second opinion


@pytest.mark.parametrize("antialias", [False, True])
def test_projection_agrees_with_gsplat(library, generator, antialias):
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    views, parameters = cameras(library.dtype, 3, 60, 80), gaussians(200, library.dtype, generator)
    projected = splat.project_splats(*parameters, views, antialias=antialias, library=library)
    covariance, _ = _quat_scale_to_covar_preci(parameters[1], parameters[2], compute_preci=False)
    focal = splat_reference.focal_lengths(views, parameters[0])
    intrinsics = torch.diag_embed(torch.stack([focal, focal, torch.ones_like(focal)], dim=-1))
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = 40, 30
    w2c = opengl_to_opencv(views.c2w)
    _, means, depths, conics, factor = _fully_fused_projection(
        parameters[0], covariance, w2c, intrinsics, 80, 60, calc_compensations=antialias
    )
    drawn = projected.visible
    assert drawn.sum() > 300
    expected = (means, depths, conics, parameters[3] * (factor if antialias else 1) + 0 * depths)
    for a, b in zip((projected.means, projected.depths, projected.conics, projected.opacities), expected, strict=True):
        assert off_by(a[drawn], b[drawn]) < {torch.float32: 1e-5, DOUBLE: 1e-12}[library.dtype]
    rotation = splat_reference.to_rotation(parameters[1])
    mine = rotation @ torch.diag_embed(parameters[2].square()) @ rotation.mT
    torch.testing.assert_close(mine, covariance, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_agree_with_gsplat(double_library, generator, degree):
    from gsplat.cuda._torch_impl import _spherical_harmonics

    views, means = cameras(number=1), gaussians(50, DOUBLE, generator)[0]
    coefficients = 0.3 * torch.randn(50, (degree + 1) ** 2, 3, dtype=DOUBLE, generator=generator)
    theirs = _spherical_harmonics(degree, means - views.position, coefficients)
    mine = splat.splat_colours(means, coefficients, views, library=double_library)
    torch.testing.assert_close(mine[0], (theirs + 0.5).clamp(min=0))
