"""Gaussian splats on disk: 3DGS PLY, compressed PLY, .splat, SPZ, and GLB (written only)."""

from dream3d.splat_files.base import Axes as Axes
from dream3d.splat_files.files import read_splats as read_splats
from dream3d.splat_files.files import write_splats as write_splats
