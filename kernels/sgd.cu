// The update rule of the paper's section 5. One thread for four weights.
#include "index.cuh"
#include "loss_scale.cuh"

struct Sgd {
    float rate, momentum, decay;
};

// v = momentum·v − rate·(decay·w + gradient); w = w + v. `later`, if there is one, holds the constants instead of `op`.
// `copy`, if there is one, becomes the weights in its type. After an overflow nothing changes.
template <class T>
__device__ __forceinline__ void update(float* __restrict__ weights, float* __restrict__ momentum,
                                       const float* __restrict__ gradient, T* __restrict__ copy, int elements,
                                       Sgd op, const Sgd* __restrict__ later, const LossScale* __restrict__ scaling) {
    if (later != nullptr) op = *later;
    float unscale = 1.0f;
    if (scaling != nullptr) {
        if (scaling->overflow != 0.0f) return;
        unscale = 1.0f / scaling->scale;
    }
    const int first = quad_start();
    const Quad g = load_quad(gradient, first, elements);
    Quad w = load_quad(weights, first, elements), v = load_quad(momentum, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        v.v[i] = fmaf(op.momentum, v.v[i], -op.rate * fmaf(op.decay, w.v[i], g.v[i] * unscale));
        w.v[i] += v.v[i];
    }
    store_quad(momentum, first, elements, v);
    store_quad(weights, first, elements, w);
    if (copy != nullptr) store_quad(copy, first, elements, w);
}

#define SGD_KERNEL(suffix, T)                                                               \
    extern "C" __global__ void __launch_bounds__(256)                                       \
        sgd##suffix(float* __restrict__ weights, float* __restrict__ momentum,              \
            const float* __restrict__ gradient, T* __restrict__ copy, int elements, Sgd op, \
            const Sgd* __restrict__ later, const LossScale* __restrict__ scaling) {         \
        update(weights, momentum, gradient, copy, elements, op, later, scaling);            \
    }

FOR_EACH_TYPE(SGD_KERNEL)
