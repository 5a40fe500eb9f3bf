// Activations apart from the layers that fuse them. One thread for four elements.
#include "index.cuh"

extern "C" __global__ void __launch_bounds__(256) activation_forward(float* y, int elements, int activation) {
    const int first = quad_start();
    Quad quad = load_quad(y, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) quad.v[i] = activate(activation, quad.v[i]);
    store_quad(y, first, elements, quad);
}

extern "C" __global__ void __launch_bounds__(256)
    activation_backward(const float* __restrict__ y, float* __restrict__ dy, int elements, int activation) {
    const int first = quad_start();
    const Quad output = load_quad(y, first, elements);
    Quad gradient = load_quad(dy, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) gradient.v[i] *= activation_slope(activation, output.v[i]);
    store_quad(dy, first, elements, gradient);
}
