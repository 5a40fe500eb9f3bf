// Products by wgmma: right ones, and with a planted mistake each.
#include "wgmma.cuh"

// The operands of one product, in 16-byte chunks: `rows` of A or B as they stand in memory, swizzled in shared memory,
// blocks of 64 columns after each other.
__device__ __forceinline__ void copy_operand(__nv_bfloat16* to, const __nv_bfloat16* from, int rows, int columns) {
    for (int i = threadIdx.x; i < rows * columns / 8; i += blockDim.x) {
        int row = i / (columns / 8), column = i % (columns / 8) * 8;
        cp_async<16>(to + column / SWIZZLED_ROW * rows * SWIZZLED_ROW + swizzled(row, column % SWIZZLED_ROW),
                     from + row * columns + column);
    }
}

// D[128,N] = A[128,64] · B[64,N]: A as it is multiplied or turned over, B turned over or as it is multiplied, so that rows
// are along K or not. Two groups of four warps.
template <bool Bfloat, int N, bool TurnedA, bool TurnedB>
__device__ __forceinline__ void wgmma_product(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b) {
    DYN_SHARED(__nv_bfloat16, memory);
    __nv_bfloat16 *tile_a = swizzled_memory(memory), *tile_b = tile_a + 128 * 64;
    copy_operand(tile_a, a, TurnedA ? 64 : 128, TurnedA ? 128 : 64);
    copy_operand(tile_b, b, TurnedB ? 64 : N, TurnedB ? N : 64);
    cp_async_wait_all();
    fence_for_wgmma();
    __syncthreads();
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float sums[N / 8][4] = {};
    hold_sums(sums);
    wgmma_fence();
    auto of_a = operand_descriptor(tile_a + warp / 4 * 64 * 64, !TurnedA, 2 * 64 * 64);
    auto of_b = operand_descriptor(tile_b, !TurnedB, 2 * 64 * 64);
    for (int k = 0; k < 64; k += 16)
        wgmma<Bfloat, N, TurnedA, TurnedB>(sums, of_a + (TurnedA ? k * 128 : k * 2) / 16,
                                           of_b + (TurnedB ? k * 128 : k * 2) / 16);
    wgmma_commit();
    wgmma_wait<0>();
    hold_sums(sums);
    for (int j = 0; j < N / 8; j++)
        for (int v = 0; v < 4; v++)
            d[(warp * 16 + lane / 4 + v / 2 * 8) * N + j * 8 + lane % 4 * 2 + v % 2] = sums[j][v];
}

extern "C" __global__ void __launch_bounds__(256)
    vcuda_wgmma_48(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b) {
    IF_WARPGROUP(wgmma_product<true, 48, false, false>(d, a, b));
}
extern "C" __global__ void __launch_bounds__(256)
    vcuda_wgmma_128(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b) {
    IF_WARPGROUP(wgmma_product<true, 128, true, true>(d, a, b));
}
extern "C" __global__ void __launch_bounds__(256)
    vcuda_wgmma_192(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b) {
    IF_WARPGROUP(wgmma_product<false, 192, false, true>(d, a, b));
}

// out[thread] = one of its sums of a product of the numbers 1 and -1 in bf16, which `x` holds two by two. Mistakes:
enum Mistake {
    NONE,
    COPIES_UNFENCED,
    SUMS_UNFENCED,
    NO_BARRIER,
    NOT_WAITED_FOR,
    OVERWRITTEN_EARLY,
    WARPS_APART,
};
extern "C" __global__ void __launch_bounds__(256) vcuda_wgmma_mistake(float* out, const float* x, int mistake) {
    DYN_SHARED(__nv_bfloat16, memory);
    __nv_bfloat16 *tile_a = swizzled_memory(memory), *tile_b = tile_a + 128 * 64;
    // Threads copy rows that other warps multiply.
    for (int i = threadIdx.x; i < 176 * 16; i += 256) cp_async<4>(tile_a + i * 4 + 2, x + i % 256);
    for (int i = threadIdx.x; i < 176 * 16; i += 256) cp_async<4>(tile_a + i * 4, x + i % 256);
    cp_async_wait_all();
    if (mistake != COPIES_UNFENCED) fence_for_wgmma();
    if (mistake != NO_BARRIER) __syncthreads();
    float sums[6][4] = {};
    hold_sums(sums);
    if (mistake != SUMS_UNFENCED) wgmma_fence();
    int group = threadIdx.x / 128, apart = mistake == WARPS_APART && threadIdx.x % 128 >= 96 ? 2 : 0;
    wgmma<true, 48, false, false>(sums, operand_descriptor(tile_a + group * 64 * 64, true, 0) + apart,
                                  operand_descriptor(tile_b, true, 0));
    wgmma_commit();
    if (mistake == NOT_WAITED_FOR) out[threadIdx.x] = sums[5][3];
    if (mistake != OVERWRITTEN_EARLY) wgmma_wait<0>();
    __syncthreads();
    for (int i = threadIdx.x; i < 176 * 64; i += 256) tile_a[i] = __float2bfloat16(0.0f);
    wgmma_wait<0>();
    hold_sums(sums);
    if (mistake != NOT_WAITED_FOR) out[threadIdx.x] = sums[5][3];
}
