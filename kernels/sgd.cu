// The update of the paper's section 5, of many arrays by one launch. One thread for QUADS times four weights.
#include "index.cuh"
#include "loss_scale.cuh"

constexpr int SGD_ARRAYS = 32, SGD_QUADS = 2;

struct Sgd {
    float rate, momentum, decay;
};

// An array, updated by the blocks from `first_block` on. `later`, if there is one, holds the constants instead of `op`.
// `copy`, if there is one, becomes the weights in 16 bits.
struct SgdArray {
    float *weights, *momentum;
    const float* gradient;
    void* copy;
    const Sgd* later;
    Sgd op;
    int elements, first_block;
};

struct SgdTable {
    SgdArray arrays[SGD_ARRAYS];
    int count;
};

// v = momentum·v − rate·(decay·w + gradient); w = w + v.
template <class T>
__device__ __forceinline__ void update(float* __restrict__ weights, float* __restrict__ momentum,
                                       const float* __restrict__ gradient, T* __restrict__ copy, int elements,
                                       int block, const Sgd& op, float unscale) {
    const int start = (block * SGD_QUADS * 256 + static_cast<int>(threadIdx.x)) * 4;
    Quad g[SGD_QUADS], w[SGD_QUADS], v[SGD_QUADS];
#pragma unroll
    for (int q = 0; q < SGD_QUADS; ++q) {
        const int first = start + q * 1024;
        g[q] = load_quad(gradient, first, elements);
        w[q] = load_quad(weights, first, elements);
        v[q] = load_quad(momentum, first, elements);
    }
#pragma unroll
    for (int q = 0; q < SGD_QUADS; ++q) {
        const int first = start + q * 1024;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            v[q].v[i] = fmaf(op.momentum, v[q].v[i], -op.rate * fmaf(op.decay, w[q].v[i], g[q].v[i] * unscale));
            w[q].v[i] += v[q].v[i];
        }
        store_quad(momentum, first, elements, v[q]);
        store_quad(weights, first, elements, w[q]);
        if (copy != nullptr) store_quad(copy, first, elements, w[q]);
    }
}

// After an overflow nothing changes.
template <class T>
__device__ __forceinline__ void update_all(const SgdTable& table, const LossScale* __restrict__ scaling) {
    float unscale = 1.0f;
    if (scaling != nullptr) {
        if (scaling->overflow != 0.0f) return;
        unscale = 1.0f / scaling->scale;
    }
    const int block = static_cast<int>(blockIdx.x);
    int number = 0;
    while (number + 1 < table.count && block >= table.arrays[number + 1].first_block) ++number;
    const SgdArray& array = table.arrays[number];
    update(array.weights, array.momentum, array.gradient, static_cast<T*>(array.copy), array.elements,
           block - array.first_block, array.later != nullptr ? *array.later : array.op, unscale);
}

#define SGD_KERNEL(suffix, T)                                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                                \
        sgd##suffix(const __grid_constant__ SgdTable table, const LossScale* __restrict__ scaling) { \
        update_all<T>(table, scaling);                                                               \
    }

FOR_EACH_TYPE(SGD_KERNEL)
