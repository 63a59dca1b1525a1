"""Read a USDZ with Pixar's own library, check it, and say what is in it: FILE.usdz. Needs usd-core (see README.md)."""

import json
import sys

from pxr import Usd, UsdGeom, UsdShade, UsdValidation


def main():
    path = sys.argv[1]
    stage = Usd.Stage.Open(path)
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    found = UsdValidation.ValidationContext(validators).Validate(stage)
    print(f"{len(validators)} validators, {len(found)} findings")
    for one in found:
        print(" ", one.GetType(), one.GetName(), one.GetMessage())
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
