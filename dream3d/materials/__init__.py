"""Materials: how a point of a surface gets its colour from its inputs and a light."""

from dream3d.materials.base import Channel as Channel
from dream3d.materials.base import Material as Material
from dream3d.materials.base import Points as Points
from dream3d.materials.lambert import Lambert as Lambert
from dream3d.materials.monte_carlo import MonteCarlo as MonteCarlo
from dream3d.materials.normal_map import NormalMap as NormalMap
from dream3d.materials.normals import facing as facing
from dream3d.materials.normals import gradient_bump as gradient_bump
from dream3d.materials.normals import tangent_space as tangent_space
from dream3d.materials.pbr import PBR as PBR
from dream3d.materials.plain import Plain as Plain
