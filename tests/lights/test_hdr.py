"""Radiance pictures: round trips, run lengths, and what strangers send."""

import numpy as np
import pytest
import torch

from dream3d.checks import InputError
from dream3d.lights.hdr import decode_hdr, encode_hdr, read_hdr, write_hdr

HEAD = b"#?RADIANCE\n# a comment\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 8\n"


def row(*channels):
    return b"\x02\x02\x00\x08" + b"".join(channels)


SAME = b"\x88\x40"  # 8 times 0x40
MIXED = b"\x03\x01\x02\x03\x85\x09"  # 1 2 3 and 5 times 9
GOOD = HEAD + row(SAME, MIXED, SAME, b"\x88\x81") + row(MIXED, SAME, SAME, b"\x88\x80")


def test_round_trip(tmp_path):
    radiance = 10 ** (torch.rand(16, 32, 3) * 8 - 4)
    radiance[0, 0] = 0
    write_hdr(tmp_path / "a.hdr", radiance)
    back = read_hdr(tmp_path / "a.hdr")
    largest = radiance.amax(-1, keepdim=True)
    assert ((back - radiance).abs() <= largest / 255).all()
    assert encode_hdr(back) == (tmp_path / "a.hdr").read_bytes()
    assert torch.equal(decode_hdr(encode_hdr(back)), back)


def test_mantissas_that_round_up_take_the_next_exponent():
    assert decode_hdr(encode_hdr(torch.full((1, 1, 3), 255.9))).unique().tolist() == [256.0]


def test_run_lengths():
    picture = decode_hdr(GOOD)
    assert picture.shape == (2, 8, 3)
    assert picture[0, :, 1].tolist() == [v * 2 ** (0x81 - 136) for v in (1, 2, 3, 9, 9, 9, 9, 9)]
    assert picture[1, 7].tolist() == [9 / 256, 64 / 256, 64 / 256]


def test_exposure_is_divided_out():
    halved = GOOD.replace(b"# a comment", b"EXPOSURE=0.5")
    assert torch.equal(decode_hdr(halved), 2 * decode_hdr(GOOD))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected a Radiance picture"),
        (b"\x89PNG....", "expected a Radiance picture"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "header does not end"),
        (GOOD.replace(b"rgbe", b"xyze"), "got 32-bit_rle_xyze"),
        (GOOD.replace(b"-Y 2", b"+Y 2"), "expected a size"),
        (GOOD.replace(b"-Y 2", b"-Y 0"), "expected 1 to"),
        (GOOD.replace(b"-Y 2", b"-Y 999999").replace(b"+X 8", b"+X 999999"), "expected 1 to"),
        (GOOD.replace(b"-Y 2", b"-Y 9000"), "too few"),
        (GOOD.replace(b"# a comment", b"EXPOSURE=much"), "EXPOSURE=much"),
        (GOOD.replace(b"# a comment", b"EXPOSURE=0"), "exposure of 0"),
        (GOOD[:-3], "too few|ends in row 1|does not fit"),
        (GOOD.replace(MIXED, b"\x00\x01\x02\x03\x85\x09"), "a run of 0"),
        (GOOD.replace(SAME, b"\x89\x40"), "a run of 9 does not fit in row 0"),
        (GOOD[: len(HEAD)] + b"\x02\x02\x00\x09" + GOOD[len(HEAD) + 4 :], "row 0 has no beginning"),
        (encode_hdr(torch.ones(4, 8, 3))[:-1], "127 bytes of 128"),
    ],
)
def test_damage_is_one_line(data, words):
    with pytest.raises(InputError, match=words) as caught:
        decode_hdr(data, name="sky.hdr")
    assert str(caught.value).startswith("sky.hdr") and "\n" not in str(caught.value)


def test_cut_and_flipped_files_never_crash():
    noise = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(GOOD)
        for _ in range(3):
            data[noise.integers(len(data))] = noise.integers(256)
        try:
            decode_hdr(bytes(data[: noise.integers(len(data) + 1)]))
        except InputError as error:
            assert "\n" not in str(error)


def test_what_cannot_be_read_or_written(tmp_path, as_users_run):
    with pytest.raises(InputError, match="cannot be read"):
        read_hdr(tmp_path / "none.hdr")
    for bad in (torch.full((2, 2, 3), -1.0), torch.full((2, 2, 3), torch.nan), torch.ones(2, 2)):
        with pytest.raises(InputError, match="expected"):
            encode_hdr(bad)
