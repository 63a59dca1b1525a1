import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from dream3d.checks import InputError
from dream3d.splat_files import read_splats, write_splats
from dream3d.splat_files.base import SH_C0

CHUNK_FIELDS = (
    "min_x min_y min_z max_x max_y max_z min_scale_x min_scale_y min_scale_z max_scale_x max_scale_y max_scale_z "
    "min_r min_g min_b max_r max_g max_b"
).split()
PACKED = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]


def header(number, chunk_fields=CHUNK_FIELDS, rest=0, chunks=None):
    lines = ["ply", "format binary_little_endian 1.0", f"element chunk {chunks or -(-number // 256)}"]
    lines += [f"property float {field}" for field in chunk_fields]
    lines += [f"element vertex {number}", *(f"property uint {field}" for field in PACKED)]
    if rest:
        lines += [f"element sh {number}", *(f"property uchar f_rest_{i}" for i in range(rest))]
    return "\n".join([*lines, "end_header", ""]).encode()


def in_order(splats, read):
    """The index that brings `splats` into the order of the file; positions are near enough to tell them apart."""
    return torch.cdist(read.means, splats.means).argmin(dim=1)


@pytest.mark.parametrize("number", [1, 255, 256, 257, 700])
@pytest.mark.parametrize("degree", [0, 2, 3])
def test_round_trip_within_the_quantisation(make, turn, tmp_path, number, degree):
    splats = make(number, degree)
    write_splats(splats, tmp_path / "a.compressed.ply")
    read = read_splats(tmp_path / "a.compressed.ply")
    index = in_order(splats, read)
    assert sorted(index.tolist()) == list(range(number))
    width = splats.means.amax(0) - splats.means.amin(0)
    steps = width / torch.tensor([2047, 1023, 2047])
    assert ((read.means - splats.means[index]).abs() <= 0.5 * steps + 1e-6).all()
    logs, original = read.scales.log(), splats.scales[index].log()
    steps = (original.amax(0) - original.amin(0)) / torch.tensor([2047, 1023, 2047])
    assert ((logs - original).abs() <= 0.5 * steps + 1e-5).all()
    assert (read.opacities - splats.opacities[index]).abs().max() <= 0.5 / 255 + 1e-6
    colors = splats.sh[:, 0]
    steps = (colors.amax(0) - colors.amin(0)) / 255
    assert ((read.sh[:, 0] - colors[index]).abs() <= 0.5 * steps + 1e-5).all()
    assert turn(read.quaternions, splats.quaternions[index]) < 0.005
    assert read.sh.shape == splats.sh.shape
    if degree:
        assert (read.sh[:, 1:] - splats.sh[index, 1:]).abs().max() <= 1 / 64 + 1e-6


def test_neighbours_share_a_chunk(make, tmp_path):
    """The order is what makes 11 bits enough: bounds of a chunk are much smaller than those of everything."""
    write_splats(make(4096, 0), tmp_path / "a.compressed.ply")
    body = (tmp_path / "a.compressed.ply").read_bytes().partition(b"end_header\n")[2]
    chunks = np.frombuffer(body, "<f4", 16 * 18).reshape(16, 18)
    sizes = (chunks[:, 3:6] - chunks[:, :3]).prod(axis=1)
    assert sizes.mean() < 0.25 * np.prod(chunks[:, 3:6].max(0) - chunks[:, :3].min(0))


def test_a_gaussian_packed_by_hand(tmp_path):
    """x y z are 11, 10 and 11 bits from the top; the largest entry of w x y z is left out, the others in 10 bits."""
    bounds = [-1, 0, 2, 1, 4, 2, -3, -3, -3, -1, -1, -1, 0, 0.25, 0.5, 1, 0.75, 0.5]
    row = [
        2047 << 21 | 0 << 11 | 1024,
        2 << 30 | 1023 << 20 | 512 << 10 | 0,
        0 << 21 | 1023 << 11 | 2047,
        255 << 24 | 0 << 16 | 7 << 8 | 51,
    ]
    levels = [0, 255, 128, 1, 2, 3, 4, 5, 6]
    data = header(1, rest=9) + struct.pack("<18f4I9B", *bounds, *row, *levels)
    (tmp_path / "a.ply").write_bytes(data)
    read = read_splats(tmp_path / "a.ply")
    assert read.means.tolist() == [[1, 0, 2]]
    torch.testing.assert_close(read.scales.log(), torch.tensor([[-3.0, -1.0, -1.0]]))
    expected = torch.tensor([[2**-0.5, 2**-0.5 / 1023, 0, -(2**-0.5)]])
    torch.testing.assert_close(read.quaternions, expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(0.5 + SH_C0 * read.sh[:, 0], torch.tensor([[1.0, 0.25, 0.5]]))
    assert read.opacities.tolist() == pytest.approx([0.2])
    assert read.sh[0, 1:, 0].tolist() == [-4, 4, 1 / 64]
    assert read.sh[0, 1, 1].item() == (1.5 / 256 - 0.5) * 8
    # Files of the first kind have no bounds of colour.
    older = header(1, CHUNK_FIELDS[:12]) + struct.pack("<12f4I", *bounds[:12], *row)
    (tmp_path / "b.ply").write_bytes(older)
    read = read_splats(tmp_path / "b.ply")
    torch.testing.assert_close(0.5 + SH_C0 * read.sh[:, 0], torch.tensor([[1.0, 0.0, 7 / 255]]))


@pytest.mark.parametrize("degree", [1, 3])
def test_a_file_of_gsplat_reads_as_ours_does(make, as_gsplat, turn, tmp_path, degree):
    from gsplat.exporter import export_splats

    splats = replace(make(600, degree), opacities=torch.linspace(0.01, 0.99, 600))
    export_splats(**as_gsplat(splats), format="ply_compressed", save_to=str(tmp_path / "theirs.ply"))
    read = read_splats(tmp_path / "theirs.ply")
    index = in_order(splats, read)
    assert sorted(index.tolist()) == list(range(600))
    assert (read.means - splats.means[index]).abs().max() < 2e-3
    assert (read.opacities - splats.opacities[index]).abs().max() <= 0.5 / 255 + 1e-6
    assert turn(read.quaternions, splats.quaternions[index]) < 0.005
    assert (read.sh[:, 1:] - splats.sh[index, 1:]).abs().max() <= 1 / 64 + 1e-6
    write_splats(splats, tmp_path / "ours.compressed.ply")
    theirs, ours = ((tmp_path / name).read_bytes() for name in ("theirs.ply", "ours.compressed.ply"))
    # Both headers name the same elements and properties in the same order, and both bodies are equally long.
    lines = [
        [x for x in data.partition(b"end_header")[0].splitlines() if b"comment" not in x] for data in (theirs, ours)
    ]
    assert lines[0] == lines[1]
    assert len(theirs.partition(b"end_header\n")[2]) == len(ours.partition(b"end_header\n")[2])


def test_equal_values_in_a_chunk(make, tmp_path):
    splats = make(300, 0)
    flat = replace(splats, means=splats.means * torch.tensor([1.0, 0, 1]), scales=torch.full((300, 3), 0.01))
    write_splats(flat, tmp_path / "a.compressed.ply")
    read = read_splats(tmp_path / "a.compressed.ply")
    assert not read.means[:, 1].any()
    torch.testing.assert_close(read.scales, flat.scales)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"element chunk 2", b"element chunk 1"), "is damaged: 72 bytes more than its header says."),
        ((b"uint packed_scale", b"float packed_scale"), "is damaged: element vertex has no packed_scale of type u4."),
        ((b"packed_color", b"packed_colour"), "is damaged: element vertex has no packed_color of type u4."),
        ((b"float max_scale_z", b"float biggest"), "is damaged: element chunk has no max_scale_z of type f4."),
        ((b"element chunk", b"element lump"), "is damaged: packed Gaussians without an element chunk."),
        ((b"uchar f_rest_8", b"uchar f_rest_9"), "is damaged: element sh has no f_rest_8 of type u1."),
    ],
)
def test_damage_is_named(make, tmp_path, change, message):
    write_splats(make(300, 1), tmp_path / "a.compressed.ply")
    data = (tmp_path / "a.compressed.ply").read_bytes()
    assert change[0] in data
    (tmp_path / "b.ply").write_bytes(data.replace(*change))
    with pytest.raises(InputError, match=message.replace(".", r"\.")) as caught:
        read_splats(tmp_path / "b.ply")
    assert "\n" not in str(caught.value)


def test_counts_must_agree(tmp_path):
    row, bounds = bytes(16), bytes(72)
    for number, chunks, rest, body, message in (
        (257, 1, 0, bounds + 257 * row, r"257 Gaussians need 2 chunks, got 1\.$"),
        (2, 2, 0, 2 * bounds + 2 * row, r"2 Gaussians need 1 chunks, got 2\.$"),
        (2, 1, 6, bounds + 2 * row + bytes(12), r"expected 9, 24 or 45 properties of element sh, got 6\.$"),
    ):
        (tmp_path / "a.ply").write_bytes(header(number, rest=rest, chunks=chunks) + body)
        with pytest.raises(InputError, match=message):
            read_splats(tmp_path / "a.ply")
    data = header(2, rest=9).replace(b"element sh 2", b"element sh 1") + bounds + 2 * row + bytes(9)
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged: 2 Gaussians, but spherical harmonics for 1\.$"):
        read_splats(tmp_path / "a.ply")
