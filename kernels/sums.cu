// Sums over many rows in two stages, each in a fixed order: the same bits every time, which atomic additions of floats
// would not give.
#include "index.cuh"

constexpr int SUM_COLUMNS = 32, SUM_ROWS = 8;

// Block (c, p): the sums of 32 columns over the rows of part p, to row p of `to`. 8 rows are read side by side.
template <class T>
__device__ __forceinline__ void sum_columns(const T* __restrict__ matrix, float* __restrict__ to, int rows, int columns,
                                            int rows_per_part, int accumulate) {
    __shared__ float sums[SUM_ROWS][SUM_COLUMNS];
    const int across = static_cast<int>(threadIdx.x) % SUM_COLUMNS, down = static_cast<int>(threadIdx.x) / SUM_COLUMNS;
    const int column = static_cast<int>(blockIdx.x) * SUM_COLUMNS + across;
    const int begin = static_cast<int>(blockIdx.y) * rows_per_part, end = min(begin + rows_per_part, rows);

    float sum = 0.0f;
    if (column < columns)
        for (int row = begin + down; row < end; row += SUM_ROWS) sum += widen(matrix[row * columns + column]);
    sums[down][across] = sum;
    __syncthreads();
    if (down == 0 && column < columns) {
        for (int i = 1; i < SUM_ROWS; ++i) sum += sums[i][across];
        float* place = to + static_cast<int>(blockIdx.y) * columns + column;
        *place = accumulate ? *place + sum : sum;
    }
}

#define COLUMN_SUMS_KERNEL(suffix, T)                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                    \
        column_sums##suffix(const T* __restrict__ matrix, float* __restrict__ to, int rows, int columns, \
            int rows_per_part, int accumulate) {                                                         \
        sum_columns(matrix, to, rows, columns, rows_per_part, accumulate);                               \
    }

FOR_EACH_TYPE(COLUMN_SUMS_KERNEL)

// The sum of `parts` slabs of `elements`: the first `split` of them to `to`, a multiple of four if that is not all, the
// others to `rest`; added to what is there if asked for. One thread for four elements. Left alone, the compiler would
// have eight blocks on a multiprocessor rather than eight loads on their way at a time; four leave it the registers.
extern "C" __global__ void __launch_bounds__(256, 4)
    sum_parts(const float* __restrict__ slabs, float* __restrict__ to, float* __restrict__ rest, int split, int parts,
              int elements, int accumulate) {
    const int first = quad_start();
    if (first >= elements) return;
    if (first >= split) to = rest - split;
    Quad sum = accumulate ? load_quad(to, first, elements) : Quad{};
    const float* place = slabs + first;
    if (elements % 4 == 0) {
#pragma unroll 8
        for (int part = 0; part < parts; ++part, place += elements) {
            const auto quad = *reinterpret_cast<const Neighbours<float, 4>*>(place);
#pragma unroll
            for (int i = 0; i < 4; ++i) sum.v[i] += quad.v[i];
        }
    } else {
        for (int part = 0; part < parts; ++part, place += elements)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (first + i < elements) sum.v[i] += place[i];
    }
    store_quad(to, first, elements, sum);
}
