// What surrounds the matrix products of fully connected layers; the products themselves are cuBLAS's.
#include "index.cuh"

// y = activation(y + bias) of a row-major matrix of `elements` in rows of `outputs`.
extern "C" __global__ void __launch_bounds__(256)
    linear_bias(float* __restrict__ y, const float* __restrict__ bias, int elements, int activation,
                Divider outputs) {
    const int i = global_thread();
    if (i >= elements) return;
    int output = i;
    outputs.take(output);
    y[i] = activate(activation, y[i] + bias[output]);
}

// Ends an update whose gradient has gone into the momentum already: v = v − decay_rate·w; w = w + v.
extern "C" __global__ void __launch_bounds__(256)
    linear_update(float* __restrict__ weights, float* __restrict__ momentum, int elements, float decay_rate) {
    const int first = quad_start();
    Quad w = load_quad(weights, first, elements), v = load_quad(momentum, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        v.v[i] = fmaf(-decay_rate, w.v[i], v.v[i]);
        w.v[i] += v.v[i];
    }
    store_quad(momentum, first, elements, v);
    store_quad(weights, first, elements, w);
}
