// The convolutions of conv_tensor.cuh for numbers of maps that no copy of 16 bytes divides, as conv1's three colours.
#pragma once

#include "conv_tensor.cuh"

// A row of a window is one strip of memory, whatever the number of maps: size · maps neighbours, taken by four where
// every strip starts at a multiple of four. K counts strips, each filled up to whole fours; the matrix of weights has
// its own count of rows, and zeros stand in for those it lacks. No padding, so that a strip may leave its image only to
// the right and below. Images that are otherwise are copied first (pad.cu).
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

// Where a window begins in the source, the numbers from there to the right edge of its image, and its rows above the
// bottom edge; no rows where there is no window.
struct __align__(16) StripWindow {
    int place, right, rows;

    __device__ __forceinline__ void set(const Patch& patch, bool exists, const ConvShape& shape) {
        place = patch.image + (patch.y * shape.width + patch.x) * shape.maps;
        right = (shape.width - patch.x) * shape.maps;
        rows = exists ? min(shape.size, shape.height - patch.y) : 0;
    }
    // Starts the copy of the four neighbours at `at`; `from` is where they would stand for the window that begins with
    // the source. Edges are a multiple of four away. What follows a strip in its image is copied with it: it meets
    // weights of zero, or is a row of the gradient that is not written.
    template <class E>
    __device__ __forceinline__ void copy(E* to, const E* from, const WindowPlace& at) const {
        // As a number, so that one multiply-add of 64 bits finds it.
        const auto address = reinterpret_cast<size_t>(from) + static_cast<long long>(place) * sizeof(E);
        copy_pack<4>(to, reinterpret_cast<const E*>(address), (at.row < rows) & (at.map < right));
    }
};

template <class T>
struct StripForward {
    using E = typename T::Element;
    using S = Share<T, T::BM, T::BK, 4>;
    using B = Share<T, T::BK, T::BN, T::CHUNK>;
    static_assert(S::EVEN, "a thread's packs stand in one column");
    const ConvShape& shape;
    const Strips strips;
    const E *x, *weights;
    int first_column;
    StripWindow windows[S::PACKS];
    WindowPlace at, weights_at[B::PACKS];

    __device__ __forceinline__ void start(const Patch* patches) {
#pragma unroll
        for (int i = 0; i < S::PACKS; ++i) {
            const Patch patch = patches[S::row(i)];
            windows[i].set(patch, patch.y >= 0, shape);
        }
        at.start(S::column(0), 1, strips.filled);
#pragma unroll
        for (int i = 0; i < B::PACKS; ++i) weights_at[i].start(B::row(i), 1, strips.filled);
    }
    __device__ __forceinline__ void advance(WindowPlace& place) const {
        place.map += T::BK;
        place.settle(1, strips.filled);
    }
    __device__ __forceinline__ void issue(E* a, E* b) {
        const E* from = x + at.row * (shape.width * shape.maps) + at.map;
#pragma unroll
        for (int i = 0; i < S::PACKS; ++i) windows[i].copy(a + T::along_k(S::row(i), S::column(i)), from, at);
        advance(at);
#pragma unroll
        for (int i = 0; i < B::PACKS; ++i) {
            if (!B::exists(i)) continue;
            const WindowPlace& of = weights_at[i];
            const int row = of.row * strips.length + of.map, column = first_column + B::column(i);
            copy_pack<T::CHUNK>(b + T::along_n(B::row(i), B::column(i)), weights + (row * shape.outputs + column),
                                of.row < shape.size && of.map < strips.length && column < shape.outputs);
            advance(weights_at[i]);
        }
    }
};

template <class T, class E>
__device__ __forceinline__ void strip_forward(const E* x, const E* weights, const float* bias, E* y, int activation,
                                              const ConvShape& shape) {
    using S = typename T::template Stages<true, false>;
    DYN_SHARED(E, memory);
    __shared__ Patch patches[T::BM];
    const BlockPlace<T> block(shape.outputs);
    fill_patches<T>(patches, block.row, shape.images, shape.out_height, shape.out_width, shape.stride, 0,
                    shape.height * shape.width * shape.maps);

    float sums[T::FM][T::FN][4] = {};
    const Strips strips(shape);
    StripForward<T> source{shape, strips, x, weights, block.column};
    source.start(patches);
    S::accumulate(source, (shape.size * strips.filled + T::BK - 1) / T::BK, memory, sums);
    add_bias<T>(sums, bias, block.column, shape.outputs, activation);
    write_sums<T>(y, block.row, Straight{shape.images * shape.out_height * shape.out_width}, block.column,
                  shape.outputs, sums, [](float sum, float) { return sum; });
}

// The windows of a tile's pixels, worked out once for all threads. A tile's entries are written when the tile two
// before it is issued, so that a barrier of the pipeline stands between; with four tiles in the ring, one stands between
// the last reads of an entry and the next write, too.
template <class T>
using WindowRing = StripWindow[4][T::BK];

template <class T>
struct StripWeights {
    using E = typename T::Element;
    using S = Share<T, T::BK, T::BM, 4>;
    static_assert(S::EVEN, "a thread's packs stand in one column");
    const ConvShape& shape;
    const E *x, *dy;
    const Divider &image_pixels, &row_pixels;
    WindowRing<T>& ring;
    int first_pixel, end, first_column, with_bias;
    int tile = 0;
    WindowPlace at;

    // Fills the ring for the tile that begins at `first`.
    __device__ __forceinline__ void look_up(int number_of_tile, int first) {
        const int i = static_cast<int>(threadIdx.x), number = first + i;
        if (i < T::BK)
            ring[number_of_tile % 4][i].set(patch_of(number, image_pixels, row_pixels, shape), number < end, shape);
    }
    __device__ __forceinline__ void start(int first_row, int filled) {
        at.start(first_row + S::column(0), 1, filled);
        look_up(0, first_pixel);
        look_up(1, first_pixel + T::BK);
        __syncthreads();
    }
    __device__ __forceinline__ void issue(E* a, E* b) {
        look_up(tile + 2, first_pixel + 2 * T::BK);
        E* to = a + T::along_m(S::row(0), S::column(0));
        constexpr int DOWN = T::THREADS / S::ACROSS;
        if (with_bias != 0 && at.after(shape.size)) {
#pragma unroll
            for (int i = 0; i < S::PACKS; ++i) put_one<4>(to + i * DOWN * T::ROW_M, first_pixel + S::row(i) < end);
        } else {
            const E* from = x + at.row * (shape.width * shape.maps) + at.map;
#pragma unroll
            for (int i = 0; i < S::PACKS; ++i) {
                const StripWindow window = ring[tile % 4][S::row(i)];
                window.copy(to + i * DOWN * T::ROW_M, from, at);
            }
        }
        copy_rows<T, T::CHUNK>(b, dy, first_pixel, end, first_column, shape.outputs);
        first_pixel += T::BK;
        ++tile;
    }
};

template <class T, class E>
__device__ __forceinline__ void strip_backward_weights(const E* x, const E* dy, float* to, int pixels_per_part,
                                                       int accumulate_into, int with_bias, const Divider& image_pixels,
                                                       const Divider& row_pixels, const ConvShape& shape) {
    using S = typename T::template Stages<false, false>;
    DYN_SHARED(E, memory);
    __shared__ WindowRing<T> ring;
    const Strips strips(shape);
    const BlockPlace<T> block(shape.outputs);
    const PixelShare pixels(shape, pixels_per_part);

    float sums[T::FM][T::FN][4] = {};
    StripWeights<T> source{shape,        x,          dy,           image_pixels, row_pixels, ring,
                           pixels.begin, pixels.end, block.column, with_bias};
    source.start(block.row, strips.filled);
    S::accumulate(source, pixels.tiles(T::BK), memory, sums);
    const int depth = shape.size * strips.length, after = shape.size * strips.filled;
    to += static_cast<size_t>(blockIdx.y) * (depth + with_bias) * shape.outputs;
    const auto place_of = [&](int row) { return with_bias != 0 && row == after ? depth : strips.row(row, shape.size); };
    write_sums<T>(to, block.row, place_of, block.column, shape.outputs, sums,
                  [](float sum, float old) { return sum + old; }, accumulate_into != 0 ? to : nullptr);
}

// The peer's part, its weights and sums of another launch are not read: a layer of few maps reads the image.
#define STRIP_KERNELS(tile, suffix, blocks)                                                                            \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, blocks)                                                \
        conv_forward_##suffix(const NUMBER::Element* x, const NUMBER::Element*, const NUMBER::Element* weights,        \
                              const NUMBER::Element*, const float* bias, NUMBER::Element* y, int activation,           \
                              PartialSums, ConvShape shape) {                                                          \
        IF_TENSOR(strip_forward<tile>(x, weights, bias, y, activation, shape));                                        \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, blocks)                                                \
        conv_backward_weights_##suffix(const NUMBER::Element* x, const NUMBER::Element* dy, float* to,                 \
                                       int pixels_per_part, int accumulate_into, int with_bias, Divider image_pixels,  \
                                       Divider row_pixels, ConvShape shape) {                                          \
        IF_TENSOR(strip_backward_weights<tile>(x, dy, to, pixels_per_part, accumulate_into, with_bias, image_pixels,   \
                                               row_pixels, shape));                                                    \
    }
