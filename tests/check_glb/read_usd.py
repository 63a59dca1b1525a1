"""Read a USDZ with Pixar's own library, check it, and say what is in it: FILE.usdz. Needs usd-core (see README.md)."""

import json
import sys

from pxr import Usd, UsdGeom, UsdShade, UsdUtils


def main():
    path = sys.argv[1]
    checker = UsdUtils.ComplianceChecker(arkit=True, skipARKitRootLayerCheck=False)
    checker.CheckCompliance(path)
    for kind in ("Errors", "FailedChecks", "Warnings"):
        print(kind, json.dumps(getattr(checker, f"Get{kind}")(), indent=1))
    stage = Usd.Stage.Open(path)
    print(json.dumps(dict(stage.GetRootLayer().customLayerData)))
    print("up", UsdGeom.GetStageUpAxis(stage), "metres", UsdGeom.GetStageMetersPerUnit(stage))
    for prim in stage.Traverse():
        print(prim.GetPath(), prim.GetTypeName())
        if prim.IsA(UsdGeom.Mesh):
            mesh = UsdGeom.Mesh(prim)
            st = UsdGeom.PrimvarsAPI(prim).GetPrimvar("st")
            points, faces = mesh.GetPointsAttr().Get(), mesh.GetFaceVertexCountsAttr().Get()
            print(len(faces), "faces", len(points), "points", len(st.ComputeFlattened()), "st", st.GetInterpolation())
            print("extent", mesh.GetExtentAttr().Get(), "valid", UsdGeom.Mesh.ValidateTopology(
                mesh.GetFaceVertexIndicesAttr().Get(), faces, len(points)))  # fmt: skip
            print("bound to", UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()[0].GetPath())
        shader = UsdShade.Shader(prim)
        if shader and shader.GetInput("file"):
            print(
                "  file", shader.GetInput("file").Get().path, "found:", bool(shader.GetInput("file").Get().resolvedPath)
            )


if __name__ == "__main__":
    main()
