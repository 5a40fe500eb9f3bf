// What kernels and the scheduler that runs them say to each other.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "shim/language.h"

// ThreadSanitizer must not see what the emulator does in a kernel thread's name: only the kernel's own accesses count.
#define SIMT_NO_TSAN __attribute__((no_sanitize("thread")))

#pragma GCC visibility push(hidden)
namespace simt {

/// Where the running thread stands. The scheduler rewrites it whenever it switches threads.
struct Position {
    uint3 thread, block;
    dim3 block_size, grid_size;
    unsigned lane;
};
extern Position position;

/// What the predicates handed to the last block barrier added up to.
struct Votes {
    int any, all, count;
};
extern Votes votes;

/// Start of the block's dynamic shared memory.
void* dynamic_shared();

/// Waits for every thread of the block. `place` names the source line: a barrier met at two places is a fault.
void block_barrier(const char* place, int predicate);

/// Combines what the lanes of a warp hand in; runs once, when all lanes of `mask` have arrived.
using Combine = void (*)(void** lane_arguments, unsigned mask);
void warp_collective(unsigned mask, Combine combine, void* argument);

/// Ends the kernel with a fault that names block and thread.
[[noreturn]] void trap(const char* reason);

/// cp.async: `source_bytes` are copied and the rest up to `bytes` is filled with zeros.
void async_copy(void* destination, const void* source, int bytes, int source_bytes);
void async_commit();
/// Waits until at most `groups_left` of this thread's committed groups are still on their way.
void async_wait(int groups_left);
void async_wait_all();

/// wgmma.mma_async: D[64,columns] += A[64,16] · B[16,columns] of a group of four warps, in 16 bits; `sums` are the lane's
/// of D. The operands stand in shared memory where their descriptors say, B's columns as A's rows.
struct WarpgroupProduct {
    uint64_t a, b;
    int columns;
    bool a_transposed, b_transposed, is_bfloat;
    float* sums;
};
void warpgroup_multiply(const WarpgroupProduct&);
/// wgmma.fence, commit_group and wait_group; fence.proxy.async.
void warpgroup_fence();
void warpgroup_commit();
void warpgroup_wait(int groups_left);
void fence_proxy_async();
/// Address of a place in the block's dynamic shared memory, in the window of shared memory.
unsigned shared_address(const void* place);

/// A kernel as the driver finds it. The build script writes one for each into section simt_kernels.
struct Kernel {
    const char* name;
    void (*entry)(void** arguments);
    int argument_count;
    const unsigned* argument_sizes;
    const bool* argument_is_pointer;
    int max_threads;  // of __launch_bounds__; 0 where there is none
};

template <auto Function>
struct Signature;
template <class... Arguments, void (*Function)(Arguments...)>
struct Signature<Function> {
    template <size_t... I>
    SIMT_NO_TSAN static void call(void** arguments, std::index_sequence<I...>) {
        Function(*static_cast<std::remove_reference_t<Arguments>*>(arguments[I])...);
    }
    SIMT_NO_TSAN static void entry(void** arguments) {
        call(arguments, std::index_sequence_for<Arguments...>{});
    }
    static constexpr int count = sizeof...(Arguments);
    static constexpr unsigned sizes[count + 1] = {sizeof(Arguments)..., 0};
    static constexpr bool pointers[count + 1] = {std::is_pointer_v<Arguments>..., false};
};

/// The first of __launch_bounds__'s arguments.
template <class... Rest>
constexpr int first_bound(int max_threads, Rest...) { return max_threads; }

}  // namespace simt
#pragma GCC visibility pop
