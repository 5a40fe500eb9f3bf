// A block's share of a matrix product C[M,N] = A[M,K] · B[K,N] on tensor cores, sums in f32: tiles of A and B go through
// shared memory, several on their way while one is multiplied. The convolution kernels differ in where A and B come from.
#pragma once

#include "index.cuh"

// Fragments of 16-bit operands for mma m16n8k16. A tile in shared memory has its rows along K (AlongK), or K is the
// number of the row; `place` is the tile's first row and column of the fragment, counted in M or N, and K.
template <class E>
struct HalfOperands {
    using Element = E;
    static constexpr int K = 16, BK = 32;

    template <bool AlongK, int Row>
    __device__ static __forceinline__ void load_a(unsigned (&to)[4], const E* tile, int m, int k) {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        if constexpr (AlongK)
            ldmatrix_x4(to, tile + (m + lane % 16) * Row + k + lane / 16 * 8);
        else
            ldmatrix_x4<true>(to, tile + (k + lane / 16 * 8 + lane % 8) * Row + m + lane / 8 % 2 * 8);
    }
    // Two neighbouring fragments, 16 columns.
    template <bool AlongK, int Row>
    __device__ static __forceinline__ void load_b(unsigned (&first)[2], unsigned (&second)[2], const E* tile, int n,
                                                  int k) {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        unsigned all[4];
        if constexpr (AlongK)
            ldmatrix_x4(all, tile + (n + lane / 16 * 8 + lane % 8) * Row + k + lane / 8 % 2 * 8);
        else
            ldmatrix_x4<true>(all, tile + (k + lane % 16) * Row + n + lane / 16 * 8);
        first[0] = all[0], first[1] = all[1], second[0] = all[2], second[1] = all[3];
    }
};

struct Bf16 : HalfOperands<__nv_bfloat16> {
    static constexpr bool BFLOAT = true;
    __device__ static __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        mma_bf16(d, a, b);
    }
};

struct F16 : HalfOperands<__half> {
    static constexpr bool BFLOAT = false;
    __device__ static __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        mma_f16(d, a, b);
    }
};

// f32 operands for mma m16n8k8, rounded to TF32 on the way to the registers. Rows along K are read by ldmatrix, whose
// 16 bytes are four floats here; it cannot transpose those, so the other orders are read one by one, from rows whose
// length lets every lane meet a bank of its own.
struct Tf32 {
    using Element = float;
    static constexpr int K = 8, BK = 16;

    template <bool AlongK, int Row>
    __device__ static __forceinline__ void load_a(unsigned (&to)[4], const float* tile, int m, int k) {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        if constexpr (AlongK) {
            ldmatrix_x4(to, tile + (m + lane % 16) * Row + k + lane / 16 * 4);
        } else {
            const float* from = tile + (k + lane % 4) * Row + m + lane / 4;
            to[0] = __float_as_uint(from[0]), to[1] = __float_as_uint(from[8]);
            to[2] = __float_as_uint(from[4 * Row]), to[3] = __float_as_uint(from[4 * Row + 8]);
        }
        round(to);
    }
    template <bool AlongK, int Row>
    __device__ static __forceinline__ void load_b(unsigned (&first)[2], unsigned (&second)[2], const float* tile, int n,
                                                  int k) {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        unsigned all[4];
        if constexpr (AlongK) {
            ldmatrix_x4(all, tile + (n + lane / 16 * 8 + lane % 8) * Row + k + lane / 8 % 2 * 4);
        } else {
            const float* from = tile + (k + lane % 4) * Row + n + lane / 4;
            all[0] = __float_as_uint(from[0]), all[1] = __float_as_uint(from[4 * Row]);
            all[2] = __float_as_uint(from[8]), all[3] = __float_as_uint(from[4 * Row + 8]);
        }
        round(all);
        first[0] = all[0], first[1] = all[1], second[0] = all[2], second[1] = all[3];
    }
    __device__ static __forceinline__ void round(unsigned (&values)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] = to_tf32(__uint_as_float(values[i]));
    }
    __device__ static __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        mma_tf32(d, a, b);
    }
};

template <class Tile, bool AAlongK, bool BAlongK>
struct TensorStages;

// BM x BN outputs of a block, BK products deep, shared by WarpsM x WarpsN warps.
template <class Number, int BlockN, int WarpsM, int WarpsN>
struct TensorTile {
    using Operands = Number;
    using Element = typename Number::Element;
    static constexpr int BM = 128, BN = BlockN, BK = Number::BK, THREADS = 32 * WarpsM * WarpsN, STAGES = 3;
    static constexpr int WM = BM / WarpsM, WN = BN / WarpsN, FM = WM / 16, FN = WN / 8;
    static_assert(WM % 16 == 0 && WN % 16 == 0, "a warp's share in whole fragments, two side by side");
    // Elements of 16 bytes, by which copies go; rows in shared memory are padded so that neither copies nor fragments
    // meet a bank twice.
    static constexpr int CHUNK = 16 / sizeof(Element);
    static constexpr int ROW_K = BK + CHUNK, ROW_M = BM + 8, ROW_N = BN + 8;
    // Columns that stand in one piece where rows are not along K.
    static constexpr int BLOCK_N = BN;

    template <bool AAlongK, bool BAlongK>
    using Stages = TensorStages<TensorTile, AAlongK, BAlongK>;

    // Places in a stage's tiles, of rows along K, M and N.
    __device__ static __forceinline__ int along_k(int row, int column) { return row * ROW_K + column; }
    __device__ static __forceinline__ int along_m(int row, int column) { return row * ROW_M + column; }
    __device__ static __forceinline__ int along_n(int row, int column) { return row * ROW_N + column; }

    // First row and column of this warp's share.
    __device__ static __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / 32 / WarpsN * WM; }
    __device__ static __forceinline__ int warp_column() { return static_cast<int>(threadIdx.x) / 32 % WarpsN * WN; }
};

// One stage of the pipeline: a tile of A and one of B, each with rows along K or not.
template <class Tile, bool AAlongK, bool BAlongK>
struct TensorStages {
    using T = Tile;
    using Element = typename T::Element;
    using Number = typename T::Operands;
    static constexpr int ROW_A = AAlongK ? T::ROW_K : T::ROW_M, ROW_B = BAlongK ? T::ROW_K : T::ROW_N;
    static constexpr int SIZE_A = (AAlongK ? T::BM : T::BK) * ROW_A, SIZE_B = (BAlongK ? T::BN : T::BK) * ROW_B;
    static constexpr int SIZE = SIZE_A + SIZE_B;

    // Adds the products of one stage.
    __device__ static __forceinline__ void multiply(const Element* a, const Element* b,
                                                    float (&sums)[T::FM][T::FN][4]) {
        const int row = T::warp_row(), column = T::warp_column();
#pragma unroll
        for (int k = 0; k < T::BK; k += Number::K) {
            unsigned fa[T::FM][4], fb[T::FN][2];
#pragma unroll
            for (int i = 0; i < T::FM; ++i) Number::template load_a<AAlongK, ROW_A>(fa[i], a, row + 16 * i, k);
#pragma unroll
            for (int j = 0; j < T::FN; j += 2)
                Number::template load_b<BAlongK, ROW_B>(fb[j], fb[j + 1], b, column + 8 * j, k);
#pragma unroll
            for (int i = 0; i < T::FM; ++i)
#pragma unroll
                for (int j = 0; j < T::FN; ++j) Number::multiply(sums[i][j], fa[i], fb[j]);
        }
    }

    // Adds `tiles` tiles of products to `sums`; `source.issue(a, b)` starts the copies of the next tile into a stage.
    template <class Source>
    __device__ static __forceinline__ void accumulate(Source& source, int tiles, Element* memory,
                                                      float (&sums)[T::FM][T::FN][4]) {
        constexpr int AHEAD = T::STAGES - 1;
        int filled = 0, used = 0;
#pragma unroll
        for (int tile = 0; tile < AHEAD; ++tile) {
            if (tile < tiles) source.issue(memory + filled * SIZE, memory + filled * SIZE + SIZE_A);
            cp_async_commit();
            ++filled;
        }
        for (int tile = 0; tile < tiles; ++tile) {
            cp_async_wait<AHEAD - 1>();
            // This tile has arrived for all threads, and the stage filled next has been used by all.
            __syncthreads();
            if (tile + AHEAD < tiles) source.issue(memory + filled * SIZE, memory + filled * SIZE + SIZE_A);
            cp_async_commit();
            filled = filled + 1 == T::STAGES ? 0 : filled + 1;
            multiply(memory + used * SIZE, memory + used * SIZE + SIZE_A, sums);
            used = used + 1 == T::STAGES ? 0 : used + 1;
        }
    }
};

// Starts the copy of `Pack` neighbours to shared memory, zeros where not `inside`. Where they are fewer than 4 bytes
// the copy is done at once.
template <int Pack, Again Wanted = Again::NO, class E>
__device__ __forceinline__ void copy_pack(E* to, const E* from, bool inside) {
    if constexpr (Pack * sizeof(E) >= 4)
        cp_async<static_cast<int>(Pack * sizeof(E)), Wanted>(to, from, inside);
    else
        *to = inside ? *from : narrow<E>(0.0f);
}

// Puts a one before `Pack` - 1 zeros in shared memory, zeros alone where not `inside`.
template <int Pack, class E>
__device__ __forceinline__ void put_one(E* to, bool inside) {
    Neighbours<E, Pack> pack;
#pragma unroll
    for (int i = 0; i < Pack; ++i) pack.v[i] = narrow<E>(i == 0 && inside ? 1.0f : 0.0f);
    *reinterpret_cast<Neighbours<E, Pack>*>(to) = pack;
}

// This thread's share of a tile of `Rows` x `Columns` in shared memory rows of `Row`: packs from row `first_row()` on,
// every DOWN rows, at column `first_column()`.
template <class T, int Rows, int Columns, int Pack>
struct Share {
    static constexpr int ACROSS = Columns / Pack, COUNT = Rows * ACROSS;
    static constexpr int PACKS = (COUNT + T::THREADS - 1) / T::THREADS;
    static constexpr bool EVEN = T::THREADS % ACROSS == 0;

    // Number of pack i; beyond COUNT there is none.
    __device__ static __forceinline__ int number(int i) { return static_cast<int>(threadIdx.x) + i * T::THREADS; }
    __device__ static __forceinline__ bool exists(int i) { return COUNT % T::THREADS == 0 || number(i) < COUNT; }
    // Told from pack 0 where that is possible: what differs then is known to the compiler.
    __device__ static __forceinline__ int row(int i) {
        return EVEN ? number(0) / ACROSS + i * (T::THREADS / ACROSS) : number(i) / ACROSS;
    }
    __device__ static __forceinline__ int column(int i) { return number(EVEN ? 0 : i) % ACROSS * Pack; }
};

// Starts the copies of a BK x BN tile of a row-major matrix of `columns` columns, rows along K.
template <class T, int Pack>
__device__ __forceinline__ void copy_rows(typename T::Element* to, const typename T::Element* matrix, int first_row,
                                          int rows, int first_column, int columns) {
    using S = Share<T, T::BK, T::BLOCK_N, Pack>;
#pragma unroll
    for (int block = 0; block < T::BN; block += T::BLOCK_N) {
#pragma unroll 8
        for (int i = 0; i < S::PACKS; ++i) {
            if (!S::exists(i)) continue;
            const int row = S::row(i), column = block + S::column(i);
            const int matrix_row = first_row + row, matrix_column = first_column + column;
            copy_pack<Pack>(to + T::along_n(row, column), matrix + (matrix_row * columns + matrix_column),
                            matrix_row < rows && matrix_column < columns);
        }
    }
}

// A product's rows are the matrix's, as many as it has.
struct Straight {
    int rows;
    __device__ __forceinline__ int operator()(int row) const { return row < rows ? row : -1; }
};

// First column of this thread's pairs of sums, which stand 8 apart.
template <class T>
__device__ __forceinline__ int first_pair(int first_column) {
    return first_column + T::warp_column() + static_cast<int>(threadIdx.x) % 4 * 2;
}

// Adds its column's bias to each of a thread's sums, and activates them.
template <class T>
__device__ __forceinline__ void add_bias(float (&sums)[T::FM][T::FN][4], const float* bias, int first_column,
                                         int columns, int activation) {
    const int column = first_pair<T>(first_column);
    float of_column[T::FN][2];
#pragma unroll
    for (int j = 0; j < T::FN; ++j)
#pragma unroll
        for (int v = 0; v < 2; ++v) of_column[j][v] = column + j * 8 + v < columns ? bias[column + j * 8 + v] : 0.0f;
#pragma unroll
    for (int i = 0; i < T::FM; ++i) {
#pragma unroll
        for (int j = 0; j < T::FN; ++j)
#pragma unroll
            for (int v = 0; v < 4; ++v) sums[i][j][v] += of_column[j][v % 2];
        activate_all(sums[i], activation);
    }
}

// As write_sums; pairs are `Whole` where `columns` is even. All that a row reads of `beside` is on its way before the
// first of its sums is written, which the compiler could not bring about: `beside` may be `to`.
template <class T, bool Whole, class E, class PlaceOf, class Finish>
__device__ __forceinline__ void write_pairs(E* to, int first_row, PlaceOf place_of, int first_column, int columns,
                                            const float (&sums)[T::FM][T::FN][4], Finish finish, const E* beside) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int column = first_pair<T>(first_column), left = columns - column;
    const E* from = beside != nullptr ? beside : to;
    const int to_read = beside != nullptr ? left : 0;
#pragma unroll
    for (int i = 0; i < 2 * T::FM; ++i) {
        const int row = place_of(first_row + T::warp_row() + i * 8 + lane / 4);
        if (row < 0) continue;
        const size_t at = static_cast<size_t>(row) * columns + column;
        Neighbours<E, 2> old[T::FN];
#pragma unroll
        for (int j = 0; j < T::FN; ++j) old[j] = load_neighbours<2, Whole>(from + at + j * 8, to_read - j * 8);
#pragma unroll
        for (int j = 0; j < T::FN; ++j) {
            Neighbours<E, 2> results;
#pragma unroll
            for (int v = 0; v < 2; ++v)
                results.v[v] = narrow<E>(finish(sums[i / 2][j][i % 2 * 2 + v], widen(old[j].v[v])));
            store_neighbours<Whole>(to + at + j * 8, left - j * 8, results);
        }
    }
}

// Writes a thread's sums to the row-major matrix `to` of `columns` columns, as `finish(sum, beside)` gives them;
// `beside` is what stands in that matrix, of the same sizes, in the same place; 0 where it is null. `place_of(row)` is
// the matrix's row of a row of the product, negative if there is none.
template <class T, class E, class PlaceOf, class Finish>
__device__ __forceinline__ void write_sums(E* to, int first_row, PlaceOf place_of, int first_column, int columns,
                                           const float (&sums)[T::FM][T::FN][4], Finish finish,
                                           const E* beside = nullptr) {
    if (columns % 2 == 0)
        write_pairs<T, true>(to, first_row, place_of, first_column, columns, sums, finish, beside);
    else
        write_pairs<T, false>(to, first_row, place_of, first_column, columns, sums, finish, beside);
}
