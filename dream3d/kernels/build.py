"""Find, compile and load the kernel libraries. Whatever goes wrong, the answer is None and one line in the log."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Callable
from pathlib import Path

import torch  # before any library: the kernels must find torch's OpenMP runtime loaded and share its threads
from torch import Tensor

from dream3d.kernels import compile as compiler
from dream3d.kernels.compile import CompileError
from dream3d.kernels.types import HashGridSpec

log = logging.getLogger("dream3d.kernels")

ABI = 3
"""Must be D3D_ABI of custom_cuda/common.h."""
MOST_LEVELS = 32
PACKAGED = Path(__file__).parent / "lib"

Argument = Tensor | ctypes.Structure | ctypes.Array | float | int | None
"""What a kernel can be given."""

_pointer, _int32, _int64, _double = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_double
_SPLATS = (_pointer, _int64, _int64, _int32, _int32)  # stream, cameras, Gaussians, width, height
_MESH = (_pointer, _int64, _int64, _int64, _int32, _int32)  # stream, cameras, vertices, faces, width, height
_TABLE = (_pointer, _int64, _int64, _int64, _int32, _int32)  # stream, cameras, pixels, rows, channels, per camera
_TEXTURE = (_pointer, _int64, _int32, _int32, _int32)  # stream, pixels, levels, channels, wrap
# Declared one by one: ctypes would pass a bare Python int as 32 bits where 64 are read.
SIGNATURES: dict[str, tuple[type, ...]] = {
    "d3d_hash_grid": (_pointer, _pointer, _int64, *[_pointer] * 3),
    "d3d_hash_grid_backward": (_pointer, _pointer, _int64, *[_pointer] * 5),
    "d3d_march": (
        *(_pointer, _int64, *[_pointer] * 4, _int32, _pointer, _double, _double, _double, _int32),
        *[_pointer] * 6,
    ),
    "d3d_composite": (_pointer, _int64, *[_pointer] * 5, _double, *[_pointer] * 4),
    "d3d_composite_backward": (_pointer, _int64, *[_pointer] * 5, _double, *[_pointer] * 10),
    "d3d_splat_project": (*_SPLATS, *[_double] * 4, _int32, *[_pointer] * 13),
    "d3d_splat_project_backward": (*_SPLATS, *[_double] * 4, _int32, *[_pointer] * 16),
    "d3d_splat_colours": (_pointer, _int64, _int64, _int32, _int32, *[_pointer] * 4),
    "d3d_splat_colours_backward": (_pointer, _int64, _int64, _int32, _int32, *[_pointer] * 7),
    "d3d_splat_bin": (*_SPLATS, _int64, *[_pointer] * 8),
    "d3d_splat_composite": (*_SPLATS, _double, _double, *[_pointer] * 8, _int32, _int32, *[_pointer] * 3),
    "d3d_splat_composite_backward": (*_SPLATS, _double, _double, *[_pointer] * 8, _int32, _int32, *[_pointer] * 13),
    "d3d_mesh_project": (_pointer, _int64, _int64, *[_pointer] * 3),
    "d3d_mesh_project_backward": (_pointer, _int64, _int64, *[_pointer] * 3),
    "d3d_mesh_rasterise": (*_MESH, _double, _double, *[_pointer] * 7),
    "d3d_mesh_rasterise_backward": (*_MESH, *[_pointer] * 7),
    "d3d_mesh_interpolate": (*_TABLE, *[_pointer] * 5),
    "d3d_mesh_interpolate_backward": (*_TABLE, *[_pointer] * 7),
    "d3d_mesh_mip_levels": (*_MESH, *[_pointer] * 5, _int32, _int32, _pointer),
    "d3d_mesh_silhouettes": (*_MESH, *[_pointer] * 5, _int32, _pointer, _pointer),
    "d3d_mesh_antialias": (*_MESH, _pointer, _pointer, _int64, _int32, *[_pointer] * 5),
    "d3d_mesh_antialias_backward": (*_MESH, _pointer, _pointer, _int64, _int32, *[_pointer] * 7),
    "d3d_mesh_texture": (*_TEXTURE, *[_pointer] * 5),
    "d3d_mesh_texture_backward": (*_TEXTURE, *[_pointer] * 5, _int64, _pointer, _pointer),
}


class _HashGrid(ctypes.Structure):
    """`struct HashGrid` of custom_cuda/hash_grid.h."""

    _fields_ = [
        ("levels", _int32),
        *((name, ctypes.c_uint32 * MOST_LEVELS) for name in ("resolution", "offset", "size", "hashed")),
    ]


@functools.lru_cache(maxsize=64)
def hash_grid_struct(spec: HashGridSpec) -> _HashGrid:
    """The specification as the kernels read it."""
    columns = (spec.resolutions, spec.offsets, spec.sizes, tuple(map(int, spec.hashed)))
    return _HashGrid(spec.levels, *((ctypes.c_uint32 * MOST_LEVELS)(*column) for column in columns))


class Library:
    """A loaded kernel library.

    Args:
        path: the shared library.
        device_type: "cpu" or "cuda".
        level: instruction-set level of a CPU library, compute capability (90 for 9.0) of a CUDA one.

    Raises:
        OSError: it cannot be loaded, or is not the library that this code was written for.
    """

    def __init__(self, path: Path, *, device_type: str, level: int = 0) -> None:
        self.path, self.device_type, self.level = path, device_type, level
        self._handle = ctypes.CDLL(str(path))
        try:
            abi = self._handle.d3d_abi()
            self.dtype = torch.float64 if self._handle.d3d_real_bytes() == 8 else torch.float32
            for name, argtypes in SIGNATURES.items():
                getattr(self._handle, name).argtypes = argtypes
        except AttributeError as error:
            raise OSError(f"{path} is no kernel library: {error}") from None
        if abi != ABI:
            raise OSError(f"{path} has interface {abi}, this code needs {ABI}")

    def __call__(self, name: str, like: Tensor, *args: Argument) -> None:
        """Run a kernel on the device of `like`; tensors go in as addresses and must be contiguous.

        Raises:
            RuntimeError: the kernel could not be started.
        """
        values = [a.data_ptr() if isinstance(a, Tensor) else self._plain(a) for a in args]
        if self.device_type == "cuda":
            with torch.cuda.device(like.device):
                error = getattr(self._handle, name)(torch.cuda.current_stream().cuda_stream, *values)
        else:
            self._handle.d3d_set_threads(torch.get_num_threads())
            error = getattr(self._handle, name)(None, *values)
        if error:
            raise RuntimeError(f"{name} failed on {like.device} with CUDA error {error}")

    @staticmethod
    def _plain(value: Argument) -> object:
        return ctypes.addressof(value) if isinstance(value, ctypes.Structure | ctypes.Array) else value

    def cpu_level(self) -> int:
        """Highest instruction-set level of this machine, asked of a CPU library."""
        return int(self._handle.d3d_cpu_level())

    def probe(self) -> bool:
        """Whether a tiny CUDA kernel does what it should."""
        cells = torch.zeros(32, dtype=torch.int32, device="cuda")
        self._handle.d3d_probe.argtypes = (_pointer, _pointer)
        error = self._handle.d3d_probe(torch.cuda.current_stream().cuda_stream, cells.data_ptr())
        return not error and cells.tolist() == list(range(1, 33))

    def __str__(self) -> str:
        if self.device_type == "cuda":
            return f"cuda sm_{self.level}"
        threads = torch.get_num_threads() if self._handle.d3d_has_threads() else 1
        return f"cpu v{self.level} ({threads} thread{'s' * (threads != 1)})"


def library(device_type: str) -> Library | None:
    """The float32 library for "cpu" or "cuda": prebuilt, else from the cache, else compiled now, else None."""
    loaders: dict[str, Callable[[], Library | None]] = {"cpu": _cpu_library, "cuda": _cuda_library}
    return loaders[device_type]() if device_type in loaders else None


def test_library(folder: Path) -> Library:
    """The float64 CPU library that gradient checks use, compiled into `folder`.

    Raises:
        CompileError: no compiler, or it failed.
    """
    lowest = compiler.cpu_levels()[0]
    path = compiler.compile_cpu(folder, lowest, real="double")
    return Library(path, device_type="cpu", level=lowest)


@functools.lru_cache
def _cpu_library() -> Library | None:
    try:
        levels = compiler.cpu_levels()
        lowest = _find_or_compile_cpu(levels[0])
        best = max(level for level in levels if level <= max(lowest.cpu_level(), levels[0]))
        return lowest if best == levels[0] else _find_or_compile_cpu(best)
    except (CompileError, OSError) as error:
        log.warning("CPU kernels: %s. Plain torch serves, several times slower; install a C++ compiler.", error)
        return None


def _find_or_compile_cpu(level: int) -> Library:
    name = compiler.cpu_name(level)
    for folder in (PACKAGED, compiler.cache_folder()):
        if (folder / name).is_file():
            return Library(folder / name, device_type="cpu", level=level)
    log.info("compiling the CPU kernels (level %d) into %s, once", level, compiler.cache_folder())
    return Library(compiler.compile_cpu(compiler.cache_folder(), level), device_type="cpu", level=level)


@functools.lru_cache
def _cuda_library() -> Library | None:
    # nvcc on the PATH says nothing: many machines have the toolkit and no GPU.
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    architecture = [f"{major}{minor}"]
    try:
        name = compiler.cuda_name(architecture)
        found = next((f / name for f in (PACKAGED, compiler.cache_folder()) if (f / name).is_file()), None)
        if found is None:
            log.info("compiling the CUDA kernels for sm_%s into %s, once", architecture[0], compiler.cache_folder())
            found = compiler.compile_cuda(compiler.cache_folder(), architecture)
        loaded = Library(found, device_type="cuda", level=int(architecture[0]))
        if not loaded.probe():
            raise OSError(f"{found} does not run on this GPU (sm_{architecture[0]})")
        return loaded
    except (CompileError, OSError, RuntimeError) as error:  # torch reports what the driver says as RuntimeError
        log.warning("CUDA kernels: %s. Plain torch serves on the GPU, slower; install a CUDA toolkit.", error)
        return None
