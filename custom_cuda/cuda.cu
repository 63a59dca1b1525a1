// The CUDA library. The stream comes from the caller; nothing here synchronises but the probe.
#include "composite.h"
#include "hash_grid.h"
#include "march.h"
#include "mesh_antialias.h"
#include "mesh_interpolate.h"
#include "mesh_rasterise.h"
#include "mesh_texture.h"
#include "splat_colour.h"
#include "splat_composite.h"

D3D_API int d3d_abi() { return D3D_ABI; }
D3D_API int d3d_real_bytes() { return (int)sizeof(real); }

struct CountUp {
  int32_t* cells;
  D3D_FN void operator()(int64_t i) const { cells[i] = (int32_t)i + 1; }
};

// One tiny launch, waited for: the only proof that the driver, the device and this binary fit together. `cells` is
// device memory for 32 numbers, which the caller compares with 1 ... 32.
D3D_API int d3d_probe(void* stream, int32_t* cells) {
  int error = for_each(stream, 32, 0, CountUp{cells});
  return error ? error : (int)cudaStreamSynchronize((cudaStream_t)stream);
}
