// What every kernel file includes first. Each instruction that CUDA C++ has no name for stands here twice: as inline
// PTX for nvcc, and as a call for the host compiler, behind which the virtual driver (tests/vcuda) executes it.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// Dynamic shared memory of the block, as an array of `type` under `name`.
#define DYN_SHARED(type, name)                                       \
    extern __shared__ __align__(128) unsigned char dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared)

// mma and cp.async came with compute capability 8.0; kernels that need them are not launched below it.
#define HAS_TENSOR_PTX (__CUDA_ARCH__ >= 800)

#endif

// A kernel's body, where it can run.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define IF_TENSOR(...)
#else
#define IF_TENSOR(...) __VA_ARGS__
#endif

// ---- matrix multiply-accumulate: D[16,8] += A[16,K] · B[K,8], f32 accumulators ---------------------------------

__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifndef __CUDACC__
    simt::mma(simt::mma_16816<simt::BFloat16>, d, a, b);
#elif HAS_TENSOR_PTX
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

__device__ __forceinline__ void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifndef __CUDACC__
    simt::mma(simt::mma_16816<simt::Float16>, d, a, b);
#elif HAS_TENSOR_PTX
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Operands are f32 bits already rounded with to_tf32.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifndef __CUDACC__
    simt::mma(simt::mma_1688, d, a, b);
#elif HAS_TENSOR_PTX
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

__device__ __forceinline__ unsigned to_tf32(float value) {
#ifndef __CUDACC__
    return __float_as_uint(simt::round_to_tf32(value));
#elif HAS_TENSOR_PTX
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(value));
    return bits;
#else
    return __float_as_uint(value);
#endif
}

// ---- ldmatrix: N 8x8 matrices of 16-bit elements from shared memory, lane i naming row i ------------------------

template <bool Transposed = false>
__device__ __forceinline__ void ldmatrix_x1(unsigned (&to)[1], const void* row) {
#ifndef __CUDACC__
    simt::ldmatrix<1, Transposed>(to, row);
#elif HAS_TENSOR_PTX
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if constexpr (Transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n"
                     : "=r"(to[0]) : "r"(address) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n" : "=r"(to[0]) : "r"(address) : "memory");
#endif
}

template <bool Transposed = false>
__device__ __forceinline__ void ldmatrix_x2(unsigned (&to)[2], const void* row) {
#ifndef __CUDACC__
    simt::ldmatrix<2, Transposed>(to, row);
#elif HAS_TENSOR_PTX
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if constexpr (Transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
                     : "=r"(to[0]), "=r"(to[1]) : "r"(address) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
                     : "=r"(to[0]), "=r"(to[1]) : "r"(address) : "memory");
#endif
}

template <bool Transposed = false>
__device__ __forceinline__ void ldmatrix_x4(unsigned (&to)[4], const void* row) {
#ifndef __CUDACC__
    simt::ldmatrix<4, Transposed>(to, row);
#elif HAS_TENSOR_PTX
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if constexpr (Transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
#endif
}

// ---- cp.async: global to shared memory behind the thread's back; what is beyond `source_bytes` becomes zeros -----

// Whether what is read may be wanted again by its multiprocessor soon. Whole sectors that are not go past the first-level
// cache.
enum class Again { NO, YES };

template <int Bytes, Again Wanted = Again::NO>
__device__ __forceinline__ void cp_async_part(void* shared, const void* global, int source_bytes) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async moves 4, 8 or 16 bytes");
#ifndef __CUDACC__
    simt::async_copy(shared, global, Bytes, source_bytes);
#elif HAS_TENSOR_PTX
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    if constexpr (Bytes == 16 && Wanted == Again::NO)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
                     :: "r"(address), "l"(global), "r"(source_bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n"
                     :: "r"(address), "l"(global), "n"(Bytes), "r"(source_bytes) : "memory");
#else
    for (int i = 0; i < Bytes; i++)
        static_cast<unsigned char*>(shared)[i] = i < source_bytes ? static_cast<const unsigned char*>(global)[i] : 0u;
#endif
}

// All of it or nothing.
template <int Bytes, Again Wanted = Again::NO>
__device__ __forceinline__ void cp_async(void* shared, const void* global, bool valid = true) {
    cp_async_part<Bytes, Wanted>(shared, global, valid ? Bytes : 0);
}

__device__ __forceinline__ void cp_async_commit() {
#ifndef __CUDACC__
    simt::async_commit();
#elif HAS_TENSOR_PTX
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

// Waits until at most `GroupsLeft` of this thread's groups are on their way; other threads' need a barrier as well.
template <int GroupsLeft>
__device__ __forceinline__ void cp_async_wait() {
#ifndef __CUDACC__
    simt::async_wait(GroupsLeft);
#elif HAS_TENSOR_PTX
    asm volatile("cp.async.wait_group %0;\n" ::"n"(GroupsLeft) : "memory");
#endif
}

__device__ __forceinline__ void cp_async_wait_all() {
#ifndef __CUDACC__
    simt::async_wait_all();
#elif HAS_TENSOR_PTX
    asm volatile("cp.async.wait_all;\n" ::: "memory");
#endif
}
