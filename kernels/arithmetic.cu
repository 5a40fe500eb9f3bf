// Scaling and adding of whole buffers. One thread for four elements.
#include "index.cuh"

template <class T>
__device__ __forceinline__ void scale_by(T* y, int elements, float factor) {
    const int first = quad_start();
    Quad quad = load_quad(y, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) quad.v[i] *= factor;
    store_quad(y, first, elements, quad);
}

template <class T>
__device__ __forceinline__ void add_to(const T* __restrict__ from, T* __restrict__ into, int elements) {
    const int first = quad_start();
    const Quad summand = load_quad(from, first, elements);
    Quad quad = load_quad(into, first, elements);
#pragma unroll
    for (int i = 0; i < 4; ++i) quad.v[i] += summand.v[i];
    store_quad(into, first, elements, quad);
}

#define ARITHMETIC_KERNELS(suffix, T)                                                                   \
    extern "C" __global__ void __launch_bounds__(256) scale##suffix(T* y, int elements, float factor) { \
        scale_by(y, elements, factor);                                                                  \
    }                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                                   \
        add##suffix(const T* __restrict__ from, T* __restrict__ into, int elements) {                   \
        add_to(from, into, elements);                                                                   \
    }

FOR_EACH_TYPE(ARITHMETIC_KERNELS)
