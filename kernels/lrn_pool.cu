// Response normalisation, then max pooling, without the normalised maps in memory: of each window its maximum is kept, and
// which of its inputs that was, for the way back. A warp takes a pixel or a window at a time, a lane a map, so that the maps
// that a normalisation sees are in the lanes around; those at the edges only help to normalise the others.
#include "lrn.cuh"
#include "pool.cuh"

constexpr int LANES = 32, WARPS = 8, NO_WINNER = 255;

// This thread's map, and whether the block computes it: `maps` lanes after the first `edge`.
struct LaneMap {
    int lane, map;
    bool exists, own;

    __device__ __forceinline__ LaneMap(int block, int edge, int maps, int all) {
        lane = static_cast<int>(threadIdx.x) % LANES;
        map = block * maps + lane - edge;
        exists = map >= 0 && map < all;
        own = exists && lane >= edge && lane < edge + maps;
    }
};

__device__ __forceinline__ int warp_number() { return static_cast<int>(threadIdx.x) / LANES; }

// Sum of the squares that the lanes from `first` on hold, `size` of them, in the order of `lrn_sum`. Wrong in lanes whose
// neighbours would stand beyond the warp; those are edges that nobody reads.
__device__ __forceinline__ float sum_of_squares(float value, int first, int size) {
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < size; ++j) {
        const float neighbour = __shfl_sync(0xffffffffu, value, first + j);
        sum = fmaf(neighbour, neighbour, sum);
    }
    return sum;
}

// Share of a block, forward: `side` × `side` windows, which see `halo` × `halo` inputs, and `maps` maps.
struct LrnPoolShare {
    int maps;
    Divider side, halo, row_tiles;
};

// The first input that the block's windows see, in rows and columns of its image.
struct Corner {
    int image, top, left;
};

// Normalises the inputs that the block's windows see, 0 where there are none.
template <class T>
__device__ __forceinline__ void normalise_halo(float* normalised, const T* __restrict__ x, const PoolShape& shape,
                                               const Divider& halo, const Corner& corner, const LaneMap& lane,
                                               const LrnConstants& op) {
    constexpr int AHEAD = 4;  // loads on their way at once
    const int pixels = static_cast<int>(halo.divisor * halo.divisor);
    const T* source = x + corner.image * shape.height * shape.width * shape.maps;
    for (int first = warp_number(); first < pixels; first += AHEAD * WARPS) {
        float values[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            int column = first + i * WARPS;
            const int row = halo.take(column) + corner.top;
            column += corner.left;
            const bool inside = lane.exists && static_cast<unsigned>(row) < static_cast<unsigned>(shape.height) &&
                                static_cast<unsigned>(column) < static_cast<unsigned>(shape.width);
            values[i] = inside ? widen(source[(row * shape.width + column) * shape.maps + lane.map]) : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const int pixel = first + i * WARPS;
            if (pixel >= pixels) break;  // the whole warp
            const float sum = sum_of_squares(values[i], lane.lane - op.size / 2, op.size);
            normalised[pixel * LANES + lane.lane] = values[i] * LrnFactors(lrn_denominator(sum, op), op.beta).scale;
        }
    }
}

// A window's first maximum in row-major order, and its number in the window; NO_WINNER and a maximum of 0 where the window
// lies outside the image.
struct Winner {
    float best;
    int number;

    // `normalised`: this lane's value at the window's first input. `top`, `left`: where that is in the image.
    __device__ __forceinline__ Winner(const float* normalised, int halo, int top, int left, const PoolShape& shape) {
        best = 0.0f;
        number = NO_WINNER;
#pragma unroll
        for (int r = 0; r < shape.size; ++r)
#pragma unroll
            for (int c = 0; c < shape.size; ++c) {
                if (static_cast<unsigned>(top + r) >= static_cast<unsigned>(shape.height) ||
                    static_cast<unsigned>(left + c) >= static_cast<unsigned>(shape.width))
                    continue;
                const float value = normalised[(r * halo + c) * LANES];
                if (number == NO_WINNER || exceeds(value, best)) {
                    number = r * shape.size + c;
                    best = value;
                }
            }
    }
};

template <class T>
__device__ __forceinline__ void forward(const T* __restrict__ x, T* __restrict__ y,
                                        unsigned char* __restrict__ winners, const PoolShape& shape,
                                        const LrnPoolShare& share, const LrnConstants& op) {
    DYN_SHARED(float, normalised);
    const int side = static_cast<int>(share.side.divisor), halo = static_cast<int>(share.halo.divisor);
    const LaneMap lane(static_cast<int>(blockIdx.z), op.size / 2, share.maps, shape.maps);
    int first_row = static_cast<int>(blockIdx.x);
    const int image = share.row_tiles.take(first_row), first_column = static_cast<int>(blockIdx.y) * side;
    first_row *= side;
    const Corner corner{image, first_row * shape.stride - shape.pad, first_column * shape.stride - shape.pad};

    normalise_halo(normalised, x, shape, share.halo, corner, lane, op);
    __syncthreads();
    for (int window = warp_number(); window < side * side; window += WARPS) {
        int q = window;
        const int p = share.side.take(q), row = first_row + p, column = first_column + q;
        if (row >= shape.out_height || column >= shape.out_width || !lane.own) continue;
        const int r = p * shape.stride, c = q * shape.stride;
        const Winner winner(normalised + (r * halo + c) * LANES + lane.lane, halo, corner.top + r, corner.left + c,
                            shape);
        const int at = ((image * shape.out_height + row) * shape.out_width + column) * shape.maps + lane.map;
        y[at] = narrow<T>(winner.best);
        winners[at] = static_cast<unsigned char>(winner.number);
    }
}

// Sum of the gradients of the windows that the input in `row` and `column`, counted from the padding's edge, won.
template <class T>
__device__ __forceinline__ float won(const unsigned char* __restrict__ winners, const T* __restrict__ dy, int row,
                                     int column, const PoolShape& shape) {
    const int before = (shape.size - 1) / shape.stride, last_p = row / shape.stride, last_q = column / shape.stride;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i <= before; ++i)
#pragma unroll
        for (int j = 0; j <= before; ++j) {
            const int p = last_p - before + i, q = last_q - before + j;
            const int r = row - p * shape.stride, c = column - q * shape.stride;
            const bool sees = static_cast<unsigned>(p) < static_cast<unsigned>(shape.out_height) &&
                              static_cast<unsigned>(q) < static_cast<unsigned>(shape.out_width) && r < shape.size &&
                              c < shape.size;
            // Both are read whoever won, so that no read waits for another.
            const int at = (p * shape.out_width + q) * shape.maps;
            const int winner = sees ? winners[at] : NO_WINNER;
            const float slope = sees ? widen(dy[at]) : 0.0f;
            sum += winner == r * shape.size + c ? slope : 0.0f;
        }
    return sum;
}

// As `lrn.cu`'s backward pass, with the pool's gradient for dy; then back through the activation that gave x, if any. A
// block takes a row of an image.
template <class T>
__device__ __forceinline__ void backward(const T* __restrict__ x, const unsigned char* __restrict__ winners,
                                         const T* __restrict__ dy, T* __restrict__ dx, const PoolShape& shape,
                                         int maps, const Divider& height, const LrnConstants& op, int activated) {
    // The maps that an own map's gradient depends on, and those these are normalised by.
    const int edge = (op.size - 1) / 2 + op.size / 2;
    const LaneMap lane(static_cast<int>(blockIdx.y), edge, maps, shape.maps);
    int row = static_cast<int>(blockIdx.x);
    const int image = height.take(row), output = image * shape.out_height * shape.out_width * shape.maps + lane.map;
    const float factor = -2.0f * op.alpha * op.beta;
    for (int column = warp_number(); column < shape.width; column += WARPS) {
        const int at = ((image * shape.height + row) * shape.width + column) * shape.maps + lane.map;
        float value = 0.0f, gradient = 0.0f;
        if (lane.exists) {
            value = widen(x[at]);
            gradient = won(winners + output, dy + output, row + shape.pad, column + shape.pad, shape);
        }
        const float sum = sum_of_squares(value, lane.lane - op.size / 2, op.size);
        const LrnFactors factors(lrn_denominator(sum, op), op.beta);
        const float scaled = gradient * factors.scale;
        const float term = scaled * value * factors.inverse;
        float terms = 0.0f;
#pragma unroll
        for (int n = 0; n < op.size; ++n)
            terms += __shfl_sync(0xffffffffu, term, lane.lane - (op.size - 1) / 2 + n);
        const float slope = activation_slope(activated, value);
        if (lane.own) dx[at] = narrow<T>(slope * (factor * value * terms + scaled));
    }
}

// Makes sizes known to the compiler, which then unrolls their loops.
template <int Norm, int Size, int Stride>
__device__ __forceinline__ void fix_sizes(PoolShape& shape, LrnConstants& op) {
    op.size = Norm;
    shape.size = Size;
    shape.stride = Stride;
}

#define LRN_POOL_KERNELS(suffix, T, name, fix)                                                                     \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        lrn_pool_forward##name##suffix(const T* __restrict__ x, T* __restrict__ y,                                 \
            unsigned char* __restrict__ winners, PoolShape shape, LrnPoolShare share, LrnConstants op) {           \
        fix;                                                                                                       \
        forward(x, y, winners, shape, share, op);                                                                  \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        lrn_pool_backward##name##suffix(const T* __restrict__ x, const unsigned char* __restrict__ winners,        \
            const T* __restrict__ dy, T* __restrict__ dx, PoolShape shape, int maps, Divider height,               \
            LrnConstants op, int activated) {                                                                      \
        fix;                                                                                                       \
        backward(x, winners, dy, dx, shape, maps, height, op, activated);                                          \
    }

// For any sizes, and for AlexNet's: normalisation over 5 maps, windows of 3 × 3 every 2.
#define LRN_POOL_ANY(suffix, T) LRN_POOL_KERNELS(suffix, T, , )
#define LRN_POOL_5_3_2(suffix, T) LRN_POOL_KERNELS(suffix, T, _5_3_2, (fix_sizes<5, 3, 2>(shape, op)))

FOR_EACH_TYPE(LRN_POOL_ANY)
FOR_EACH_TYPE(LRN_POOL_5_3_2)
