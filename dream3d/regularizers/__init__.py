"""Named scalar losses of a rendering or its representation."""

from dream3d.regularizers.base import Regularizer as Regularizer
from dream3d.regularizers.materials import MaterialEntropy as MaterialEntropy
from dream3d.regularizers.materials import PlausibleAlbedo as PlausibleAlbedo
from dream3d.regularizers.materials import SmoothAlbedo as SmoothAlbedo
from dream3d.regularizers.pictures import DepthNormal as DepthNormal
from dream3d.regularizers.pictures import Distortion as Distortion
from dream3d.regularizers.pictures import Flatness as Flatness
from dream3d.regularizers.pictures import Opaque as Opaque
from dream3d.regularizers.pictures import Orientation as Orientation
from dream3d.regularizers.pictures import SampleOrientation as SampleOrientation
from dream3d.regularizers.pictures import Smooth as Smooth
from dream3d.regularizers.pictures import Sparsity as Sparsity
from dream3d.regularizers.splats import Inside as Inside
from dream3d.regularizers.splats import OpacityL1 as OpacityL1
from dream3d.regularizers.splats import ScaleL1 as ScaleL1
from dream3d.regularizers.triangles import EdgeLength as EdgeLength
from dream3d.regularizers.triangles import Laplacian as Laplacian
from dream3d.regularizers.triangles import NormalConsistency as NormalConsistency
from dream3d.regularizers.triangles import SignChanges as SignChanges
from dream3d.regularizers.triangles import Spread as Spread
from dream3d.regularizers.volumes import Curvature as Curvature
from dream3d.regularizers.volumes import Eikonal as Eikonal
from dream3d.regularizers.volumes import SketchShape as SketchShape
