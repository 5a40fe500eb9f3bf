// A launch: all blocks of a grid, one after another, and what happens when one of them goes wrong.
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <pthread.h>

#include "scheduler.h"

// Laid out by the linker: the table of kernels that the build script writes.
extern "C" {
extern const simt::Kernel* const __start_simt_kernels[] __attribute__((weak, visibility("hidden")));
extern const simt::Kernel* const __stop_simt_kernels[] __attribute__((weak, visibility("hidden")));
}

namespace simt {

const Launch* launch;

namespace {

sigjmp_buf fault_exit;
volatile bool running;
pthread_t kernel_host_thread;
Outcome fault_kind;
char fault_text[1024];

[[noreturn]] void end_kernel(Outcome kind, const char* reason) {
    const auto &b = position.block, &t = position.thread;
    snprintf(fault_text, sizeof fault_text, "%s: block (%u,%u,%u) thread (%u,%u,%u): %s", launch->kernel->name, b.x,
             b.y, b.z, t.x, t.y, t.z, reason);
    fault_kind = kind;
    if (current) abandon();
    siglongjmp(fault_exit, 1);
}

// ---- signals --------------------------------------------------------------------------------------

constexpr int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
struct sigaction previous[std::size(caught)];

/// Gives a signal that is none of a kernel's doing to whoever handled it before.
void pass_on(int signal_number) {
    for (size_t i = 0; i < std::size(caught); i++)
        if (caught[i] == signal_number) sigaction(signal_number, &previous[i], nullptr);
}

void on_signal(int signal_number, siginfo_t* info, void*) {
    if (!running || !pthread_equal(pthread_self(), kernel_host_thread)) return pass_on(signal_number);
    char reason[160];
    if (signal_number == SIGFPE) end_kernel(Outcome::failed, "integer division by zero");
    if (signal_number == SIGILL) end_kernel(Outcome::failed, "illegal instruction");
    if (current && is_stack_overflow(current->fibre, info->si_addr))
        end_kernel(Outcome::failed, "the thread's stack overflows");
    if (!info->si_addr && info->si_code != SEGV_MAPERR)
        end_kernel(Outcome::illegal_address, "misaligned or wild address");
    snprintf(reason, sizeof reason, "illegal memory access at address %p", info->si_addr);
    end_kernel(Outcome::illegal_address, reason);
}

/// Catches a kernel's faults for as long as it lives. The sanitizers report faults themselves.
struct SignalGuard {
#if defined(__SANITIZE_ADDRESS__) || defined(SIMT_TSAN)
    SignalGuard() {}
#else
    stack_t previous_stack{};
    SignalGuard() {
        alignas(16) static char stack[64 << 10];  // a thread that overflowed its stack cannot handle signals on it
        stack_t alternate{};
        alternate.ss_sp = stack;
        alternate.ss_size = sizeof stack;
        sigaltstack(&alternate, &previous_stack);
        struct sigaction action {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (size_t i = 0; i < std::size(caught); i++) sigaction(caught[i], &action, &previous[i]);
    }
    ~SignalGuard() {
        for (size_t i = 0; i < std::size(caught); i++) sigaction(caught[i], &previous[i], nullptr);
        sigaltstack(&previous_stack, nullptr);
    }
#endif
};

// ---- the grid -------------------------------------------------------------------------------------

void place_threads(const dim3& block, int count) {
    for (int i = 0; i < count; i++) {
        unsigned n = unsigned(i);
        threads[i].index = {n % block.x, n / block.x % block.y, n / (block.x * block.y)};
        threads[i].lane = n % 32;
    }
}

void run_blocks(const Launch& l, int thread_count) {
    uint64_t blocks = uint64_t(l.grid.x) * l.grid.y * l.grid.z;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t n = schedule.order == Order::descending ? blocks - 1 - i : i;
        position.block = {unsigned(n % l.grid.x), unsigned(n / l.grid.x % l.grid.y),
                          unsigned(n / (uint64_t(l.grid.x) * l.grid.y))};
        poison_shared(l);
        TSAN_RELEASE(&launch_token);
        run_block(thread_count);
        learn_footprint(i);
    }
}

}  // namespace

void trap(const char* reason) { end_kernel(Outcome::failed, reason); }

const Kernel* find_kernel(const char* name) {
    for (auto* kernel = __start_simt_kernels; kernel != __stop_simt_kernels; kernel++)
        if (!strcmp((*kernel)->name, name)) return *kernel;
    return nullptr;
}

const char* objection(const Launch& l) {
    if (l.block.x > max_threads_per_block || l.block.y > max_threads_per_block) return "the block has too many threads";
    uint64_t threads_in_block = uint64_t(l.block.x) * l.block.y * l.block.z;
    if (!l.grid.x || !l.grid.y || !l.grid.z || !threads_in_block) return "a dimension of the launch is zero";
    if (threads_in_block > max_threads_per_block || l.block.z > 64) return "the block has too many threads";
    if (l.grid.x > 0x7fffffffu || l.grid.y > 65535 || l.grid.z > 65535) return "the grid is too large";
    if (l.kernel->max_threads && threads_in_block > uint64_t(l.kernel->max_threads))
        return "the block is larger than the kernel's __launch_bounds__";
    if (l.dynamic_shared > max_dynamic_shared) return "too much dynamic shared memory";
    return nullptr;
}

Outcome run(const Launch& l, std::string& fault) {
    int count = int(l.block.x * l.block.y * l.block.z);
    launch = &l;
    position = {{}, {}, l.block, l.grid, 0};
    current = nullptr;
    kernel_host_thread = pthread_self();
    place_threads(l.block, count);
    seed_order();
    adopt_scheduler();
    open_shared(l);
    SignalGuard guard;
    if (sigsetjmp(fault_exit, 1) == 0) {
        running = true;
        run_blocks(l, count);
        running = false;
        return Outcome::done;
    }
    running = false;
    resumed();
    for (int i = 0; i < count; i++) retire(threads[i].fibre);
    fault = fault_text;
    return fault_kind;
}

}  // namespace simt
