// Response normalisation, then max pooling, without the normalised maps in memory. Forward, block (row of outputs,
// columns, maps): the input its windows see goes through shared memory, is normalised there once, and pooled. Backward,
// block (square of inputs, maps): so does the input of every window that sees the square.
#include "lrn.cuh"
#include "pool.cuh"

// Floats of a block's tiles, raw and normalised, at most.
constexpr int LRN_POOL_TILE = 2560;

// Share of a block: `columns` outputs of a row, `maps` maps; `halo_columns` input columns and `halo_maps` input maps.
struct LrnPoolTile {
    int columns, maps;
    Divider halo_columns, halo_maps, by_maps, out_height;
};

template <class T>
__device__ __forceinline__ void forward(const T* __restrict__ x, T* __restrict__ y, const PoolShape& shape,
                                        const LrnPoolTile& tile, const LrnConstants& op) {
    __shared__ float raw[LRN_POOL_TILE], normalised[LRN_POOL_TILE];
    int out_row = static_cast<int>(blockIdx.x);
    const int image = tile.out_height.take(out_row);
    const int out_column = static_cast<int>(blockIdx.y) * tile.columns;
    const int first_map = static_cast<int>(blockIdx.z) * tile.maps;
    const int top = out_row * shape.stride - shape.pad, left = out_column * shape.stride - shape.pad;
    const int halo_columns = static_cast<int>(tile.halo_columns.divisor);
    const int halo_maps = static_cast<int>(tile.halo_maps.divisor);
    const int pixels = shape.size * halo_columns;
    // Maps from here on are in the tile; those before the first one or after the last one of the column stay 0.
    const int base = first_map - op.size / 2;
    const T* source = x + image * shape.height * shape.width * shape.maps;

    for (int i = static_cast<int>(threadIdx.x); i < pixels * halo_maps; i += 256) {
        int map = i;
        int column = tile.halo_maps.take(map);
        const int row = tile.halo_columns.take(column) + top;
        column += left;
        map += base;
        const bool inside = row >= 0 && row < shape.height && column >= 0 && column < shape.width && map >= 0 &&
                            map < shape.maps;
        raw[i] = inside ? widen(source[(row * shape.width + column) * shape.maps + map]) : 0.0f;
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < pixels * tile.maps; i += 256) {
        int map = i;
        const float* values = raw + tile.by_maps.take(map) * halo_maps;
        map += op.size / 2;
        const float denominator = lrn_denominator(lrn_sum(values, map, halo_maps, op.size), op);
        normalised[i] = values[map] * lrn_scale(denominator, op.beta);
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < tile.columns * tile.maps; i += 256) {
        int map = i;
        const int q = tile.by_maps.take(map);
        if (out_column + q >= shape.out_width || first_map + map >= shape.maps) continue;
        const int begin = left + q * shape.stride;
        // A window of padding alone has no maximum.
        const bool empty = top >= shape.height || begin >= shape.width || top + shape.size <= 0 ||
                           begin + shape.size <= 0;
        float best = empty ? 0.0f : -INFINITY;
        for (int r = max(-top, 0); r < min(shape.size, shape.height - top); ++r)
            for (int c = q * shape.stride; c < q * shape.stride + shape.size; ++c) {
                if (left + c < 0 || left + c >= shape.width) continue;
                const float value = normalised[(r * halo_columns + c) * tile.maps + map];
                if (exceeds(value, best)) best = value;
            }
        const int pixel = (image * shape.out_height + out_row) * shape.out_width + out_column + q;
        y[pixel * shape.maps + first_map + map] = narrow<T>(best);
    }
}

// Elements of a block's tiles, backward: the input, its normalised maps, windows, and the block's own share.
constexpr int LRN_POOL_RAW = 4608, LRN_POOL_NEAR = 4224, LRN_POOL_WINDOWS = 1024, LRN_POOL_OWN = 1792;
constexpr int NO_WINNER = 255;

// Share of a block, backward: a square of `own` × `own` inputs, counted from the padding's edge, with `maps` maps. The
// `windows` × `windows` windows that see it begin `before` windows ahead of it and see `halo` × `halo` inputs. Their
// gradients matter for `near` maps, whose normalisation sees `wide` ones.
struct LrnPoolShare {
    int before;
    Divider own, windows, halo, maps, near, wide, row_tiles;
};

// Where the block's share stands: its place in the padded image, the image's input, and its first map.
struct LrnPoolPlace {
    int image, row, column, first_map, first_p, first_q, top, left;

    __device__ __forceinline__ LrnPoolPlace(const PoolShape& shape, const LrnPoolShare& share) {
        const int own = static_cast<int>(share.own.divisor);
        int tile = static_cast<int>(blockIdx.x);
        image = share.row_tiles.take(tile);
        row = tile * own - shape.pad;
        column = static_cast<int>(blockIdx.y) * own - shape.pad;
        first_map = static_cast<int>(blockIdx.z) * static_cast<int>(share.maps.divisor);
        first_p = tile * own / shape.stride - share.before;
        first_q = static_cast<int>(blockIdx.y) * own / shape.stride - share.before;
        top = first_p * shape.stride - shape.pad;
        left = first_q * shape.stride - shape.pad;
    }
};

// The input that the block's windows and normalisations see, 0 where there is none.
template <class T>
__device__ __forceinline__ void load_halo(float* raw, const T* x, const PoolShape& shape, const LrnPoolShare& share,
                                          const LrnPoolPlace& at, int base) {
    const T* source = x + at.image * shape.height * shape.width * shape.maps;
    const int halo = static_cast<int>(share.halo.divisor), wide = static_cast<int>(share.wide.divisor);
    for (int i = static_cast<int>(threadIdx.x); i < halo * halo * wide; i += 256) {
        int map = i;
        int column = share.wide.take(map);
        const int row = share.halo.take(column) + at.top;
        column += at.left;
        map += base;
        const bool inside = row >= 0 && row < shape.height && column >= 0 && column < shape.width && map >= 0 &&
                            map < shape.maps;
        raw[i] = inside ? widen(source[(row * shape.width + column) * shape.maps + map]) : 0.0f;
    }
}

// Of every window and map, the gradient and the number of the first maximum, in row-major order.
template <class T>
__device__ __forceinline__ void find_winners(float* slopes, unsigned char* winners, const float* normalised,
                                             const T* dy, const PoolShape& shape, const LrnPoolShare& share,
                                             const LrnPoolPlace& at, int base) {
    const int windows = static_cast<int>(share.windows.divisor), near = static_cast<int>(share.near.divisor);
    const int halo = static_cast<int>(share.halo.divisor);
    for (int i = static_cast<int>(threadIdx.x); i < windows * windows * near; i += 256) {
        int map = i;
        int q = share.near.take(map);
        const int p = share.windows.take(q);
        const int out_row = at.first_p + p, out_column = at.first_q + q, out_map = base + map;
        int winner = NO_WINNER;
        float best = -INFINITY;
        const bool exists = out_row >= 0 && out_row < shape.out_height && out_column >= 0 &&
                            out_column < shape.out_width && out_map >= 0 && out_map < shape.maps;
        for (int n = 0; exists && n < shape.size * shape.size; ++n) {
            const int r = p * shape.stride + n / shape.size, c = q * shape.stride + n % shape.size;
            if (at.top + r < 0 || at.top + r >= shape.height || at.left + c < 0 || at.left + c >= shape.width) continue;
            const float value = normalised[(r * halo + c) * near + map];
            if (winner == NO_WINNER || exceeds(value, best)) {
                winner = n;
                best = value;
            }
        }
        const int output = (at.image * shape.out_height + out_row) * shape.out_width + out_column;
        slopes[i] = winner == NO_WINNER ? 0.0f : widen(dy[output * shape.maps + out_map]);
        winners[i] = static_cast<unsigned char>(winner);
    }
}

// Sum of the gradients of the windows that input (a, b) of the block's square wins.
__device__ __forceinline__ float won(const float* slopes, const unsigned char* winners, const PoolShape& shape,
                                     const LrnPoolShare& share, int a, int b, int map) {
    const int windows = static_cast<int>(share.windows.divisor), near = static_cast<int>(share.near.divisor);
    // From the first window on that ends after the input, to the last that begins before it.
    a += share.before * shape.stride;
    b += share.before * shape.stride;
    float sum = 0.0f;
    for (int p = (a - shape.size + shape.stride) / shape.stride; p <= a / shape.stride; ++p)
        for (int q = (b - shape.size + shape.stride) / shape.stride; q <= b / shape.stride; ++q) {
            const int window = (p * windows + q) * near + map;
            if (winners[window] == (a - p * shape.stride) * shape.size + b - q * shape.stride) sum += slopes[window];
        }
    return sum;
}

// As `lrn.cu`'s backward pass, with the pool's gradient for dy; then back through the activation that gave x, if any.
template <class T>
__device__ __forceinline__ void backward(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dx,
                                         const PoolShape& shape, const LrnPoolShare& share, const LrnConstants& op,
                                         int activated) {
    __shared__ float raw[LRN_POOL_RAW], near_values[LRN_POOL_NEAR], slopes[LRN_POOL_WINDOWS], direct[LRN_POOL_OWN];
    __shared__ unsigned char winners[LRN_POOL_WINDOWS];
    const LrnPoolPlace at(shape, share);
    const int own = static_cast<int>(share.own.divisor), halo = static_cast<int>(share.halo.divisor);
    const int maps = static_cast<int>(share.maps.divisor), near = static_cast<int>(share.near.divisor);
    const int wide = static_cast<int>(share.wide.divisor);
    // Maps around a map whose normalisation it is part of; a near map stands `size / 2` further on in the wide tile.
    const int before_map = (op.size - 1) / 2, base = at.first_map - before_map;

    load_halo(raw, x, shape, share, at, base - op.size / 2);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < halo * halo * near; i += 256) {
        int map = i;
        const float* values = raw + share.near.take(map) * wide;
        map += op.size / 2;
        const float denominator = lrn_denominator(lrn_sum(values, map, wide, op.size), op);
        near_values[i] = values[map] * lrn_scale(denominator, op.beta);
    }
    __syncthreads();
    find_winners(slopes, winners, near_values, dy, shape, share, at, base);
    __syncthreads();
    float* terms = near_values;
    for (int i = static_cast<int>(threadIdx.x); i < own * own * near; i += 256) {
        int map = i;
        const int pixel = share.near.take(map);
        int b = pixel;
        const int a = share.own.take(b), shift = share.before * shape.stride;
        const float* values = raw + ((a + shift) * halo + b + shift) * wide;
        const int place = map + op.size / 2;
        const float denominator = lrn_denominator(lrn_sum(values, place, wide, op.size), op);
        const float scaled = won(slopes, winners, shape, share, a, b, map) * lrn_scale(denominator, op.beta);
        terms[i] = scaled * values[place] / denominator;
        map -= before_map;
        if (map >= 0 && map < maps) direct[pixel * maps + map] = scaled;
    }
    __syncthreads();
    const float factor = -2.0f * op.alpha * op.beta;
    for (int i = static_cast<int>(threadIdx.x); i < own * own * maps; i += 256) {
        int map = i;
        const int pixel = share.maps.take(map);
        int b = pixel;
        const int a = share.own.take(b), shift = share.before * shape.stride;
        const int row = at.row + a, column = at.column + b;
        if (row < 0 || row >= shape.height || column < 0 || column >= shape.width || at.first_map + map >= shape.maps)
            continue;
        float sum = 0.0f;
        for (int j = map; j < map + op.size; ++j) sum += terms[pixel * near + j];
        const float value = raw[((a + shift) * halo + b + shift) * wide + map + op.size - 1];
        const int input = (at.image * shape.height + row) * shape.width + column;
        const float slope = activation_slope(activated, value);
        dx[input * shape.maps + at.first_map + map] = narrow<T>(slope * (factor * value * sum + direct[i]));
    }
}

#define LRN_POOL_KERNELS(suffix, T)                                                                             \
    extern "C" __global__ void __launch_bounds__(256)                                                           \
        lrn_pool_forward##suffix(const T* __restrict__ x, T* __restrict__ y, PoolShape shape, LrnPoolTile tile, \
            LrnConstants op) {                                                                                  \
        forward(x, y, shape, tile, op);                                                                         \
    }                                                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                           \
        lrn_pool_backward##suffix(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dx,        \
            PoolShape shape, LrnPoolShare share, LrnConstants op, int activated) {                              \
        backward(x, dy, dx, shape, share, op, activated);                                                       \
    }

FOR_EACH_TYPE(LRN_POOL_KERNELS)
