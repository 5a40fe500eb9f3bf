// The convolutions of conv.cu on tensor cores: the same products and orders, operands in 16 bits or TF32, sums in f32.
// Included by one file for each type of number, so that they compile side by side.
#pragma once

#include "conv.cuh"
#include "tensor_tile.cuh"

// Starts the copies of a BM x BK tile of gathered patches, `Pack` maps at a time. Forward the window moves with
// (row, column), backward against them. `at` is the place in the window of this thread's packs. Windows overlap: a block
// reads a pixel once for every place in the window.
template <class T, int Pack, bool Backward>
struct TensorGather {
    using E = typename T::Element;
    using S = Share<T, T::BM, T::BK, Pack>;
    static_assert(S::EVEN, "a thread's packs stand in one column");

    __device__ static __forceinline__ void copy(E* to, const E* source, const Patch* patches, const WindowPlace& at,
                                                int height, int width, int maps, int size, int stride) {
#pragma unroll 8
        for (int i = 0; i < S::PACKS; ++i) {
            const Patch patch = patches[S::row(i)];
            const WindowPixel pixel = window_pixel<Backward>(patch, at, height, width, size, stride);
            copy_pack<Pack, Again::YES>(to + T::along_k(S::row(i), S::column(i)),
                                        source + patch.image + pixel.place * maps + at.map, pixel.inside);
        }
    }
};

// ---- forward ----------------------------------------------------------------------------------------------------

// Tiles of patches and of weights, first of this column's maps, then of the peer's where there are some.
template <class T, int Pack>
struct TensorForward {
    using E = typename T::Element;
    using Gather = TensorGather<T, Pack, false>;
    const ConvShape& shape;
    const E *x, *weights, *next_x, *next_weights;
    const Patch* patches;
    int first_column, k = 0;
    WindowPlace at;

    __device__ __forceinline__ void issue(E* a, E* b) {
        const int depth = shape.size * shape.size * shape.maps;
        if (k >= depth) {
            x = next_x, weights = next_weights;
            k = 0;
        }
        if (k == 0) at.start(Gather::S::column(0), shape.size, shape.maps);
        Gather::copy(a, x, patches, at, shape.height, shape.width, shape.maps, shape.size, 1);
        copy_rows<T, Pack>(b, weights, k, depth, first_column, shape.outputs);
        k += T::BK;
        at.map += T::BK;
        at.settle(shape.size, shape.maps);
    }
};

template <class T, int Pack, class E>
__device__ __forceinline__ void tensor_forward(const E* x, const E* peer_x, const E* weights, const E* peer_weights,
                                               const float* bias, E* y, int activation,
                                               const PartialSums& partial, const ConvShape& shape) {
    using S = typename T::template Stages<true, false>;
    DYN_SHARED(E, memory);
    __shared__ Patch patches[T::BM];
    const BlockPlace<T> block(shape.outputs);
    fill_patches<T>(patches, block.row, shape.images, shape.out_height, shape.out_width, shape.stride, -shape.pad,
                    shape.height * shape.width * shape.maps);

    float sums[T::FM][T::FN][4] = {};
    take_up<T>(partial, sums);
    TensorForward<T, Pack> source{shape, x, weights, peer_x, peer_weights, patches, block.column};
    const int depth = shape.size * shape.size * shape.maps, tiles = (depth + T::BK - 1) / T::BK;
    S::accumulate(source, peer_x != nullptr ? 2 * tiles : tiles, memory, sums);
    if (leave<T>(partial, sums)) return;
    add_bias<T>(sums, bias, block.column, shape.outputs, activation);
    write_sums<T>(y, block.row, Straight{shape.images * shape.out_height * shape.out_width}, block.column,
                  shape.outputs, sums, [](float sum, float) { return sum; });
}

// ---- gradient of the input --------------------------------------------------------------------------------------

// Tiles of patches of dy, and of the weights with inputs and outputs changed over: rows along K as they are stored.
template <class T, int Pack>
struct TensorBackward {
    using E = typename T::Element;
    using Gather = TensorGather<T, Pack, true>;
    using S = Share<T, T::BN, T::BK, Pack>;
    const ConvShape& shape;
    const E *dy, *weights;
    const Patch* patches;
    int first_column;
    WindowPlace at;

    __device__ __forceinline__ void issue(E* a, E* b) {
        Gather::copy(a, dy, patches, at, shape.out_height, shape.out_width, shape.outputs, shape.size, shape.stride);
        const int window = (at.row * shape.size + at.column) * shape.maps;
#pragma unroll 8
        for (int i = 0; i < S::PACKS; ++i) {
            if (!S::exists(i)) continue;
            const int map = first_column + S::row(i);
            copy_pack<Pack>(b + T::along_k(S::row(i), S::column(i)), weights + (window + map) * shape.outputs + at.map,
                            map < shape.maps && at.row < shape.size);
        }
        at.map += T::BK;
        at.settle(shape.size, shape.outputs);
    }
};

template <class T, int Pack, class E>
__device__ __forceinline__ void tensor_backward_data(const E* dy, const E* weights, const E* y, int activated, E* dx,
                                                     const ConvShape& shape) {
    using S = typename T::template Stages<true, true>;
    DYN_SHARED(E, memory);
    __shared__ Patch patches[T::BM];
    const BlockPlace<T> block(shape.maps);
    fill_patches<T>(patches, block.row, shape.images, shape.height, shape.width, 1, shape.pad,
                    shape.out_height * shape.out_width * shape.outputs);

    float sums[T::FM][T::FN][4] = {};
    TensorBackward<T, Pack> source{shape, dy, weights, patches, block.column};
    source.at.start(TensorGather<T, Pack, true>::S::column(0), shape.size, shape.outputs);
    const int depth = shape.size * shape.size * shape.outputs;
    S::accumulate(source, (depth + T::BK - 1) / T::BK, memory, sums);
    write_sums<T>(dx, block.row, Straight{shape.images * shape.height * shape.width}, block.column, shape.maps, sums,
                  [&](float sum, float y) { return sum * activation_slope(activated, y); }, y);
}

// ---- gradient of the weights ------------------------------------------------------------------------------------

// Tiles of patches with pixels along K, and of dy. A thread's place in the window never changes.
template <class T, int Pack>
struct TensorWeights {
    using E = typename T::Element;
    using S = Share<T, T::BK, T::BM, Pack>;
    static_assert(S::EVEN, "a thread's packs stand in one column");
    const ConvShape& shape;
    const E *x, *dy;
    Divider image_pixels, row_pixels;
    int first_pixel, end, first_column, with_bias;
    WindowPlace at;

    __device__ __forceinline__ void issue(E* a, E* b) {
        const bool ones = with_bias != 0 && at.after(shape.size);
#pragma unroll 8
        for (int i = 0; i < S::PACKS; ++i) {
            const int number = first_pixel + S::row(i);
            E* to = a + T::along_m(S::row(i), S::column(i));
            if (ones) {
                put_one<Pack>(to, number < end);
                continue;
            }
            const Patch patch = patch_of(number, image_pixels, row_pixels, shape);
            const WindowPixel pixel = window_pixel<false>(patch, at, shape.height, shape.width, shape.size, 1);
            copy_pack<Pack>(to, x + patch.image + pixel.place * shape.maps + at.map, number < end && pixel.inside);
        }
        copy_rows<T, Pack>(b, dy, first_pixel, end, first_column, shape.outputs);
        first_pixel += T::BK;
    }
};

// Block (tile, part), as in conv.cu.
template <class T, int Pack, class E>
__device__ __forceinline__ void tensor_backward_weights(const E* x, const E* dy, float* to, int pixels_per_part,
                                                        int accumulate_into, int with_bias,
                                                        const Divider& image_pixels, const Divider& row_pixels,
                                                        const ConvShape& shape) {
    using S = typename T::template Stages<false, false>;
    DYN_SHARED(E, memory);
    const int rows = shape.size * shape.size * shape.maps + with_bias;
    const BlockPlace<T> block(shape.outputs);
    const PixelShare pixels(shape, pixels_per_part);

    float sums[T::FM][T::FN][4] = {};
    TensorWeights<T, Pack> source{shape,        x,          dy,           image_pixels, row_pixels,
                                  pixels.begin, pixels.end, block.column, with_bias};
    source.at.start(block.row + TensorWeights<T, Pack>::S::column(0), shape.size, shape.maps);
    S::accumulate(source, pixels.tiles(T::BK), memory, sums);
    to += static_cast<size_t>(blockIdx.y) * rows * shape.outputs;
    write_sums<T>(to, block.row, Straight{rows}, block.column, shape.outputs, sums,
                  [](float sum, float old) { return sum + old; }, accumulate_into != 0 ? to : nullptr);
}

// ---- kernels ----------------------------------------------------------------------------------------------------

// `blocks` of a kernel are to fit a multiprocessor. Where its instructions are not there, `guard` leaves it empty.
#define TENSOR_FORWARD(forward, tile, suffix, pack, blocks, guard)                                                     \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, blocks)                                                \
        conv_forward_##suffix(const NUMBER::Element* x, const NUMBER::Element* peer_x, const NUMBER::Element* weights, \
                              const NUMBER::Element* peer_weights, const float* bias, NUMBER::Element* y,              \
                              int activation, PartialSums partial, ConvShape shape) {                                  \
        guard(forward<tile, pack>(x, peer_x, weights, peer_weights, bias, y, activation, partial, shape));             \
    }
#define TENSOR_BACKWARD_DATA(tile, suffix, pack, blocks, guard)                                                        \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, blocks)                                                \
        conv_backward_data_##suffix(const NUMBER::Element* dy, const NUMBER::Element* weights,                         \
                                    const NUMBER::Element* y, int activated, NUMBER::Element* dx, ConvShape shape) {   \
        guard(tensor_backward_data<tile, pack>(dy, weights, y, activated, dx, shape));                                 \
    }
#define TENSOR_BACKWARD_WEIGHTS(tile, suffix, pack, blocks, guard)                                                     \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, blocks)                                                \
        conv_backward_weights_##suffix(const NUMBER::Element* x, const NUMBER::Element* dy, float* to,                 \
                                       int pixels_per_part, int accumulate_into, int with_bias, Divider image_pixels,  \
                                       Divider row_pixels, ConvShape shape) {                                          \
        guard(tensor_backward_weights<tile, pack>(x, dy, to, pixels_per_part, accumulate_into, with_bias,              \
                                                  image_pixels, row_pixels, shape));                                   \
    }

// Tiles of 128, 96, 64 and 48 columns. A file defines NUMBER before it uses them.
using Tensor128 = TensorTile<NUMBER, 128, 2, 4>;
using Tensor96 = TensorTile<NUMBER, 96, 2, 2>;
using Tensor64 = TensorTile<NUMBER, 64, 2, 2>;
using Tensor48 = TensorTile<NUMBER, 48, 4, 1>;

// The three of a tile. Below compute capability 8.0 there is nothing to run.
#define TENSOR_KERNELS(tile, suffix, pack, blocks)                        \
    TENSOR_FORWARD(tensor_forward, tile, suffix, pack, blocks, IF_TENSOR) \
    TENSOR_BACKWARD_DATA(tile, suffix, pack, blocks, IF_TENSOR)           \
    TENSOR_BACKWARD_WEIGHTS(tile, suffix, pack, blocks, IF_TENSOR)
