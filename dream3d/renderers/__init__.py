"""Renderers: how a representation is drawn."""

from dream3d.renderers.base import Renderer as Renderer
from dream3d.renderers.each import Each as Each
from dream3d.renderers.focus import Focus as Focus
from dream3d.renderers.march import March as March
from dream3d.renderers.plane import Plane as Plane
from dream3d.renderers.raster import Raster as Raster
from dream3d.renderers.splat import Splat as Splat
