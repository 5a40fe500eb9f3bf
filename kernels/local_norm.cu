// Response normalisation over a square of pixels within each map. One thread an element; neighbouring threads read
// neighbouring maps.
#include "lrn.cuh"

struct NormShape {
    int height, width;
    Divider maps, by_width, by_height;
};

struct NormPlace {
    int image_and_map, row, column;

    __device__ __forceinline__ NormPlace(int number, const NormShape& shape) {
        int map = number;
        column = shape.maps.take(map);
        row = shape.by_width.take(column);
        image_and_map = shape.by_height.take(row) * shape.height * shape.width * static_cast<int>(shape.maps.divisor) + map;
    }
    __device__ __forceinline__ int index(int r, int c, const NormShape& shape) const {
        return image_and_map + (r * shape.width + c) * static_cast<int>(shape.maps.divisor);
    }
};

// Calls `visit` with the index of each pixel from `before` before to `after` after the place, both ways, in the map.
template <class Visit>
__device__ __forceinline__ void for_square(const NormPlace& at, int before, int after, const NormShape& shape,
                                           Visit visit) {
    for (int r = max(at.row - before, 0); r <= min(at.row + after, shape.height - 1); ++r)
        for (int c = max(at.column - before, 0); c <= min(at.column + after, shape.width - 1); ++c)
            visit(at.index(r, c, shape));
}

template <class T>
__device__ __forceinline__ float square_denominator(const T* x, const NormPlace& at, const NormShape& shape,
                                                    const LrnConstants& op) {
    float sum = 0.0f;
    for_square(at, op.size / 2, (op.size - 1) / 2, shape, [&](int i) {
        const float value = widen(x[i]);
        sum = fmaf(value, value, sum);
    });
    return lrn_denominator(sum, op);
}

template <class T>
__device__ __forceinline__ void forward(const T* __restrict__ x, T* __restrict__ y, int elements,
                                        const NormShape& shape, const LrnConstants& op) {
    const int i = global_thread();
    if (i >= elements) return;
    const LrnFactors factors(square_denominator(x, NormPlace(i, shape), shape, op), op.beta);
    y[i] = narrow<T>(widen(x[i]) * factors.scale);
}

// First half of the gradient: direct = dy · d^(−beta), and terms = direct · x / d.
template <class T>
__device__ __forceinline__ void terms_of(const T* __restrict__ x, const T* __restrict__ dy, float* __restrict__ direct,
                                         float* __restrict__ terms, int elements, const NormShape& shape,
                                         const LrnConstants& op) {
    const int i = global_thread();
    if (i >= elements) return;
    const LrnFactors factors(square_denominator(x, NormPlace(i, shape), shape, op), op.beta);
    const float product = widen(dy[i]) * factors.scale;
    direct[i] = product;
    terms[i] = product * widen(x[i]) * factors.inverse;
}

// Second half: the terms of all pixels whose square holds this one.
template <class T>
__device__ __forceinline__ void backward(const T* __restrict__ x, const float* __restrict__ direct,
                                         const float* __restrict__ terms, T* __restrict__ dx, int elements,
                                         const NormShape& shape, const LrnConstants& op) {
    const int i = global_thread();
    if (i >= elements) return;
    float sum = 0.0f;
    for_square(NormPlace(i, shape), (op.size - 1) / 2, op.size / 2, shape, [&](int j) { sum += terms[j]; });
    dx[i] = narrow<T>(fmaf(-2.0f * op.alpha * op.beta * widen(x[i]), sum, direct[i]));
}

#define LOCAL_NORM_KERNELS(suffix, T)                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                           \
        local_norm_forward##suffix(const T* __restrict__ x, T* __restrict__ y, int elements, NormShape shape,   \
            LrnConstants op) {                                                                                  \
        forward(x, y, elements, shape, op);                                                                     \
    }                                                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                           \
        local_norm_terms##suffix(const T* __restrict__ x, const T* __restrict__ dy, float* __restrict__ direct, \
            float* __restrict__ terms, int elements, NormShape shape, LrnConstants op) {                        \
        terms_of(x, dy, direct, terms, elements, shape, op);                                                    \
    }                                                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                           \
        local_norm_backward##suffix(const T* __restrict__ x, const float* __restrict__ direct,                  \
            const float* __restrict__ terms, T* __restrict__ dx, int elements, NormShape shape,                 \
            LrnConstants op) {                                                                                  \
        backward(x, direct, terms, dx, elements, shape, op);                                                    \
    }

FOR_EACH_TYPE(LOCAL_NORM_KERNELS)
