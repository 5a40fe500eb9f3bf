// Activations apart from the layers that fuse them. One thread for four elements.
#include "index.cuh"

template <class T>
__device__ __forceinline__ void forward(T* y, int elements, int activation) {
    const int first = quad_start();
    Quad quad = load_quad(y, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) quad.v[i] = activate(activation, quad.v[i]);
    store_quad(y, first, elements, quad);
}

template <class T>
__device__ __forceinline__ void backward(const T* __restrict__ y, T* __restrict__ dy, int elements, int activation) {
    const int first = quad_start();
    const Quad output = load_quad(y, first, elements);
    Quad gradient = load_quad(dy, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) gradient.v[i] *= activation_slope(activation, output.v[i]);
    store_quad(dy, first, elements, gradient);
}

#define ACTIVATION_KERNELS(suffix, T)                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                            \
        activation_forward##suffix(T* y, int elements, int activation) {                                         \
        forward(y, elements, activation);                                                                        \
    }                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                            \
        activation_backward##suffix(const T* __restrict__ y, T* __restrict__ dy, int elements, int activation) { \
        backward(y, dy, elements, activation);                                                                   \
    }

FOR_EACH_TYPE(ACTIVATION_KERNELS)
