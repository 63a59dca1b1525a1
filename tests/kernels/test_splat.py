"""The splat kernels against finite differences, against their twins, and in the corners."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from dream3d.checks import InputError
from dream3d.kernels import splat, splat_reference
from dream3d.types import Cameras
from tests.kernels.conftest import cameras, features, gaussians, off_by, one_splat, splat_results

DOUBLE = torch.float64
FINE = {torch.float32: 1e-4, DOUBLE: 1e-9}
SMOOTH = {"alpha_min": 1e-12}
"""With cut-offs this low a finite difference does not notice them."""


# ---- gradients against finite differences


@pytest.mark.parametrize("antialias", [False, True])
def test_projection_gradients(double_library, generator, antialias):
    parameters = gaussians(6, DOUBLE, generator)
    parameters[0].data[0] = torch.tensor([2.0, 0.3, 0.0])  # beside the picture, where the Jacobian is clamped
    parameters[2].data[0] = 1.5
    views = cameras()

    def run(*p):
        projected = splat.project_splats(*p, views, antialias=antialias, **SMOOTH, library=double_library)
        assert bool(projected.visible.all())
        return projected.means, projected.depths, projected.conics, projected.opacities

    assert gradcheck(run, parameters)


@pytest.mark.parametrize("viewed, shared", [(3, 0), (0, 2), (3, 3), (0, 0)])
def test_compositing_gradients(double_library, generator, viewed, shared):
    views, parameters = cameras(height=18, width=17), gaussians(5, DOUBLE, generator)
    colours = features(views, 5, DOUBLE, generator, viewed, shared)
    given = [f for f in colours if f is not None]

    def run(*leaves):
        rest = iter(leaves[4:])
        a, b = (None if f is None else next(rest) for f in colours)
        projected = splat.project_splats(*leaves[:4], views, **SMOOTH, library=double_library)
        image = splat.composite_splats(projected, viewed=a, shared=b, transmittance_min=1e-12, library=double_library)
        return image.features, image.depth, image.alpha

    assert gradcheck(run, (*parameters, *given), fast_mode=True)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colour_gradients(double_library, generator, degree):
    views, means = cameras(), gaussians(4, DOUBLE, generator)[0]
    coefficients = (0.2 * torch.randn(4, (degree + 1) ** 2, 3, dtype=DOUBLE, generator=generator)).requires_grad_()
    run = lambda m, c: splat.splat_colours(m, c, views, library=double_library)  # noqa: E731
    assert gradcheck(run, (means, coefficients))


# ---- against the twins


@pytest.mark.parametrize("viewed, shared", [(3, 0), (0, 3), (3, 3), (0, 0), (5, 21)])
def test_splats_equal_their_twin(library, generator, viewed, shared):
    views, parameters = cameras(library.dtype, 3, 40, 53), gaussians(250, library.dtype, generator)
    parameters[3].data[:20] = 1.2  # more than opaque: alpha is capped
    colours = features(views, 250, library.dtype, generator, viewed, shared)
    probe = torch.zeros(3, 250, 2, dtype=library.dtype, requires_grad=True)
    options = {"antialias": viewed == shared, "probe": probe}
    mine, my_gradients, projected = splat_results(splat, views, parameters, *colours, **options, library=library)
    twin, twin_gradients, seen = splat_results(splat_reference, views, parameters, *colours, **options)
    assert torch.equal(projected.tiles, seen.tiles) and torch.equal(projected.boxes, seen.boxes)
    assert 0.3 < projected.visible.double().mean() <= 1 and mine[-1].max() > 0.999
    for a, b in zip(mine + my_gradients, twin + twin_gradients, strict=True):
        assert a.shape == b.shape and (off_by(a, b) < FINE[library.dtype])
    assert (my_gradients[-1] + 1e-6 >= 0).all(), "a probe receives absolute values"


def test_the_probe_adds_what_the_gradient_cancels(double_library, generator):
    """Both halves of a Gaussian pull outwards: the gradient of the centre is 0, its absolute value is not."""
    parameters, views, _ = one_splat()
    probe = torch.zeros(1, 1, 2, dtype=DOUBLE, requires_grad=True)
    projected = splat.project_splats(*parameters, views, library=double_library)
    projected.means.retain_grad()
    image = splat.composite_splats(projected, probe=probe, library=double_library)
    (image.alpha * (torch.arange(21) - 10.0).abs()).sum().backward()
    assert projected.means.grad.abs().max() < 1e-12 and (probe.grad > 0.1).all()


@pytest.mark.parametrize("degree, used", [(0, None), (1, None), (2, 1), (3, None), (3, 2)])
def test_colours_equal_their_twin(library, generator, degree, used):
    views, means = cameras(library.dtype, 3), gaussians(50, library.dtype, generator)[0]
    coefficients = torch.randn(50, (degree + 1) ** 2, 3, dtype=DOUBLE, generator=generator)
    coefficients = coefficients.to(library.dtype).requires_grad_()
    weight = torch.randn(3, 50, 3, dtype=DOUBLE, generator=generator).to(library.dtype)
    results = []
    for module, chosen in ((splat, {"library": library}), (splat_reference, {})):
        colours = module.splat_colours(means, coefficients, views, degree=used, **chosen)
        results.append([colours, *torch.autograd.grad(colours, (means, coefficients), weight, materialize_grads=True)])
    for a, b in zip(*results, strict=True):
        assert off_by(a, b) < FINE[library.dtype]
    assert (results[0][0] == 0).any() and used != 2 or (results[0][2][:, 9:] == 0).all()


# ---- determinism


def test_bytes_do_not_depend_on_threads_or_instruction_sets(levels, generator):
    views, parameters = cameras(torch.float32, 3, 70, 90), gaussians(900, torch.float32, generator)
    colours = features(views, 900, torch.float32, generator, 3, 1)
    coefficients = torch.randn(900, 9, 3, generator=generator).requires_grad_()

    def run(library):
        probe = torch.zeros(3, 900, 2, requires_grad=True)
        values, gradients, _ = splat_results(splat, views, parameters, *colours, probe=probe, library=library)
        colour = splat.splat_colours(parameters[0], coefficients, views, library=library)
        return [*values, *gradients, colour, *torch.autograd.grad(colour.square().sum(), (parameters[0], coefficients))]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(levels[0])
        for threads, library in ((1, levels[-1]), (2, levels[-1]), (3, levels[0])):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(one, run(library), strict=True))
    finally:
        torch.set_num_threads(before)


# ---- corners


CORNERS = {
    "behind the camera": {"means": [[0.0, 0, 4]]},
    "on the camera": {"means": [[0.0, 0, 3]]},
    "on the near plane": {"means": [[0.0, 0, 2.5]]},
    "on the far plane": {"means": [[0.0, 0, -7.0]]},
    "far beside the picture": {"means": [[1e4, 0, 0]]},
    "zero opacity": {"opacities": [0.0]},
    "negative opacity": {"opacities": [-1.0]},
    "a threshold's opacity": {"opacities": [1 / 255]},
    "too large for numbers": {"scales": [[1e200, 1e200, 1e200]]},
    "NaN mean": {"means": [[0.0, math.nan, 0]]},
    "infinite mean": {"means": [[0.0, 0, -math.inf]]},
    "NaN scale": {"scales": [[0.1, 0.1, math.nan]]},
    "infinite scale": {"scales": [[math.inf, 0.1, 0.1]]},
    "NaN quaternion": {"quaternions": [[math.nan, 0, 0, 0]]},
    "zero quaternion": {"quaternions": [[0.0, 0, 0, 0]]},
    "NaN opacity": {"opacities": [math.nan]},
}


@pytest.mark.parametrize("corner", CORNERS)
def test_what_cannot_be_drawn_is_left_out_and_spoils_nothing(double_library, generator, corner):
    """A good Gaussian beside the bad one has the image and the gradients that it has alone."""
    bad, views, _ = one_splat(**CORNERS[corner])
    good, _, _ = one_splat(means=[[0.3, 0.2, 0.5]])
    for module, library in ((splat, {"library": double_library}), (splat_reference, {})):
        results = []
        for parameters in (good, [torch.cat([a, b]).detach().requires_grad_() for a, b in zip(bad, good, strict=True)]):
            shared = torch.ones(len(parameters[0]), 3, dtype=DOUBLE, requires_grad=True)
            options = {"near": 0.5, "far": 10.0, **library}
            results.append(splat_results(module, views, parameters, None, shared, **options))
        (alone, alone_gradients, _), (both, both_gradients, projected) = results
        broken = any(word in corner for word in ("NaN", "infinite", "zero quaternion"))
        assert projected.broken.tolist() == [broken, False] and projected.visible.tolist() == [[False, True]]
        for a, b in zip(alone[4:], both[4:], strict=True):
            assert torch.equal(a, b)
        for a, b in zip(alone_gradients, both_gradients, strict=True):
            torch.testing.assert_close(b, torch.cat([torch.zeros_like(a), a]))


@pytest.mark.parametrize("scales", [[0.0, 0, 0], [0.3, 0.3, 0.0], [1e6, 1e6, 1e6], [1e5, 1e-7, 1e-7]])
def test_flat_small_and_huge_gaussians(library, scales):
    parameters, views, _ = one_splat(scales=[scales], means=[[0.01, 0.02, 0]])
    parameters = [p.detach().to(library.dtype).requires_grad_() for p in parameters]
    mine, gradients, projected = splat_results(splat, views, parameters, None, None, library=library)
    twin, twin_gradients, _ = splat_results(splat_reference, views, parameters, None, None)
    assert projected.visible.all() and not projected.broken.any() and mine[-1].max() > 0.3
    assert (mine[-1] > 0.3).all() == (min(scales) == 1e6)
    for a, b in zip(mine[4:] + gradients, twin[4:] + twin_gradients, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-6)


def test_without_blur_a_point_is_nothing_and_a_gaussian_shrinks(double_library):
    parameters, views, pixels = one_splat()
    projected = splat.project_splats(*parameters, views, blur=0.0, library=double_library)
    torch.testing.assert_close(projected.conics[0, 0, 0], parameters[2][0, 0].square().reciprocal() / pixels**2)
    parameters[2].data[:] = 0
    assert not splat.project_splats(*parameters, views, blur=0.0, library=double_library).visible.any()
    assert not splat.project_splats(*parameters, views, antialias=True, library=double_library).visible.any()


@pytest.mark.parametrize("module", [splat, splat_reference])
def test_no_gaussians_and_none_in_sight_give_black(module, generator):
    views = cameras(torch.float32)
    for number in (0, 3):
        parameters = gaussians(number, torch.float32, generator)
        parameters[0].data[:] = 1e3
        shared = torch.ones(number, 3, requires_grad=True)
        values, gradients, projected = splat_results(module, views, parameters, None, shared)
        assert values[4].shape == (2, 20, 27, 3) and values[4].abs().max() == 0 == values[-1].max()
        assert all(g.abs().sum() == 0 for g in gradients) and projected.tiles.sum() == 0
        colours = module.splat_colours(parameters[0], torch.zeros(number, 4, 3), views)
        assert colours.shape == (2, number, 3) and module.splat_normals(*parameters[:3], views).shape == (2, number, 3)


def test_two_hundred_thousand(generator):
    """Sums of weights are alpha; opacity behind a wall of Gaussians receives nothing; nothing overflows."""
    views = cameras(torch.float32, 2, 128, 128)
    parameters = gaussians(200_000, torch.float32, generator, size=0.01)
    shared = torch.ones(200_000, 1, requires_grad=True)
    values, gradients, projected = splat_results(splat, views, parameters, None, shared)
    assert projected.visible.sum() > 300_000 and all(g.isfinite().all() for g in gradients)
    assert torch.equal(values[4][..., 0], values[-1]) and 0.99 < values[-1].max() <= 1.0001
    share = (gradients[4] == 0).double().mean()
    assert 0.1 < share < 0.95, "what lies behind opaque ones is never reached"


# ---- the door


@pytest.mark.parametrize("module", [splat, splat_reference])
def test_what_does_not_fit_is_refused_in_one_line(module, generator):
    views, (means, quaternions, scales, opacities) = cameras(torch.float32), gaussians(5, torch.float32, generator)
    projected = module.project_splats(means, quaternions, scales, opacities, views)
    shared, wide = torch.ones(5, 3), Cameras(views.c2w, views.fov_y, 20, 40_000)
    project = lambda *p, **k: module.project_splats(*(p or (means, quaternions, scales, opacities, views)), **k)  # noqa: E731
    composite, colours = module.composite_splats, module.splat_colours
    bad = {
        r"means: expected shape \(N, 3\)": lambda: project(quaternions, quaternions, scales, opacities, views),
        r"quaternions: expected shape \(5, 4\)": lambda: project(means, scales, scales, opacities, views),
        r"scales: expected torch.float32": lambda: project(means, quaternions, scales.double(), opacities, views),
        r"opacities: expected shape \(5,\)": lambda: project(means, quaternions, scales, opacities[:, None], views),
        r"width and height must be 1–32767 \(got 40000\)": lambda: project(means, quaternions, scales, opacities, wide),
        r"0 < near < far, got 0 and": lambda: project(near=0.0),
        r"blur must be 0 or more": lambda: project(blur=math.nan),
        r"alpha_min must be": lambda: project(alpha_min=0.0),
        r"composite_splats: shared: expected shape \(5, N\)": lambda: composite(projected, shared=shared[:4]),
        r"composite_splats: viewed: expected shape \(2, 5, N\)": lambda: composite(projected, viewed=shared[None]),
        r"shared: expected finite features, got 2 that are not": lambda: composite(
            projected, shared=torch.tensor([[1.0, math.nan], [0, 0], [0, 0], [math.inf, 0], [0, 0]])
        ),
        r"number of features must be 0–64 \(got 65\)": lambda: composite(projected, shared=torch.ones(5, 65)),
        r"probe: expected shape \(2, 5, 2\)": lambda: composite(projected, probe=torch.zeros(5, 2)),
        r"transmittance_min must be 0–1": lambda: composite(projected, transmittance_min=2.0),
        r"expected 1, 4, 9 or 16 harmonics .*, got 5": lambda: colours(means, torch.ones(5, 5, 3), views),
        r"splat_colours: degree must be 0–1 \(got 2\)": lambda: colours(means, torch.ones(5, 4, 3), views, degree=2),
    }
    for message, call in bad.items():
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_second_derivatives_are_refused_and_the_cure_is_named(generator):
    views, parameters = cameras(torch.float32), gaussians(5, torch.float32, generator)
    projected = splat.project_splats(*parameters, views)
    colours = splat.splat_colours(parameters[0], torch.ones(5, 4, 3, requires_grad=True), views)
    image = splat.composite_splats(projected, shared=torch.ones(5, 3, requires_grad=True))
    outputs = {"project_splats": projected.conics, "splat_colours": colours, "composite_splats": image.alpha}
    for op, output in outputs.items():
        with pytest.raises(InputError, match=rf"{op}: the kernel is differentiable once.*splat_reference\.{op}"):
            torch.autograd.grad(output.sum(), parameters[0], create_graph=True)


def test_float64_is_left_to_the_twin(generator):
    views, parameters = cameras(), gaussians(5, DOUBLE, generator)
    one, two = (m.project_splats(*parameters, views) for m in (splat, splat_reference))
    assert torch.equal(one.conics, two.conics)
    assert torch.equal(splat.composite_splats(one).alpha, splat_reference.composite_splats(two).alpha)


def test_strided_inputs_are_as_good(library, generator):
    views, parameters = cameras(library.dtype), gaussians(40, library.dtype, generator)
    strided = [p.detach().repeat_interleave(2, dim=0)[::2].requires_grad_() for p in parameters]
    colours = features(views, 40, library.dtype, generator, 3, 2)
    turned = [f.detach().transpose(-1, -2).contiguous().transpose(-1, -2).requires_grad_() for f in colours]
    one = splat_results(splat, views, parameters, *colours, library=library)
    two = splat_results(splat, views, strided, *turned, library=library)
    assert all(torch.equal(a, b) for a, b in zip(one[0] + one[1], two[0] + two[1], strict=True))
