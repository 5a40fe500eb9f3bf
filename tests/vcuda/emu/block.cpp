// One block: its threads run in turn, each until its next barrier or warp-level operation.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "scheduler.h"

namespace simt {

Position position;
Votes votes;
Schedule schedule;
Thread threads[max_threads_per_block];
Thread* current;
char launch_token;

namespace {

constexpr int warp_width = 32;
char fault_text[512];

// Two tokens in turn: with one, a thread that comes late to barrier n would be ordered after those that
// already left it and touched memory on their way to barrier n+1.
char barrier_tokens[2];
char collective_tokens[max_threads_per_block / warp_width][2];

uint64_t random_state;
unsigned random_below(unsigned bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return unsigned((random_state >> 16) % bound);
}

void order_of(int* order, int count) {
    std::iota(order, order + count, 0);
    if (schedule.order == Order::descending) std::reverse(order, order + count);
    if (schedule.order == Order::random)
        for (int i = count - 1; i > 0; i--) std::swap(order[i], order[random_below(unsigned(i) + 1)]);
}

NO_SANITIZE void thread_main() {
    entered();
    TSAN_ACQUIRE(&launch_token);
    launch->kernel->entry(launch->arguments);
    // Nothing waits for such a copy: the shared memory it lands in may be another block's by then.
    if (!current->copies.empty()) trap("the thread ends with a cp.async under way");
    current->state = State::done;
    switch_back(current->fibre, true);
    __builtin_trap();
}

NO_SANITIZE void resume(Thread& thread) {
    current = &thread;
    position.thread = thread.index;
    position.lane = thread.lane;
    if (thread.state == State::fresh) prepare(thread.fibre, thread_main, unsigned(&thread - threads));
    thread.state = State::ready;
    switch_to(thread.fibre);
    current = nullptr;
#ifndef SIMT_TSAN
    if (thread.state == State::done) retire(thread.fibre);
#endif
}

/// Takes the stacks of an ended block's threads away. Elsewhere a thread's goes as soon as it ends, and the next one finds
/// it in the cache; but nothing orders two threads of a block, and ThreadSanitizer would see them race for the stack.
void retire_all([[maybe_unused]] int count) {
#ifdef SIMT_TSAN
    for (int i = 0; i < count; i++) retire(threads[i].fibre);
#endif
}

[[noreturn]] void trap_at(const Thread& thread, const char* reason) {
    position.thread = thread.index;
    trap(reason);
}

/// The group of lanes that `first` waits for, if it has arrived as a whole.
bool has_gathered(Thread* warp, int lanes, const Thread& first) {
    for (int lane = 0; lane < warp_width; lane++) {
        if (!(first.mask >> lane & 1)) continue;
        if (lane >= lanes) return false;
        const Thread& other = warp[lane];
        if (other.state != State::at_collective || other.mask != first.mask || other.combine != first.combine)
            return false;
    }
    return true;
}

/// Completes the warp-level operations whose lanes have all arrived; says whether there was one.
bool complete_collectives(Thread* warp, int lanes) {
    bool completed = false;
    for (int first = 0; first < lanes; first++) {
        if (warp[first].state != State::at_collective || !has_gathered(warp, lanes, warp[first])) continue;
        unsigned mask = warp[first].mask;
        void* arguments[warp_width] = {};
        for (int lane = 0; lane < lanes; lane++) {
            if (!(mask >> lane & 1)) continue;
            arguments[lane] = warp[lane].argument;
            warp[lane].state = State::ready;
        }
        position.thread = warp[first].index;  // in case the operation itself finds a fault
        if (warp[first].combine) warp[first].combine(arguments, mask);
        completed = true;
    }
    return completed;
}

/// Runs a warp until each of its threads is done or at the block's barrier; returns how many ended.
int run_warp(Thread* warp, int lanes) {
    int order[warp_width], ended = 0;
    order_of(order, lanes);
    do {
        for (int i = 0; i < lanes; i++) {
            Thread& thread = warp[order[i]];
            if (thread.state > State::ready) continue;
            resume(thread);
            ended += thread.state == State::done;
        }
    } while (complete_collectives(warp, lanes));
    for (int lane = 0; lane < lanes; lane++)
        if (warp[lane].state == State::at_collective)
            trap_at(warp[lane], "warp-level operation: some lanes of its mask never arrive");
    return ended;
}

/// Lets the threads that wait at the block's barrier go on, if it is one barrier and all are there.
void release_barrier(int count, int ended) {
    const char* place = nullptr;
    votes = {0, 1, 0};
    for (int i = 0; i < count; i++) {
        Thread& thread = threads[i];
        if (thread.state != State::at_barrier) continue;
        if (!place) place = thread.place;
        if (thread.place != place && strcmp(thread.place, place)) {
            snprintf(fault_text, sizeof fault_text, "divergent __syncthreads: %s here, %s in other threads",
                     thread.place, place);
            trap_at(thread, fault_text);
        }
        votes.any |= thread.predicate;
        votes.all &= thread.predicate;
        votes.count += thread.predicate;
        thread.state = State::ready;
    }
    if (ended) {
        snprintf(fault_text, sizeof fault_text, "divergent __syncthreads: %d threads ended before %s", ended, place);
        trap(fault_text);
    }
}

}  // namespace

void seed_order() { random_state = schedule.seed * 0x9e3779b97f4a7c15ull + 1; }

void run_block(int count) {
    for (int i = 0; i < count; i++) {
        Thread& thread = threads[i];
        thread.state = State::fresh;
        thread.barriers = thread.collectives = 0;
        thread.copies.clear();
        thread.copy_group = 0;
        thread.unfenced_writes = false;
    }
    open_warpgroups(count);
    int warps = (count + warp_width - 1) / warp_width, ended = 0;
    int order[max_threads_per_block / warp_width];
    order_of(order, warps);
    for (;;) {
        for (int i = 0; i < warps; i++) {
            int first = order[i] * warp_width;
            ended += run_warp(threads + first, std::min(warp_width, count - first));
        }
        if (ended == count) {
            close_warpgroups(count);
            return retire_all(count);
        }
        release_barrier(count, ended);
    }
}

void block_barrier(const char* place, int predicate) {
    Thread& me = *current;
    me.place = place;
    me.predicate = predicate;
    me.state = State::at_barrier;
    char* token = &barrier_tokens[me.barriers++ & 1];
    TSAN_RELEASE(token);
    switch_back(me.fibre, false);
    TSAN_ACQUIRE(token);
}

void warp_collective(unsigned mask, Combine combine, void* argument) {
    Thread& me = *current;
    if (!(mask >> me.lane & 1)) trap("warp-level operation: the calling lane is not in its mask");
    me.mask = mask;
    me.combine = combine;
    me.argument = argument;
    me.state = State::at_collective;
    char* token = &collective_tokens[(&me - threads) / warp_width][me.collectives++ & 1];
    TSAN_RELEASE(token);
    switch_back(me.fibre, false);
    TSAN_ACQUIRE(token);
}

}  // namespace simt
