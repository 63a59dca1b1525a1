import struct

import pytest
import torch

from dream3d.checks import InputError
from dream3d.splat_files import read_splats, write_splats
from dream3d.splat_files.base import SH_C0


def test_a_gaussian_packed_by_hand(tmp_path):
    row = struct.pack("<6f8B", 1, -2, 3, 0.1, 0.2, 0.3, 255, 0, 51, 204, 128, 192, 128, 128 - 64)
    (tmp_path / "a.splat").write_bytes(row)
    read = read_splats(tmp_path / "a.splat")
    assert read.means.tolist() == [[1, -2, 3]] and read.scales[0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    torch.testing.assert_close(0.5 + SH_C0 * read.sh[0], torch.tensor([[1, 0, 0.2]]))
    assert read.opacities.tolist() == pytest.approx([0.8])
    torch.testing.assert_close(read.quaternions, torch.tensor([[0, 2**-0.5, 0, -(2**-0.5)]]))
    write_splats(read, tmp_path / "b.splat")
    assert (tmp_path / "b.splat").read_bytes()[:28] == row[:28]


def test_round_trip_within_the_quantisation(make, turn, tmp_path):
    splats = make(500, 2)
    write_splats(splats, tmp_path / "a.splat")
    assert (tmp_path / "a.splat").stat().st_size == 500 * 32
    read = read_splats(tmp_path / "a.splat")
    weight = splats.scales.double().prod(dim=1) * splats.opacities.double()
    index = weight.argsort(descending=True, stable=True)
    assert torch.equal(read.means, splats.means[index]) and torch.equal(read.scales, splats.scales[index])
    assert (read.opacities - splats.opacities[index]).abs().max() <= 0.5 / 255 + 1e-6
    colors = (0.5 + SH_C0 * splats.sh[index, 0]).clamp(0, 1)
    assert (0.5 + SH_C0 * read.sh[:, 0] - colors).abs().max() <= 0.5 / 255 + 1e-6
    assert turn(read.quaternions, splats.quaternions[index]) < 0.02 and read.sh.shape[1] == 1


def test_a_file_of_gsplat_reads_the_same(make, as_gsplat, turn, tmp_path):
    from gsplat.exporter import export_splats

    splats = make(200, 1)
    export_splats(**as_gsplat(splats), format="splat", save_to=str(tmp_path / "theirs.splat"))
    read = read_splats(tmp_path / "theirs.splat")
    index = torch.cdist(read.means, splats.means).argmin(dim=1)
    assert torch.equal(read.means, splats.means[index])
    torch.testing.assert_close(read.scales, splats.scales[index])
    # gsplat cuts where we round.
    assert (read.opacities - splats.opacities[index]).abs().max() <= 1 / 255 + 1e-6
    assert turn(read.quaternions, splats.quaternions[index]) < 0.04


def test_opencv_axes(make, tmp_path):
    splats = make(9, 0)
    write_splats(splats, tmp_path / "a.splat", axes="opencv")
    assert (tmp_path / "a.splat").read_bytes() != b""
    here, there = read_splats(tmp_path / "a.splat", axes="opencv"), read_splats(tmp_path / "a.splat")
    assert torch.equal(here.means, there.means * torch.tensor([1.0, -1, -1]))
    assert set(map(tuple, here.means.tolist())) == set(map(tuple, splats.means.tolist()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"^a\.splat: expected at least one Gaussian, got none\.$"),
        (bytes(33), r"^a\.splat is damaged: expected a multiple of 32 bytes, got 33\.$"),
        (struct.pack("<6f8x", 0, 0, 0, -1, 1, 1), r"^a\.splat is damaged: 1 of 1 scales are negative\.$"),
        (struct.pack("<6f8x", float("nan"), 0, 0, 1, 1, 1), r"^a\.splat: expected Gaussians of finite numbers"),
    ],
)
def test_damage_is_named(tmp_path, data, message):
    (tmp_path / "a.splat").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_splats(tmp_path / "a.splat")
