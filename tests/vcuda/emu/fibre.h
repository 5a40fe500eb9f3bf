// Fibres: stacks of their own, switched by hand. Each thread of a block is one.
#pragma once
#include <cstddef>
#include <cstdint>

// The switching code itself must stay unwatched: it moves between stacks that the sanitizers know nothing of.
#define NO_SANITIZE __attribute__((no_sanitize("address", "thread", "undefined")))

#ifdef SIMT_TSAN
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
extern "C" void __tsan_write_range(void*, unsigned long);
#define TSAN_ACQUIRE(token) __tsan_acquire(token)
#define TSAN_RELEASE(token) __tsan_release(token)
#define TSAN_WRITTEN(address, bytes) __tsan_write_range(address, bytes)
#else
#define TSAN_ACQUIRE(token) ((void)(token))
#define TSAN_RELEASE(token) ((void)(token))
#define TSAN_WRITTEN(address, bytes) ((void)(address))
#endif

#pragma GCC visibility push(hidden)
namespace simt {

struct Fibre {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    void* tsan = nullptr;
};

/// Gives the fibre a stack on which the first switch_to calls `entry`, which must not return. `colour` spreads the
/// tops of the stacks over the cache's sets: otherwise the threads of a warp would evict each other.
void prepare(Fibre&, void (*entry)(), unsigned colour);
/// From the scheduler into the fibre; returns when the fibre calls switch_back.
void switch_to(Fibre&);
/// From the fibre into the scheduler. A finished fibre does not come back.
void switch_back(Fibre&, bool finished);
/// First thing in `entry`.
void entered();
/// Before a jump out of the fibre that never comes back, and after it.
void abandon();
void resumed();
/// Takes the stack away again, also from a fibre that stopped half-way.
void retire(Fibre&);
/// To be called by the host thread that is going to switch.
void adopt_scheduler();
/// Whether the address lies in the guard page of a fibre's stack.
bool is_stack_overflow(const Fibre&, const void* address);

}  // namespace simt
#pragma GCC visibility pop
