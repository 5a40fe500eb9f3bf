// The types numbers are stored in. Whatever the type, arithmetic is in f32.
#pragma once

#include "common.cuh"

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }

template <class T>
__device__ __forceinline__ T narrow(float value);
template <>
__device__ __forceinline__ float narrow<float>(float value) { return value; }
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) { return __float2bfloat16(value); }
template <>
__device__ __forceinline__ __half narrow<__half>(float value) { return __float2half(value); }

// The value as it comes back from memory.
template <class T>
__device__ __forceinline__ float stored(float value) { return widen(narrow<T>(value)); }

// `Count` neighbours that are read and written at once.
template <class T, int Count>
struct __align__(sizeof(T) * Count) Neighbours {
    T v[Count];
};

// `Count` neighbours of which `left` exist, zeros in place of the others. All or none of them are there where they are
// `Whole`, and aligned: then they are read at once.
template <int Count, bool Whole, class T>
__device__ __forceinline__ Neighbours<T, Count> load_neighbours(const T* from, int left) {
    if (Whole && left > 0) return *reinterpret_cast<const Neighbours<T, Count>*>(from);
    Neighbours<T, Count> all;
#pragma unroll
    for (int i = 0; i < Count; ++i) all.v[i] = !Whole && i < left ? from[i] : narrow<T>(0.0f);
    return all;
}

// Writes as many of them as there is room `left` for.
template <bool Whole, class T, int Count>
__device__ __forceinline__ void store_neighbours(T* to, int left, const Neighbours<T, Count>& all) {
    if constexpr (Whole) {
        if (left > 0) *reinterpret_cast<Neighbours<T, Count>*>(to) = all;
    } else {
#pragma unroll
        for (int i = 0; i < Count; ++i)
            if (i < left) to[i] = all.v[i];
    }
}

// Makes the kernels of every type; KERNEL(suffix of their names, type).
#define FOR_EACH_TYPE(KERNEL) KERNEL(, float) KERNEL(_bf16, __nv_bfloat16) KERNEL(_f16, __half)
