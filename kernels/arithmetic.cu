// Scaling and adding of whole buffers. One thread for four elements.
#include "index.cuh"

extern "C" __global__ void __launch_bounds__(256) scale(float* y, int elements, float factor) {
    const int first = quad_start();
    Quad quad = load_quad(y, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) quad.v[i] *= factor;
    store_quad(y, first, elements, quad);
}

extern "C" __global__ void __launch_bounds__(256)
    add(const float* __restrict__ from, float* __restrict__ into, int elements) {
    const int first = quad_start();
    const Quad summand = load_quad(from, first, elements);
    Quad quad = load_quad(into, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) quad.v[i] += summand.v[i];
    store_quad(into, first, elements, quad);
}
