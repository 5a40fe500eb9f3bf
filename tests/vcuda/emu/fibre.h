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
extern "C" void __tsan_read_range(void*, unsigned long);
#define TSAN_ACQUIRE(token) __tsan_acquire(token)
#define TSAN_RELEASE(token) __tsan_release(token)
#define TSAN_WRITTEN(address, bytes) __tsan_write_range(address, bytes)
#define TSAN_READ(address, bytes) __tsan_read_range(const_cast<char*>(address), bytes)
#else
#define TSAN_ACQUIRE(token) ((void)(token))
#define TSAN_RELEASE(token) ((void)(token))
#define TSAN_WRITTEN(address, bytes) ((void)(address))
#endif

#pragma GCC visibility push(hidden)
namespace simt {

struct Fibre {
    void* stack_pointer = nullptr;  // where it stopped
    void* resume_at = nullptr;
    char* stack = nullptr;
    void* tsan = nullptr;        // ThreadSanitizer's view of it
    void* fake_stack = nullptr;  // AddressSanitizer's
};

extern Fibre scheduler;  // the host thread that runs the fibres

/// Gives the fibre a stack on which the first switch_to calls `entry`, which must not return. `colour` spreads the
/// tops of the stacks over the cache's sets: otherwise the threads of a warp would evict each other.
void prepare(Fibre&, void (*entry)(), unsigned colour);
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

// ---- switching, inlined: it is what most of a launch's time goes to ------------------------------------

#if defined(__SANITIZE_ADDRESS__) || defined(SIMT_TSAN)
#define SIMT_SANITIZED
void leave_scheduler(Fibre&);
void enter_scheduler();
void leave_fibre(Fibre&, bool finished);
void enter_fibre(Fibre&);
#else
inline void leave_scheduler(Fibre&) {}
inline void enter_scheduler() {}
inline void leave_fibre(Fibre&, bool) {}
inline void enter_fibre(Fibre&) {}
#endif

/// Continues on another stack. A jump and not a return, which the processor could not predict; the compiler itself
/// saves the registers that it needs afterwards.
__attribute__((always_inline)) inline void swap_stacks(Fibre& from, Fibre& to) {
    Fibre *leave = &from, *enter = &to;
    asm volatile(
        "lea -128(%%rsp), %%rsp\n"  // past the red zone
        "push %%rbp\n"
        "lea 1f(%%rip), %%rcx\n"
        "mov %%rcx, 8(%%rax)\n"
        "mov %%rsp, (%%rax)\n"
        "mov (%%rdx), %%rsp\n"
        "jmp *8(%%rdx)\n"
        "1:\n"
        "pop %%rbp\n"
        "lea 128(%%rsp), %%rsp\n"
        : "+a"(leave), "+d"(enter)
        :
        : "rbx", "rcx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc", "xmm0",
          "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
          "xmm14", "xmm15");
}

/// From the scheduler into the fibre; returns when the fibre calls switch_back.
NO_SANITIZE inline void switch_to(Fibre& fibre) {
    leave_scheduler(fibre);
    swap_stacks(scheduler, fibre);
    enter_scheduler();
}

/// From the fibre into the scheduler. A finished fibre does not come back.
NO_SANITIZE inline void switch_back(Fibre& fibre, bool finished) {
    leave_fibre(fibre, finished);
    swap_stacks(fibre, scheduler);
    enter_fibre(fibre);
}

}  // namespace simt
#pragma GCC visibility pop
