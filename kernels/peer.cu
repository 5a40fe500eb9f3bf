// Patterns by which copies between devices are proven. The grid strides over the words.
#include "index.cuh"

// Every word depends on its place and the seed.
__device__ __forceinline__ unsigned pattern(unsigned place, unsigned seed) {
    unsigned z = (place + seed) * 0x9e3779b9u;
    z = (z ^ (z >> 16)) * 0x85ebca6bu;
    return z ^ (z >> 13) ^ seed;
}

extern "C" __global__ void __launch_bounds__(256) pattern_fill(unsigned* to, int words, unsigned seed) {
    for (int i = global_thread(); i < words; i += static_cast<int>(gridDim.x * blockDim.x))
        to[i] = pattern(static_cast<unsigned>(i), seed);
}

// Counts the words that differ from the pattern; a sum of whole numbers is the same in any order.
extern "C" __global__ void __launch_bounds__(256)
    pattern_check(const unsigned* __restrict__ from, unsigned* __restrict__ wrong, int words, unsigned seed) {
    unsigned count = 0;
    for (int i = global_thread(); i < words; i += static_cast<int>(gridDim.x * blockDim.x))
        count += from[i] != pattern(static_cast<unsigned>(i), seed);
    if (count > 0) atomicAdd(wrong, count);
}
