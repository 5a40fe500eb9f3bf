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

// Makes the kernels of every type; KERNEL(suffix of their names, type).
#define FOR_EACH_TYPE(KERNEL) KERNEL(, float) KERNEL(_bf16, __nv_bfloat16) KERNEL(_f16, __half)
