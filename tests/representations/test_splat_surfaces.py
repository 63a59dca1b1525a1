"""The three ways to the surface of Gaussians that lie on a ball, of which the distance is known."""

from __future__ import annotations

import pytest
import torch

from dream3d.checks import InputError, RunError
from dream3d.meshing import clean, topology
from dream3d.representations import Gaussians
from dream3d.representations.splat_starts import point_splats
from dream3d.representations.splat_surfaces import surface_of

COLOUR = torch.tensor([0.8, 0.2, 0.1])


def shell(*, flat: bool, count: int = 3000) -> Gaussians:
    """A red ball of radius 0.6, hollow."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return Gaussians(point_splats(0.6 * normals, COLOUR.expand(count, 3), normals=normals, opacity=0.9), flat=flat)


def off(made: Gaussians, way: str) -> float:
    """Mean distance of the mesh from the ball, metres."""
    made.surface_from = way  # type: ignore[assignment]
    mesh = clean(made.surface(resolution=32).mesh)
    assert topology(mesh).watertight and topology(mesh).components == 1
    return float((mesh.vertices.norm(dim=-1) - 0.6).abs().mean())


def test_depth_pictures_come_nearer_than_the_density() -> None:
    """Cells are 63 mm; the spacing of the Gaussians is 39 mm."""
    round_ones = {way: off(shell(flat=False), way) for way in ("density", "fusion", "poisson")}
    discs = {way: off(shell(flat=True), way) for way in ("fusion", "poisson")}
    assert max(round_ones["fusion"], round_ones["poisson"]) < 0.6 * round_ones["density"]
    assert max(discs.values()) < 0.5 * min(round_ones.values()) and max(discs.values()) < 0.015


def test_colours_and_normals_are_those_of_the_gaussians() -> None:
    made = shell(flat=True, count=1000)
    made.surface_from = "fusion"
    mesh = made.to_mesh()
    assert mesh.colors is not None
    torch.testing.assert_close(mesh.colors.mean(0), COLOUR, rtol=0, atol=0.02)
    baked = made.surface(resolution=32).bake(mesh.vertices)
    along = torch.nn.functional.normalize(mesh.vertices, dim=-1)
    assert float((baked["normal"] * along).sum(-1).mean()) > 0.97


@pytest.mark.parametrize("way", ["density", "fusion", "poisson"])
def test_nothing_to_see_says_so(way: str) -> None:
    with pytest.raises(RunError, match=r"no surface"):
        surface_of(Gaussians(count=0).to_splats(), 1.0, way, resolution=16)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"no surface"):
        surface_of(Gaussians(count=3, opacity=0.01).to_splats(), 1.0, way, resolution=16)  # type: ignore[arg-type]


def test_other_ways_are_refused() -> None:
    with pytest.raises(InputError, match="Gaussians: surface_from: 'densty' is not one of .*Did you mean 'density'"):
        Gaussians(surface_from="densty")  # type: ignore[arg-type]
