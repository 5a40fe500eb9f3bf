// Dropout of a layer's outputs, where no fully connected layer includes it. One thread a unit.
#include "dropout.cuh"

template <class T>
__device__ __forceinline__ void forward(T* __restrict__ y, const float* __restrict__ mask, int elements, float factor,
                                        const DropoutPlace& place, const DropoutStream& stream,
                                        const unsigned long long* later) {
    const int i = global_thread();
    if (i >= elements) return;
    y[i] = narrow<T>(dropped_out(widen(y[i]), i, mask, factor, place, stream, later));
}

// With the slope of the activation whose output `y` is, as dropout left it; none where it is null.
template <class T>
__device__ __forceinline__ void backward(const T* __restrict__ y, int activated, T* __restrict__ dy,
                                         const float* __restrict__ mask, int elements, float factor,
                                         const DropoutPlace& place, const DropoutStream& stream,
                                         const unsigned long long* later) {
    const int i = global_thread();
    if (i >= elements) return;
    const float undropped = y != nullptr ? widen(y[i]) / factor : 0.0f;
    const float gradient = widen(dy[i]) * factor * activation_slope(activated, undropped);
    dy[i] = narrow<T>(kept(i, mask, place, stream, later) ? gradient : 0.0f);
}

#define DROPOUT_KERNELS(suffix, T)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        dropout_forward##suffix(T* __restrict__ y, const float* __restrict__ mask, int elements, float factor,        \
            DropoutPlace place, DropoutStream stream, const unsigned long long* later) {                              \
        forward(y, mask, elements, factor, place, stream, later);                                                     \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        dropout_backward##suffix(const T* __restrict__ y, int activated, T* __restrict__ dy,                          \
            const float* __restrict__ mask, int elements, float factor, DropoutPlace place, DropoutStream stream,     \
            const unsigned long long* later) {                                                                        \
        backward(y, activated, dy, mask, elements, factor, place, stream, later);                                     \
    }

FOR_EACH_TYPE(DROPOUT_KERNELS)
