// The virtual driver's state, and what its files call across each other.
//
// One lock guards everything, kernels included: they run on the calling host thread while it holds the lock. Exported
// functions take it (`Entry`) and call no other exported function; everything else expects it to be held.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "../scheduler.h"

#define API extern "C" __attribute__((visibility("default")))

#pragma GCC visibility push(hidden)
namespace vcuda {

enum Result : int {
#define X(name, number, text) name = number,
#include "errors.def"
#undef X
};

using DevicePtr = uint64_t;

struct Context;
struct Stream;
struct Capture;

// ---- options and counters ---------------------------------------------------------------------

enum class StreamOrder { eager, lazy, random };

/// See README.md for what each of them does. Filled from VCUDA_* and with vcuda_set_option.
struct Options {
    int devices = 2;
    uint64_t memory = uint64_t(16) << 30, addresses = uint64_t(32) << 30;
    bool peer_access = true, corrupt_peer = false, peer_copies = true, capture_copies = true, launch_graphs = true;
    uint64_t hang_at = 0, fail_at = 0, refuse_at = 0;  // the launch that does, counted from 1; 0 is none
    StreamOrder streams = StreamOrder::eager;
    int start_error = 0;  // what cuInit gives
    int driver_version = 13000, capability = 90, multiprocessors = 132;
};
extern Options options;
extern uint64_t launches_since_options;  // what hang_at, fail_at and refuse_at count

/// Read by tests through vcuda_counters; the layout is repeated in src/lib.rs.
struct Counters {
    uint64_t launches, graph_launches;
    uint64_t host_to_device_bytes, device_to_host_bytes, device_to_device_bytes, peer_bytes;
    uint64_t allocations, live_allocations, live_bytes, peak_bytes;
    uint64_t host_synchronisations, unready_queries, faults, products, wgmma;
};
extern Counters counters;

/// Begins anew when the order of streams is set to random with a seed.
uint64_t random_number();

void say(const std::string& where, const std::string& what);
/// Says what a kernel or copy did wrong, and keeps it for vcuda_last_fault.
void report_fault(const std::string& what);

// ---- streams ----------------------------------------------------------------------------------

/// Something in a stream that will be done at some time.
struct Moment {
    Stream* stream = nullptr;
    bool done = false;
    double time = 0;
};
using MomentRef = std::shared_ptr<Moment>;

struct Work {
    std::function<Result()> run;  // may be empty: only order matters then
    std::vector<MomentRef> after;
    MomentRef end;
    bool hangs = false, unlocked = false;  // unlocked: runs without the driver's lock (host functions)
};

struct Stream {
    Context* context = nullptr;
    bool blocking = true;  // against the null stream
    int priority = 0;
    unsigned flags = 0;
    uint64_t id = 0;
    std::deque<Work> queue;
    MomentRef last;
    bool busy = false;
    // capture
    std::shared_ptr<Capture> capture;
    std::vector<int> capture_after;
};

struct Event {
    Context* context = nullptr;
    unsigned flags = 0;
    MomentRef moment;
    std::shared_ptr<Capture> capture;
    std::vector<int> capture_after;
};

/// Hands work to a stream, or to the graph that it captures.
Result submit(Stream*, Work);
/// The stream behind a handle (null stream, legacy and per-thread handles included); null if there is none.
Stream* stream_of(void* handle);
/// Lets the host wait: runs what has to run until the condition holds.
void wait_until(Stream*, const std::function<bool()>& done);
Result synchronise(Stream*);
Result synchronise(Context*);
void synchronise_everything();
/// Lets a stream go on a little, as when the host polls it.
void poll(Stream*);
bool is_idle(const Stream&);
void drop_streams(Context*);
/// Pieces of work that a device's streams still have to do.
uint64_t queued_work(int device);
double now();

// ---- capture and graphs -----------------------------------------------------------------------

Result capture_work(Stream*, Work);
Result capture_record(Event*, Stream*);
Result capture_wait(Stream*, Event*);
/// What a call that cannot be captured returns while the calling thread or stream captures.
Result refuse_in_capture(Stream*);
Result refuse_in_capture_mode();

// ---- devices and contexts ---------------------------------------------------------------------

constexpr int max_devices = 8;

struct Context {
    int device = 0;
    bool primary = false, alive = false;
    int references = 0;
    unsigned flags = 0;
    Result error = SUCCESS;
    Stream null_stream;
    std::set<Context*> peers;  // whose memory this context's kernels may touch
    std::set<void*> modules;
};

extern bool initialised;
extern thread_local Context* current_context;
Context* primary_context(int device);
bool is_context(Context*);
const std::set<Context*>& live_contexts();
void forget_everything();

// ---- memory -----------------------------------------------------------------------------------

struct Pool {
    int device;
    std::set<int> readers;  // devices that may touch it besides its own
};

struct Allocation {
    DevicePtr start;
    uint64_t bytes;
    DevicePtr pages;  // the mapped range around it
    uint64_t page_bytes;
    Context* context;
    Pool* pool;  // null for cuMemAlloc
    bool open;
};

Result reserve_address_space();
Result allocate(DevicePtr* pointer, uint64_t bytes, Pool* pool);
Result release(DevicePtr pointer);
void release_all(Context*);
Allocation* find_allocation(DevicePtr pointer, uint64_t bytes);
uint64_t used_bytes(int device);
/// Protects what the context's kernels may not touch, and opens the rest.
void show_memory_to(Context*);
bool may_touch(const Context*, const Allocation&);
/// Opens an allocation to the copy engine.
void open_for_copy(Allocation&);
Pool* default_pool(int device);
void revoke_views();
bool is_pinned(const void* pointer);

// ---- entry ------------------------------------------------------------------------------------

extern std::mutex lock;
extern std::condition_variable_any changed;

/// Held by every exported function. `bad` says why the call cannot go ahead.
struct Entry {
    std::unique_lock<std::mutex> held{lock};
    Result bad() const;
};
#define ENTER_WITHOUT_CONTEXT \
    Entry entry;              \
    if (!initialised) return NOT_INITIALIZED
#define ENTER   \
    Entry entry; \
    if (Result bad = entry.bad()) return bad

}  // namespace vcuda
#pragma GCC visibility pop
