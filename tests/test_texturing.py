import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dream3d import atlas, unwrapping
from dream3d.cameras import turntable
from dream3d.checks import InputError
from dream3d.kernels.mesh import interpolate, mip_levels, project_vertices
from dream3d.kernels.mesh import rasterise as rasterise_views
from dream3d.kernels.texture import sample_texture
from dream3d.meshing import decimate, topology, vertex_normals
from dream3d.texturing import DEFAULT_ROUGHNESS, bake, overlap, rasterise, tangents, unwrap
from dream3d.types import Mesh
from tests.test_meshing import sphere, surface_of


def quad(uv=((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0))):
    """A square that faces +Z; by default the picture lies on it upright, its right along +X."""
    points = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    normals = torch.tensor([[0.0, 0.0, 1.0]]).repeat(4, 1)
    return Mesh(points, torch.tensor([[0, 1, 2], [0, 2, 3]]), normals=normals, uv=torch.tensor(uv))


def unwrapped(faces=500, texture=256):
    mesh = decimate(sphere(32), faces)
    return unwrap(replace(mesh, normals=vertex_normals(mesh)), texture=texture)


def test_unwrap_keeps_the_surface():
    before = decimate(sphere(24), 400)
    before = replace(before, normals=vertex_normals(before), colors=before.vertices.abs())
    after = unwrap(before, texture=128, gutter=2)
    assert torch.equal(after.vertices[after.faces], before.vertices[before.faces])
    assert torch.equal(after.normals[after.faces], before.normals[before.faces])
    assert torch.equal(after.colors, after.vertices.abs())
    assert topology(after) == topology(before)


WORKS = """
import runpy, sys
runpy.run_path({file!r})["limit_processor_time"](float(sys.argv[1]))
while True:
    pass
"""


@pytest.mark.parametrize(
    ("script", "seconds", "message"),
    [
        ("raise SystemExit(3)", 60, "xatlas failed .exit code 3."),
        ("print('hello')", 60, "xatlas failed"),
        ("import time; time.sleep(600)", 0.05, "stopped after 0.5 s"),
        (WORKS, 1, "took more than 1 s of processor time at 400 faces"),
        ("", 0, "switched off"),
    ],
)
def test_unwrap_falls_back_with_a_warning(script, seconds, message, monkeypatch, tmp_path):
    mesh = decimate(sphere(24), 400)
    if script == WORKS:
        monkeypatch.setattr(unwrapping, "PATIENCE", 600)
    (tmp_path / "child.py").write_text(script.format(file=atlas.__file__))
    monkeypatch.setattr(atlas, "__file__", str(tmp_path / "child.py"))
    with pytest.warns(UserWarning, match=message):
        after = unwrap(mesh, texture=128, seconds=seconds)
    assert torch.equal(after.vertices[after.faces], mesh.vertices[mesh.faces])


def test_too_many_faces_are_known_beforehand(monkeypatch):
    monkeypatch.setattr(unwrapping, "MOST_FACES", 399)
    monkeypatch.setattr(subprocess, "run", None)
    told = []
    unwrap(decimate(sphere(24), 400), texture=128, warn=told.append)
    assert told == [
        "UV atlas: 400 faces are more than xatlas is given; using a box projection. Fewer faces help: --faces."
    ]


def test_the_child_process_imports_nothing_heavy():
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit(bool({'torch', 'dream3d'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-P", "-c", code, atlas.__file__], check=False).returncode == 0


def test_raster_of_a_full_quad_has_every_texel_at_its_place():
    mesh = quad()
    texel, face, weight = rasterise(mesh.uv.double().numpy(), mesh.faces.numpy(), 8)
    assert np.array_equal(texel, np.arange(64))
    points = (weight[..., None] * mesh.vertices.double().numpy()[mesh.faces.numpy()[face]]).sum(1)
    x = (np.arange(8) + 0.5) / 4 - 1
    np.testing.assert_allclose(points[:, 0].reshape(8, 8), np.tile(x, (8, 1)), atol=1e-12)
    # Row 0 is the top of the picture.
    np.testing.assert_allclose(points[:, 1].reshape(8, 8), np.tile(-x[:, None], (1, 8)), atol=1e-12)


def test_raster_agrees_with_brute_force():
    rng = np.random.default_rng(1)
    size = 32
    y, x = np.divmod(np.arange(size * size), size)
    for uv in rng.random((20, 3, 2)):
        texel, _, weight = rasterise(uv, np.array([[0, 1, 2]]), size)
        p = uv * size - 0.5
        side = [(p[(i + 1) % 3, 0] - p[i, 0]) * (y - p[i, 1]) - (p[(i + 1) % 3, 1] - p[i, 1]) * (x - p[i, 0])
                for i in range(3)]  # fmt: skip
        inside = np.flatnonzero(np.all(np.array(side) > 0, axis=0) | np.all(np.array(side) < 0, axis=0))
        assert set(inside) <= set(texel) and len(texel) <= len(inside) + 2
        np.testing.assert_allclose(weight.sum(1), 1)


def test_a_triangle_smaller_than_a_texel_still_gets_one():
    uv = np.array([[0.30, 0.30], [0.31, 0.30], [0.30, 0.31]])
    assert len(rasterise(uv, np.array([[0, 1, 2]]), 8)[0]) == 1


@pytest.mark.parametrize(
    ("uv", "tangent", "sign"),
    [
        (((0, 1), (1, 1), (1, 0), (0, 0)), (1, 0, 0), 1),  # upright
        (((1, 1), (0, 1), (0, 0), (1, 0)), (-1, 0, 0), -1),  # mirrored
        (((0, 0), (0, 1), (1, 1), (1, 0)), (0, 1, 0), 1),  # turned a quarter to the left
    ],
)
def test_tangents_follow_u_and_the_bitangent_points_up_in_the_picture(uv, tangent, sign):
    mesh = quad(tuple(tuple(map(float, c)) for c in uv))
    t = tangents(mesh)
    torch.testing.assert_close(t[:, :3], torch.tensor([tangent], dtype=torch.float32).repeat(4, 1))
    assert (t[:, 3] == sign).all()


def test_tangents_are_unit_and_orthogonal_to_the_normals():
    mesh = unwrapped()
    t = tangents(mesh)
    torch.testing.assert_close(t[:, :3].norm(dim=1), torch.ones(len(t)))
    assert float((t[:, :3] * mesh.normals).sum(1).abs().max()) < 1e-5
    with pytest.raises(InputError, match="vertex_normals"):
        tangents(replace(mesh, normals=None))


def test_baked_colour_at_every_vertex_is_the_field_s_colour():
    mesh = unwrapped(texture=512)
    material = bake(mesh, lambda p: {"base_color": 0.5 + 0.4 * p}, texture=512)
    grid = mesh.uv[None, None] * 2 - 1
    picture = material.base_color.permute(2, 0, 1)[None]
    seen = torch.nn.functional.grid_sample(picture, grid, align_corners=False, padding_mode="border")[0, :, 0].T
    torch.testing.assert_close(seen, 0.5 + 0.4 * mesh.vertices, atol=0.02, rtol=0)
    assert material.orm[0, 0].tolist() == pytest.approx([1.0, DEFAULT_ROUGHNESS, 0.0])
    assert (material.roughness, material.metallic) == (1.0, 0.0)
    # Without normals of its own the map is flat.
    torch.testing.assert_close(material.normal, torch.tensor([0.5, 0.5, 1.0]).expand(512, 512, 3))


def test_channels_land_in_their_places_and_gaps_are_filled():
    def colour(points):
        one = torch.ones(len(points), 1)
        return {
            "base_color": 0.25 * one.expand(-1, 3),
            "occlusion": 0.5 * one,
            "roughness": 0.25 * one,
            "metallic": one,
        }

    material = bake(unwrapped(), colour, texture=256)
    torch.testing.assert_close(material.orm, torch.tensor([0.5, 0.25, 1.0]).expand(256, 256, 3))
    torch.testing.assert_close(material.base_color, torch.full((256, 256, 3), 0.25))
    assert material.metallic == 1.0


@pytest.mark.parametrize("mirrored", [False, True])
def test_normal_map_of_a_tilted_plane_is_y_up(mirrored):
    uv = (
        ((1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0))
        if mirrored
        else ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0))
    )

    def leaning_up(points):
        tilt = torch.tensor([0.3, math.sin(0.5), math.cos(0.5)])
        return {"base_color": points.abs(), "normal": (tilt / tilt.norm()).expand(len(points), 3)}

    material = bake(quad(uv), leaning_up, texture=64)
    x, y, z = (2 * material.normal - 1)[5, 5].tolist()
    assert y > 0.4 and z > 0.7
    assert (x < 0) == mirrored
    assert x * x + y * y + z * z == pytest.approx(1, abs=1e-5)


def test_normal_map_gives_back_the_world_normals_where_a_renderer_rebuilds_the_frame():
    mesh = unwrapped(faces=200, texture=256)
    wanted = torch.tensor([0.2, 0.1, 0.0])

    def colour(points):
        return {"base_color": points.abs(), "normal": torch.nn.functional.normalize(points + wanted, dim=-1)}

    material = bake(mesh, colour, texture=256)
    texel, face, weight = rasterise(mesh.uv.double().numpy(), mesh.faces.numpy(), 256)
    corner = mesh.faces[torch.from_numpy(face)]
    w = torch.from_numpy(weight)[..., None]
    frame = tangents(mesh).double()
    point, normal, tangent = ((w * v.double()[corner]).sum(1) for v in (mesh.vertices, mesh.normals, frame[:, :3]))
    normal, tangent = (torch.nn.functional.normalize(v, dim=-1) for v in (normal, tangent))
    bitangent = frame[corner[:, 0], 3:] * torch.linalg.cross(normal, tangent)
    local = 2 * material.normal.reshape(-1, 3)[torch.from_numpy(texel)].double() - 1
    world = local[:, :1] * tangent + local[:, 1:2] * bitangent + local[:, 2:] * normal
    truth = torch.nn.functional.normalize(point + wanted, dim=-1)
    cosine = (torch.nn.functional.normalize(world, dim=-1) * truth).sum(1)
    assert float(cosine.min()) > 0.999


def test_normals_that_point_inside_become_flat():
    material = bake(quad(), lambda p: {"base_color": p.abs(), "normal": -torch.eye(3)[2].expand(len(p), 3)}, texture=64)
    assert material.normal[9, 9].tolist() == pytest.approx([0.5, 0.5, 1.0])


def test_texels_are_moved_onto_the_detailed_surface():
    fine = sphere(64)
    coarse = decimate(fine, 300)
    mesh = unwrap(replace(coarse, normals=vertex_normals(coarse)), texture=128)
    seen = []

    def colour(points):
        seen.append((points.norm(dim=-1) - 0.6).abs())
        return {"base_color": points.abs()}

    bake(mesh, colour, texture=128)
    bake(mesh, colour, texture=128, surface=fine)
    assert float(seen[1].mean()) < 0.2 * float(seen[0].mean())
    assert float(seen[1].max()) < 1.5 * float(seen[0].max())


def test_details_without_normals_of_their_own_get_those_of_the_surface():
    def depth(points):
        return 0.6 + 0.03 * torch.sin(12 * points).prod(-1) - points.norm(dim=-1)

    def known(points):
        with torch.enable_grad():
            leaf = points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(depth(leaf).sum(), leaf)
        return {"base_color": points.abs(), "normal": -torch.nn.functional.normalize(slope, dim=-1)}

    fine = surface_of(depth, cells=64)
    coarse = decimate(fine, 300)
    mesh = unwrap(replace(coarse, normals=vertex_normals(coarse)), texture=128)
    truth = bake(mesh, known, texture=128, surface=fine)
    found = bake(mesh, lambda p: {"base_color": p.abs()}, texture=128, surface=fine)
    cosine = ((2 * truth.normal - 1) * (2 * found.normal - 1)).sum(-1)
    flat = (2 * truth.normal - 1)[..., 2]
    assert float(cosine.mean()) > 0.9995 > 0.995 > float(flat.mean())


def test_large_triangles_are_found_far_from_their_middle():
    floor = quad()
    mesh = replace(floor, vertices=floor.vertices + torch.tensor([0.0, 0.0, 0.05]))
    heights = []

    def colour(points):
        heights.append(points[:, 2])
        return {"base_color": points.abs().clamp(max=1)}

    bake(mesh, colour, texture=64, surface=floor)
    assert float(heights[0].abs().max()) < 1e-6


def test_the_other_side_of_a_thin_wall_does_not_attract():
    sheet = quad()
    under = sheet.vertices - torch.tensor([0.0, 0.0, 0.02])
    wall = Mesh(torch.cat([sheet.vertices, under]), torch.cat([sheet.faces, sheet.faces.flip(1) + 4]))
    mesh = replace(sheet, vertices=sheet.vertices - torch.tensor([0.0, 0.0, 0.018]))
    heights = []

    def colour(points):
        heights.append(points[:, 2])
        return {"base_color": points.abs().clamp(max=1)}

    bake(mesh, colour, texture=64, surface=wall)
    assert float(heights[0].abs().max()) < 1e-6


def test_occlusion_is_cast_where_it_is_asked_for_and_unknown():
    floor = quad()
    roof = Mesh(floor.vertices + torch.tensor([0.0, 0.0, 0.2]), floor.faces)
    both = Mesh(torch.cat([floor.vertices, roof.vertices]), torch.cat([floor.faces, roof.faces + 4]))

    def known(points):
        return {"base_color": points.abs(), "occlusion": torch.full((len(points), 1), 0.75)}

    def baked(colour, occluded):
        return bake(floor, colour, texture=64, surface=both, occluded=occluded).orm[..., 0]

    assert (baked(lambda p: {"base_color": p.abs()}, False) == 1).all()
    shaded = baked(lambda p: {"base_color": p.abs()}, True)
    assert float(shaded[32, 32]) < 0.1 < 0.3 < float(shaded[0, 32])
    assert (baked(known, True) == 0.75).all()


def test_overlap_is_the_share_of_texels_that_two_triangles_claim():
    left = ((0.0, 1.0), (0.5, 1.0), (0.5, 0.0), (0.0, 0.0))
    upper = ((0.0, 0.5), (1.0, 0.5), (1.0, 0.0), (0.0, 0.0))
    once = quad(left)
    points, faces = once.vertices.repeat(2, 1), torch.cat([once.faces, once.faces + 4])
    crossed = Mesh(points, faces, uv=torch.tensor(left + upper))
    assert overlap(once, texture=64) == 0
    assert overlap(crossed, texture=64) == pytest.approx(1 / 3, abs=0.02)  # less the diagonals
    assert overlap(unwrapped(), texture=256) < 1e-4
    with pytest.raises(InputError, match="Call unwrap"):
        overlap(replace(once, uv=None), texture=64)


def seen_from_afar(mesh, picture, pixels):
    """The texture on the object, through mip levels, and the true colours there: from all around, mostly grazing."""
    cameras = turntable(4, pixels, elevation_deg=50.0, zoom=1.0)
    projected = project_vertices(mesh.vertices, cameras)
    fragments = rasterise_views(projected, mesh.faces)
    uv = interpolate(mesh.uv, mesh.faces, fragments)
    size = picture.shape[:2]
    levels = mip_levels(projected, mesh.faces, fragments, mesh.uv, mesh.faces, size=size)
    colours = sample_texture(picture, uv, levels=levels, wrap="clamp")
    hit = fragments.face >= 0
    return colours[hit], 0.5 + 0.4 * interpolate(mesh.vertices, mesh.faces, fragments)[hit], levels[hit]


def test_no_seams_at_mip_levels():
    """A colour that varies smoothly over the object, from so far away that a pixel is several texels."""
    mesh = unwrapped(texture=256)
    picture = bake(mesh, lambda p: {"base_color": 0.5 + 0.4 * p}, texture=256).base_color
    seen, truth, levels = seen_from_afar(mesh, picture, 48)
    assert float(levels.mean()) > 0.8
    worst = (seen - truth).abs().amax(1)
    few = levels < 3  # a texel of level 3 is two gutters wide
    assert few.sum() > 2000 and float(worst[few].max()) < 0.03 and float(worst.mean()) < 0.01
    # Without colours between the charts:
    texel = rasterise(mesh.uv.double().numpy(), mesh.faces.numpy(), 256)[0]
    bare = torch.zeros(256 * 256, 3)
    bare[torch.from_numpy(texel)] = picture.view(-1, 3)[torch.from_numpy(texel)]
    seen, truth, _ = seen_from_afar(mesh, bare.view(256, 256, 3), 48)
    assert float((seen - truth)[few].abs().max()) > 0.2


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"normal": 3}, "base_color"),
        ({"base_color": 4}, r"\(\d+, 3\)"),
        ({"base_color": 3, "roughness": 3}, r"\(\d+, 1\)"),
        ({"base_color": 3, "metallic": -1}, "non-finite"),
    ],
)
def test_bake_says_what_is_wrong_with_a_channel(channels, message):
    def colour(points):
        return {k: torch.full((len(points), abs(n)), math.nan if n < 0 else 0.5) for k, n in channels.items()}

    with pytest.raises(InputError, match=message):
        bake(quad(), colour, texture=64)
