import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trimesh

from dream3d.checks import InputError, RunError
from dream3d.export import Export
from dream3d.media import read_pictures, to_bytes
from dream3d.nn.isosurface import isosurface
from dream3d.representations import Image
from dream3d.representations.base import Representation, Surfaced
from dream3d.splat_files import read_splats
from dream3d.types import Splats

SMALL = {"faces": 800, "texture_size": 128, "resolution": 32}


class Analytic(Representation):
    """A closed form inside [-1, 1]^3; `depth` is positive inside."""

    def __init__(self, depth):
        super().__init__()
        self.depth = depth
        self.asked = {}

    def to_mesh(self):
        return self.surface().mesh

    def surface(self, *, iso=None, resolution=128):
        self.asked = {"iso": iso, "resolution": resolution}
        axis = torch.linspace(-1, 1, resolution + 1)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        return Surfaced(isosurface(self.depth(points), iso or 0.0, 1.0), self.colour)

    def colour(self, points):
        """Red in front, green on the left, blue above, grey elsewhere."""
        colour = torch.full((len(points), 3), 0.5)
        colour[points[:, 0] > 0.35] = torch.tensor([0.0, 0.8, 0.0])
        colour[points[:, 1] > 0.45] = torch.tensor([0.0, 0.0, 0.9])
        colour[points[:, 2] > 0.25] = torch.tensor([0.9, 0.0, 0.0])
        return {"base_color": colour}


class Cloud(Analytic):
    """Gaussians that say so, at the corners of a box; one more, far away, cannot be seen."""

    def to_splats(self):
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3) * torch.tensor([0.3, 0.4, 0.2])
        means = torch.cat([corners + torch.tensor([0.0, 1.0, 0.0]), torch.tensor([[9.0, 9.0, 9.0]])])
        opacities = torch.tensor([0.9] * 8 + [0.01])
        turns = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(9, 1)
        return Splats(means, turns, torch.full((9, 3), 0.1), opacities, torch.zeros(9, 4, 3))


def box(points):
    outside = (points.abs() - torch.tensor([0.3, 0.4, 0.2])).clamp(min=0)
    return 0.1 - outside.norm(dim=-1)


def torus(points):
    ring = points[..., [0, 2]].norm(dim=-1) - 0.6
    return 0.25 - torch.stack([ring, points[..., 1]], dim=-1).norm(dim=-1)


def two_balls(points):
    left = 0.4 - (points - torch.tensor([-0.45, 0.0, 0.0])).norm(dim=-1)
    right = 0.3 - (points - torch.tensor([0.5, 0.0, 0.0])).norm(dim=-1)
    return torch.maximum(left, right)


def nothing(points):
    return -points.norm(dim=-1) - 0.1


@pytest.mark.parametrize(("depth", "components", "euler"), [(box, 1, 2), (torus, 1, 0), (two_balls, 2, 4)])
def test_export_writes_a_checked_asset(depth, components, euler, tmp_path):
    said = []
    forms = ("glb", "obj", "usd", "ply")
    written = Export(formats=forms, **SMALL)(Analytic(depth), tmp_path, "thing", {"seed": 0}, say=said.append)
    assert written[0] == tmp_path / "thing.glb" and all(path.is_file() for path in written)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(p.name for p in written)
    assert any("UV atlas" in line for line in said)
    facts = json.loads((tmp_path / "check.json").read_text())
    assert facts["components"] == components and facts["watertight"] and 600 < facts["faces"] <= 816
    assert 0.2 < facts["uv_use"] < 1 and facts["uv_overlap"] < 1e-3
    assert facts["textures"] == {name: [128, 128] for name in ("basecolor.png", "orm.png", "normal.png")}
    assert facts["bytes"] == {f"thing.{end}": (tmp_path / f"thing.{end}").stat().st_size
                              for end in ("glb", "usdz", "ply", "obj")}  # fmt: skip
    (read,) = trimesh.load_scene(tmp_path / "thing.glb").geometry.values()
    assert (len(read.faces), len(read.vertices)) == (facts["faces"], facts["vertices"])
    read.merge_vertices(merge_tex=True, merge_norm=True)
    assert read.is_watertight and read.volume > 0 and read.euler_number == euler


def test_colours_sit_on_the_sides_where_they_belong(tmp_path):
    Export(**SMALL)(Analytic(box), tmp_path, "box", {})
    (read,) = trimesh.load_scene(tmp_path / "box.glb").geometry.values()
    colours = read.visual.to_color().vertex_colors[:, :3]
    for axis, channel in ((2, 0), (0, 1), (1, 2)):
        side = read.vertex_normals[:, axis] > 0.99
        assert side.sum() > 3 and colours[side].mean(0)[channel] > 200 and colours[side].mean() < 80
    assert colours[read.vertex_normals[:, 2] < -0.99].mean() == pytest.approx(128, abs=2)


def test_size_and_ground(tmp_path):
    mesh = Export(size_m=0.1, ground=True, **SMALL).textured(Analytic(lambda p: box(p - torch.tensor([0.1, 0.2, 0.0]))))
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    assert float(low[1]) == 0 and float((high - low).max()) == pytest.approx(0.1)
    assert float((low + high)[0]) == pytest.approx(0, abs=1e-7)


def test_surface_is_asked_for_with_the_given_settings():
    thing = Analytic(box)
    Export(iso=0.02, **SMALL).textured(thing)
    assert thing.asked == {"iso": 0.02, "resolution": 32}


def test_occlusion_is_a_map_when_asked_for():
    def cup(points):
        radius = points.norm(dim=-1)
        return torch.stack([0.8 - radius, radius - 0.5, 0.1 - points[..., 1]]).amin(0)

    thing = Analytic(cup)
    bare, cast = (Export(occlusion=on, **SMALL).textured(thing).material.orm[..., 0] for on in (False, True))
    assert float(bare.min()) == 1 and float(cast.min()) < 0.5 < 0.99 < float(cast.max())


def test_a_fallback_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("dream3d.unwrapping.MOST_FACES", 100)
    told = []
    Export(**SMALL)(Analytic(box), tmp_path, "box", {}, warn=told.append)
    assert len(told) == 1 and "using a box projection" in told[0]
    with pytest.warns(UserWarning, match="using a box projection"):
        Export(**SMALL)(Analytic(box), tmp_path, "box", {})


def work():
    """Seconds of processor time so far, children's included."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in (mine, theirs))


@pytest.mark.slow
def test_200_thousand_faces_of_noise_are_exported_within_90_seconds(tmp_path):
    """Of work, which two free cores do in less: a busy machine does not matter. A fallback must be said."""
    coarse = torch.randn(1, 1, 48, 48, 48, generator=torch.Generator().manual_seed(0))

    def noisy(points):
        noise = torch.nn.functional.interpolate(coarse, size=points.shape[:3], mode="trilinear", align_corners=True)
        return 0.6 - points.norm(dim=-1) + 0.05 * noise[0, 0]

    told, began = [], work()
    settings = {"faces": 200_000, "texture_size": 1024, "resolution": 190}
    Export(**settings)(Analytic(noisy), tmp_path, "noise", {}, warn=told.append)
    seconds = work() - began
    facts = json.loads((tmp_path / "check.json").read_text())
    print(f"{seconds:.1f} s of work, {told or 'no fallback'}, {facts}")
    assert facts["faces"] > 180_000 and facts["uv_overlap"] < 0.01 and seconds < 90
    assert all("using a box projection" in line for line in told)


def test_a_surface_is_triangles_in_ply(tmp_path):
    """With the field's colours at the vertices; Gaussians stay Gaussians (below)."""
    ply, _ = Export(formats=("ply",), size_m=0.5, **SMALL)(Analytic(box), tmp_path, "box", {})[::3]
    read = trimesh.load(ply, process=False)
    assert read.is_watertight and max(read.extents) == pytest.approx(0.5)
    front = read.vertices[:, 2] == read.vertices[:, 2].max()
    assert front.any() and (read.visual.vertex_colors[front, :3] == [230, 0, 0]).all()


def test_no_surface_writes_no_file(tmp_path):
    with pytest.raises(RunError, match="no surface at iso 0: density never exceeds"):
        Export(**SMALL)(Analytic(nothing), tmp_path / "out", "thing", {})
    assert not (tmp_path / "out").exists()


def test_same_input_same_bytes_in_another_process(tmp_path):
    """Python's string hashes differ between processes; nothing in the file may depend on them."""
    Export(**SMALL)(Analytic(torus), tmp_path / "a", "thing", {"prompt": "a ring"})
    code = (
        "import sys, pathlib; sys.path[:0] = sys.argv[2:]; from tests.test_export import *; "
        "Export(**SMALL)(Analytic(torus), pathlib.Path(sys.argv[1]), 'thing', {'prompt': 'a ring'})"
    )
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b"), root], check=True, env=environment)
    digests = [
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / side).rglob("*.*") if p.is_file()}
        for side in "ab"
    ]
    assert digests[0] == digests[1] and len(digests[0]) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"texture_size": 1_000_000}, "texture size must be 64–8192 \\(got 1000000\\)"),
        ({"faces": 3}, "faces must be 4–"),
        ({"formats": ("fbx",)}, "format: 'fbx' is not one of glb, obj"),
        ({"formats": ()}, "one or more of glb, obj"),
        ({"size_m": 0.0}, "size_m"),
        ({"size_m": float("nan")}, "size_m"),
        ({"resolution": 4}, "resolution must be 8–1024"),
        ({"splat_axes": "up"}, "splat_axes: 'up' is not one of opengl, opencv"),
    ],
)
def test_bad_settings_are_refused_at_once(settings, message, as_users_run):
    with pytest.raises(InputError, match=message):
        Export(**settings)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_names_must_be_plain(name, tmp_path):
    with pytest.raises(InputError, match="plain file name"):
        Export(**SMALL)(Analytic(box), tmp_path, name, {})


def test_an_image_is_exported_as_pictures(tmp_path):
    alone, four = Image(size=8), Image(particles=3, size=8)
    with torch.no_grad():
        alone.pixels.copy_(torch.linspace(-0.5, 1.5, 64).view(1, 1, 8, 8).expand(1, 3, 8, 8))
    (path,) = Export(formats=("png",))(alone, tmp_path / "one", "thing", {})
    assert path == tmp_path / "one" / "thing.png"
    (pixels,) = read_pictures([path])
    assert (pixels == to_bytes(alone.pictures)[0]).all()
    written = Export(formats=("png",))(four, tmp_path / "three", "thing", {})
    assert [p.name for p in written] == ["thing-sheet.png", "thing-1.png", "thing-2.png", "thing-3.png"]
    assert [picture.shape for picture in read_pictures(written)] == [(18, 18, 3)] + [(8, 8, 3)] * 3


def test_pictures_and_surfaces_do_not_mix(tmp_path):
    for formats, thing, message in (
        (("glb",), Image(), r"an image has no surface; export it as pictures: formats \[png\]"),
        (("glb", "png"), Image(), r"an image has no surface; expected \[png\], got glb, png"),
        (("png",), Analytic(box), "png is for image planes; a Analytic has glb and obj"),
    ):
        with pytest.raises((InputError, RunError), match=message):
            Export(formats=formats, **SMALL)(thing, tmp_path, "thing", {})
    assert not list(tmp_path.iterdir())


def test_gaussians_are_exported_as_gaussians(tmp_path):
    """Without a surface being looked for, and beside one."""
    thing, forms = Cloud(nothing), ("ply", "compressed-ply", "splat", "spz", "splat-glb")
    written = Export(formats=forms)(thing, tmp_path, "thing", {"prompt": "a box"})
    names = ["thing.ply", "thing.compressed.ply", "thing.splat", "thing.spz", "thing.splats.glb"]
    assert [path.name for path in written] == [*names, "check.json"] and thing.asked == {}
    for path in written[:4]:
        assert len(read_splats(path)) == 9
    facts = json.loads((tmp_path / "check.json").read_text())["splats"]
    assert (facts["gaussians"], facts["sh_degree"], set(facts["bytes"])) == (9, 1, set(names))
    both = Export(formats=("glb", "ply"), **SMALL)(Cloud(box), tmp_path / "both", "thing", {})
    assert [path.name for path in both if path.parent == both[0].parent] == ["thing.glb", "thing.ply", "check.json"]
    facts = json.loads((tmp_path / "both" / "check.json").read_text())
    assert facts["watertight"] and facts["splats"]["gaussians"] == 9


def test_gaussians_are_placed_like_surfaces(tmp_path):
    """By those that can be seen."""
    Export(formats=("ply",), size_m=0.4, ground=True)(Cloud(nothing), tmp_path, "thing", {})
    splats = read_splats(tmp_path / "thing.ply")
    low, high = splats.means[:8].amin(0), splats.means[:8].amax(0)
    assert low.tolist() == pytest.approx([-0.15, 0, -0.1], abs=1e-6)
    assert high.tolist() == pytest.approx([0.15, 0.4, 0.1]) and splats.scales[0, 0].item() == pytest.approx(0.05)
    Export(formats=("ply",), splat_axes="opencv")(Cloud(nothing), tmp_path / "down", "thing", {})
    assert read_splats(tmp_path / "down" / "thing.ply", axes="opengl").means[:8, 1].max() == pytest.approx(-0.6)


def test_only_gaussians_are_written_as_gaussians(tmp_path):
    message = "^formats: spz are for Gaussians; a Analytic has glb, obj, usd and ply.$"
    with pytest.raises(InputError, match=message):
        Export(formats=("glb", "ply", "spz"), **SMALL)(Analytic(box), tmp_path / "out", "thing", {})
    empty = Cloud(nothing)
    empty.to_splats = lambda: Splats(*(torch.zeros(0, *shape) for shape in ((3,), (4,), (3,), (), (1, 3))))
    with pytest.raises(RunError, match="^no Gaussians are left to export.$"):
        Export(formats=("ply",))(empty, tmp_path / "out", "thing", {})
    with pytest.raises(RunError, match="no surface"):
        Export(formats=("glb", "ply"), **SMALL)(Cloud(nothing), tmp_path / "out", "thing", {})
    assert not (tmp_path / "out").exists()
