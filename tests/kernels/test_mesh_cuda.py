"""The mesh and texture kernels on a GPU against the twins."""

import pytest
import torch

from dream3d.kernels import build, mesh, mesh_reference, texture, texture_reference
from tests.kernels.conftest import cameras, off_by
from tests.kernels.mesh_scenes import icosphere

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module", autouse=True)
def _library():
    assert build.library("cuda") is not None, "no CUDA library: see the log line"


@pytest.mark.parametrize("levels", [1, 5])
def test_the_whole_chain(generator, levels):
    vertices, faces = icosphere(levels, torch.float32)
    attributes = torch.randn(len(vertices), 5, generator=generator)
    weight = torch.randn(3, 70, 90, 5, generator=generator)
    results = []
    for module, device in ((mesh, "cuda"), (mesh_reference, "cpu")):
        v, a = (t.detach().to(device).requires_grad_() for t in (vertices, attributes))
        f = faces.to(device)
        projected = module.project_vertices(v, cameras(torch.float32, 3, 70, 90).to(device))
        fragments = module.rasterise(projected, f)
        values = module.interpolate(a, f, fragments)
        image = module.antialias(values, fragments, projected, f)
        gradients = torch.autograd.grad(image, (v, a), weight.to(device))
        results.append((fragments.face, [fragments.depth, values, image, *gradients]))
    (mine, values), (twin, wanted) = results
    assert (mine.cpu() != twin).sum() <= 3, "a division may round to the other side"
    for a, b in zip(values, wanted, strict=True):
        assert off_by(a.cpu(), b) < 1e-2


@pytest.mark.parametrize("cube", [False, True])
def test_lookups(generator, cube):
    image = torch.randn(*((6, 16, 16) if cube else (20, 30)), 3, generator=generator)
    places = torch.randn(5000, 3 if cube else 2, generator=generator)
    levels = 4 * torch.rand(5000, generator=generator)
    results = []
    for module, device in ((texture, "cuda"), (texture_reference, "cpu")):
        leaves = [t.to(device).requires_grad_() for t in (image, places)]
        sample = module.sample_cube if cube else module.sample_texture
        values = sample(*leaves, levels=levels.to(device))
        results.append([values, *torch.autograd.grad(values.square().sum(), leaves)])
    for a, b in zip(*results, strict=True):
        assert off_by(a.cpu(), b) < 1e-3
