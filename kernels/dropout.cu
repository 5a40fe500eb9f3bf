// Dropout of a layer's outputs. The mask is never stored: it is a function of the step, the image and the unit, or a
// given array. One thread a unit.
#include "index.cuh"
#include "philox.cuh"

// Column's units, first unit's number and number of all units; `first_image` counts within the step's whole batch.
struct DropoutPlace {
    Divider units;
    unsigned first_unit, all_units, first_image;
};

struct DropoutStream {
    PhiloxKey key;
    unsigned long long step;
    unsigned lane, threshold;
};

// `later`, if there is one, holds the step instead of `stream`.
__device__ __forceinline__ bool kept(int i, const float* mask, const DropoutPlace& place, const DropoutStream& stream,
                                     const unsigned long long* later) {
    if (mask != nullptr) return mask[i] != 0.0f;
    const unsigned long long step = later != nullptr ? *later : stream.step;
    int unit = i;
    const unsigned image = static_cast<unsigned>(place.units.take(unit)) + place.first_image;
    const unsigned element = image * place.all_units + place.first_unit + static_cast<unsigned>(unit);
    return philox_word(stream.key, element, stream.lane, step) >= stream.threshold;
}

template <class T>
__device__ __forceinline__ void forward(T* __restrict__ y, const float* __restrict__ mask, int elements, float factor,
                                        const DropoutPlace& place, const DropoutStream& stream,
                                        const unsigned long long* later) {
    const int i = global_thread();
    if (i >= elements) return;
    y[i] = narrow<T>(kept(i, mask, place, stream, later) ? widen(y[i]) * factor : 0.0f);
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
