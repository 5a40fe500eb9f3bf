// The update rule of the paper's section 5. One thread for four weights.
#include "index.cuh"

struct Sgd {
    float rate, momentum, decay;
};

// v = momentum·v − rate·(decay·w + gradient); w = w + v
extern "C" __global__ void __launch_bounds__(256)
    sgd(float* __restrict__ weights, float* __restrict__ momentum, const float* __restrict__ gradient, int elements,
        Sgd op) {
    const int first = quad_start();
    const Quad g = load_quad(gradient, first, elements);
    Quad w = load_quad(weights, first, elements), v = load_quad(momentum, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        v.v[i] = fmaf(op.momentum, v.v[i], -op.rate * fmaf(op.decay, w.v[i], g.v[i]));
        w.v[i] += v.v[i];
    }
    store_quad(momentum, first, elements, v);
    store_quad(weights, first, elements, w);
}
