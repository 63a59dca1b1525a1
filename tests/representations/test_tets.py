"""Tets: starts, topology that follows the signs, learning, files, and geometry out of normals."""

import math

import pytest
import torch

from dream3d.cameras import OrbitCameras
from dream3d.checks import InputError, RunError
from dream3d.kernels.mesh import antialias, interpolate, project_vertices, rasterise
from dream3d.materials import PBR
from dream3d.meshing import topology
from dream3d.nn.solid import Solid
from dream3d.nn.triangles import face_normals
from dream3d.representations import Field, Tets

SMALL = {"levels": 2, "log2_table": 8, "finest": 16, "hidden": 8}
BOTH = pytest.mark.parametrize("extraction", ["tets", "flexicubes"])


def tiny(start=None, **changes):
    torch.manual_seed(0)
    return Tets(start, **{"resolution": 12, **SMALL, **changes})


def radii(representation):
    return representation.facets().vertices.norm(dim=1)


@BOTH
def test_starts_as_a_ball(extraction):
    tets = tiny(extraction=extraction)
    mesh = tets.facets()
    assert topology(mesh).manifold
    assert (radii(tets) - 0.5).abs().max() < 0.05
    a, b, c = mesh.vertices[mesh.faces.long()].unbind(1)
    assert (a * torch.linalg.cross(b, c)).sum().item() / 6 == pytest.approx(4 / 3 * math.pi / 8, rel=0.15)
    assert tets.paint(mesh.vertices).shape == (len(mesh.vertices), 3)


@BOTH
@pytest.mark.parametrize("geometry", ["grid", "network"])
def test_gradients_reach_every_parameter(extraction, geometry):
    tets = tiny(extraction=extraction, geometry=geometry)
    if tets.network is not None:
        torch.nn.init.normal_(tets.network.encoding.table, std=0.1)
    torch.nn.init.normal_(tets.paint_field.encoding.table, std=0.1)
    mesh = tets.facets()
    (mesh.vertices.square().sum() + tets.paint(mesh.vertices).square().sum()).backward()
    trained = {id(p) for group in tets.parameter_groups() for p in group["params"]}
    for name, parameter in tets.named_parameters():
        assert (id(parameter) in trained) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_offsets_stay_within_their_share_of_a_cell():
    """No tetrahedron turns over, however far the parameters go."""
    tets = tiny()
    with torch.no_grad():
        tets.offsets.copy_(100 * torch.randn(tets.offsets.shape, generator=torch.Generator().manual_seed(0)))
    values, positions = tets._geometry()
    assert (positions - tets.vertices).abs().max().item() == pytest.approx(0.2 * tets.cell, rel=1e-4)
    inner = tets.tets[(tets.border[tets.tets.long()] == 0).all(1)].long()
    p = positions[inner]
    assert torch.linalg.det(p[:, 1:] - p[:, :1]).min() > 0
    assert topology(tets.facets()).manifold
    assert torch.equal(tiny(offsets=False)._geometry().positions, tets.vertices)


@BOTH
def test_the_walls_stay_outside(extraction):
    tets = tiny(extraction=extraction)
    with torch.no_grad():
        tets.values.fill_(-1.0)
    mesh = tets.facets()
    assert topology(mesh).manifold and mesh.vertices.abs().max() <= 1
    assert mesh.vertices.abs().amax(1).mean() > 0.95  # the box itself


def test_no_surface_says_why():
    tets = tiny()
    with torch.no_grad():
        tets.values.fill_(2.0)
    with pytest.raises(RunError, match=r"no surface: .*least distance 0.333 m.*values_lr_scale"):
        tets.facets()


def test_triangles_are_found_again_when_a_sign_changes():
    tets = tiny()
    before = tets.facets()
    assert tets.facets().faces is before.faces
    with torch.no_grad():
        tets.values.sub_(0.5)
    after = tets.facets()
    assert len(after.faces) > len(before.faces) and radii(tets).mean() > 0.55


@BOTH
def test_takes_over_another_surface_and_its_colours(extraction):
    field = Field(levels=4, log2_table=10, base=4, finest=32, hidden=16, occupancy=16, blob_radius=0.8, sharpness=1.0)
    with torch.no_grad():
        field.mlp.net[-1].weight.zero_()
        field.mlp.net[-1].bias.copy_(torch.tensor([0.0, 2.0, 0.0, -2.0]))
    mesh = field.to_mesh()
    tets = tiny(field, resolution=16, extraction=extraction)
    distances = Solid(mesh.vertices, mesh.faces).signed_distance(tets.facets().vertices.detach(), band=1.0)
    assert distances.abs().max() < 0.02 * 2
    assert (tets.to_mesh().colors - mesh.colors.mean(0)).abs().max() < 0.05


def test_finer_tets_inherit_surface_and_paint():
    first = tiny(ball=0.4)
    torch.nn.init.normal_(first.paint_field.encoding.table)
    second = tiny(first, resolution=16)
    assert (radii(second) - 0.4).abs().max() < 0.03
    points = torch.rand(32, 3) - 0.5
    assert torch.equal(first.paint(points), second.paint(points))
    with torch.no_grad():
        first.values.add_(0.3)
    third = tiny(first)
    assert torch.equal(third.values, first.values)


def test_subdivision():
    tets = tiny(subdivide=1)
    assert tets.cell == pytest.approx(1 / 12) and topology(tets.facets()).manifold
    assert len(tets.facets().faces) > 3 * len(tiny().facets().faces)
    with torch.no_grad():
        tets.values.add_(100.0)  # what lies inside of the shell stays inside
    assert topology(tets.facets()).manifold
    with pytest.raises(InputError, match="subdivide"):
        tiny(extraction="flexicubes", subdivide=1)


@pytest.mark.parametrize(("extraction", "subdivide"), [("tets", 0), ("tets", 1), ("flexicubes", 0)])
def test_states_are_restored(extraction, subdivide):
    """As a run resumes: built from nothing, then filled; a subdivided grid depends on what it started from."""
    saved = tiny(tiny(ball=0.3), resolution=10, subdivide=subdivide, extraction=extraction)
    restored = tiny(resolution=10, subdivide=subdivide, extraction=extraction)
    restored.load_state_dict(saved.state_dict())
    one, other = saved.facets(), restored.facets()
    assert torch.equal(one.vertices, other.vertices) and torch.equal(one.faces, other.faces)
    assert ("tets" in saved.state_dict()) == bool(subdivide)


def test_export():
    tets = tiny(material=PBR(roughness=(0.2, 0.6)))
    surfaced = tets.surface(iso=0.1)
    assert surfaced.mesh.vertices.norm(dim=1).mean().item() == pytest.approx(0.6, abs=0.02)
    baked = surfaced.bake(surfaced.mesh.vertices)
    assert {name: values.shape[1] for name, values in baked.items()} == {
        "base_color": 3, "roughness": 1, "metallic": 1,
    }  # fmt: skip
    assert (baked["roughness"] - 0.4).abs().max() < 0.02 and (baked["base_color"] - 0.5).abs().max() < 0.05
    assert len(tets.to_mesh().colors) == len(tets.to_mesh().vertices)


def test_the_door():
    with pytest.raises(InputError, match="extraction"):
        tiny(extraction="cubes")
    with pytest.raises(InputError, match="geometry"):
        tiny(geometry="free")
    with pytest.raises(InputError, match="ball"):
        tiny(ball=2.0)


def normals_and_mask(mesh, cameras):
    """What a renderer of normals shows: of the faces, flat, with soft outlines."""
    projected = project_vertices(mesh.vertices, cameras)
    faces = mesh.faces.int()
    fragments = rasterise(projected, faces)
    corner = torch.arange(3 * len(faces), dtype=torch.int32).view(-1, 3)
    flat = face_normals(mesh.vertices, faces).repeat_interleave(3, dim=0)
    picture = torch.cat([interpolate(flat, corner, fragments), fragments.mask], dim=-1)
    return antialias(picture, fragments, projected, faces)


def chamfer(one, other):
    """Mean distance both ways, by the diagonal."""
    there = Solid(other.vertices, other.faces).nearest(one.vertices).distance.mean()
    back = Solid(one.vertices, one.faces).nearest(other.vertices).distance.mean()
    return 0.5 * float(there + back) / float((other.vertices.amax(0) - other.vertices.amin(0)).norm())


def recovered(truth, steps, *, lr=0.01, size=64, resolution=24, **changes):
    """Tets after so many steps on pictures of the normals of a shape."""
    tets = Tets(resolution=resolution, levels=1, log2_table=4, finest=8, **changes)
    optimizer = torch.optim.Adam(
        [{"params": g["params"], "lr": lr * g["lr_scale"]} for g in tets.parameter_groups()], betas=(0.9, 0.99)
    )
    sampler = OrbitCameras(size=size, elevation_deg=(-70.0, 70.0))  # from below too: what is not seen stays a ball
    for step in range(steps):
        cameras = sampler(4, 1, step, torch.Generator().manual_seed(step))
        target = normals_and_mask(truth, cameras)
        optimizer.param_groups[2]["lr"] = 3 * lr * (1 - step / steps) + 1e-4
        loss = (normals_and_mask(tets.facets(), cameras) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tets


def box_and_ball(points):
    """Distance to a box with a ball half sunk into its top: edges, a crease, and no symmetry between the axes."""
    q = points.abs() - torch.tensor([0.45, 0.25, 0.3])
    box = q.clamp_min(0).norm(dim=1) + q.amax(1).clamp_max(0)
    return torch.minimum(box, (points - torch.tensor([0.1, 0.3, 0.0])).norm(dim=1) - 0.25)


@pytest.mark.slow
@BOTH
def test_geometry_comes_back_from_normals(extraction):
    """A box with a ball on it out of a ball: the Chamfer distance falls below a hundredth of the diagonal."""
    truth = tiny(resolution=48)
    with torch.no_grad():
        truth.values.copy_(box_and_ball(truth.vertices) / truth.cell)
    mesh = truth.surface().mesh
    start = chamfer(Tets(resolution=24, levels=1, log2_table=4, finest=8).surface().mesh, mesh)
    assert start > 0.04
    assert chamfer(recovered(mesh, 250, extraction=extraction).surface().mesh, mesh) < 0.01
