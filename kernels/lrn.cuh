// Arithmetic of response normalisation. Written with explicit fused operations, so that every kernel that computes a
// normalised value gets the same bits: pooling's backward pass compares them.
#pragma once

#include "index.cuh"

struct LrnConstants {
    int size;
    float k, alpha, beta;
};

__device__ __forceinline__ float lrn_denominator(float sum_of_squares, const LrnConstants& op) {
    return fmaf(op.alpha, sum_of_squares, op.k);
}

// denominator^(−beta) and 1/denominator; for the paper's beta by reciprocal roots alone, which are single instructions.
struct LrnFactors {
    float scale, inverse;

    __device__ __forceinline__ LrnFactors(float denominator, float beta) {
        if (beta == 0.75f) {
            const float root = rsqrtf(denominator);
            inverse = root * root;
            scale = inverse * rsqrtf(root);
        } else {
            inverse = 1.0f / denominator;
            scale = powf(denominator, -beta);
        }
    }
};

// Sum of the squares of the maps around `map` of the `maps` at `values`.
__device__ __forceinline__ float lrn_sum(const float* values, int map, int maps, int size) {
    float sum = 0.0f;
    for (int j = max(map - size / 2, 0); j <= min(map + (size - 1) / 2, maps - 1); ++j)
        sum = fmaf(values[j], values[j], sum);
    return sum;
}
