"""The kernels against finite differences, against their twins, and against themselves on another number of threads."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from dream3d.checks import InputError
from dream3d.kernels import ops, reference
from dream3d.kernels.types import HashGridSpec, Samples
from tests.kernels.conftest import SPEC, packed

FINE = {torch.float32: dict(rtol=2e-5, atol=2e-5), torch.float64: dict(rtol=1e-11, atol=1e-11)}


def parts(seen):
    return seen.weights, seen.rgb, seen.depth, seen.opacity


def grid_inputs(dtype, generator, number=300):
    """Points in the cube, on its corners and outside, and a table."""
    points = torch.rand(number, 3, dtype=dtype, generator=generator)
    points[:4] = torch.tensor([[0.0, 0, 0], [1, 1, 1], [-0.2, 0.5, 0.5], [0.5, 1.3, 0.5]], dtype=dtype)
    table = torch.randn(SPEC.rows, 2, dtype=dtype, generator=generator)
    return points.requires_grad_(), table.requires_grad_()


def volume_inputs(dtype, generator, counts=(5, 0, 33, 1, 0, 8, 16)):
    samples = packed(list(counts), dtype, generator)
    density = 3 * torch.rand(sum(counts), dtype=dtype, generator=generator)
    density[-1] = 0
    rgb = torch.rand(sum(counts), 3, dtype=dtype, generator=generator)
    return samples, density.requires_grad_(), rgb.requires_grad_()


def same(a: Samples, b: Samples):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("offsets", "t_start", "t_end", "ray"))


# ---- gradients against finite differences


def test_hash_grid_gradients(double_library, generator):
    # Small enough that several corners share a row, which is what the scatter must get right.
    spec = HashGridSpec(levels=3, log2_table=5, base=2, finest=9)
    points = torch.rand(30, 3, dtype=torch.float64, generator=generator)
    # A finite difference across the border of a cell means nothing.
    cells = points[:, :, None] * torch.tensor(spec.resolutions)
    points = points[((cells - cells.round()).abs() > 1e-3).all(dim=2).all(dim=1)][:8].clone().requires_grad_()
    rows = torch.randn(spec.rows, 2, dtype=torch.float64, generator=generator).requires_grad_()
    assert len(points) == 8
    assert gradcheck(lambda p, t: ops.hash_grid(p, t, spec, library=double_library), (points, rows))


@pytest.mark.parametrize("early_stop", [0.0, 0.3])
def test_composite_gradients(double_library, generator, early_stop):
    samples, density, rgb = volume_inputs(torch.float64, generator, (5, 0, 20, 1))
    run = lambda d, c: parts(ops.composite(d, c, samples, early_stop=early_stop, library=double_library))  # noqa: E731
    assert gradcheck(run, (density, rgb))


# ---- against the twins


def test_hash_grid_equals_its_twin(library, generator):
    points, table = grid_inputs(library.dtype, generator)
    mine, twin = ops.hash_grid(points, table, SPEC, library=library), reference.hash_grid(points, table, SPEC)
    torch.testing.assert_close(mine, twin, **FINE[library.dtype])
    weight = torch.randn(mine.shape, dtype=mine.dtype, generator=generator)
    for a, b in zip(*(torch.autograd.grad(y, (points, table), weight) for y in (mine, twin)), strict=True):
        torch.testing.assert_close(a, b, **FINE[library.dtype])
    (alone,) = torch.autograd.grad(ops.hash_grid(points, table.detach(), SPEC, library=library), points, weight)
    assert alone[2].tolist()[0] == 0 and alone[3].tolist()[1] == 0, "clamped coordinates have no gradient"


@pytest.mark.parametrize("resolution, filled", [(20, 0.05), (24, 0.002), (7, 0.5), (16, 1.0), (8, 0.0)])
def test_march_takes_the_very_samples_of_its_twin(library, rays, resolution, filled):
    arguments = rays(library.dtype, resolution=resolution, filled=filled)
    for jitter in (None, arguments["jitter"]):
        arguments["jitter"] = jitter
        mine, twin = ops.march(**arguments, library=library), reference.march(**arguments)
        assert same(mine, twin)
        assert (len(mine.ray) > 0) == (filled > 0)


def test_march_counts_limits_and_bad_rays_as_its_twin_does(library, rays):
    arguments = rays(library.dtype) | {"max_samples": 3, "near": 1.5, "far": 2.2}
    arguments["origins"][30] = math.nan
    arguments["directions"][31] = math.nan
    arguments["directions"][32] = 0
    arguments["origins"][33] = math.inf
    mine, twin = ops.march(**arguments, library=library), reference.march(**arguments)
    counts = mine.offsets.diff()
    assert same(mine, twin) and counts.max() == 3 and counts[30:32].sum() == 0


@pytest.mark.parametrize("early_stop", [0.0, 1e-4, 0.3])
def test_composite_equals_its_twin(library, generator, early_stop):
    samples, density, rgb = volume_inputs(library.dtype, generator)
    mine = parts(ops.composite(density, rgb, samples, early_stop=early_stop, library=library))
    twin = parts(reference.composite(density, rgb, samples, early_stop=early_stop))
    weights = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in mine]
    for a, b in zip(mine, twin, strict=True):
        torch.testing.assert_close(a, b, **FINE[library.dtype])
    for chosen in ([0, 1, 2, 3], [0], [1], [2], [3]):  # each output alone reaches the parameters
        gradients = [
            torch.autograd.grad([y[i] for i in chosen], (density, rgb), [weights[i] for i in chosen],
                                retain_graph=True, materialize_grads=True)
            for y in (mine, twin)
        ]  # fmt: skip
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, **FINE[library.dtype])


def test_faint_and_dense_samples_keep_their_digits(generator):
    samples, _, rgb = volume_inputs(torch.float32, generator, (9, 9))
    density = torch.logspace(-7, 5, 18)
    precise = Samples(samples.offsets, samples.t_start.double(), samples.t_end.double(), samples.ray)
    exact = reference.composite(density.double(), rgb.double(), precise, early_stop=0.0)
    seen = ops.composite(density, rgb, samples, early_stop=0.0)
    torch.testing.assert_close(seen.weights.double(), exact.weights, rtol=3e-6, atol=1e-30)


# ---- determinism


@pytest.mark.parametrize("threads", [2, 3])
def test_bytes_do_not_depend_on_the_number_of_threads(generator, rays, threads):
    points = torch.rand(9000, 3, generator=generator).requires_grad_()
    table = torch.randn(SPEC.rows, 2, generator=generator).requires_grad_()
    arguments = rays(torch.float32, number=3000)
    samples = ops.march(**arguments)
    density = (9 * torch.rand(len(samples.ray), generator=generator)).requires_grad_()
    rgb = torch.rand(len(density), 3, generator=generator).requires_grad_()

    def everything():
        features = ops.hash_grid(points, table, SPEC)
        taken = ops.march(**arguments)
        seen = parts(ops.composite(density, rgb, samples))
        return [
            *(features, taken.t_start, taken.offsets, *seen),
            *torch.autograd.grad(features.square().sum(), (points, table)),
            *torch.autograd.grad(sum(part.square().sum() for part in seen), (density, rgb)),
        ]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = everything()
        torch.set_num_threads(threads)
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(one, everything(), strict=True))
    finally:
        torch.set_num_threads(before)


def test_instruction_sets_agree_to_the_byte(levels, generator, rays):
    points, table = grid_inputs(torch.float32, generator)
    arguments = rays(torch.float32)
    samples, density, rgb = volume_inputs(torch.float32, generator)
    results = []
    for library in levels:
        features = ops.hash_grid(points, table, SPEC, library=library)
        seen = ops.composite(density, rgb, samples, library=library)
        gradients = torch.autograd.grad(features.square().sum(), (points, table))
        gradients += torch.autograd.grad(seen.rgb.square().sum(), (density, rgb))
        results.append([features, ops.march(**arguments, library=library).t_start, *parts(seen), *gradients])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


# ---- a second opinion


def test_composite_agrees_with_nerfacc(generator):
    from nerfacc import accumulate_along_rays, render_weight_from_density

    rays, number = 30, 25
    samples, density, rgb = volume_inputs(torch.float32, generator, (number,) * rays)
    mine = ops.composite(density, rgb, samples, early_stop=0.0)
    dense = [t.view(rays, number) for t in (samples.t_start, samples.t_end, density)]
    weights, _, _ = render_weight_from_density(*dense)
    theirs = accumulate_along_rays(weights, rgb.view(rays, number, 3))
    torch.testing.assert_close(mine.weights.view(rays, number), weights)
    torch.testing.assert_close(mine.rgb, theirs)
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), (density, rgb)) for y in (mine.rgb, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# ---- the door


@pytest.mark.parametrize("module", [ops, reference])
def test_nothing_in_nothing_out(module, rays):
    table = torch.zeros(SPEC.rows, 2, requires_grad=True)
    features = module.hash_grid(torch.zeros(0, 3), table, SPEC)
    assert features.shape == (0, SPEC.width)
    features.sum().backward()
    assert table.grad.abs().sum() == 0
    arguments = rays(torch.float32)
    for missing in ("origins", "directions", "jitter"):
        arguments[missing] = arguments[missing][:0]
    samples = module.march(**arguments)
    assert samples.offsets.tolist() == [0] and len(samples.ray) == 0
    density, rgb = torch.zeros(0, requires_grad=True), torch.zeros(0, 3)
    assert module.composite(density, rgb, samples).rgb.shape == (0, 3)
    seen = module.composite(density, rgb, Samples(torch.zeros(4).int(), *[torch.zeros(0)] * 2, torch.zeros(0).int()))
    assert seen.rgb.tolist() == [[0, 0, 0]] * 3 and seen.opacity.tolist() == [0, 0, 0]
    (seen.rgb.sum() + seen.opacity.sum()).backward()
    assert density.grad.shape == (0,)


def test_strided_inputs_are_as_good(library, generator, rays):
    points, table = grid_inputs(library.dtype, generator)
    strided = points.detach().t().contiguous().t().requires_grad_()
    one, two = (ops.hash_grid(p, table, SPEC, library=library) for p in (points, strided))
    weight = torch.randn(*one.shape[::-1], dtype=one.dtype, generator=generator).t()
    assert torch.equal(one, two)
    assert torch.equal(*(torch.autograd.grad(y, x, weight)[0] for y, x in ((one, points), (two, strided))))
    arguments = rays(library.dtype)
    strided_rays = {k: arguments[k].t().contiguous().t() for k in ("origins", "directions")}
    assert same(ops.march(**arguments, library=library), ops.march(**arguments | strided_rays, library=library))
    samples, density, rgb = volume_inputs(library.dtype, generator)
    plain = ops.composite(density, rgb, samples, library=library)
    other = ops.composite(density.repeat_interleave(2)[::2], rgb.t().contiguous().t(), samples, library=library)
    assert all(torch.equal(a, b) for a, b in zip(parts(plain), parts(other), strict=True))


@pytest.mark.parametrize("module", [ops, reference])
def test_what_does_not_fit_is_refused_in_one_line(module, generator, rays):
    points, table = grid_inputs(torch.float32, generator)
    samples, density, rgb = volume_inputs(torch.float32, generator)
    arguments = rays(torch.float32)
    march, composite, grid = module.march, module.composite, module.hash_grid
    bad = {
        r"hash_grid: positions: expected shape \(N, 3\), got \(300, 2\)": lambda: grid(points[:, :2], table, SPEC),
        rf"hash_grid: table: expected shape \({SPEC.rows}, 2\)": lambda: grid(points, table[1:], SPEC),
        r"positions: expected torch.float32 on cpu, got .*float64": lambda: grid(points.double(), table, SPEC),
        r"table: expected floating point": lambda: grid(points, table.long(), SPEC),
        r"march: directions: expected shape \(600, 3\)": lambda: march(**arguments | {"directions": points}),
        r"march: jitter: expected shape \(600,\)": lambda: march(**arguments | {"jitter": points[:, 0]}),
        r"march: aabb must be": lambda: march(**arguments | {"aabb": (0, 0, 0, 1, 1, 0)}),
        r"march: step must be more than 0": lambda: march(**arguments | {"step": math.nan}),
        r"march: max_samples must be 1 or more": lambda: march(**arguments | {"max_samples": 0}),
        r"composite: density: expected shape \(63,\)": lambda: composite(density[1:], rgb, samples),
        r"composite: rgb: expected shape \(63, 3\)": lambda: composite(density, rgb[:, :1], samples),
        r"composite: rgb: expected torch.float32": lambda: composite(density, rgb.half(), samples),
        r"composite: early_stop must be 0–1": lambda: composite(density, rgb, samples, early_stop=math.nan),
    }
    for message, call in bad.items():
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_library_of_another_type_is_refused(double_library, generator):
    points, table = grid_inputs(torch.float32, generator)
    with pytest.raises(InputError, match=r"works on torch.float64 on cpu, got torch.float32"):
        ops.hash_grid(points, table, SPEC, library=double_library)


def test_other_types_are_left_to_the_twin(generator):
    points, table = grid_inputs(torch.float64, generator)
    assert torch.equal(ops.hash_grid(points, table, SPEC), reference.hash_grid(points, table, SPEC))


def test_second_derivatives_are_refused_and_the_cure_is_named(generator):
    points, table = grid_inputs(torch.float32, generator)
    samples, density, rgb = volume_inputs(torch.float32, generator)
    for op, output, leaf in (
        ("hash_grid", ops.hash_grid(points, table, SPEC), points),
        ("composite", ops.composite(density, rgb, samples).rgb, density),
    ):
        with pytest.raises(InputError, match=rf"{op}: the kernel is differentiable once.*reference\.{op}"):
            torch.autograd.grad(output.sum(), leaf, create_graph=True)
