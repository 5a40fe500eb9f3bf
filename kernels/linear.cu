// What surrounds the matrix products of fully connected layers; the products themselves are cuBLAS's.
#include "dropout.cuh"

// activation(sums + bias) of number `i` of a row-major matrix in rows of `outputs`.
__device__ __forceinline__ float activated_sum(const float* sums, const float* bias, int i, int activation,
                                               const Divider& outputs) {
    int output = i;
    outputs.take(output);
    return activate(activation, sums[i] + bias[output]);
}

// y = activation(sums + bias) of a matrix of `elements`; `y` may be `sums`.
template <class T>
__device__ __forceinline__ void add_bias(const float* sums, const float* __restrict__ bias, T* y, int elements,
                                         int activation, const Divider& outputs) {
    const int i = global_thread();
    if (i < elements) y[i] = narrow<T>(activated_sum(sums, bias, i, activation, outputs));
}

// The same, and dropout.
template <class T>
__device__ __forceinline__ void add_bias_and_drop(const float* sums, const float* __restrict__ bias, T* y, int elements,
                                                  int activation, const Divider& outputs,
                                                  const float* __restrict__ mask, float factor,
                                                  const DropoutPlace& place, const DropoutStream& stream,
                                                  const unsigned long long* later) {
    const int i = global_thread();
    if (i >= elements) return;
    const float value = activated_sum(sums, bias, i, activation, outputs);
    y[i] = narrow<T>(dropped_out(value, i, mask, factor, place, stream, later));
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
        linear_bias_dropout##suffix(const float* sums, const float* __restrict__ bias, T* y, int elements,         \
            int activation, Divider outputs, const float* __restrict__ mask, float factor, DropoutPlace place,     \
            DropoutStream stream, const unsigned long long* later) {                                               \
        add_bias_and_drop(sums, bias, y, elements, activation, outputs, mask, factor, place, stream, later);       \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        linear_update##suffix(float* __restrict__ weights, float* __restrict__ momentum, T* __restrict__ copy,     \
            int elements, float decay_rate) {                                                                      \
        end_update(weights, momentum, copy, elements, decay_rate);                                                 \
    }

FOR_EACH_TYPE(LINEAR_KERNELS)
