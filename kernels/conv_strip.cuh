// The convolutions of conv_tensor.cuh for numbers of maps that no copy of 16 bytes divides, as conv1's three colours.
#pragma once

#include "conv_tensor.cuh"

// A row of a window is one strip of memory, whatever the number of maps: size · maps neighbours, taken by four where
// every strip starts at a multiple of four. K counts strips, each filled up to whole fours with zeros; the matrix of
// weights has its own count of rows. No padding, so that a strip may leave its image only to the right and below. Images
// that are otherwise are copied first (pad.cu).
struct Strips {
    int length, filled;

    __device__ __forceinline__ explicit Strips(const ConvShape& shape)
        : length(shape.size * shape.maps), filled((shape.size * shape.maps + 3) / 4 * 4) {}
    // Row of the matrix of weights; negative where there is none.
    __device__ __forceinline__ int row(int k, int size) const {
        const int strip = k / filled, place = k % filled;
        return strip < size && place < length ? strip * length + place : -1;
    }
};

// Starts the copy of four neighbours from place `at.map` of row `at.row` of the window whose first pixel is (y, x).
template <class E>
__device__ __forceinline__ void copy_strip(E* to, const E* image, int y, int x, const WindowPlace& at, int length,
                                           const ConvShape& shape) {
    y += at.row;
    const int inside = at.row < shape.size && static_cast<unsigned>(y) < static_cast<unsigned>(shape.height)
                           ? min(length, (shape.width - x) * shape.maps) - at.map
                           : 0;
    const int bytes = max(0, min(4, inside)) * static_cast<int>(sizeof(E));
    cp_async_part<4 * static_cast<int>(sizeof(E))>(to, image + (y * shape.width + x) * shape.maps + at.map, bytes);
}

template <class T>
struct StripForward {
    using E = typename T::Element;
    using S = Share<T, T::BM, T::BK, 4>;
    using B = Share<T, T::BK, T::BN, T::CHUNK>;
    static_assert(S::EVEN, "a thread's packs stand in one column");
    const ConvShape& shape;
    const Strips strips;
    const E *x, *weights;
    const Patch* patches;
    int first_column, k = 0;
    WindowPlace at;

    __device__ __forceinline__ void issue(E* a, E* b) {
#pragma unroll
        for (int i = 0; i < S::PACKS; ++i) {
            const Patch patch = patches[S::row(i)];
            copy_strip(a + S::row(i) * T::ROW_K + S::column(i), x + patch.image, patch.y, patch.x, at, strips.length,
                       shape);
        }
#pragma unroll
        for (int i = 0; i < B::PACKS; ++i) {
            if (!B::exists(i)) continue;
            const int row = strips.row(k + B::row(i), shape.size), column = first_column + B::column(i);
            copy_pack<T::CHUNK>(b + B::row(i) * T::ROW_N + B::column(i), weights + row * shape.outputs + column,
                                row >= 0 && column < shape.outputs);
        }
        k += T::BK;
        at.map += T::BK;
        at.settle(1, strips.filled);
    }
};

template <class T, class E>
__device__ __forceinline__ void strip_forward(const E* x, const E* weights, const float* bias, E* y, int activation,
                                              const ConvShape& shape) {
    using S = Stages<T, true, false>;
    DYN_SHARED(E, memory);
    __shared__ Patch patches[T::BM];
    const BlockPlace<T> block(shape.outputs);
    fill_patches<T>(patches, block.row, shape.images, shape.out_height, shape.out_width, shape.stride, 0,
                    shape.height * shape.width * shape.maps);

    float sums[T::FM][T::FN][4] = {};
    const Strips strips(shape);
    StripForward<T> source{shape, strips, x, weights, patches, block.column};
    source.at.start(StripForward<T>::S::column(0), 1, strips.filled);
    accumulate_stages<S>(source, (shape.size * strips.filled + T::BK - 1) / T::BK, memory, sums);
    add_bias<T>(sums, bias, block.column, shape.outputs, activation);
    write_sums<T>(y, block.row, Straight{shape.images * shape.out_height * shape.out_width}, block.column,
                  shape.outputs, sums, [](float sum, float) { return sum; });
}

template <class T>
struct StripWeights {
    using E = typename T::Element;
    using S = Share<T, T::BK, T::BM, 4>;
    static_assert(S::EVEN, "a thread's packs stand in one column");
    const ConvShape& shape;
    const E *x, *dy;
    Divider image_pixels, row_pixels;
    int first_pixel, end, first_column, length, with_bias;
    WindowPlace at;

    __device__ __forceinline__ void issue(E* a, E* b) {
        const bool ones = with_bias != 0 && at.after(shape.size);
#pragma unroll
        for (int i = 0; i < S::PACKS; ++i) {
            const int number = first_pixel + S::row(i);
            E* to = a + S::row(i) * T::ROW_M + S::column(i);
            if (ones) {
                put_one<4>(to, number < end);
                continue;
            }
            const Patch patch = patch_of(number, image_pixels, row_pixels, shape);
            copy_strip(to, x + patch.image, number < end ? patch.y : OUTSIDE, patch.x, at, length, shape);
        }
        copy_rows<T, T::CHUNK>(b, dy, first_pixel, end, first_column, shape.outputs);
        first_pixel += T::BK;
    }
};

template <class T, class E>
__device__ __forceinline__ void strip_backward_weights(const E* x, const E* dy, float* to, int pixels_per_part,
                                                       int accumulate_into, int with_bias, const Divider& image_pixels,
                                                       const Divider& row_pixels, const ConvShape& shape) {
    using S = Stages<T, false, false>;
    DYN_SHARED(E, memory);
    const Strips strips(shape);
    const BlockPlace<T> block(shape.outputs);
    const PixelShare pixels(shape, pixels_per_part);

    float sums[T::FM][T::FN][4] = {};
    StripWeights<T> source{shape,        x,          dy,           image_pixels, row_pixels,
                           pixels.begin, pixels.end, block.column, strips.length, with_bias};
    source.at.start(block.row + StripWeights<T>::S::column(0), 1, strips.filled);
    accumulate_stages<S>(source, pixels.tiles(T::BK), memory, sums);
    const int depth = shape.size * strips.length, after = shape.size * strips.filled;
    to += static_cast<size_t>(blockIdx.y) * (depth + with_bias) * shape.outputs;
    const auto place_of = [&](int row) { return with_bias != 0 && row == after ? depth : strips.row(row, shape.size); };
    write_sums<T>(to, block.row, place_of, block.column, shape.outputs, sums,
                  [](float sum, float old) { return sum + old; }, accumulate_into != 0 ? to : nullptr);
}

// The peer's part and its weights are not read: a layer of few maps reads the image.
#define STRIP_KERNELS(tile, suffix, blocks)                                                                            \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, blocks)                                                \
        conv_forward_##suffix(const NUMBER::Element* x, const NUMBER::Element*, const NUMBER::Element* weights,        \
                              const NUMBER::Element*, const float* bias, NUMBER::Element* y, int, int activation,      \
                              ConvShape shape) {                                                                       \
        IF_TENSOR(strip_forward<tile>(x, weights, bias, y, activation, shape));                                        \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, blocks)                                                \
        conv_backward_weights_##suffix(const NUMBER::Element* x, const NUMBER::Element* dy, float* to,                 \
                                       int pixels_per_part, int accumulate_into, int with_bias, Divider image_pixels,  \
                                       Divider row_pixels, ConvShape shape) {                                          \
        IF_TENSOR(strip_backward_weights<tile>(x, dy, to, pixels_per_part, accumulate_into, with_bias, image_pixels,   \
                                               row_pixels, shape));                                                    \
    }
