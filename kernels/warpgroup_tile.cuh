// Tiles as those of tensor_tile.cuh, for wgmma: two groups of four warps take 64 rows each, and operands go to the tensor
// cores straight from shared memory.
#pragma once

#include "tensor_tile.cuh"
#include "wgmma.cuh"

template <class Tile, bool AAlongK, bool BAlongK>
struct WarpgroupStages;

// Operands of 16 bits.
template <class Number, int BlockN, int Stages_>
struct WarpgroupTile {
    using Operands = Number;
    using Element = typename Number::Element;
    static constexpr int BM = 128, BN = BlockN, BK = SWIZZLED_ROW, THREADS = 256, STAGES = Stages_;
    // As tensor_tile.cuh counts them: a warp's share in fragments, columns in one piece.
    static constexpr int FM = 1, FN = BN / 8, BLOCK_N = SWIZZLED_ROW;

    template <bool AAlongK, bool BAlongK>
    using Stages = WarpgroupStages<WarpgroupTile, AAlongK, BAlongK>;

    __device__ static __forceinline__ int along_k(int row, int column) { return swizzled(row, column); }
    __device__ static __forceinline__ int along_m(int row, int column) {
        return column / SWIZZLED_ROW * (BK * SWIZZLED_ROW) + swizzled(row, column % SWIZZLED_ROW);
    }
    __device__ static __forceinline__ int along_n(int row, int column) { return along_m(row, column); }

    __device__ static __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / 32 * 16; }
    __device__ static __forceinline__ int warp_column() { return 0; }
};

template <class Tile, bool AAlongK, bool BAlongK>
struct WarpgroupStages {
    using T = Tile;
    using Element = typename T::Element;
    static constexpr int SIZE_A = T::BM * T::BK, SIZE_B = T::BN * T::BK, SIZE = SIZE_A + SIZE_B;
    static_assert(BAlongK || T::BN % SWIZZLED_ROW == 0, "columns of B in whole blocks");

    // Starts the products of one stage.
    __device__ static __forceinline__ void multiply(const Element* a, const Element* b, float (&sums)[T::FN][4]) {
        constexpr int BLOCK = 2 * T::BK * SWIZZLED_ROW;
        // From one product's place in K to the next, in a descriptor's 16 bytes: along a row, or 16 rows down.
        constexpr int K = 16, STEP = K * 2 / 16, DOWN = K * 2 * SWIZZLED_ROW / 16;
        const int group = static_cast<int>(threadIdx.x) / 128;
        const auto of_a = operand_descriptor(a + group * 64 * T::BK, AAlongK, BLOCK);
        const auto of_b = operand_descriptor(b, BAlongK, BLOCK);
#pragma unroll
        for (int k = 0; k < T::BK / K; ++k)
            wgmma<T::Operands::BFLOAT, T::BN, !AAlongK, !BAlongK>(sums, of_a + k * (AAlongK ? STEP : DOWN),
                                                                  of_b + k * (BAlongK ? STEP : DOWN));
    }

    // As TensorStages. The products of one tile are under way while the next one's start, so a stage is filled again only
    // two tiles after it was used.
    template <class Source>
    __device__ static __forceinline__ void accumulate(Source& source, int tiles, Element* memory,
                                                      float (&sums)[1][T::FN][4]) {
        constexpr int AHEAD = T::STAGES - 2;
        memory = swizzled_memory(memory);
        int filled = 0, used = 0;
#pragma unroll
        for (int tile = 0; tile < AHEAD; ++tile) {
            if (tile < tiles) source.issue(memory + filled * SIZE, memory + filled * SIZE + SIZE_A);
            cp_async_commit();
            ++filled;
        }
        for (int tile = 0; tile < tiles; ++tile) {
            cp_async_wait<AHEAD - 1>();
            fence_for_wgmma();
            // This tile has arrived for all threads, and all but the last tile's products are done.
            __syncthreads();
            hold_sums(sums[0]);
            wgmma_fence();
            multiply(memory + used * SIZE, memory + used * SIZE + SIZE_A, sums[0]);
            wgmma_commit();
            if (tile + AHEAD < tiles) source.issue(memory + filled * SIZE, memory + filled * SIZE + SIZE_A);
            cp_async_commit();
            wgmma_wait<1>();
            filled = filled + 1 == T::STAGES ? 0 : filled + 1;
            used = used + 1 == T::STAGES ? 0 : used + 1;
        }
        wgmma_wait<0>();
        hold_sums(sums[0]);
    }
};
