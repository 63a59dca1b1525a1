"""The live viewer: a page of this machine that shows a run while it goes on, or a file, and that takes requests."""

from dream3d.viewer.server import Viewer as Viewer
