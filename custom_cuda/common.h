// What every kernel file shares: the number type, the marks on functions, and the few primitives that differ between
// the host and a GPU. The maths of one item (a point, a ray) is written once, as D3D_FN functions and function objects;
// who loops over the items is decided per device, in schedule.h and at the end of each kernel file.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifndef REAL
#define REAL float  // -DREAL=double builds the library of the tests: finite differences need the digits
#endif
typedef REAL real;

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define D3D_FN __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define D3D_FN inline
#else
#define D3D_FN inline __attribute__((always_inline))
#endif

#if defined(_WIN32)
#define D3D_API extern "C" __declspec(dllexport)
#else
#define D3D_API extern "C" __attribute__((visibility("default")))
#endif

// Raise it whenever a signature below changes. dream3d/kernels/build.py refuses a library with another number.
#define D3D_ABI 3

D3D_FN real smaller(real a, real b) { return a < b ? a : b; }
D3D_FN real larger(real a, real b) { return a > b ? a : b; }
D3D_FN real clamp(real x, real low, real high) { return x < low ? low : (x > high ? high : x); }

// ---- Pair: the two features of a table row, moved by one load and one store.
#if defined(__CUDACC__)
struct alignas(2 * sizeof(real)) Pair {
  real first, second;
};
D3D_FN Pair operator+(Pair a, Pair b) { return {a.first + b.first, a.second + b.second}; }
D3D_FN Pair operator-(Pair a, Pair b) { return {a.first - b.first, a.second - b.second}; }
D3D_FN Pair operator*(Pair a, real s) { return {a.first * s, a.second * s}; }
D3D_FN real dot(Pair a, Pair b) { return a.first * b.first + a.second * b.second; }
#else
typedef real Pair __attribute__((vector_size(2 * sizeof(real))));
D3D_FN real dot(Pair a, Pair b) {
  Pair product = a * b;
  return product[0] + product[1];
}
#endif
D3D_FN Pair load_pair(const real* from) {
  Pair pair;
  memcpy(&pair, from, sizeof pair);
  return pair;
}
D3D_FN void store_pair(real* to, Pair pair) { memcpy(to, &pair, sizeof pair); }

// Many GPU threads may meet in one row, so they add atomically (and the order, hence the last bits, may differ from run
// to run). On the CPU every schedule gives a row one owner, and a plain addition does.
D3D_FN void add_pair(real* to, Pair pair) {
#if defined(__CUDA_ARCH__)
  atomicAdd(to, pair.first);
  atomicAdd(to + 1, pair.second);
#elif defined(__CUDACC__)
  to[0] += pair.first;
  to[1] += pair.second;
#else
  store_pair(to, load_pair(to) + pair);
#endif
}
