// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): the twin of src/random.rs, the same words for the same counter.
#pragma once

#include "common.cuh"

struct PhiloxKey {
    unsigned low, high;
};

// Word number `element` of the stream (`lane`, `index`) of `key`.
__device__ __forceinline__ unsigned philox_word(PhiloxKey key, unsigned element, unsigned lane,
                                                unsigned long long index) {
    unsigned c0 = element / 4, c1 = lane, c2 = static_cast<unsigned>(index), c3 = static_cast<unsigned>(index >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned long long a = static_cast<unsigned long long>(c0) * 0xd2511f53u;
        const unsigned long long b = static_cast<unsigned long long>(c2) * 0xcd9e8d57u;
        const unsigned old1 = c1, old3 = c3;
        c0 = static_cast<unsigned>(b >> 32) ^ old1 ^ key.low;
        c1 = static_cast<unsigned>(b);
        c2 = static_cast<unsigned>(a >> 32) ^ old3 ^ key.high;
        c3 = static_cast<unsigned>(a);
        key.low += 0x9e3779b9u;
        key.high += 0xbb67ae85u;
    }
    const unsigned place = element % 4;
    return place == 0 ? c0 : place == 1 ? c1 : place == 2 ? c2 : c3;
}
