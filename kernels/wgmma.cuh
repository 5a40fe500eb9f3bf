// wgmma: matrix multiply-accumulate by groups of four warps, of operands that stay in shared memory (compute capability
// 9.0 alone, code for sm_90a). As in common.cuh, each instruction stands here as PTX and as a call into the virtual driver.
#pragma once

#include "number.cuh"

// A kernel's body, where it can run.
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define IF_WARPGROUP(...)
#else
#define IF_WARPGROUP(...) __VA_ARGS__
#endif

__device__ __forceinline__ unsigned shared_address(const void* place) {
#ifndef __CUDACC__
    return simt::shared_address(place);
#else
    return static_cast<unsigned>(__cvta_generic_to_shared(place));
#endif
}

// ---- order ------------------------------------------------------------------------------------------------------

// Before the first product, and after this warp's registers of the sums were used.
__device__ __forceinline__ void wgmma_fence() {
#ifndef __CUDACC__
    simt::warpgroup_fence();
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#endif
}

__device__ __forceinline__ void wgmma_commit() {
#ifndef __CUDACC__
    simt::warpgroup_commit();
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
#endif
}

// Waits until at most `GroupsLeft` of the warp's groups of products are on their way.
template <int GroupsLeft>
__device__ __forceinline__ void wgmma_wait() {
#ifndef __CUDACC__
    simt::warpgroup_wait(GroupsLeft);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(GroupsLeft) : "memory");
#endif
}

// Makes what this thread wrote to shared memory visible to products, which read it by another way.
__device__ __forceinline__ void fence_for_wgmma() {
#ifndef __CUDACC__
    simt::fence_proxy_async();
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

// Keeps the compiler from moving what is done with the sums past this place.
template <int FN>
__device__ __forceinline__ void hold_sums(float (&sums)[FN][4]) {
#ifdef __CUDACC__
#pragma unroll
    for (int j = 0; j < FN; ++j)
        asm volatile("" : "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])::"memory");
#endif
}

// ---- operands ---------------------------------------------------------------------------------------------------

// Operands stand in rows of 128 bytes, which begin at multiples of 1024 bytes for every eighth; within eight rows the
// 16-byte chunks of row r are exchanged by r ("128-byte swizzle"), so that neither copies nor products meet a bank twice.
constexpr int SWIZZLED_ROW = 64;

// Place of an element of a tile whose rows have 64 elements of 16 bits.
__device__ __forceinline__ int swizzled(int row, int column) {
    return row * SWIZZLED_ROW + ((column / 8 ^ row % 8) * 8 | column % 8);
}

// The first place in dynamic shared memory where such a tile may begin. A kernel asks for 1024 bytes more than its tiles.
template <class E>
__device__ __forceinline__ E* swizzled_memory(E* memory) {
    return memory + (1024 - shared_address(memory) % 1024) % 1024 / sizeof(E);
}

// What tells wgmma where an operand stands, from a multiple of 1024 bytes on. Rows along K: each is a row of A or column of
// B. Else each is one place in K, and blocks of 64 rows of A or columns of B lie `apart` bytes from each other.
__device__ __forceinline__ unsigned long long operand_descriptor(const void* tile, bool along_k, int apart) {
    const unsigned long long swizzle_128 = 1ull << 62, eight_rows = 8 * 2 * SWIZZLED_ROW;
    const unsigned long long leading = along_k ? 16 : apart;  // 16 where it means nothing
    return swizzle_128 | eight_rows >> 4 << 32 | leading >> 4 << 16 | (shared_address(tile) & 0x3ffff) >> 4;
}

// ---- D[64,N] += A[64,16] · B[16,N] ------------------------------------------------------------------------------

#if defined(__CUDACC__) && defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Registers of D, their names and their places: 24, 64 and 96.
#define WGMMA_NAMES_48 \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15," \
    "%16,%17,%18,%19,%20,%21,%22,%23"
#define WGMMA_NAMES_128 \
    WGMMA_NAMES_48 "," \
    "%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39," \
    "%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55," \
    "%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA_NAMES_192 \
    WGMMA_NAMES_128 "," \
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79," \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define WGMMA_QUAD(d, j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define WGMMA_QUADS(d, j) WGMMA_QUAD(d, j), WGMMA_QUAD(d, j + 1), WGMMA_QUAD(d, j + 2), WGMMA_QUAD(d, j + 3)
#define WGMMA_PLACES_48(d) WGMMA_QUADS(d, 0), WGMMA_QUAD(d, 4), WGMMA_QUAD(d, 5)
#define WGMMA_PLACES_128(d) WGMMA_QUADS(d, 0), WGMMA_QUADS(d, 4), WGMMA_QUADS(d, 8), WGMMA_QUADS(d, 12)
#define WGMMA_PLACES_192(d) WGMMA_PLACES_128(d), WGMMA_QUADS(d, 16), WGMMA_QUADS(d, 20)

// `type` of the operands, N, and the numbers of what follows the registers: A, B, and whether they are transposed.
#define WGMMA(type, n, a, b, turned_a, turned_b)                                                                 \
    asm volatile("{\n.reg .pred always;\nsetp.eq.b32 always, 0, 0;\n"                                            \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" WGMMA_NAMES_##n "}, %" #a  \
                 ", %" #b ", always, 1, 1, %" #turned_a ", %" #turned_b ";\n}\n"                                 \
                 : WGMMA_PLACES_##n(sums)                                                                        \
                 : "l"(operand_a), "l"(operand_b), "n"(TurnedA), "n"(TurnedB))
#define WGMMA_OF_WIDTH(type)                                  \
    if constexpr (N == 48) WGMMA(type, 48, 24, 25, 26, 27);   \
    if constexpr (N == 128) WGMMA(type, 128, 64, 65, 66, 67); \
    if constexpr (N == 192) WGMMA(type, 192, 96, 97, 98, 99)

#endif

// Adds a product of operands in bf16 or f16; `Turned` where an operand's rows are not along K. Its thread's sums stand as those
// of mma m16n8: warp w of the group has rows 16·w and on. They are to be left alone until the product was waited for.
template <bool Bfloat, int N, bool TurnedA, bool TurnedB>
__device__ __forceinline__ void wgmma(float (&sums)[N / 8][4], unsigned long long operand_a,
                                      unsigned long long operand_b) {
    static_assert(N == 48 || N == 128 || N == 192, "of the widths that exist, those that are used");
#ifndef __CUDACC__
    simt::warpgroup_multiply({operand_a, operand_b, N, TurnedA, TurnedB, Bfloat, &sums[0][0]});
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if constexpr (Bfloat) {
        WGMMA_OF_WIDTH("bf16");
    } else {
        WGMMA_OF_WIDTH("f16");
    }
#endif
}
