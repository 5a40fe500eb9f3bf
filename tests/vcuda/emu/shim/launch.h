// Indices, barriers, memory hints, and cp.async behind common.cuh.
#pragma once
#include "../simt.h"

#define threadIdx (simt::position.thread)
#define blockIdx (simt::position.block)
#define blockDim (simt::position.block_size)
#define gridDim (simt::position.grid_size)
#define warpSize 32

#define SIMT_TEXT_OF(x) #x
#define SIMT_TEXT(x) SIMT_TEXT_OF(x)
#define SIMT_PLACE __FILE__ ":" SIMT_TEXT(__LINE__)

#define __syncthreads() simt::block_barrier(SIMT_PLACE, 0)
#define __syncthreads_or(predicate) (simt::block_barrier(SIMT_PLACE, !!(predicate)), simt::votes.any)
#define __syncthreads_and(predicate) (simt::block_barrier(SIMT_PLACE, !!(predicate)), simt::votes.all)
#define __syncthreads_count(predicate) (simt::block_barrier(SIMT_PLACE, !!(predicate)), simt::votes.count)

#undef assert
#define assert(condition) \
    ((condition) ? (void)0 : simt::trap("assertion failed at " SIMT_PLACE ": " #condition))
#define __trap() simt::trap("__trap() at " SIMT_PLACE)

// Blocks run one after another and threads switch only at barriers, so fences have nothing to order.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}

// Cache hints: plain accesses here.
#define SIMT_LOAD(name)              \
    template <class T>               \
    inline T name(const T* pointer) { \
        return *pointer;             \
    }
#define SIMT_STORE(name)                              \
    template <class T>                                \
    inline void name(T* pointer, std::common_type_t<T> value) { \
        *pointer = value;                             \
    }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)

// Shared addresses are ordinary addresses here; ldmatrix and cp.async take the pointer itself.
inline size_t __cvta_generic_to_shared(const void* pointer) { return reinterpret_cast<size_t>(pointer); }
inline void* __cvta_shared_to_generic(size_t address) { return reinterpret_cast<void*>(address); }
