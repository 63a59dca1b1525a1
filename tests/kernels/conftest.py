"""The float64 build of the kernels, and inputs that reach into corners."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from dream3d.cameras import orbit
from dream3d.kernels import build
from dream3d.kernels.build import Library
from dream3d.kernels.types import HashGridSpec, Occupancy, Samples
from dream3d.types import Cameras

SPEC = HashGridSpec(levels=5, log2_table=8, base=3, finest=21)  # two dense levels, three hashed ones
BOX = (-1.0, -0.8, -0.5, 1.0, 1.2, 0.9)


@pytest.fixture(scope="session")
def double_library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return build.test_library(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def library(request: pytest.FixtureRequest) -> Library:
    """Each of the two builds; `library.dtype` is what it computes in."""
    if request.param == torch.float64:
        return request.getfixturevalue("double_library")
    found = build.library("cpu")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def levels(tmp_path_factory: pytest.TempPathFactory) -> list[Library]:
    """The float32 library for every instruction set that this machine has, the oldest first."""
    folder, best = tmp_path_factory.mktemp("levels"), build.library("cpu")
    assert best is not None
    return [
        build.Library(build.compiler.compile_cpu(folder, level), device_type="cpu", level=level)
        for level in build.compiler.cpu_levels()
        if level <= best.cpu_level()
    ]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


MakeRays = Callable[..., dict]


@pytest.fixture
def rays(generator: torch.Generator) -> MakeRays:
    """Arguments for `march`: rays through BOX, among them axis-parallel, missing, inside-born and non-unit ones."""

    def make(dtype: torch.dtype, *, number: int = 600, resolution: int = 20, filled: float = 0.05) -> dict:
        origins = 2 * torch.randn(number, 3, generator=generator, dtype=dtype)
        directions = torch.nn.functional.normalize(
            torch.randn(number, 3, generator=generator, dtype=dtype) - origins, dim=1
        )
        directions[:6] = torch.cat([torch.eye(3), -torch.eye(3)]).to(dtype)
        origins[:6] = -3 * directions[:6] + 0.11
        origins[6:12] *= 0.05
        directions[12:18] *= -1
        directions[18:24] *= 2.5
        cells = torch.rand(resolution, resolution, resolution, generator=generator) < filled
        jitter = torch.rand(number, generator=generator, dtype=dtype)
        limits = {"aabb": BOX, "step": 0.013, "near": 0.05, "far": 50.0, "max_samples": 1000, "jitter": jitter}
        return {"origins": origins, "directions": directions, "occupancy": Occupancy.pack(cells), **limits}

    return make


def packed(counts: list[int], dtype: torch.dtype, generator: torch.Generator) -> Samples:
    """Samples of uneven length with gaps between them."""
    number = sum(counts)
    offsets = torch.tensor([0, *counts]).cumsum(0).int()
    ray = torch.repeat_interleave(torch.tensor(counts)).int()
    length = 0.05 + 0.2 * torch.rand(number, generator=generator, dtype=dtype)
    middle = 0.3 + 0.3 * (torch.arange(number) - offsets[:-1].long().repeat_interleave(torch.tensor(counts)))
    return Samples(offsets, middle - length / 2, middle + length / 2, ray)


def cameras(dtype=torch.float64, number=2, height=20, width=27):
    azimuth = torch.arange(number, dtype=torch.float64) * 2.1 + 0.3
    views = orbit(azimuth, 0.2 + 0 * azimuth, 3 + 0 * azimuth, 0.7 + 0 * azimuth, height, width)
    return Cameras(views.c2w.to(dtype), views.fov_y.to(dtype), height, width)


def gaussians(number, dtype, generator, *, size=0.15):
    """Means, quaternions, scales, opacities in a ball before the cameras."""
    draw = lambda *shape: torch.rand(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    means = torch.randn(number, 3, dtype=torch.float64, generator=generator) * 0.4
    quaternions = torch.randn(number, 4, dtype=torch.float64, generator=generator)
    parts = (means, quaternions, 0.02 + size * draw(number, 3), 0.05 + 0.9 * draw(number))
    return [p.to(dtype).requires_grad_() for p in parts]


def features(views, number, dtype, generator, viewed, shared):
    """Either may have no channels, and is None then."""
    shapes = ((len(views), number, viewed), (number, shared))
    return [
        torch.rand(*shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_() if shape[-1] else None
        for shape in shapes
    ]


def splat_results(module, views, parameters, viewed, shared, *, probe=None, transmittance_min=1e-4, **options):
    """All outputs, the image last, and gradients of a random functional of it to all inputs that there are."""
    library = {"library": options.pop("library")} if "library" in options else {}
    projected = module.project_splats(*parameters, views, **options, **library)
    image = module.composite_splats(
        projected, viewed=viewed, shared=shared, probe=probe, transmittance_min=transmittance_min, **library
    )
    outputs = [projected.means, projected.depths, projected.conics, projected.opacities]
    parts = [image.features, image.depth, image.alpha]
    fixed = torch.Generator().manual_seed(7)
    weights = [torch.randn(p.shape, dtype=torch.float64, generator=fixed).to(p) for p in parts]
    loss = sum((w * p).sum() for w, p in zip(weights, parts, strict=True))
    leaves = [t for t in (*parameters, viewed, shared, probe) if t is not None]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [*outputs, *parts], list(gradients), projected


def off_by(a, b):
    """Relative, in the Euclidean norm: a pixel whose alpha lies on the threshold may fall on either side in float32."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def one_splat(**changes):
    """One round Gaussian in the middle of a picture of 21 x 21, and the size of a metre there in pixels."""
    views = Cameras(
        torch.eye(4, dtype=torch.float64)[None].clone(), torch.tensor([math.pi / 2], dtype=torch.float64), 21, 21
    )
    views.c2w[0, 2, 3] = 3  # at (0, 0, 3), looking at the origin
    part = {"means": [[0.0, 0, 0]], "quaternions": [[1.0, 0, 0, 0]], "scales": [[0.3, 0.3, 0.3]], "opacities": [0.8]}
    part |= {name: value for name, value in changes.items() if name in part}
    parameters = [torch.tensor(p, dtype=torch.float64).requires_grad_() for p in part.values()]
    return parameters, views, 10.5 / 3
