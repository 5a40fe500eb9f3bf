// Convolution as implicit matrix products: the matrix of input patches is never built, each tile of it is gathered
// from the images on its way to shared memory. Layouts and orders as in src/network/op.rs.
//
//   forward           y[pixel, output]   = sum over (row, column, map)    patch · weights
//   backward_data     dx[pixel, map]     = sum over (row, column, output) patch of dy · transposed weights,
//                                          times the slope of the activation whose output `y` the input is
//   backward_weights  dw[(row, column, map), output] = sum over pixels    patch · dy, in parts that `sum_parts` adds;
//                     where asked for, the sums of dy, the gradient of the bias, as one row more
//
// Sums go in a fixed order: the same bits every time.
#include "conv.cuh"
#include "tile.cuh"

// One thread's share of a BM x BK tile of gathered patches. `Pack` maps at a time: 4 where the number of maps is a
// multiple of 4. Forward the window moves with (row, column), backward against them.
template <class T, int Pack, bool Backward>
struct Gather {
    static constexpr int ACROSS = T::BK / Pack, DOWN = T::THREADS / ACROSS, SHARE = T::BM / DOWN;
    float values[SHARE][Pack];

    __device__ static __forceinline__ int first_k() { return static_cast<int>(threadIdx.x) % ACROSS * Pack; }
    __device__ static __forceinline__ int first_row() { return static_cast<int>(threadIdx.x) / ACROSS; }

    __device__ __forceinline__ void fetch(const float* source, const Patch* patches, const WindowPlace& at, int height,
                                          int width, int maps, int size, int stride) {
#pragma unroll
        for (int i = 0; i < SHARE; ++i) {
            const Patch patch = patches[first_row() + i * DOWN];
            const WindowPixel pixel = window_pixel<Backward>(patch, at, height, width, size, stride);
            fetch_pack<Pack>(values[i], source + patch.image + pixel.place * maps + at.map, pixel.inside);
        }
    }

    __device__ __forceinline__ void store(typename T::Stage& stage) const {
#pragma unroll
        for (int i = 0; i < SHARE; ++i)
#pragma unroll
            for (int j = 0; j < Pack; ++j) stage.a[(first_k() + j) * T::LDA + first_row() + i * DOWN] = values[i][j];
    }
};

// ---- forward ----------------------------------------------------------------------------------------------------

// Tiles of patches and of weights, first of this column's maps, then of the peer's where there are some.
template <class T, int Pack>
struct ForwardSource {
    const ConvShape& shape;
    const float *x, *weights, *next_x, *next_weights;
    const Patch* patches;
    int first_column, k = 0;
    WindowPlace at;
    Gather<T, Pack, false> patch_tile;
    RowTile<T> weight_tile;

    __device__ __forceinline__ void fetch() {
        const int depth = shape.size * shape.size * shape.maps;
        if (k >= depth) {
            x = next_x, weights = next_weights;
            k = 0;
        }
        if (k == 0) at.start(patch_tile.first_k(), shape.size, shape.maps);
        patch_tile.fetch(x, patches, at, shape.height, shape.width, shape.maps, shape.size, 1);
        weight_tile.fetch(weights, k, depth, first_column, shape.outputs);
        k += T::BK;
        at.map += T::BK;
        at.settle(shape.size, shape.maps);
    }
    __device__ __forceinline__ void store(typename T::Stage& stage) const {
        patch_tile.store(stage);
        weight_tile.store(stage);
    }
};

template <class T, int Pack>
__device__ __forceinline__ void forward(const float* x, const float* peer_x, const float* weights,
                                        const float* peer_weights, const float* bias, float* y, int activation,
                                        const PartialSums& partial, const ConvShape& shape) {
    __shared__ typename T::Stage stages[2];
    __shared__ Patch patches[T::BM];
    const BlockPlace<T> block(shape.outputs);
    fill_patches<T>(patches, block.row, shape.images, shape.out_height, shape.out_width, shape.stride, -shape.pad,
                    shape.height * shape.width * shape.maps);

    float sums[T::TM][T::TN] = {};
    take_up<T>(partial, sums);
    ForwardSource<T, Pack> source{shape, x, weights, peer_x, peer_weights, patches, block.column};
    const int depth = shape.size * shape.size * shape.maps, tiles = (depth + T::BK - 1) / T::BK;
    accumulate<T>(source, peer_x != nullptr ? 2 * tiles : tiles, stages, sums);
    if (leave<T>(partial, sums)) return;
    write_tile<T>(y, block.row, shape.images * shape.out_height * shape.out_width, block.column, shape.outputs, sums,
                  [&](int column, float sum, float) { return activate(activation, sum + bias[column]); });
}

// ---- gradient of the input --------------------------------------------------------------------------------------

// Tiles of patches of dy, and of the weights with inputs and outputs changed over.
template <class T, int Pack>
struct BackwardSource {
    const ConvShape& shape;
    const float *dy, *weights;
    const Patch* patches;
    int first_column;
    WindowPlace at;
    Gather<T, Pack, true> patch_tile;
    static constexpr int ACROSS = T::BK / Pack, DOWN = T::THREADS / ACROSS, SHARE = (T::BN + DOWN - 1) / DOWN;
    float turned[SHARE][Pack];

    __device__ __forceinline__ void fetch() {
        patch_tile.fetch(dy, patches, at, shape.out_height, shape.out_width, shape.outputs, shape.size, shape.stride);
        const int window = (at.row * shape.size + at.column) * shape.maps;
#pragma unroll
        for (int i = 0; i < SHARE; ++i) {
            const int map = first_column + patch_tile.first_row() + i * DOWN;
            fetch_pack<Pack>(turned[i], weights + (window + map) * shape.outputs + at.map,
                             map < shape.maps && at.row < shape.size);
        }
        at.map += T::BK;
        at.settle(shape.size, shape.outputs);
    }
    __device__ __forceinline__ void store(typename T::Stage& stage) const {
        patch_tile.store(stage);
#pragma unroll
        for (int i = 0; i < SHARE; ++i) {
            const int column = patch_tile.first_row() + i * DOWN;
            if (T::BN % DOWN != 0 && column >= T::BN) continue;
#pragma unroll
            for (int j = 0; j < Pack; ++j) stage.b[(patch_tile.first_k() + j) * T::LDB + column] = turned[i][j];
        }
    }
};

template <class T, int Pack>
__device__ __forceinline__ void backward_data(const float* dy, const float* weights, const float* y, int activated,
                                              float* dx, const ConvShape& shape) {
    __shared__ typename T::Stage stages[2];
    __shared__ Patch patches[T::BM];
    const BlockPlace<T> block(shape.maps);
    fill_patches<T>(patches, block.row, shape.images, shape.height, shape.width, 1, shape.pad,
                    shape.out_height * shape.out_width * shape.outputs);

    float sums[T::TM][T::TN] = {};
    BackwardSource<T, Pack> source{shape, dy, weights, patches, block.column};
    source.at.start(source.patch_tile.first_k(), shape.size, shape.outputs);
    const int depth = shape.size * shape.size * shape.outputs;
    accumulate<T>(source, (depth + T::BK - 1) / T::BK, stages, sums);
    write_tile<T>(dx, block.row, shape.images * shape.height * shape.width, block.column, shape.maps, sums,
                  [&](int, float sum, float y) { return sum * activation_slope(activated, y); }, y);
}

// ---- gradient of the weights ------------------------------------------------------------------------------------

// Tiles of patches with pixels along K, and of dy. A thread's place in the window never changes.
template <class T, int Pack>
struct WeightSource {
    const ConvShape& shape;
    const float *x, *dy;
    Divider image_pixels, row_pixels;
    int first_pixel, end, first_column, with_bias;
    WindowPlace at;
    static constexpr int ACROSS = T::BM / Pack, DOWN = T::THREADS / ACROSS, SHARE = T::BK / DOWN;
    float values[SHARE][Pack];
    RowTile<T> gradient_tile;

    __device__ static __forceinline__ int first_m() { return static_cast<int>(threadIdx.x) % ACROSS * Pack; }

    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int i = 0; i < SHARE; ++i) {
            const int number = first_pixel + static_cast<int>(threadIdx.x) / ACROSS + i * DOWN;
            const Patch patch = patch_of(number, image_pixels, row_pixels, shape);
            const WindowPixel pixel = window_pixel<false>(patch, at, shape.height, shape.width, shape.size, 1);
            fetch_pack<Pack>(values[i], x + patch.image + pixel.place * shape.maps + at.map,
                             number < end && pixel.inside);
            if (with_bias != 0 && at.after(shape.size)) values[i][0] = number < end ? 1.0f : 0.0f;
        }
        gradient_tile.fetch(dy, first_pixel, end, first_column, shape.outputs);
        first_pixel += T::BK;
    }
    __device__ __forceinline__ void store(typename T::Stage& stage) const {
#pragma unroll
        for (int i = 0; i < SHARE; ++i) {
            float* to = &stage.a[(static_cast<int>(threadIdx.x) / ACROSS + i * DOWN) * T::LDA + first_m()];
            if constexpr (Pack == 4)
                *reinterpret_cast<float4*>(to) = make_float4(values[i][0], values[i][1], values[i][2], values[i][3]);
            else
                *to = values[i][0];
        }
        gradient_tile.store(stage);
    }
};

// Block (tile, part): the tile's sum over the pixels of one part, `pixels_per_part` of them, a multiple of BK. With
// several parts, part p goes to slab p of `to`; else `to` is the gradient itself. `with_bias`, 1 or 0, is the number of
// rows below the weights'.
template <class T, int Pack>
__device__ __forceinline__ void backward_weights(const float* x, const float* dy, float* to, int pixels_per_part,
                                                 int accumulate_into, int with_bias, Divider image_pixels,
                                                 Divider row_pixels, const ConvShape& shape) {
    __shared__ typename T::Stage stages[2];
    const int rows = shape.size * shape.size * shape.maps + with_bias;
    const BlockPlace<T> block(shape.outputs);
    const PixelShare pixels(shape, pixels_per_part);

    float sums[T::TM][T::TN] = {};
    WeightSource<T, Pack> source{shape,        x,          dy,           image_pixels, row_pixels,
                                 pixels.begin, pixels.end, block.column, with_bias};
    source.at.start(block.row + source.first_m(), shape.size, shape.maps);
    accumulate<T>(source, pixels.tiles(T::BK), stages, sums);
    to += static_cast<size_t>(blockIdx.y) * rows * shape.outputs;
    write_tile<T>(to, block.row, rows, block.column, shape.outputs, sums,
                  [](int, float sum, float old) { return sum + old; }, accumulate_into != 0 ? to : nullptr);
}

// ---- kernels ----------------------------------------------------------------------------------------------------

// Tiles of 64, 48 and 32 columns: the least that the number of maps wastes little of.
using Tile64 = Tile<128, 64, 16, 8, 8, 4>;
using Tile48 = Tile<128, 48, 16, 8, 6, 2>;
using Tile32 = Tile<128, 32, 16, 8, 4, 4>;

// Packed: the number of maps gathered is a multiple of 4.
#define CONV_KERNELS(columns, suffix, pack)                                                                            \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
        conv_forward_##columns##suffix(const float* x, const float* peer_x, const float* weights,                      \
                                       const float* peer_weights, const float* bias, float* y, int activation,         \
                                       PartialSums partial, ConvShape shape) {                                         \
        forward<Tile##columns, pack>(x, peer_x, weights, peer_weights, bias, y, activation, partial, shape);           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
        conv_backward_data_##columns##suffix(const float* dy, const float* weights, const float* y, int activated,     \
                                             float* dx, ConvShape shape) {                                             \
        backward_data<Tile##columns, pack>(dy, weights, y, activated, dx, shape);                                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
        conv_backward_weights_##columns##suffix(const float* x, const float* dy, float* to, int pixels_per_part,       \
                                                int accumulate_into, int with_bias, Divider image_pixels,              \
                                                Divider row_pixels, ConvShape shape) {                                 \
        backward_weights<Tile##columns, pack>(x, dy, to, pixels_per_part, accumulate_into, with_bias, image_pixels,    \
                                              row_pixels, shape);                                                      \
    }

CONV_KERNELS(64, _packed, 4)
CONV_KERNELS(48, _packed, 4)
CONV_KERNELS(32, _packed, 4)
CONV_KERNELS(48, , 1)
CONV_KERNELS(32, , 1)
