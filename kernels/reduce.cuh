// Reductions over the threads of a block of 128, the result in every thread, in a fixed order.
#pragma once

#include "common.cuh"

constexpr int REDUCE_WARPS = 4;

struct Plus {
    template <class V>
    __device__ __forceinline__ V operator()(V a, V b) const { return a + b; }
};

// A NaN wins.
struct Larger {
    __device__ __forceinline__ float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

// `scratch` is shared memory; it may be used again after the call.
template <class V, class Combine>
__device__ __forceinline__ V block_reduce(V value, V (&scratch)[REDUCE_WARPS], Combine combine) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    value = scratch[0];
#pragma unroll
    for (int warp = 1; warp < REDUCE_WARPS; ++warp) value = combine(value, scratch[warp]);
    return value;
}
