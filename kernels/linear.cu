// What surrounds the matrix products of fully connected layers; the products themselves are cuBLAS's.
#include "index.cuh"

// y = activation(sums + bias) of a row-major matrix of `elements` in rows of `outputs`; `y` may be `sums`.
template <class T>
__device__ __forceinline__ void add_bias(const float* sums, const float* __restrict__ bias, T* y, int elements,
                                         int activation, const Divider& outputs) {
    const int i = global_thread();
    if (i >= elements) return;
    int output = i;
    outputs.take(output);
    y[i] = narrow<T>(activate(activation, sums[i] + bias[output]));
}

// Ends an update whose gradient has gone into the momentum already: v = v − decay_rate·w; w = w + v. `copy`, if there is
// one, becomes the weights in its type.
template <class T>
__device__ __forceinline__ void end_update(float* __restrict__ weights, float* __restrict__ momentum,
                                           T* __restrict__ copy, int elements, float decay_rate) {
    const int first = quad_start();
    Quad w = load_quad(weights, first, elements), v = load_quad(momentum, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        v.v[i] = fmaf(-decay_rate, w.v[i], v.v[i]);
        w.v[i] += v.v[i];
    }
    store_quad(momentum, first, elements, v);
    store_quad(weights, first, elements, w);
    if (copy != nullptr) store_quad(copy, first, elements, w);
}

#define LINEAR_KERNELS(suffix, T)                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        linear_bias##suffix(const float* sums, const float* __restrict__ bias, T* y, int elements, int activation, \
            Divider outputs) {                                                                                     \
        add_bias(sums, bias, y, elements, activation, outputs);                                                    \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        linear_update##suffix(float* __restrict__ weights, float* __restrict__ momentum, T* __restrict__ copy,     \
            int elements, float decay_rate) {                                                                      \
        end_update(weights, momentum, copy, elements, decay_rate);                                                 \
    }

FOR_EACH_TYPE(LINEAR_KERNELS)
