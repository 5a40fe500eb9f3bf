// Patterns by which copies between devices are proven. One thread a word.
#include "index.cuh"

// Every word depends on its place and the seed.
__device__ __forceinline__ unsigned pattern(unsigned place, unsigned seed) {
    unsigned z = (place + seed) * 0x9e3779b9u;
    z = (z ^ (z >> 16)) * 0x85ebca6bu;
    return z ^ (z >> 13) ^ seed;
}

extern "C" __global__ void __launch_bounds__(256) pattern_fill(unsigned* to, int words, unsigned seed) {
    const int i = global_thread();
    if (i < words) to[i] = pattern(static_cast<unsigned>(i), seed);
}

// Counts the words that differ from the pattern; a sum of whole numbers is the same in any order.
extern "C" __global__ void __launch_bounds__(256)
    pattern_check(const unsigned* __restrict__ from, unsigned* __restrict__ wrong, int words, unsigned seed) {
    const int i = global_thread();
    if (i < words && from[i] != pattern(static_cast<unsigned>(i), seed)) atomicAdd(wrong, 1u);
}
