"""The other backend: what it is handed and what it hands back, with gsplat's own torch functions in its kernels' place;
on CUDA, the kernels themselves against ours."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _isect_offset_encode, _isect_tiles
from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci as covariances
from torch import Tensor
from torch.autograd import Function

from dream3d.cameras import turntable
from dream3d.checks import InputError, MissingError
from dream3d.renderers import Splat, gsplat_backend
from dream3d.representations import Gaussians
from dream3d.types import Cameras, Render


def some(count: int = 60, *, flat: bool = False, sh_degree: int = 1) -> Gaussians:
    torch.manual_seed(0)
    made = Gaussians(count=count, opacity=0.6, sh_degree=sh_degree, flat=flat)
    with torch.no_grad():
        made.log_scales += 0.3 * torch.randn_like(made.log_scales)
        made.rest.normal_(std=0.1)
    return made


class _Whole(Function):
    """A sum over Gaussians at every pixel, from gsplat's formulas; leaves the absolute gradient as its kernel does."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, *rest: Any) -> Tensor:
        ctx.save_for_backward(means, *rest[:4])
        ctx.size = rest[4:]
        return _Whole.drawn(means[:, :, None], *rest)

    @staticmethod
    def drawn(copies: Tensor, conics: Tensor, colours: Tensor, opacities: Tensor, depths: Tensor, *size: int) -> Tensor:
        width, height = size
        x = torch.arange(width).repeat(height).to(copies) + 0.5
        y = torch.arange(height).repeat_interleave(width).to(copies) + 0.5
        dx, dy = copies[..., 0] - x, copies[..., 1] - y
        xx, xy, yy = conics[..., None, :].unbind(-1)
        sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        alpha = (opacities[..., None] * torch.exp(-sigma)).clamp(max=0.999)
        alpha = torch.where((alpha >= 1 / 255) & (depths > 0)[..., None], alpha, 0)
        order = depths.argsort(dim=1)
        sort = lambda t: torch.gather(t, 1, order[..., None].expand_as(t))  # noqa: E731
        alpha, colours = sort(alpha), sort(colours)
        clear = torch.cumprod(1 - alpha, dim=1)
        weights = alpha * torch.cat([torch.ones_like(clear[:, :1]), clear[:, :-1]], dim=1)
        weights = torch.where(clear >= 1e-4, weights, 0)
        values = torch.cat([colours, torch.ones_like(colours[..., :1])], dim=-1)
        return torch.einsum("cnp,cnf->cpf", weights, values).unflatten(1, (height, width))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        means, *rest = ctx.saved_tensors
        with torch.enable_grad():
            pixels = ctx.size[0] * ctx.size[1]
            leaves = [means.detach()[:, :, None].repeat(1, 1, pixels, 1), *(t.detach() for t in rest)]
            for leaf in leaves:
                leaf.requires_grad_()
            found = torch.autograd.grad(_Whole.drawn(*leaves, *ctx.size), leaves, gradients[0], allow_unused=True)
        assert found[0] is not None
        means.absgrad = found[0].abs().sum(2)
        return found[0].sum(2), *found[1:4], None, None, None


def stand_in() -> SimpleNamespace:
    """gsplat's functions with the signatures of the CUDA ones."""
    kept: dict[str, Tensor] = {}

    def project(means, covars, quats, scales, view, intrinsics, width, height, *, eps2d, near_plane,
                calc_compensations, opacities):  # fmt: skip
        assert covars is None and opacities is not None
        covariance = covariances(quats, scales, compute_preci=False)[0]
        return _fully_fused_projection(
            means, covariance, view, intrinsics, width, height,
            eps2d=eps2d, near_plane=near_plane, calc_compensations=calc_compensations,
        )  # fmt: skip

    def tiles(means, radii, depths, size, across, down):
        kept["depths"] = torch.where((radii > 0).all(-1), depths, 0)
        return _isect_tiles(means, radii, depths, size, across, down)

    def rasterise(means, conics, colours, opacities, width, height, size, offsets, order, *, absgrad):
        assert size == 16 and offsets.shape == (len(means), -(-height // 16), -(-width // 16)) and len(order)
        image = _Whole.apply(means, conics, colours, opacities, kept["depths"], width, height)
        return image[..., :-1], image[..., -1:]

    return SimpleNamespace(
        fully_fused_projection=project,
        isect_tiles=tiles,
        isect_offset_encode=_isect_offset_encode,
        rasterize_to_pixels=rasterise,
    )


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_backend, "_library", lambda device: stand_in())


def both(made: Gaussians, cameras: Cameras, watch: Any = None, **settings: Any) -> tuple[list[Render], list[Gaussians]]:
    """Pictures of two copies, ours and gsplat's, after a backward pass through all that is in them."""
    renders, copies = [], []
    for backend in ("dream3d", "gsplat"):
        copy = Gaussians(made.to_splats(), sh_degree=made.sh_degree, flat=made.flat).to(made.means.device)
        copy.watch = watch
        render = Splat(backend=backend, **settings)(copy, cameras, normals=True)  # type: ignore[arg-type]
        assert render.depth is not None and render.normal is not None
        weights = torch.rand(render.rgb.shape, generator=torch.Generator().manual_seed(1)).to(render.rgb)
        loss = (render.rgb * weights).sum() + (render.normal * weights).sum() + (render.depth * weights[..., :1]).sum()
        (loss + render.aux["distortion"].sum()).backward()
        renders.append(render)
        copies.append(copy)
    return renders, copies


def assert_same(renders: list[Render], copies: list[Gaussians], most: float) -> None:
    for name in ("rgb", "alpha", "depth", "normal"):
        torch.testing.assert_close(*(getattr(r, name) for r in renders), rtol=0, atol=most, msg=name)
    for name, one in copies[0].named_parameters():
        two = dict(copies[1].named_parameters())[name]
        assert one.grad is not None and two.grad is not None
        assert float((one.grad - two.grad).norm()) <= 10 * most * float(one.grad.norm()), name


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
def test_both_draw_the_same(on_cpu: None, flat: bool, antialias: bool) -> None:
    """Conventions of cameras, pixels and features; and gradients to every parameter."""
    assert_same(*both(some(flat=flat), turntable(2, 24), antialias=antialias), most=1e-4)


@pytest.mark.parametrize("watch", ["mean", "absolute"])
def test_densification_sees_the_same(on_cpu: None, watch: str) -> None:
    _, copies = both(some(), turntable(2, 24), watch)
    ours, theirs = (copy.drawn[0] for copy in copies)
    assert ours.centres.grad is not None and theirs.centres.grad is not None and theirs.tally.grad is not None
    torch.testing.assert_close(theirs.centres.grad, ours.centres.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(theirs.tally.grad, ours.tally.grad, rtol=1e-3, atol=1e-3)
    drawn = ours.visible & theirs.visible
    assert float(drawn.float().mean()) > 0.9 * float(theirs.visible.float().mean()) > 0.5


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="backend 'gsplat' needs CUDA .*Use backend: dream3d"):
        Splat(backend="gsplat")(some(), turntable(1, 8))
    device = torch.device("cuda")
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace(_C=None))
    with pytest.raises(MissingError, match="has no kernels: .*Install nvcc, or use backend: dream3d"):
        gsplat_backend._library(device)
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(MissingError, match="not installed: pip install gsplat"):
        gsplat_backend._library(device)
    with pytest.raises(InputError, match="Splat: backend: 'gsplatt' is not one of auto, dream3d, gsplat"):
        Splat(backend="gsplatt")  # type: ignore[arg-type]


def test_no_gaussians_need_no_backend() -> None:
    assert not Splat(backend="gsplat")(Gaussians(count=0), turntable(1, 8)).alpha.any()


@pytest.mark.cuda
@pytest.mark.parametrize("watch", [None, "mean", "absolute"])
def test_the_kernels_agree_on_cuda(watch: Any) -> None:
    renders, copies = both(some(2000).cuda(), turntable(2, 64).to("cuda"), watch)
    assert_same(renders, copies, most=2e-3)
    if watch:
        ours, theirs = (copy.drawn[0].centres.grad for copy in copies)
        torch.testing.assert_close(theirs, ours, rtol=1e-2, atol=1e-2)
