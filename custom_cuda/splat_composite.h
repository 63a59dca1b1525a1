// Front-to-back compositing of projected Gaussians (3D Gaussian Splatting, arXiv:2308.04079, eqs. 2 and 3): at a pixel
// alpha_i = min(0.999, opacity_i exp(-d^T conic_i d / 2)), w_i = T_i alpha_i, T_{i+1} = T_i (1 - alpha_i), image = sum w_i v_i.
// A Gaussian fainter than alpha_min at a pixel is not there; a pixel ends before the first one that would bring T below
// transmittance_min. What is summed: features of the (camera, Gaussian) pair, features of the Gaussian, depth, and 1.
//
// The way back walks from front to back too. With G_i = d loss / d image . v_i,
// d loss / d alpha_i = T_i G_i - (sum_{j>i} w_j G_j) / (1 - alpha_i), and the sum behind i is the total, known from the
// image, less what has been passed. So both ways take the same decisions, by the same expressions.
//
// Every (Gaussian, tile) meeting has a slot of its own for its gradients, and a Gaussian adds up its slots in a fixed
// order: no atomic additions, and the same bytes whatever the number of threads.
#pragma once
#include "splat_bin.h"

const int MOST_SPLAT_FEATURES = 64;  // mirrored by dream3d/kernels/types.py
const real HIGHEST_ALPHA = (real)0.999;

struct SplatScene {
  int64_t cameras, splats;
  int32_t width, height;
  real alpha_min, transmittance_min;
  const int32_t *tile_offsets, *order, *pairs;
  const int16_t* boxes;
  const real *means2d, *conics, *opacities, *depths;  // of pairs
  int32_t viewed_number, shared_number;
  const real *viewed, *shared;  // [pairs, viewed_number], [splats, shared_number]

  D3D_FN int features() const { return viewed_number + shared_number; }
  D3D_FN int channels() const { return features() + 2; }
  // The k-th number of a pair that is summed: a feature, the depth, or 1. `splat` is the pair's, which is cheaper to know
  // than to compute.
  D3D_FN real value(int64_t pair, int64_t splat, int k) const {
    if (k < viewed_number) return viewed[pair * viewed_number + k];
    if (k < features()) return shared[splat * shared_number + k - viewed_number];
    return k == features() ? depths[pair] : 1;
  }
};

struct Tile {
  int64_t camera;
  int x0, y0, columns, rows;  // the part that lies in the picture
  int32_t first, end;         // in `order`
};

D3D_FN Tile tile_at(const SplatScene& scene, int64_t number) {
  TileGrid grid = tiles_of(scene.width, scene.height);
  int64_t camera = number / grid.number(), tile = number % grid.number();
  int x0 = (int)(tile % grid.across) * SPLAT_TILE, y0 = (int)(tile / grid.across) * SPLAT_TILE;
  int columns = scene.width - x0 < SPLAT_TILE ? scene.width - x0 : SPLAT_TILE;
  int rows = scene.height - y0 < SPLAT_TILE ? scene.height - y0 : SPLAT_TILE;
  return {camera, x0, y0, columns, rows, scene.tile_offsets[number], scene.tile_offsets[number + 1]};
}

// A slot: features, depth, then these.
enum { SLOT_OPACITY, SLOT_CONIC, SLOT_MEAN = SLOT_CONIC + 3, SLOT_ABSOLUTE = SLOT_MEAN + 2, SLOT_SHAPE_END = SLOT_ABSOLUTE + 2 };

D3D_FN int slot_width(int features) { return features + 1 + SLOT_SHAPE_END; }

// One Gaussian: its slots of each camera become gradients of the pair, and the pairs' shared parts one of the Gaussian.
struct GatherSlots {
  int64_t cameras, splats;
  int32_t viewed_number, shared_number;
  const int32_t* offsets;
  const real* slots;
  real *g_viewed, *g_shared, *g_depths, *g_opacities, *g_conics, *g_means2d, *g_absolute;

  D3D_FN void operator()(int64_t n) const {
    int features = viewed_number + shared_number, width = slot_width(features);
    real sum[MOST_SPLAT_FEATURES + 1 + SLOT_SHAPE_END];
    for (int k = 0; k < shared_number; k++) g_shared[n * shared_number + k] = 0;
    for (int64_t camera = 0; camera < cameras; camera++) {
      int64_t i = camera * splats + n;
      for (int k = 0; k < width; k++) sum[k] = 0;
      for (int64_t slot = offsets[i]; slot < offsets[i + 1]; slot++)
        for (int k = 0; k < width; k++) sum[k] += slots[slot * width + k];
      const real* shape = sum + features + 1;
      for (int k = 0; k < viewed_number; k++) g_viewed[i * viewed_number + k] = sum[k];
      for (int k = 0; k < shared_number; k++) g_shared[n * shared_number + k] += sum[viewed_number + k];
      g_depths[i] = sum[features];
      g_opacities[i] = shape[SLOT_OPACITY];
      for (int k = 0; k < 3; k++) g_conics[3 * i + k] = shape[SLOT_CONIC + k];
      for (int k = 0; k < 2; k++) g_means2d[2 * i + k] = shape[SLOT_MEAN + k];
      if (g_absolute)
        for (int k = 0; k < 2; k++) g_absolute[2 * i + k] = shape[SLOT_ABSOLUTE + k];
    }
  }
};

const int64_t GATHERED_SPLATS_A_BLOCK = 256;

#if defined(__CUDACC__)
#include "splat_tiles_cuda.h"
#else
#include "splat_tiles_cpu.h"
#endif

// image: [cameras, height, width, viewed_number + shared_number + 2]
D3D_API int d3d_splat_composite(void* stream, int64_t cameras, int64_t splats, int32_t width, int32_t height,
                                double alpha_min, double transmittance_min, const int32_t* tile_offsets,
                                const int32_t* order, const int32_t* pairs, const int16_t* boxes, const real* means2d,
                                const real* conics, const real* opacities, const real* depths, int32_t viewed_number,
                                int32_t shared_number, const real* viewed, const real* shared, real* image) {
  SplatScene scene{cameras, splats, width, height, (real)alpha_min, (real)transmittance_min, tile_offsets, order, pairs,
                   boxes, means2d, conics, opacities, depths, viewed_number, shared_number, viewed, shared};
  return composite_tiles(stream, scene, image);
}

// slots: [total, slot_width], every one written; g_absolute may be null
D3D_API int d3d_splat_composite_backward(void* stream, int64_t cameras, int64_t splats, int32_t width, int32_t height,
                                         double alpha_min, double transmittance_min, const int32_t* tile_offsets,
                                         const int32_t* order, const int32_t* pairs, const int16_t* boxes,
                                         const real* means2d, const real* conics, const real* opacities,
                                         const real* depths, int32_t viewed_number, int32_t shared_number,
                                         const real* viewed, const real* shared, const real* image, const real* g_image,
                                         const int32_t* offsets, real* slots, real* g_viewed, real* g_shared,
                                         real* g_depths, real* g_opacities, real* g_conics, real* g_means2d,
                                         real* g_absolute) {
  SplatScene scene{cameras, splats, width, height, (real)alpha_min, (real)transmittance_min, tile_offsets, order, pairs,
                   boxes, means2d, conics, opacities, depths, viewed_number, shared_number, viewed, shared};
  int error = composite_tiles_backward(stream, scene, image, g_image, g_absolute != nullptr, slots);
  if (error) return error;
  GatherSlots item{cameras,  splats,      viewed_number, shared_number, offsets,  slots,    g_viewed,
                   g_shared, g_depths, g_opacities,   g_conics,      g_means2d, g_absolute};
  return for_each(stream, splats, GATHERED_SPLATS_A_BLOCK, item);
}
