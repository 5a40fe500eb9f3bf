// Response normalisation, then max pooling, without the normalised maps in memory. Block (row of outputs, columns,
// maps): the input its windows see goes through shared memory, is normalised there once, and pooled.
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

#define LRN_POOL_KERNEL(suffix, T)                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                           \
        lrn_pool_forward##suffix(const T* __restrict__ x, T* __restrict__ y, PoolShape shape, LrnPoolTile tile, \
            LrnConstants op) {                                                                                  \
        forward(x, y, shape, tile, op);                                                                         \
    }

FOR_EACH_TYPE(LRN_POOL_KERNEL)
