import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from dream3d.checks import InputError
from dream3d.splat_files import read_splats, write_splats
from dream3d.splat_files.base import SH_C0
from dream3d.types import Splats

REST = [f"f_rest_{i}" for i in range(45)]
NAMES = [
    *("x y z nx ny nz f_dc_0 f_dc_1 f_dc_2".split()),
    *REST,
    *("opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()),
]


def split(data):
    head, _, body = data.partition(b"end_header\n")
    return head.decode().splitlines(), body


def rows_of(path):
    """Our reader's counterpart: the layout of 3DGS' own code, read with a fixed table."""
    lines, body = split(path.read_bytes())
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    return np.frombuffer(body, [(name, "<f4") for name in names])


def close(read, splats, *, sh=1e-6):
    torch.testing.assert_close(read.means, splats.means, rtol=0, atol=0)
    torch.testing.assert_close(read.quaternions, splats.quaternions, rtol=0, atol=2e-7)
    torch.testing.assert_close(read.scales, splats.scales, rtol=2e-6, atol=0)
    torch.testing.assert_close(read.opacities, splats.opacities, rtol=0, atol=1e-6)
    torch.testing.assert_close(read.sh, splats.sh, rtol=0, atol=sh)


def test_header_and_columns_are_those_of_3dgs(make, tmp_path):
    splats = make(5)
    write_splats(splats, tmp_path / "a.ply")
    lines, body = split((tmp_path / "a.ply").read_bytes())
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert lines[3] == "comment axes opengl: y up, front +Z, metres"
    assert lines[4:] == ["element vertex 5", *(f"property float {name}" for name in NAMES)]
    assert len(body) == 5 * 62 * 4
    row = rows_of(tmp_path / "a.ply")[3]
    assert [row[name] for name in ("nx", "ny", "nz")] == [0, 0, 0]
    assert row["opacity"] == pytest.approx(math.log(splats.opacities[3] / (1 - splats.opacities[3])), rel=1e-5)
    assert row["scale_1"] == pytest.approx(math.log(splats.scales[3, 1]), rel=1e-6)
    assert [row[f"rot_{i}"] for i in range(4)] == pytest.approx(splats.quaternions[3].tolist())
    # All of red, then all of green, then all of blue.
    assert [row[f"f_rest_{15 * c + k - 1}"] for c, k in ((0, 1), (0, 15), (1, 1), (2, 4))] == [
        splats.sh[3, k, c] for c, k in ((0, 1), (0, 15), (1, 1), (2, 4))
    ]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip(make, tmp_path, degree):
    splats = make(degree=degree)
    write_splats(splats, tmp_path / "a.ply")
    close(read_splats(tmp_path / "a.ply"), splats)


def test_the_ends_of_ranges_stay_finite_and_near(make, tmp_path):
    splats = replace(make(2), opacities=torch.tensor([0.0, 1.0]), scales=torch.tensor([[0, 1e-8, 1], [1, 1, 1e4]]))
    write_splats(splats, tmp_path / "a.ply")
    rows = rows_of(tmp_path / "a.ply")
    assert all(np.isfinite(rows[name]).all() for name in NAMES)
    read = read_splats(tmp_path / "a.ply")
    torch.testing.assert_close(read.opacities, splats.opacities, rtol=0, atol=1e-7)
    torch.testing.assert_close(read.scales, splats.scales, rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize(("has", "wanted"), [(0, 3), (3, 1), (2, 2)])
def test_harmonics_are_padded_or_cut(make, tmp_path, has, wanted):
    splats = make(6, has)
    write_splats(splats, tmp_path / "a.ply", sh_degree=wanted)
    read = read_splats(tmp_path / "a.ply").sh
    kept = (min(has, wanted) + 1) ** 2
    assert read.shape[1] == (wanted + 1) ** 2 and not read[:, kept:].any()
    assert torch.equal(read[:, :kept], splats.sh[:, :kept])
    with pytest.raises(InputError, match="SH degree must be 0–3"):
        write_splats(splats, tmp_path / "a.ply", sh_degree=4)


def test_a_file_of_gsplat_reads_the_same(make, as_gsplat, tmp_path):
    from gsplat.exporter import export_splats

    for degree in (1, 3):
        splats = make(degree=degree)
        export_splats(**as_gsplat(splats), save_to=str(tmp_path / "theirs.ply"))
        write_splats(splats, tmp_path / "ours.ply")
        read = read_splats(tmp_path / "theirs.ply")
        close(read, splats)
        close(read, read_splats(tmp_path / "ours.ply"))


def test_trimesh_reads_every_column(make, tmp_path):
    splats = make(40)
    write_splats(splats, tmp_path / "a.ply")
    cloud = trimesh.load(tmp_path / "a.ply", process=False)
    assert isinstance(cloud, trimesh.PointCloud)
    np.testing.assert_array_equal(np.asarray(cloud.vertices, np.float32), splats.means.numpy())
    raw = cloud.metadata["_ply_raw"]["vertex"]
    assert raw["length"] == 40
    np.testing.assert_array_equal(raw["data"]["f_rest_16"].reshape(-1), splats.sh[:, 2, 1].numpy())
    np.testing.assert_allclose(raw["data"]["rot_0"].reshape(-1), splats.quaternions[:, 0].numpy(), atol=1e-7)


def foreign(rows, names, form, *, kind="float", before="", after="", newline="\n"):
    """A stranger's file: other types, orders and properties."""
    types = {"float": "f4", "double": "f8"}
    head = ["ply", f"format {form} 1.0", *before.splitlines(), f"element vertex {len(rows)}"]
    head += [f"property {kind} {name}" for name in names] + after.splitlines()
    if form == "ascii":
        body = newline.join(" ".join(f"{row[name]:.9g}" for name in names) for row in rows).encode() + b"\n"
    else:
        order = {"binary_little_endian": "<", "binary_big_endian": ">"}[form]
        table = np.zeros(len(rows), [(name, order + types[kind]) for name in names])
        for name in names:
            table[name] = rows[name]
        body = table.tobytes()
    return newline.join([*head, "end_header", ""]).encode() + body


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_strangers_files(make, tmp_path, form, kind, newline):
    splats = make(30)
    write_splats(splats, tmp_path / "a.ply")
    rows = rows_of(tmp_path / "a.ply")
    names = [name for name in reversed(NAMES) if name not in ("nx", "ny", "nz")]
    data = foreign(rows, names, form, kind=kind, before="comment hello\nobj_info x", newline=newline)
    (tmp_path / "b.ply").write_bytes(data)
    close(read_splats(tmp_path / "b.ply"), splats)
    bare = [name for name in names if not name.startswith("f_rest")]
    (tmp_path / "c.ply").write_bytes(foreign(rows, bare, form, kind=kind, newline=newline))
    close(read_splats(tmp_path / "c.ply"), replace(splats, sh=splats.sh[:, :1]))


def test_other_elements_are_passed_over(make, tmp_path):
    splats = make(9, 0)
    write_splats(splats, tmp_path / "a.ply")
    head, _, body = (tmp_path / "a.ply").read_bytes().partition(b"element vertex 9\n")
    head += b"element camera 2\nproperty uchar model\nproperty double f\nelement vertex 9\n"
    rest, _, rows = body.partition(b"end_header\n")
    faces = b"element face 1\nproperty list uchar int vertex_indices\n"
    data = head + rest + faces + b"end_header\n" + bytes(18) + rows + b"\x03" + bytes(12)
    (tmp_path / "b.ply").write_bytes(data)
    close(read_splats(tmp_path / "b.ply"), splats)


def test_degree_four_is_cut_with_a_warning(make, tmp_path):
    splats = make(4)
    write_splats(splats, tmp_path / "a.ply")
    rows = rows_of(tmp_path / "a.ply")
    names = [name for name in NAMES if not name.startswith("f_rest")] + [f"f_rest_{i}" for i in range(72)]
    wide = np.zeros(4, [(name, "<f4") for name in names])
    for name in NAMES:
        if not name.startswith("f_rest"):
            wide[name] = rows[name]
    for channel in range(3):
        for k in range(15):
            wide[f"f_rest_{24 * channel + k}"] = splats.sh[:, k + 1, channel]
    (tmp_path / "b.ply").write_bytes(foreign(wide, names, "binary_little_endian"))
    with pytest.warns(UserWarning, match="degree 4 are cut"):
        close(read_splats(tmp_path / "b.ply"), splats)


def test_axes_are_stated_and_believed(make, tmp_path):
    splats = make(20)
    write_splats(splats, tmp_path / "a.ply", axes="opencv")
    assert b"comment axes opencv: y down, front -Z, metres\n" in (tmp_path / "a.ply").read_bytes()
    rows = rows_of(tmp_path / "a.ply")
    assert (rows["y"] == -splats.means[:, 1].numpy()).all() and (rows["x"] == splats.means[:, 0].numpy()).all()
    close(read_splats(tmp_path / "a.ply"), splats)
    as_is = read_splats(tmp_path / "a.ply", axes="opengl")
    assert torch.equal(as_is.means[:, 2], -splats.means[:, 2])
    write_splats(splats, tmp_path / "b.ply")
    assert torch.equal(read_splats(tmp_path / "b.ply", axes="opencv").sh, as_is.sh)


def test_nan_rows_are_dropped_with_a_warning(make, tmp_path):
    splats = make(10)
    write_splats(splats, tmp_path / "a.ply")
    rows = rows_of(tmp_path / "a.ply").copy()
    rows["x"][1], rows["scale_0"][2], rows["opacity"][3], rows["f_rest_7"][4] = np.nan, 500, np.nan, np.inf
    rows["opacity"][5:7] = -np.inf, np.inf
    (tmp_path / "b.ply").write_bytes(foreign(rows, NAMES, "binary_little_endian"))
    with pytest.warns(UserWarning, match=r"b\.ply: 4 of 10 Gaussians"):
        read = read_splats(tmp_path / "b.ply")
    assert torch.equal(read.means, splats.means[[0, 5, 6, 7, 8, 9]]) and read.opacities[1:3].tolist() == [0, 1]


def damage(data, what):
    head, _, body = data.partition(b"end_header\n")
    replaced = {
        "count": (b"element vertex 7", b"element vertex 8"),
        "fewer": (b"element vertex 7", b"element vertex 6"),
        "huge": (b"element vertex 7", b"element vertex 99999999999"),
        "negative": (b"element vertex 7", b"element vertex -7"),
        "none": (b"element vertex 7", b"element vertex 0"),
        "type": (b"property float x", b"property quaternion x"),
        "twice": (b"property float y", b"property float x"),
        "version": (b"binary_little_endian 1.0", b"binary_middle_endian 1.0"),
        "no format": (b"format binary_little_endian 1.0\n", b""),
        "orphan": (b"element vertex 7\n", b""),
        "no opacity": (b"property float opacity", b"property float transparency"),
        "rest": (b"property float f_rest_8\n", b"property float f_rest_9\n"),
        "less rest": (b"property float f_rest_8\n", b"property float rubbish\n"),
        "cloud": (b"element vertex 7", b"element point 7"),
        "list": (b"property float nx", b"property list uchar int nx"),
        "elements": (b"element vertex 7", b"element vertex 0\nproperty float a\nelement vertex 7"),
    }
    if what in replaced:
        assert replaced[what][0] in data
        return data.replace(*replaced[what])
    return {
        "cut": data[:-1],
        "in header": data[: len(head) // 2],
        "long": data + b"\x01",
        "text": head.replace(b"binary_little_endian", b"ascii") + b"end_header\n" + b"1 2 three " * 100,
        "short text": head.replace(b"binary_little_endian", b"ascii") + b"end_header\n1 2 3",
        "long text": head.replace(b"binary_little_endian", b"ascii") + b"end_header\n" + b"1 " * (7 * 26 + 2),
        "word": b"plywood" + body,
    }[what]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("count", "is damaged: 8 of element vertex need 832 bytes, 728 are left."),
        ("fewer", "is damaged: 104 bytes more than its header says."),
        ("huge", "is damaged: 99,999,999,999 of element vertex need 10,399,999,999,896 bytes, 728 are left."),
        ("negative", "is damaged: cannot make sense of the header line 'element vertex -7'."),
        ("none", "is damaged: 728 bytes more than its header says."),
        ("type", "is damaged: cannot make sense of the header line 'property quaternion x'."),
        ("twice", "is damaged: cannot make sense of the header line 'property float x'."),
        ("version", "is damaged: cannot make sense of the header line 'format binary_middle_endian 1.0'."),
        (
            "no format",
            "is damaged: its header names no format; expected one of ascii, binary_little_endian, binary_big_endian.",
        ),
        ("orphan", "is damaged: cannot make sense of the header line 'property float x'."),
        ("no opacity", ": expected Gaussians, got a PLY file without opacity."),
        ("rest", ": expected one of 0, 9, 24, 45 properties f_rest_0, f_rest_1 ..., got 9."),
        ("less rest", ": expected one of 0, 9, 24, 45 properties f_rest_0, f_rest_1 ..., got 8."),
        ("cloud", ": expected Gaussians, got a PLY file without an element vertex of numbers."),
        ("list", ": expected Gaussians, got a PLY file without an element vertex of numbers."),
        ("elements", "is damaged: two elements have the same name."),
        ("cut", "is damaged: 7 of element vertex need 728 bytes, 727 are left."),
        ("in header", "is damaged: its header has no end_header in the first 65,536 bytes."),
        ("long", "is damaged: 1 bytes more than its header says."),
        ("text", "is damaged: element vertex: could not convert string to float: 'three'."),
        ("short text", "is damaged: 7 of element vertex need 182 numbers, 3 are left."),
        ("long text", "is damaged: 2 numbers more than its header says."),
        ("word", ": expected a PLY file, which begins with 'ply', got something else."),
    ],
)
def test_damage_is_named_in_one_line(make, tmp_path, what, message):
    write_splats(make(7, 1), tmp_path / "a.ply")
    (tmp_path / "b.ply").write_bytes(damage((tmp_path / "a.ply").read_bytes(), what))
    with pytest.raises(InputError) as caught:
        read_splats(tmp_path / "b.ply")
    assert str(caught.value) == f"b.ply{'' if message.startswith(':') else ' '}{message}"


def test_no_gaussians(tmp_path):
    lines = [f"property float {name}" for name in NAMES]
    head = "\n".join(["ply", "format ascii 1.0", "element vertex 0", *lines, "end_header", ""])
    (tmp_path / "a.ply").write_text(head)
    with pytest.raises(InputError, match=r"^a\.ply: expected at least one Gaussian, got none\.$"):
        read_splats(tmp_path / "a.ply")


def test_plain_colour(tmp_path):
    """0.28 f_dc + 1/2 is the colour as it is shown."""
    one = Splats(
        torch.zeros(1, 3),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.ones(1, 3),
        torch.ones(1),
        torch.tensor([[[0.5, 0.0, -0.5]]]) / SH_C0,
    )
    write_splats(one, tmp_path / "a.ply")
    assert rows_of(tmp_path / "a.ply")["f_dc_0"][0] == pytest.approx(1.7724539)
