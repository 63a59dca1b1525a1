"""Finding, compiling and loading the libraries."""

import _ctypes
import ctypes
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dream3d.kernels import build, compile, ops, reference
from dream3d.kernels.compile import CompileError

ROOT = Path(build.__file__).resolve().parents[2]
FRESH = "import logging, torch; logging.basicConfig(format='%(message)s'); from dream3d.kernels import ops; "


def in_new_process(code: str, **environment: str) -> str:
    """Standard output and standard error of a Python that has loaded nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment | {"PYTHONPATH": str(ROOT)}, cwd=ROOT,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture
def unpackaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As if nothing had been built at install: the cache, here, is all there is."""
    monkeypatch.setattr(build, "PACKAGED", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build._cpu_library.cache_clear()
    yield tmp_path / "dream3d" / "kernels"
    build._cpu_library.cache_clear()


def test_compiles_once_into_the_cache(unpackaged, monkeypatch):
    first = build.library("cpu")
    assert first is not None and first.path.parent == unpackaged
    lowest = compile.cpu_name(min(compile.cpu_levels()))
    assert {path.name for path in unpackaged.iterdir()} == {lowest, first.path.name}
    build._cpu_library.cache_clear()
    monkeypatch.setenv("CXX", "/nonexistent")
    assert build.library("cpu").path == first.path


def test_without_a_compiler_the_twins_serve_and_one_line_says_so(unpackaged, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "/nonexistent")
    with caplog.at_level(logging.INFO, logger="dream3d.kernels"):
        assert ops.backend("cpu") == "torch twins" == ops.backend("cpu")
        spec = ops.HashGridSpec(levels=2, log2_table=6, base=2, finest=8)
        points, table = torch.rand(5, 3), torch.randn(spec.rows, 2)
        assert torch.equal(ops.hash_grid(points, table, spec), reference.hash_grid(points, table, spec))
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == [
        "CPU kernels: no C++ compiler ($CXX is /nonexistent). Plain torch serves, several times slower; "
        "install a C++ compiler."
    ]


def test_a_damaged_library_is_no_disaster(unpackaged, caplog):
    unpackaged.mkdir(parents=True)
    (unpackaged / compile.cpu_name(min(compile.cpu_levels()))).write_bytes(b"not a library")
    assert build.library("cpu") is None and "CPU kernels" in caplog.text


def test_a_library_with_another_interface_is_refused(monkeypatch):
    path, own = build.library("cpu").path, build.ABI
    monkeypatch.setattr(build, "ABI", 999)
    with pytest.raises(OSError, match=f"has interface {own}, this code needs 999"):
        build.Library(path, device_type="cpu")
    with pytest.raises(OSError, match="is no kernel library"):
        build.Library(Path(_ctypes.__file__), device_type="cpu")


def test_a_compiler_that_fails_gives_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "CXX_FLAGS", (*compile.CXX_FLAGS, "-DREAL=nonsense", "-include", "absent.h"))
    with pytest.raises(CompileError, match="failed: .*absent.h") as caught:
        compile.compile_cpu(tmp_path, compile.cpu_levels()[0])
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir()), "no half-written file stays"


def test_a_compiler_without_openmp_serves_one_thread(tmp_path, monkeypatch):
    script = tmp_path / "plain-c++"
    script.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) echo "error: no OpenMP" >&2; exit 1;; esac\nexec c++ "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    level = compile.cpu_levels()[0]
    library = build.Library(compile.compile_cpu(tmp_path, level), device_type="cpu", level=level)
    assert str(library) == f"cpu v{level} (1 thread)"
    spec = ops.HashGridSpec(levels=2, log2_table=6, base=2, finest=8)
    points, table = torch.rand(5, 3), torch.randn(spec.rows, 2)
    torch.testing.assert_close(
        ops.hash_grid(points, table, spec, library=library), reference.hash_grid(points, table, spec)
    )


def test_sources_and_flags_name_the_library(monkeypatch, tmp_path):
    before = compile.source_tag()
    for path in [*compile.source_folder().iterdir()]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "march.h").write_text("// changed")
    monkeypatch.setattr(compile, "source_folder", lambda: tmp_path)
    compile.source_tag.cache_clear()
    try:
        assert compile.source_tag() != before
    finally:
        compile.source_tag.cache_clear()


def test_python_and_c_agree_on_interface_and_types():
    common = (compile.source_folder() / "common.h").read_text()
    assert f"#define D3D_ABI {build.ABI}\n" in common
    sources = "".join(path.read_text() for path in compile.source_folder().glob("*.h"))
    for name, argtypes in build.SIGNATURES.items():
        declared = sources.split(f"D3D_API int {name}(")[1].split(")")[0].split(",")
        c_types = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "double": ctypes.c_double}
        expected = [ctypes.c_void_p if "*" in a else c_types[a.split()[-2]] for a in declared]
        assert list(argtypes) == expected, name


def test_importing_builds_nothing_and_starts_no_compiler():
    out = in_new_process(FRESH + "from dream3d.kernels import build; print(build._cpu_library.cache_info().misses)")
    assert out.strip() == "0"


def test_backend_names_level_and_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert ops.backend("cpu").endswith("(2 threads)") and ops.backend(torch.device("cpu")).startswith("cpu v")
    finally:
        torch.set_num_threads(before)
    assert ops.backend("meta") == "torch twins"


def test_one_openmp_runtime_is_mapped():
    """The kernels' OpenMP is torch's: two would fight over the cores."""
    if not sys.platform.startswith("linux"):
        return
    code = FRESH + (
        "ops.backend('cpu'); torch.ones(1 << 20).exp_(); "
        "print(len({l.split()[-1] for l in open('/proc/self/maps') if 'libgomp' in l or 'libomp' in l}))"
    )
    assert in_new_process(code).strip() == "1"


def test_nvcc_compiles_the_cuda_source(tmp_path):
    """Wherever there is an nvcc; a GPU is not needed, and without one launching fails with a number, not a crash."""
    if compile.find_nvcc() is None:
        with pytest.raises(CompileError, match="no nvcc"):
            compile.compile_cuda(tmp_path, ["90"])
        return
    library = build.Library(compile.compile_cuda(tmp_path, ["90"]), device_type="cuda")
    assert library.dtype == torch.float32
    if not torch.cuda.is_available():
        assert build.library("cuda") is None and ops.backend("cuda") == "torch twins"
