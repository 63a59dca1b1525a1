"""The splat kernels on a GPU against the twins."""

import pytest
import torch

from dream3d.kernels import build, splat, splat_reference
from tests.kernels.conftest import cameras, features, gaussians, off_by, splat_results

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module", autouse=True)
def _library():
    assert build.library("cuda") is not None, "no CUDA library: see the log line"


def there(tensors):
    return [None if t is None else t.detach().cuda().requires_grad_() for t in tensors]


@pytest.mark.parametrize("viewed, shared", [(3, 0), (3, 3), (0, 0), (5, 7), (5, 21), (0, 64)])
def test_splats(generator, viewed, shared):
    views, parameters = cameras(torch.float32, 3, 40, 53), gaussians(600, torch.float32, generator)
    colours = features(views, 600, torch.float32, generator, viewed, shared)
    probe = torch.zeros(3, 600, 2, requires_grad=True)
    twin, twin_gradients, seen = splat_results(splat_reference, views, parameters, *colours, probe=probe)
    runs = [
        splat_results(splat, views.to("cuda"), there(parameters), *there(colours), probe=there([probe])[0])
        for _ in range(2)
    ]
    values, gradients, projected = runs[0]
    assert (projected.tiles.cpu() != seen.tiles).sum() <= 3, "an edge may round to the other side"
    for a, b in zip(values + gradients, twin + twin_gradients, strict=True):
        assert off_by(a.cpu(), b) < 1e-3
    assert all(torch.equal(a, b) for a, b in zip(values + gradients, runs[1][0] + runs[1][1], strict=True))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours(generator, degree):
    views, means = cameras(torch.float32), gaussians(500, torch.float32, generator)[0]
    coefficients = torch.randn(500, (degree + 1) ** 2, 3, generator=generator).requires_grad_()
    weight = torch.randn(2, 500, 3, generator=generator)
    results = []
    for module, device in ((splat, "cuda"), (splat_reference, "cpu")):
        leaves = [t.detach().to(device).requires_grad_() for t in (means, coefficients)]
        colours = module.splat_colours(*leaves, views.to(device))
        gradients = torch.autograd.grad(colours, leaves, weight.to(device), materialize_grads=True)
        results.append([colours, *gradients])
    for a, b in zip(*results, strict=True):
        assert off_by(a.cpu(), b) < 1e-4


def test_nothing_and_much(generator):
    for number in (0, 200_000):
        parameters = there(gaussians(number, torch.float32, generator, size=0.01))
        shared = torch.ones(number, 1, device="cuda", requires_grad=True)
        values, gradients, _ = splat_results(splat, cameras(torch.float32).to("cuda"), parameters, None, shared)
        assert all(t.isfinite().all() for t in (*values, *gradients))
        assert torch.equal(values[4][..., 0], values[-1])
