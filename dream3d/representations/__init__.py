"""Representations: what is being optimised."""

from dream3d.representations.base import Representation as Representation
from dream3d.representations.base import Surfaced as Surfaced
from dream3d.representations.base import Volume as Volume
from dream3d.representations.field import Field as Field
from dream3d.representations.gaussians import Gaussians as Gaussians
from dream3d.representations.image import Image as Image
from dream3d.representations.particles import Particles as Particles
from dream3d.representations.sdf import SDFField as SDFField
from dream3d.representations.shell import Shell as Shell
from dream3d.representations.tets import Tets as Tets
from dream3d.representations.textured import Textured as Textured
