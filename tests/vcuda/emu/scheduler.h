// Runs kernels on fibres: what the driver calls, and what the parts of the scheduler share.
#pragma once
#include <string>
#include <vector>

#include "fibre.h"
#include "simt.h"

#pragma GCC visibility push(hidden)
namespace simt {

enum class Order { ascending, descending, random };

/// How the threads of a block take turns. Every order is one that a GPU may choose.
struct Schedule {
    Order order = Order::ascending;
    uint64_t seed = 1;
    bool deferred_copies = true;  // cp.async lands at its wait; otherwise at once
};
extern Schedule schedule;

const Kernel* find_kernel(const char* name);

struct Launch {
    const Kernel* kernel;
    dim3 grid, block;
    size_t dynamic_shared;
    void** arguments;
};

/// Why no device could run this launch; null if one can.
const char* objection(const Launch&);

enum class Outcome { done, illegal_address, failed };
/// Runs a whole grid that nothing speaks against. The caller sees to it that there is one launch at a time in the
/// process.
Outcome run(const Launch&, std::string& fault);

// ---- within the scheduler ----------------------------------------------------------------------

constexpr int max_threads_per_block = 1024;
constexpr size_t max_dynamic_shared = 227 << 10;
/// Where dynamic shared memory begins in its window: behind what the system and static arrays take, aligned to 16 bytes
/// and no more, as no kernel may rely on more.
constexpr unsigned shared_window = 1024 + 16;

struct AsyncCopy {
    void* destination;
    const void* source;
    int bytes, source_bytes, group;
};

enum class State : uint8_t { fresh, ready, at_barrier, at_collective, done };

struct Thread {
    Fibre fibre;
    uint3 index{};
    unsigned lane = 0;
    State state = State::fresh;
    // what it waits for
    const char* place = nullptr;
    int predicate = 0;
    unsigned mask = 0;
    Combine combine = nullptr;
    void* argument = nullptr;
    unsigned barriers = 0, collectives = 0;
    // what it has under way
    std::vector<AsyncCopy> copies;
    int copy_group = 0;
    bool unfenced_writes = false;  // copies landed since the last fence.proxy.async
};

extern const Launch* launch;  // the one that runs
extern Thread threads[max_threads_per_block];
extern Thread* current;  // null while the scheduler itself runs

/// Runs the block at `position.block` to its end.
void run_block(int thread_count);
/// Before a launch, before a block (0 is a launch's first), after a block.
void open_shared(const Launch&);
void poison_shared(const Launch&);
void learn_footprint(uint64_t block);
/// Before and after a block: forgets its warps' wgmma; sees to it that they are done, and the same in all four of a group.
void open_warpgroups(int thread_count);
void close_warpgroups(int thread_count);
/// How many warps issued since it was asked last.
uint64_t take_issued_products();
/// Starts the random order anew, so that a launch's order depends on the seed alone.
void seed_order();
/// Orders what the host did before the launch with the threads' first accesses (ThreadSanitizer).
extern char launch_token;

}  // namespace simt
#pragma GCC visibility pop
