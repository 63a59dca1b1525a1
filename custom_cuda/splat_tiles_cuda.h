// Compositing on a GPU: a tile is a block, a pixel a thread. The block fetches a batch of Gaussians together into shared
// memory, a thread each, and every thread then walks the batch; features come through the cache, all threads asking for
// the same one at once.
#pragma once

const int TILE_PIXELS = SPLAT_TILE * SPLAT_TILE, WARP = 32, WARPS = TILE_PIXELS / WARP;

struct StagedSplat {
  int64_t pair, splat;
  int32_t slot;
  int16_t box[4];
  real x, y, xx, xy, yy, opacity;
};

__device__ __forceinline__ void stage(const SplatScene& scene, const Tile& tile, int32_t j, StagedSplat& s) {
  s.slot = scene.order[j];
  s.pair = scene.pairs[j];
  s.splat = s.pair - tile.camera * scene.splats;
  for (int k = 0; k < 4; k++) s.box[k] = scene.boxes[4 * s.pair + k];
  s.x = scene.means2d[2 * s.pair];
  s.y = scene.means2d[2 * s.pair + 1];
  s.xx = scene.conics[3 * s.pair];
  s.xy = scene.conics[3 * s.pair + 1];
  s.yy = scene.conics[3 * s.pair + 2];
  s.opacity = scene.opacities[s.pair];
}

struct Pixel {
  int x, y;
  bool alive;
  real transmittance;
};

__device__ __forceinline__ Pixel pixel_of(const Tile& tile) {
  int column = threadIdx.x % SPLAT_TILE, row = threadIdx.x / SPLAT_TILE;
  return {tile.x0 + column, tile.y0 + row, column < tile.columns && row < tile.rows, 1};
}

__device__ __forceinline__ int64_t first_number_of(const SplatScene& scene, const Tile& tile, const Pixel& pixel) {
  return ((tile.camera * scene.height + pixel.y) * scene.width + pixel.x) * scene.channels();
}

// A Gaussian's share in a pixel. Both ways call this, so that they take the same decisions.
struct Share {
  real dx, dy, falloff, raw, alpha, before, weight;
};

__device__ __forceinline__ bool take_share(const SplatScene& scene, const StagedSplat& s, Pixel& pixel, Share& share) {
  if (!pixel.alive || pixel.x < s.box[0] || pixel.x >= s.box[2] || pixel.y < s.box[1] || pixel.y >= s.box[3]) return false;
  share.dx = (real)pixel.x + (real)0.5 - s.x;
  share.dy = (real)pixel.y + (real)0.5 - s.y;
  real sigma = (real)0.5 * (s.xx * share.dx * share.dx + s.yy * share.dy * share.dy) + s.xy * share.dx * share.dy;
  share.falloff = std::exp(-sigma);
  share.raw = s.opacity * share.falloff;
  share.alpha = smaller(share.raw, HIGHEST_ALPHA);
  if (!(share.alpha >= scene.alpha_min && sigma >= 0)) return false;
  real after = pixel.transmittance * (1 - share.alpha);
  if (!(after >= scene.transmittance_min)) {
    pixel.alive = false;
    return false;
  }
  share.before = pixel.transmittance;
  share.weight = share.alpha * share.before;
  pixel.transmittance = after;
  return true;
}

// MOST: at least as many as there are channels, known to the compiler so that a pixel's numbers stay in registers.
template <int MOST>
__global__ void __launch_bounds__(TILE_PIXELS) composite_kernel(SplatScene scene, real* image) {
  __shared__ StagedSplat staged[TILE_PIXELS];
  Tile tile = tile_at(scene, blockIdx.x);
  Pixel pixel = pixel_of(tile);
  const bool in_picture = pixel.alive;
  const int channels = scene.channels();
  real sum[MOST];
#pragma unroll
  for (int k = 0; k < MOST; k++) sum[k] = 0;
  for (int32_t first = tile.first; first < tile.end; first += TILE_PIXELS) {
    if (!__syncthreads_or(pixel.alive)) break;  // also: nobody reads the last batch any more
    int number = tile.end - first < TILE_PIXELS ? tile.end - first : TILE_PIXELS;
    if ((int)threadIdx.x < number) stage(scene, tile, first + threadIdx.x, staged[threadIdx.x]);
    __syncthreads();
    for (int j = 0; j < number && pixel.alive; j++) {
      Share share;
      if (!take_share(scene, staged[j], pixel, share)) continue;
#pragma unroll
      for (int k = 0; k < MOST; k++)
        if (k < channels) sum[k] += share.weight * scene.value(staged[j].pair, staged[j].splat, k);
    }
  }
  if (!in_picture) return;
  real* out = image + first_number_of(scene, tile, pixel);
#pragma unroll
  for (int k = 0; k < MOST; k++)
    if (k < channels) out[k] = sum[k];
}

__device__ __forceinline__ real sum_of_warp(real x) {
  for (int step = WARP / 2; step; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// BATCH Gaussians at a time: a warp adds up its pixels and leaves the sums in its own row, and after the batch the rows
// are added in order. No atomic additions, so the same bytes in every run, and two barriers a batch.
template <int MOST, int BATCH>
__global__ void __launch_bounds__(TILE_PIXELS)
    composite_backward_kernel(SplatScene scene, const real* image, const real* g_image, real* slots) {
  __shared__ StagedSplat staged[BATCH];
  __shared__ real partial[BATCH][WARPS][MOST - 1 + SLOT_SHAPE_END];
  Tile tile = tile_at(scene, blockIdx.x);
  Pixel pixel = pixel_of(tile);
  const int channels = scene.channels(), width = slot_width(channels - 2);
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  real g[MOST], behind = 0;
#pragma unroll
  for (int k = 0; k < MOST; k++) {
    bool there = pixel.alive && k < channels;
    int64_t at = there ? first_number_of(scene, tile, pixel) + k : 0;
    g[k] = there ? g_image[at] : 0;
    behind += there ? g[k] * image[at] : 0;
  }
  int32_t first = tile.first;
  for (; first < tile.end; first += BATCH) {
    if (!__syncthreads_or(pixel.alive)) break;
    int number = tile.end - first < BATCH ? tile.end - first : BATCH;
    if ((int)threadIdx.x < number) stage(scene, tile, first + threadIdx.x, staged[threadIdx.x]);
    __syncthreads();
    for (int j = 0; j < number; j++) {
      const StagedSplat& s = staged[j];
      Share share{};
      bool seen = take_share(scene, s, pixel, share);
      real* row = partial[j][warp];
      if (!__any_sync(0xffffffffu, seen)) {
        for (int k = lane; k < width; k += WARP) row[k] = 0;
        continue;
      }
      real gain = 0;
#pragma unroll
      for (int k = 0; k < MOST; k++)
        if (k < channels) {
          gain += g[k] * scene.value(s.pair, s.splat, k);
          if (k < channels - 1) {
            real sum = sum_of_warp(share.weight * g[k]);
            if (lane == 0) row[k] = sum;
          }
        }
      behind -= share.weight * gain;
      bool free = seen && share.raw < HIGHEST_ALPHA;
      real g_alpha = free ? share.before * gain - behind / (1 - share.alpha) : 0;
      real slope = -g_alpha * share.raw, x = slope * share.dx, y = slope * share.dy;
      real along_x = s.xx * x + s.xy * y, along_y = s.xy * x + s.yy * y, half = (real)0.5;
      real shape[SLOT_SHAPE_END] = {g_alpha * share.falloff, half * x * share.dx, x * share.dy, half * y * share.dy, -along_x,
                                    -along_y, along_x < 0 ? -along_x : along_x, along_y < 0 ? -along_y : along_y};
#pragma unroll
      for (int k = 0; k < SLOT_SHAPE_END; k++) {
        real sum = sum_of_warp(shape[k]);
        if (lane == 0) row[channels - 1 + k] = sum;
      }
    }
    __syncthreads();
    for (int at = threadIdx.x; at < number * width; at += TILE_PIXELS) {
      int j = at / width, k = at % width;
      real sum = 0;
      for (int w = 0; w < WARPS; w++) sum += partial[j][w][k];
      slots[(int64_t)staged[j].slot * width + k] = sum;
    }
  }
  for (int64_t at = threadIdx.x; at < (int64_t)(tile.end - first) * width; at += TILE_PIXELS)
    slots[(int64_t)scene.order[first + at / width] * width + at % width] = 0;
}

// call(MOST, BATCH) as types, for as few channels as hold the scene's; the batch's sums must fit into shared memory.
template <int MOST, int BATCH>
struct Fit {};

template <class Call>
inline int for_fitting(int channels, Call call) {
  if (channels <= 5) return call(Fit<5, 32>{});
  if (channels <= 8) return call(Fit<8, 32>{});
  if (channels <= 16) return call(Fit<16, 32>{});
  if (channels <= 34) return call(Fit<34, 16>{});
  return call(Fit<MOST_SPLAT_FEATURES + 2, 16>{});
}

struct LaunchComposite {
  void* stream;
  SplatScene scene;
  real* image;
  template <int MOST, int BATCH>
  int operator()(Fit<MOST, BATCH>) const {
    unsigned tiles = (unsigned)(scene.cameras * tiles_of(scene.width, scene.height).number());
    if (!tiles) return 0;
    composite_kernel<MOST><<<tiles, TILE_PIXELS, 0, (cudaStream_t)stream>>>(scene, image);
    return (int)cudaGetLastError();
  }
};

struct LaunchCompositeBackward {
  void* stream;
  SplatScene scene;
  const real *image, *g_image;
  real* slots;
  template <int MOST, int BATCH>
  int operator()(Fit<MOST, BATCH>) const {
    unsigned tiles = (unsigned)(scene.cameras * tiles_of(scene.width, scene.height).number());
    if (!tiles) return 0;
    composite_backward_kernel<MOST, BATCH><<<tiles, TILE_PIXELS, 0, (cudaStream_t)stream>>>(scene, image, g_image, slots);
    return (int)cudaGetLastError();
  }
};

inline int composite_tiles(void* stream, const SplatScene& scene, real* image) {
  return for_fitting(scene.channels(), LaunchComposite{stream, scene, image});
}

// The absolute gradients cost two of a dozen sums here: they are always taken.
inline int composite_tiles_backward(void* stream, const SplatScene& scene, const real* image, const real* g_image,
                                    bool /*absolute*/, real* slots) {
  return for_fitting(scene.channels(), LaunchCompositeBackward{stream, scene, image, g_image, slots});
}
