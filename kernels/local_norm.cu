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

__device__ __forceinline__ float square_denominator(const float* x, const NormPlace& at, const NormShape& shape,
                                                    const LrnConstants& op) {
    float sum = 0.0f;
    for_square(at, op.size / 2, (op.size - 1) / 2, shape, [&](int i) { sum = fmaf(x[i], x[i], sum); });
    return lrn_denominator(sum, op);
}

extern "C" __global__ void __launch_bounds__(256)
    local_norm_forward(const float* __restrict__ x, float* __restrict__ y, int elements, NormShape shape,
                       LrnConstants op) {
    const int i = global_thread();
    if (i >= elements) return;
    y[i] = x[i] * lrn_scale(square_denominator(x, NormPlace(i, shape), shape, op), op.beta);
}

// First half of the gradient: dx = dy · d^(−beta), and terms = dx · x / d.
extern "C" __global__ void __launch_bounds__(256)
    local_norm_terms(const float* __restrict__ x, const float* __restrict__ dy, float* __restrict__ dx,
                     float* __restrict__ terms, int elements, NormShape shape, LrnConstants op) {
    const int i = global_thread();
    if (i >= elements) return;
    const float denominator = square_denominator(x, NormPlace(i, shape), shape, op);
    const float direct = dy[i] * lrn_scale(denominator, op.beta);
    dx[i] = direct;
    terms[i] = direct * x[i] / denominator;
}

// Second half: the terms of all pixels whose square holds this one.
extern "C" __global__ void __launch_bounds__(256)
    local_norm_backward(const float* __restrict__ x, const float* __restrict__ terms, float* __restrict__ dx,
                        int elements, NormShape shape, LrnConstants op) {
    const int i = global_thread();
    if (i >= elements) return;
    float sum = 0.0f;
    for_square(NormPlace(i, shape), (op.size - 1) / 2, op.size / 2, shape, [&](int j) { sum += terms[j]; });
    dx[i] = fmaf(-2.0f * op.alpha * op.beta * x[i], sum, dx[i]);
}
