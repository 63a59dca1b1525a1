import gzip
import math
import struct
from dataclasses import replace

import pytest
import torch

from dream3d.checks import InputError
from dream3d.splat_files import read_splats, write_splats
from dream3d.splat_files.spz import decode_spz, encode_spz
from dream3d.types import Splats


def scalar_decoder(data):
    """One Gaussian after the other, number by number, from the published description alone."""
    raw = gzip.decompress(data)
    magic, version, number, degree, bits, flags, reserved = struct.unpack_from("<IIIBBBB", raw)
    assert (magic, flags, reserved) == (0x5053474E, 0, 0)
    at = 16
    rows = [{} for _ in range(number)]
    for row in rows:
        row["means"] = [
            int.from_bytes(raw[at + 3 * i : at + 3 * i + 3], "little", signed=True) / 2**bits for i in range(3)
        ]
        at += 9
    for row in rows:
        row["opacity"] = raw[at] / 255
        at += 1
    for row in rows:
        row["dc"] = [(value / 255 - 0.5) / 0.15 for value in raw[at : at + 3]]
        at += 3
    for row in rows:
        row["scales"] = [math.exp(value / 16 - 10) for value in raw[at : at + 3]]
        at += 3
    for row in rows:
        if version == 2:
            xyz = [value / 127.5 - 1 for value in raw[at : at + 3]]
            w = math.sqrt(max(0, 1 - sum(value * value for value in xyz)))
            length = math.hypot(*xyz, w)
            row["xyzw"] = [value / length for value in (*xyz, w)]
            at += 3
        else:
            (packed,) = struct.unpack_from("<I", raw, at)
            largest, row["xyzw"] = packed >> 30, [0.0] * 4
            for i in (3, 2, 1, 0):
                if i != largest:
                    size = math.sqrt(0.5) * (packed & 511) / 511
                    row["xyzw"][i] = -size if packed & 512 else size
                    packed >>= 10
            row["xyzw"][largest] = math.sqrt(1 - sum(value * value for value in row["xyzw"]))
            at += 4
    for row in rows:
        count = (degree + 1) ** 2 - 1
        row["rest"] = [[(raw[at + 3 * k + c] - 128) / 128 for c in range(3)] for k in range(count)]
        at += 3 * count
    assert at == len(raw)
    return rows


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_the_published_layout(make, version, degree):
    """Our bytes read by a decoder that shares nothing with ours, and both decoders agree."""
    splats = make(60, degree)
    data = encode_spz(splats, version=version)
    read = decode_spz(data, "a.spz")
    for i, row in enumerate(scalar_decoder(data)):
        assert read.means[i].tolist() == pytest.approx(row["means"], abs=1e-7)
        assert read.opacities[i].item() == pytest.approx(row["opacity"])
        assert read.sh[i, 0].tolist() == pytest.approx(row["dc"], rel=1e-5)
        assert read.scales[i].tolist() == pytest.approx(row["scales"])
        assert read.quaternions[i].tolist() == pytest.approx([row["xyzw"][j] for j in (3, 0, 1, 2)], abs=1e-6)
        assert [value for k in read.sh[i, 1:].tolist() for value in k] == sum(row["rest"], [])


@pytest.mark.parametrize(("version", "angle"), [(2, 0.24), (3, 0.004)])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_within_the_quantisation(make, turn, version, angle, degree):
    """Version 2 guesses w from bytes x, y, z: near w = 0 an error of sqrt(3) / 255 becomes its root in w."""
    splats = make(800, degree)
    splats = replace(splats, sh=torch.cat([splats.sh[:, :1].clamp(-3.3, 3.3), splats.sh[:, 1:].clamp(-1, 1)], dim=1))
    read = decode_spz(encode_spz(splats, version=version), "a.spz")
    assert (read.means - splats.means).abs().max() <= splats.means.abs().max() * 2.0**-16
    assert (read.scales.log() - splats.scales.log()).abs().max() <= 1 / 32 + 1e-5
    assert (read.opacities - splats.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (read.sh[:, 0] - splats.sh[:, 0]).abs().max() <= 0.5 / 255 / 0.15 + 1e-5
    assert turn(read.quaternions, splats.quaternions) < angle
    if degree:
        assert (read.sh[:, 1:4] - splats.sh[:, 1:4]).abs().max() <= 4.5 / 128
    if degree > 1:
        assert (read.sh[:, 4:] - splats.sh[:, 4:]).abs().max() <= 8.5 / 128


def one(**changes):
    rest = dict(
        means=torch.zeros(1, 3),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.ones(1, 3),
        opacities=torch.ones(1),
        sh=torch.zeros(1, 1, 3),
    )
    return Splats(**(rest | changes))


def test_bytes_of_a_gaussian_by_hand():
    splats = one(
        means=torch.tensor([[1.0, -1.0, 0.5]]),
        quaternions=torch.tensor([[-0.5, 0.5, -0.5, 0.5]]),
        scales=torch.tensor([[1.0, math.exp(-10), math.exp(-2)]]),
        opacities=torch.tensor([0.2]),
        sh=torch.tensor([[[0.0, 10, -10], [0.5, 0, -1], [0.06, -0.06, 1], [0, 0, 0]]]),
    )
    raw = gzip.decompress(encode_spz(splats))
    bits = 15  # 1 is less than 2^1, and 16 - 1 are left
    assert raw[:16] == struct.pack("<IIIBBBB", 0x5053474E, 3, 1, 1, bits, 0, 0)
    assert raw[16:25] == b"\x00\x80\x00" + b"\x00\x80\xff" + b"\x00\x40\x00"
    assert raw[25] == 51 and raw[26:29] == bytes([128, 255, 0]) and raw[29:32] == bytes([160, 0, 128])
    # All four are equally large: the first, x, is left out; it is positive, so y z w keep their signs - + -.
    size = round(511 * 0.5 / math.sqrt(0.5))
    assert raw[32:36] == struct.pack("<I", 0 << 30 | (512 + size) << 20 | size << 10 | (512 + size))
    assert list(raw[36:]) == [192, 128, 0, 136, 120, 255, 128, 128, 128]
    second = gzip.decompress(encode_spz(splats, version=2))
    # w must be positive: x y z turn around.
    assert second[4] == 2 and list(second[32:35]) == [64, 191, 64] and len(second) == len(raw) - 1


@pytest.mark.parametrize(
    ("largest", "bits"), [(1e-4, 20), (0.9, 16), (1.5, 15), (40.0, 12), (500.0, 12), (5000.0, 9), (4e6, 0)]
)
def test_the_point_moves_with_the_size(largest, bits):
    data = encode_spz(one(means=torch.tensor([[largest, -largest, 0]])))
    assert gzip.decompress(data)[13] == bits
    read = decode_spz(data, "a.spz").means
    assert (read - torch.tensor([[largest, -largest, 0]])).abs().max() <= 2.0 ** -(bits + 1)
    with pytest.raises(InputError, match=r"expected coordinates below 4,194,304 m, got 5e\+06\.$"):
        encode_spz(one(means=torch.full((1, 3), 5e6)))


def test_a_fraction_of_the_ply(make, tmp_path):
    for name in ("a.ply", "a.spz"):
        write_splats(make(2000), tmp_path / name)
    assert (tmp_path / "a.spz").stat().st_size < 0.2 * (tmp_path / "a.ply").stat().st_size


def rebuilt(data, **fields):
    """The same file with other fields of the header."""
    raw = gzip.decompress(data)
    keys = ("magic", "version", "number", "degree", "bits", "flags", "reserved")
    known = dict(zip(keys, struct.unpack_from("<4sIIBBBB", raw), strict=True)) | fields
    return gzip.compress(struct.pack("<4sIIBBBB", *(known[key] for key in keys)) + raw[16:], mtime=0)


def test_plain_streams_and_degree_four(make, tmp_path):
    splats = make(10, 3)
    data = encode_spz(splats)
    (tmp_path / "a.spz").write_bytes(gzip.decompress(data))
    assert torch.equal(read_splats(tmp_path / "a.spz").sh, decode_spz(data, "a").sh)
    raw = gzip.decompress(data)
    rest = raw[16 + 10 * 20 :]
    wide = b"".join(rest[45 * i : 45 * i + 45] + bytes(27) for i in range(10))
    longer = gzip.compress(raw[:12] + b"\x04" + raw[13 : 16 + 10 * 20] + wide)
    with pytest.warns(UserWarning, match=r"a\.spz: spherical harmonics of degree 4 are cut to degree 3"):
        assert torch.equal(decode_spz(longer, "a.spz").sh, decode_spz(data, "a").sh)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:-9], r"is damaged: 30 Gaussians need 870 bytes and a checksum, got \d+\.$"),
        (lambda d: d[:-4], r"is damaged: 30 Gaussians need 870 bytes and a checksum, got 870\.$"),
        (lambda d: d[:12], r": expected an SPZ file, got something else or less than its header\.$"),
        (lambda d: d[:-8] + b"\0\0\0\0" + d[-4:], r"is damaged: its gzip stream \(.*incorrect data check\)\.$"),
        (lambda d: b"\x1f\x8b" + d, r"is damaged: its gzip stream \(.*\)\.$"),
        (lambda d: rebuilt(d, magic=b"NOPE"), r": expected an SPZ file, got something else"),
        (lambda d: rebuilt(d, version=1), r": expected SPZ version 2 or 3, got 1\.$"),
        (lambda d: rebuilt(d, version=4), r": expected SPZ version 2 or 3, got 4\.$"),
        (lambda d: rebuilt(d, version=2), r"is damaged: 30 Gaussians need 840 bytes and a checksum, got more\.$"),
        (lambda d: rebuilt(d, number=0), r": expected at least one Gaussian, got none\.$"),
        (lambda d: rebuilt(d, number=29), r"is damaged: 29 Gaussians need 841 bytes and a checksum, got more\.$"),
        (lambda d: rebuilt(d, number=31), r"is damaged: 31 Gaussians need 899 bytes and a checksum, got 870\.$"),
        (lambda d: rebuilt(d, number=2**32 - 1), r": expected at most 10,000,000 Gaussians, got 4,294,967,295\.$"),
        (lambda d: rebuilt(d, degree=5), r"is damaged: SH degree 5 and \d+ fractional bits\.$"),
        (lambda d: rebuilt(d, bits=40), r"is damaged: SH degree 1 and 40 fractional bits\.$"),
        (lambda d: rebuilt(d, flags=2), r": expected an SPZ file without extensions, got flags 0x2\.$"),
    ],
)
def test_damage_is_named(make, tmp_path, change, message):
    (tmp_path / "a.spz").write_bytes(change(encode_spz(make(30, 1))))
    with pytest.raises(InputError, match=r"^a\.spz ?" + message) as caught:
        read_splats(tmp_path / "a.spz")
    assert "\n" not in str(caught.value)


def test_a_bomb_is_not_unpacked(make):
    """A kilobyte that grows to 64 megabytes: no more than the header asks for is ever held."""
    raw = gzip.decompress(encode_spz(make(2, 0))) + bytes(1 << 26)
    with pytest.raises(InputError, match=r"2 Gaussians need 40 bytes and a checksum, got more\.$"):
        decode_spz(gzip.compress(raw), "a.spz")
