"""The package, and the build of its CPU kernels: no torch, no CUDA, and no failure where there is no compiler.

A wheel carries `configs/` and `custom_cuda/` inside the package (as dream3d/configs and dream3d/custom_cuda); in a
checkout and in an editable install they stand beside it. Code looks inside first, then beside.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
BESIDE = {"configs": "*.yaml", "configs/layouts": "*.yaml", "custom_cuda": "*.[hc]*"}

CORE = [
    "torch>=2.4",
    "numpy",
    "pillow",
    "imageio",
    "av",
    "diffusers>=0.30",
    "transformers>=4.44",
    "huggingface-hub",
    "safetensors",
    "peft",
    "pytorch-lightning>=2.4",
    "nerfacc",
    "gsplat",
    "trimesh",
    "xatlas",
    "fast-simplification",
    "scikit-image",
    "scipy",
    "jsonargparse[signatures]>=4.49",
    "rich>=13.8,<15",
    "jaxtyping",
]
TEST = ["pytest>=8", "beartype", "pygltflib", "packaging", "embreex", "viser"]
EXTRAS = {
    "t5": ["sentencepiece", "protobuf"],
    "viewer": ["viser"],
    "mesh": ["manifold3d", "embreex"],
    "eval": ["mitsuba"],
    "cluster": ["ray"],
    "test": TEST,
    "dev": [*TEST, "ruff", "pyright[nodejs]"],
}


def kernel_compiler() -> ModuleType:
    """dream3d/kernels/compile.py by its path: the package itself needs torch, which a build has not."""
    spec = importlib.util.spec_from_file_location("dream3d_compile", ROOT / "dream3d" / "kernels" / "compile.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("dream3d/kernels/compile.py is not beside setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildKernels(build_ext):
    """Compiles the CPU kernels: into the wheel, or into the checkout when the install is editable."""

    def run(self) -> None:
        compiler = kernel_compiler()
        try:
            self._built = compiler.build_installed(self._folder())
        except compiler.CompileError as error:
            self._built = []
            sys.stderr.write(
                f"warning: dream3d: {error}; installing without CPU kernels. Plain torch will serve, several times "
                "slower; a C++ compiler that is installed later is found at the first run.\n"
            )

    def _folder(self) -> Path:
        base = ROOT if self.inplace or self.editable_mode else Path(self.build_lib)
        return base / "dream3d" / "kernels" / "lib"

    # setuptools asks these about extension modules, of which there are none.
    def get_outputs(self) -> list[str]:
        return [str(path) for path in getattr(self, "_built", [])]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return []


class BuildPackage(build_py):
    """Copies into a wheel what stands beside the package in the repository."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name, pattern in BESIDE.items():
            target = Path(self.build_lib) / "dream3d" / name
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted((ROOT / name).glob(pattern)):
                shutil.copy2(path, target / path.name)


class Wheel(bdist_wheel):
    """One wheel for every Python 3 of a platform: the kernels are loaded by ctypes and know no Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    """Has compiled parts, although none is a Python extension: this is what makes setuptools run build_ext."""

    def has_ext_modules(self) -> bool:
        return True


def version() -> str:
    found = re.search(r'^__version__ = "(.+)"', (ROOT / "dream3d" / "__init__.py").read_text(encoding="utf-8"), re.M)
    if found is None:
        raise ValueError("dream3d/__init__.py has no __version__")
    return found[1]


setup(
    name="dream3d",
    version=version(),
    description="Text to 3D by score distillation: any prior, any objective, any representation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=find_packages(include=["dream3d", "dream3d.*", "threestudio_ext", "threestudio_ext.*"]),
    package_data={"dream3d": ["py.typed", "priors/weights/**", "evaluation/weights/**", "report/parts/*"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["dream3d = dream3d.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Graphics :: 3D Modeling",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
    distclass=PlatformDistribution,
    cmdclass={"build_ext": BuildKernels, "build_py": BuildPackage, "bdist_wheel": Wheel},
)
