// A block's share of a matrix product C[M,N] = A[M,K] · B[K,N] in f32: tiles of A and B pass through shared memory,
// every thread keeps TM x TN sums in registers. The convolution kernels differ in where A and B come from.
#pragma once

#include "common.cuh"

// BM x BN outputs of a block, BK products deep; a thread's TM rows are groups of 4, its TN columns groups of VN, spread
// so that the threads of a warp read neighbouring words.
template <int BlockM, int BlockN, int BlockK, int ThreadM, int ThreadN, int VectorN>
struct Tile {
    static constexpr int BM = BlockM, BN = BlockN, BK = BlockK, TM = ThreadM, TN = ThreadN, VN = VectorN;
    static constexpr int COLUMNS = BN / TN, ROWS = BM / TM, THREADS = ROWS * COLUMNS;
    // Rows are padded by 4 floats: transposing stores then meet two banks at a time, and float4 reads stay aligned.
    static constexpr int LDA = BM + 4, LDB = BN + 4;
    static_assert(TM % 4 == 0 && TN % VN == 0 && (VN == 2 || VN == 4), "thread tile in whole vectors");

    struct Stage {
        __align__(16) float a[BK * LDA];
        __align__(16) float b[BK * LDB];
    };

    // Row and column in the block's tile of this thread's sum (i, j).
    __device__ static __forceinline__ int row(int i) {
        return (i / 4) * (BM / (TM / 4)) + static_cast<int>(threadIdx.x) / COLUMNS * 4 + i % 4;
    }
    __device__ static __forceinline__ int column(int j) {
        return (j / VN) * (BN / (TN / VN)) + static_cast<int>(threadIdx.x) % COLUMNS * VN + j % VN;
    }
};

template <class T>
__device__ __forceinline__ void multiply(const typename T::Stage& stage, float (&sums)[T::TM][T::TN]) {
#pragma unroll 8
    for (int k = 0; k < T::BK; ++k) {
        float a[T::TM], b[T::TN];
#pragma unroll
        for (int i = 0; i < T::TM; i += 4) {
            const float4 v = *reinterpret_cast<const float4*>(&stage.a[k * T::LDA + T::row(i)]);
            a[i] = v.x, a[i + 1] = v.y, a[i + 2] = v.z, a[i + 3] = v.w;
        }
#pragma unroll
        for (int j = 0; j < T::TN; j += T::VN) {
            if constexpr (T::VN == 4) {
                const float4 v = *reinterpret_cast<const float4*>(&stage.b[k * T::LDB + T::column(j)]);
                b[j] = v.x, b[j + 1] = v.y, b[j + 2] = v.z, b[j + 3] = v.w;
            } else {
                const float2 v = *reinterpret_cast<const float2*>(&stage.b[k * T::LDB + T::column(j)]);
                b[j] = v.x, b[j + 1] = v.y;
            }
        }
#pragma unroll
        for (int i = 0; i < T::TM; ++i)
#pragma unroll
            for (int j = 0; j < T::TN; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
    }
}

// Adds `tiles` tiles of products to `sums`. `source.fetch()` brings this thread's share of the next tile into its
// registers, `source.store(stage)` puts it into shared memory; the fetch of a tile is on its way while the one before
// is multiplied. Two stages alternate, so one barrier a tile suffices.
template <class T, class Source>
__device__ __forceinline__ void accumulate(Source& source, int tiles, typename T::Stage (&stages)[2],
                                           float (&sums)[T::TM][T::TN]) {
    source.fetch();
    source.store(stages[0]);
    __syncthreads();
    for (int tile = 0; tile < tiles; ++tile) {
        const bool more = tile + 1 < tiles;
        if (more) source.fetch();
        multiply<T>(stages[tile & 1], sums);
        if (more) {
            source.store(stages[(tile + 1) & 1]);
            __syncthreads();
        }
    }
}

// `Pack` neighbouring floats, zeros where not `inside`.
template <int Pack>
__device__ __forceinline__ void fetch_pack(float (&to)[Pack], const float* from, bool inside) {
    if constexpr (Pack == 4) {
        const float4 v = inside ? *reinterpret_cast<const float4*>(from) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    } else {
#pragma unroll
        for (int j = 0; j < Pack; ++j) to[j] = inside ? from[j] : 0.0f;
    }
}

// This thread's share of a BK x BN tile of a row-major matrix of `columns` columns: rows along K, so that it is stored
// as it is read. Four columns at a time where every row starts at a multiple of 16 bytes.
template <class T>
struct RowTile {
    static constexpr int QUADS = T::BN / 4, COUNT = T::BK * QUADS, SHARE = (COUNT + T::THREADS - 1) / T::THREADS;
    float values[SHARE][4];

    __device__ __forceinline__ void fetch(const float* matrix, int first_row, int rows, int first_column,
                                          int columns) {
#pragma unroll
        for (int i = 0; i < SHARE; ++i) {
            const int quad = static_cast<int>(threadIdx.x) + i * T::THREADS;
            const int row = first_row + quad / QUADS, column = first_column + quad % QUADS * 4;
            const bool inside = row < rows && quad < COUNT;
            const float* from = matrix + row * columns + column;
            if ((columns & 3) == 0) {
                fetch_pack<4>(values[i], from, inside && column < columns);
            } else {
#pragma unroll
                for (int j = 0; j < 4; ++j) values[i][j] = inside && column + j < columns ? from[j] : 0.0f;
            }
        }
    }

    __device__ __forceinline__ void store(typename T::Stage& stage) const {
#pragma unroll
        for (int i = 0; i < SHARE; ++i) {
            const int quad = static_cast<int>(threadIdx.x) + i * T::THREADS;
            if (COUNT % T::THREADS == 0 || quad < COUNT)
                *reinterpret_cast<float4*>(&stage.b[quad / QUADS * T::LDB + quad % QUADS * 4]) =
                    make_float4(values[i][0], values[i][1], values[i][2], values[i][3]);
        }
    }
};

// Writes a thread's sums to the row-major matrix `to` of `rows` x `columns`, as `finish(column, sum, beside)` gives them;
// `beside` is what stands in that matrix, of the same sizes, in the same place; 0 where it is null. In vectors where every
// row starts at a multiple of a vector.
template <class T, class Finish>
__device__ __forceinline__ void write_tile(float* to, int first_row, int rows, int first_column, int columns,
                                           const float (&sums)[T::TM][T::TN], Finish finish,
                                           const float* beside = nullptr) {
    const bool whole = columns % T::VN == 0;
#pragma unroll
    for (int i = 0; i < T::TM; ++i) {
        const int row = first_row + T::row(i);
        if (row >= rows) continue;
#pragma unroll
        for (int j = 0; j < T::TN; j += T::VN) {
            const int column = first_column + T::column(j);
            const size_t at = static_cast<size_t>(row) * columns + column;
            float* place = to + at;
            float results[T::VN];
#pragma unroll
            for (int v = 0; v < T::VN; ++v)
                if (column + v < columns)
                    results[v] = finish(column + v, sums[i][j + v], beside != nullptr ? beside[at + v] : 0.0f);
            if (whole && column < columns) {
                if constexpr (T::VN == 4)
                    *reinterpret_cast<float4*>(place) = make_float4(results[0], results[1], results[2], results[3]);
                else
                    *reinterpret_cast<float2*>(place) = make_float2(results[0], results[1]);
            } else {
#pragma unroll
                for (int v = 0; v < T::VN; ++v)
                    if (column + v < columns) place[v] = results[v];
            }
        }
    }
}
