#include "fibre.h"

#include <sys/mman.h>

#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
extern "C" void* __tsan_create_fiber(unsigned flags);
extern "C" void __tsan_switch_to_fiber(void* fibre, unsigned flags);
extern "C" void* __tsan_get_current_fiber();
#endif

namespace simt {

Fibre scheduler;

namespace {

constexpr size_t page = 4096;
constexpr size_t stack_size = 256 << 10;
std::vector<char*> free_stacks;
bool abandoned;

#ifdef __SANITIZE_ADDRESS__
const void* scheduler_stack;
void* scheduler_fake_stack;
size_t scheduler_stack_size;
#endif
#ifdef SIMT_TSAN
void* scheduler_tsan;
// Without this token a fibre's accesses would be ordered against the scheduler's by nothing.
char returned;
#endif

NO_SANITIZE char* take_stack() {
    if (!free_stacks.empty()) {
        char* stack = free_stacks.back();
        free_stacks.pop_back();
        return stack;
    }
    void* memory = mmap(nullptr, stack_size + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) __builtin_trap();
    mprotect(memory, page, PROT_NONE);  // an overflow faults instead of reaching the next thread's stack
    return static_cast<char*>(memory) + page;
}

}  // namespace

NO_SANITIZE void prepare(Fibre& fibre, void (*entry)(), unsigned colour) {
    fibre.stack = take_stack();
    void** top = reinterpret_cast<void**>(fibre.stack + stack_size - colour % 32 * 320);
    *--top = nullptr;  // aligns the stack as after a call
    fibre.stack_pointer = top;
    fibre.resume_at = reinterpret_cast<void*>(entry);
}

#ifdef SIMT_SANITIZED
NO_SANITIZE void leave_scheduler(Fibre& fibre) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, fibre.stack, stack_size);
#endif
#ifdef SIMT_TSAN
    // Flag 1: switching by itself orders nothing, or no race between two threads of a block could be seen.
    if (!fibre.tsan) fibre.tsan = __tsan_create_fiber(0);
    __tsan_switch_to_fiber(fibre.tsan, 1);
#endif
}

NO_SANITIZE void enter_scheduler() {
#ifdef SIMT_TSAN
    __tsan_acquire(&returned);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

NO_SANITIZE void leave_fibre([[maybe_unused]] Fibre& fibre, [[maybe_unused]] bool finished) {
#ifdef __SANITIZE_ADDRESS__
    void** fake_stack = finished ? nullptr : &fibre.fake_stack;
    __sanitizer_start_switch_fiber(fake_stack, scheduler_stack, scheduler_stack_size);
#endif
#ifdef SIMT_TSAN
    __tsan_release(&returned);
    __tsan_switch_to_fiber(scheduler_tsan, 1);
#endif
}

NO_SANITIZE void enter_fibre([[maybe_unused]] Fibre& fibre) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fibre.fake_stack, &scheduler_stack, &scheduler_stack_size);
#endif
}
#endif

NO_SANITIZE void entered() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
}

NO_SANITIZE void abandon() {
    abandoned = true;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(nullptr, scheduler_stack, scheduler_stack_size);
#endif
#ifdef SIMT_TSAN
    __tsan_release(&returned);
    __tsan_switch_to_fiber(scheduler_tsan, 1);
#endif
}

NO_SANITIZE void resumed() {
    if (!abandoned) return;
    abandoned = false;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
#ifdef SIMT_TSAN
    __tsan_acquire(&returned);
#endif
}

NO_SANITIZE void retire(Fibre& fibre) {
    if (!fibre.stack) return;
    free_stacks.push_back(fibre.stack);
    fibre.stack = nullptr;
}

void adopt_scheduler() {
#ifdef SIMT_TSAN
    scheduler_tsan = __tsan_get_current_fiber();
#endif
}

bool is_stack_overflow(const Fibre& fibre, const void* address) {
    return fibre.stack && address >= fibre.stack - page && address < fibre.stack;
}

}  // namespace simt
