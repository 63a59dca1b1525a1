"""What a format loses, in decibels: the same cameras see what was written and what was read."""

import pytest

from dream3d.cameras import turntable
from dream3d.kernels.splat_reference import composite_splats, project_splats, splat_colours
from dream3d.splat_files import read_splats, write_splats


def pictures(splats):
    cameras = turntable(3, 64)
    projected = project_splats(splats.means, splats.quaternions, splats.scales, splats.opacities, cameras)
    return composite_splats(projected, viewed=splat_colours(splats.means, splats.sh, cameras)).features


def psnr(a, b):
    return float(-10 * (a - b).square().mean().log10())


@pytest.mark.parametrize(
    ("ending", "degree", "least"),
    [(".ply", 3, 90), (".compressed.ply", 3, 40), (".spz", 3, 40), (".splat", 0, 40), (".compressed.ply", 0, 40)],
)
@pytest.mark.parametrize("axes", ["opengl", "opencv"])
def test_ours(make, tmp_path, ending, degree, least, axes):
    splats = make(300, degree)
    write_splats(splats, tmp_path / f"a{ending}", axes=axes)
    read = read_splats(tmp_path / f"a{ending}", axes=None if ending == ".spz" else axes)
    assert psnr(pictures(read), pictures(splats)) > least


@pytest.mark.parametrize(("form", "ending", "least"), [("ply", ".ply", 90), ("ply_compressed", ".ply", 40)])
def test_those_of_gsplat(make, as_gsplat, tmp_path, form, ending, least):
    from gsplat.exporter import export_splats

    splats = make(300, 3)
    export_splats(**as_gsplat(splats), format=form, save_to=str(tmp_path / f"a{ending}"))
    assert psnr(pictures(read_splats(tmp_path / f"a{ending}")), pictures(splats)) > least
