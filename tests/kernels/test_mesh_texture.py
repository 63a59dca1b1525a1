"""Textures, pyramids and cube maps: closed forms, finite differences, the twins."""

import pytest
import torch
from torch.autograd import gradcheck

from dream3d.checks import InputError
from dream3d.kernels import mesh, texture, texture_reference
from tests.kernels.conftest import off_by
from tests.kernels.mesh_scenes import DOUBLE, for_threads_and_levels, front, in_pixels

FINE = {torch.float32: 1e-4, DOUBLE: 1e-9}


def noise(*shape, generator, dtype=DOUBLE):
    return torch.randn(*shape, dtype=DOUBLE, generator=generator).to(dtype).requires_grad_()


# ---- closed forms


def test_a_textured_square(double_library, generator):
    """A texture of 16 x 16 texels on 16 x 16 pixels is the picture itself, the right way up."""
    flat = torch.tensor([[2.0, 2, 3], [18, 2, 3], [18, 18, 3], [2, 18, 3]], dtype=DOUBLE)
    faces, corners = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.tensor([[3, 2, 1], [3, 1, 0]])
    uv = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]], dtype=DOUBLE)  # with an index buffer of its own
    projected = mesh.project_vertices(in_pixels(flat), front(), library=double_library)
    fragments = mesh.rasterise(projected, faces, library=double_library)
    places = mesh.interpolate(uv, corners, fragments, library=double_library)
    image = noise(16, 16, 3, generator=generator)
    levels = mesh.mip_levels(projected, faces, fragments, uv, corners, size=(16, 16), library=double_library)
    for chosen in (None, levels):
        drawn = texture.sample_texture(image, places, levels=chosen, library=double_library)
        assert torch.allclose(drawn[0, 2:18, 2:18], image, atol=1e-9)


@pytest.mark.parametrize("wrap", ["repeat", "clamp"])
def test_wrapping(library, generator, wrap):
    image = noise(5, 7, 2, generator=generator, dtype=library.dtype)
    row, column = torch.meshgrid(torch.arange(-12, 20), torch.arange(-20, 20), indexing="ij")
    uv = torch.stack([(column + 0.5) / 7, (row + 0.5) / 5], dim=-1).to(library.dtype)
    values = texture.sample_texture(image, uv, wrap=wrap, library=library)
    row, column = (row % 5, column % 7) if wrap == "repeat" else (row.clamp(0, 4), column.clamp(0, 6))
    assert torch.allclose(values, image[row, column], atol=2e-5)


def test_bilinear(double_library):
    """A ramp stays a ramp between the outer texel centres."""
    ramp = torch.linspace(0.5, 7.5, 8, dtype=DOUBLE).expand(4, 8)[..., None].contiguous()
    uv = torch.stack([torch.linspace(0.08, 0.92, 50), torch.full((50,), 0.4)], dim=-1).to(DOUBLE).requires_grad_()
    values = texture.sample_texture(ramp, uv, wrap="clamp", library=double_library)
    assert torch.allclose(values[:, 0], 8 * uv[:, 0])
    slope = torch.autograd.grad(values.sum(), uv)[0]
    assert torch.allclose(slope, torch.tensor([8.0, 0]).to(DOUBLE), atol=1e-12)


@pytest.mark.parametrize("size", [(8, 16), (7, 12), (5, 1), (9, 11)])
def test_levels_keep_the_mean(generator, size):
    image = noise(*size, 3, generator=generator)
    pyramid = texture.mipmap(image)
    assert pyramid.sizes[0] == size and pyramid.sizes[-1] == (1, 1)
    for number, (height, width) in enumerate(pyramid.sizes):
        level = pyramid.level(number)
        assert level.shape == (height, width, 3) and torch.allclose(level.mean(dim=(0, 1)), image.mean(dim=(0, 1)))
    if size == (8, 16):
        assert torch.allclose(pyramid.level(1)[1, 2], image[2:4, 4:6].mean(dim=(0, 1)))


def test_levels_mix(double_library, generator):
    image = noise(8, 8, 2, generator=generator)
    pyramid = texture.mipmap(image)
    uv = torch.rand(30, 2, dtype=DOUBLE, generator=generator)
    at = lambda level: texture.sample_texture(  # noqa: E731
        pyramid, uv, levels=torch.full((30,), level, dtype=DOUBLE), library=double_library
    )
    assert torch.allclose(at(1.25), 0.75 * at(1.0) + 0.25 * at(2.0))
    assert torch.allclose(at(1.0), texture.sample_texture(pyramid.level(1), uv, library=double_library))
    assert torch.allclose(at(9.0), image.mean(dim=(0, 1)).expand(30, 2)) and torch.equal(at(-3.0), at(0.0))


def test_cube_sides_and_seams(double_library):
    """A cube map that holds its own texels' directions: the lookup gives back about what went in, without seams."""
    number, size = torch.arange(6), 32
    s, t = torch.meshgrid(*[(2 * torch.arange(size, dtype=DOUBLE) + 1) / size - 1] * 2, indexing="xy")
    frames = texture_reference._frames(s)
    cube = torch.stack([s[..., None] * frames[k, 0] + t[..., None] * frames[k, 1] + frames[k, 2] for k in number])
    cube = torch.nn.functional.normalize(cube, dim=-1)
    assert [int(side.mean(dim=(0, 1)).abs().argmax()) for side in cube] == [0, 0, 1, 1, 2, 2]
    assert torch.allclose(texture.sample_cube(cube, 3 * cube, library=double_library), cube, atol=1e-9)
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(4000, 3, dtype=DOUBLE, generator=generator), dim=-1)
    seam = torch.tensor([[1.0, 1 - 1e-9, 0.3], [1 - 1e-9, 1.0, 0.3], [1, 1, 1], [-1, 1 - 1e-9, -1]], dtype=DOUBLE)
    directions = torch.cat([directions, torch.nn.functional.normalize(seam, dim=-1)])
    values = texture.sample_cube(cube, directions, library=double_library)
    assert (values - directions).norm(dim=-1).max() < 0.02
    assert (values[-4] - values[-3]).norm() < 0.02


# ---- gradients, twins


def lookups(generator, dtype, cube, wrap):
    image = noise(*((6, 5, 5) if cube else (6, 9)), 3, generator=generator, dtype=dtype)
    places = noise(2, 90, 3 if cube else 2, generator=generator, dtype=dtype)
    levels = (5 * torch.rand(2, 90, dtype=DOUBLE, generator=generator) - 1).to(dtype)
    sample = "sample_cube" if cube else "sample_texture"
    return image, places, levels, sample, {} if cube else {"wrap": wrap}


KINDS = pytest.mark.parametrize("cube, wrap", [(False, "repeat"), (False, "clamp"), (True, "cube")])


@KINDS
@pytest.mark.parametrize("mip", [False, True])
def test_gradients(double_library, generator, cube, wrap, mip):
    image, places, levels, sample, options = lookups(generator, DOUBLE, cube, wrap)

    def run(i, p):
        return getattr(texture, sample)(i, p, levels=levels if mip else None, **options, library=double_library)

    assert gradcheck(run, (image, places), fast_mode=True, eps=1e-7, atol=1e-5)


@KINDS
@pytest.mark.parametrize("mip", [False, True])
def test_lookups_equal_their_twin(library, generator, cube, wrap, mip):
    image, places, levels, sample, options = lookups(generator, library.dtype, cube, wrap)
    results = []
    for module, chosen in ((texture, {"library": library}), (texture_reference, {})):
        values = getattr(module, sample)(image, places, levels=levels if mip else None, **options, **chosen)
        weight = torch.linspace(-1, 2, values.numel()).view(values.shape).to(values)
        results.append([values, *torch.autograd.grad(values, (image, places), weight)])
    for a, b in zip(*results, strict=True):
        assert off_by(a, b) < FINE[library.dtype]


def test_bytes_do_not_depend_on_threads(levels, generator):
    image = noise(40, 50, 3, generator=generator, dtype=torch.float32)
    uv = noise(2, 130, 140, 2, generator=generator, dtype=torch.float32)
    which = 5 * torch.rand(2, 130, 140, generator=generator)

    def run(library):
        values = texture.sample_texture(image, uv, levels=which, library=library)
        return [values, *torch.autograd.grad(values.square().sum(), (image, uv))]

    results = for_threads_and_levels(run, levels)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


# ---- corners


@pytest.mark.parametrize("module", [texture, texture_reference])
def test_places_that_are_no_places(module):
    image = torch.rand(4, 5, 3)
    uv = torch.tensor([[float("nan"), 0.5], [1e30, 0.5], [-1e30, 0.2], [0.5, 0.5]])
    for wrap in ("repeat", "clamp"):
        values = module.sample_texture(image, uv, wrap=wrap)
        assert values[0].isnan().all() and values[3].isfinite().all()
    values = module.sample_cube(torch.rand(6, 4, 4, 3), torch.tensor([[0.0, 0, 0], [float("nan"), 1, 2], [1, 2, 3]]))
    assert values[:1].isnan().all() and values[2].isfinite().all()
    assert module.sample_texture(image, uv[:0], levels=uv[:0, 0]).shape == (0, 3)


def test_what_is_refused():
    image, uv = torch.rand(4, 5, 3), torch.rand(7, 2)
    with pytest.raises(InputError, match="'mirror' is not one of repeat, clamp"):
        texture.sample_texture(image, uv, wrap="mirror")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a cube map"):
        texture.sample_cube(image, torch.rand(7, 3))
    with pytest.raises(InputError, match="sample_texture: coordinates: expected shape"):
        texture.sample_texture(image, torch.rand(7, 3))
    with pytest.raises(InputError, match="sample_texture: levels: expected shape"):
        texture.sample_texture(image, uv, levels=torch.rand(6))
    with pytest.raises(InputError, match="Pyramid: level: expected shape"):
        texture.Pyramid.of([torch.rand(6, 4, 4, 3), torch.rand(6, 2, 3, 3)])
