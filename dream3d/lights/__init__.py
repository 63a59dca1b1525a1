"""Lights: what shines on a surface, and who chooses it. All linear; directions and positions in world space."""

from dream3d.lights.base import Light as Light
from dream3d.lights.base import LightSampler as LightSampler
from dream3d.lights.environment import Environment as Environment
from dream3d.lights.environment import prefiltered as prefiltered
from dream3d.lights.hdr import read_hdr as read_hdr
from dream3d.lights.hdr import write_hdr as write_hdr
from dream3d.lights.panoramas import Even as Even
from dream3d.lights.panoramas import HDRFile as HDRFile
from dream3d.lights.panoramas import Panorama as Panorama
from dream3d.lights.panoramas import Sky as Sky
from dream3d.lights.panoramas import Studio as Studio
from dream3d.lights.point import PointLight as PointLight
from dream3d.lights.point import ShadingSwitch as ShadingSwitch
from dream3d.lights.surroundings import Surroundings as Surroundings
from dream3d.lights.surroundings import about_y as about_y
