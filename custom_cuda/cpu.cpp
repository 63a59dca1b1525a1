// The CPU library: one translation unit, compiled once per instruction set.
#include "composite.h"
#include "hash_grid.h"
#include "march.h"
#include "mesh_antialias.h"
#include "mesh_interpolate.h"
#include "mesh_rasterise.h"
#include "mesh_texture.h"
#include "splat_colour.h"
#include "splat_composite.h"

int thread_count = 1;

D3D_API int d3d_abi() { return D3D_ABI; }
D3D_API int d3d_real_bytes() { return (int)sizeof(real); }
D3D_API void d3d_set_threads(int threads) { thread_count = threads < 1 ? 1 : threads; }
D3D_API int d3d_has_threads() {
#if defined(_OPENMP)
  return 1;
#else
  return 0;
#endif
}

// The x86-64 micro-architecture level (2, 3, 4) of the running machine; 0 elsewhere, where there is one build only.
D3D_API int d3d_cpu_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return v4 ? 4 : (v3 ? 3 : 2);
#else
  return 0;
#endif
}
