// Streams: queues of work, and the order in which it runs.
#include <algorithm>
#include <chrono>
#include <unordered_map>

#include "driver.h"

namespace vcuda {
namespace {

std::unordered_map<Stream*, std::unique_ptr<Stream>> streams;  // without the contexts' null streams
std::vector<std::unique_ptr<Stream>> graveyard;                // moments may still point at a destroyed stream
uint64_t next_stream_id = 1;

enum class Progress { ran, blocked, idle };

std::vector<Stream*> all_streams() {
    std::vector<Stream*> all;
    for (Context* context : live_contexts()) all.push_back(&context->null_stream);
    for (auto& [stream, owner] : streams) all.push_back(stream);
    // In an order that does not depend on addresses, or a seed would not reproduce a run.
    std::sort(all.begin(), all.end(), [](Stream* a, Stream* b) {
        return std::make_pair(a->context->device, a->id) < std::make_pair(b->context->device, b->id);
    });
    return all;
}

bool is_hanging(const Work& work) { return work.hangs && options.hang_at; }

void execute(Stream* stream) {
    Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    Context* context = stream->context;
    if (work.run && !context->error) {
        stream->busy = true;
        if (work.unlocked) lock.unlock();
        Result result = work.run();
        if (work.unlocked) lock.lock();
        stream->busy = false;
        if (result) context->error = result;
    }
    work.end->done = true;
    work.end->time = now();
    changed.notify_all();
}

/// Runs the first piece of work of a stream, or of the stream that it waits for.
Progress step(Stream* stream) {
    if (stream->busy) return Progress::blocked;
    if (stream->queue.empty()) return Progress::idle;
    Work& work = stream->queue.front();
    for (const MomentRef& before : work.after)
        if (!before->done) return step(before->stream);
    if (is_hanging(work)) return Progress::blocked;
    execute(stream);
    return Progress::ran;
}

Progress step_random() {
    std::vector<Stream*> waiting = all_streams();
    waiting.erase(std::remove_if(waiting.begin(), waiting.end(), [](Stream* s) { return is_idle(*s); }), waiting.end());
    while (!waiting.empty()) {
        size_t pick = random_number() % waiting.size();
        if (step(waiting[pick]) == Progress::ran) return Progress::ran;
        waiting.erase(waiting.begin() + long(pick));
    }
    return Progress::blocked;
}

/// The null stream waits for all blocking streams of its context, and they for it.
void order_against_null_stream(Stream* stream, Work& work) {
    Context* context = stream->context;
    auto wait_for = [&](Stream* other) {
        if (other != stream && other->last && !other->last->done) work.after.push_back(other->last);
    };
    if (stream != &context->null_stream) {
        if (stream->blocking) wait_for(&context->null_stream);
        return;
    }
    for (auto& [other, owner] : streams)
        if (other->context == context && other->blocking) wait_for(other);
}

/// Work in the null stream would wait for blocking streams: impossible while one of them only captures.
bool meets_capture(const Stream& stream) {
    if (&stream != &stream.context->null_stream) return false;
    for (auto& [other, owner] : streams)
        if (other->context == stream.context && other->blocking && other->capture) return true;
    return false;
}

void run_as_ordered(Stream* stream) {
    if (options.streams == StreamOrder::eager)
        while (step(stream) == Progress::ran) {}
    // Slower than work comes in, so that streams get far apart.
    if (options.streams == StreamOrder::random && random_number() % 2) step_random();
}

}  // namespace

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool is_idle(const Stream& stream) { return stream.queue.empty() && !stream.busy; }

Result submit(Stream* stream, Work work) {
    if (stream->capture) return capture_work(stream, std::move(work));
    if (meets_capture(*stream)) return STREAM_CAPTURE_IMPLICIT;
    order_against_null_stream(stream, work);
    if (!work.end) work.end = std::make_shared<Moment>();
    work.end->stream = stream;
    stream->last = work.end;
    stream->queue.push_back(std::move(work));
    run_as_ordered(stream);
    return SUCCESS;
}

Stream* stream_of(void* handle) {
    constexpr uintptr_t per_thread = 2;  // CU_STREAM_LEGACY is 1, CU_STREAM_PER_THREAD 2
    if (reinterpret_cast<uintptr_t>(handle) <= per_thread) return &current_context->null_stream;
    auto found = streams.find(static_cast<Stream*>(handle));
    return found == streams.end() ? nullptr : found->first;
}

void wait_until(Stream* stream, const std::function<bool()>& done) {
    while (!done()) {
        Progress progress = options.streams == StreamOrder::random ? step_random() : step(stream);
        if (progress == Progress::idle) return;
        if (progress == Progress::blocked) changed.wait(lock);
    }
}

Result synchronise(Stream* stream) {
    counters.host_synchronisations++;
    wait_until(stream, [=] { return is_idle(*stream); });
    return stream->context->error;
}

Result synchronise(Context* context) {
    counters.host_synchronisations++;
    for (Stream* stream : all_streams())
        if (stream->context == context) wait_until(stream, [=] { return is_idle(*stream); });
    return context->error;
}

void synchronise_everything() {
    for (Stream* stream : all_streams()) wait_until(stream, [=] { return is_idle(*stream); });
}

void poll(Stream* stream) {
    counters.unready_queries++;
    if (options.streams == StreamOrder::random) step_random();
    else step(stream);
}

uint64_t queued_work(int device) {
    uint64_t pieces = 0;
    for (Stream* stream : all_streams())
        if (stream->context->device == device) pieces += stream->queue.size();
    return pieces;
}

namespace {
/// What was queued never runs, and nobody may wait for it.
void discard_queue(Stream& stream) {
    for (Work& work : stream.queue) work.end->done = true;
    stream.queue.clear();
    stream.capture = nullptr;
}
}  // namespace

void drop_streams(Context* context) {
    discard_queue(context->null_stream);
    for (auto it = streams.begin(); it != streams.end();) {
        if (it->second->context != context) {
            ++it;
            continue;
        }
        discard_queue(*it->second);
        graveyard.push_back(std::move(it->second));
        it = streams.erase(it);
    }
}

}  // namespace vcuda

using namespace vcuda;

namespace {

constexpr unsigned non_blocking = 1;
constexpr int greatest_priority = -5;

Result create(Stream** stream, unsigned flags, int priority) {
    auto fresh = std::make_unique<Stream>();
    fresh->context = current_context;
    fresh->blocking = !(flags & non_blocking);
    fresh->flags = flags;
    fresh->priority = std::clamp(priority, greatest_priority, 0);
    fresh->id = next_stream_id++;
    *stream = fresh.get();
    streams.emplace(*stream, std::move(fresh));
    return SUCCESS;
}

}  // namespace

API Result cuStreamCreate(Stream** stream, unsigned flags) {
    ENTER;
    return create(stream, flags, 0);
}

API Result cuStreamCreateWithPriority(Stream** stream, unsigned flags, int priority) {
    ENTER;
    return create(stream, flags, priority);
}

API Result cuStreamDestroy_v2(Stream* stream) {
    ENTER_WITHOUT_CONTEXT;
    auto found = streams.find(stream);
    if (found == streams.end()) return INVALID_HANDLE;
    // The real call returns at once and the work still runs. Waiting is as good, except behind a hang.
    if (!options.hang_at) wait_until(stream, [=] { return is_idle(*stream); });
    graveyard.push_back(std::move(found->second));
    streams.erase(found);
    return SUCCESS;
}

API Result cuStreamSynchronize(void* handle) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (Result refused = refuse_in_capture(stream)) return refused;
    return synchronise(stream);
}

API Result cuStreamQuery(void* handle) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (Result refused = refuse_in_capture(stream)) return refused;
    if (is_idle(*stream)) return SUCCESS;
    poll(stream);
    return current_context->error ? current_context->error : is_idle(*stream) ? SUCCESS : NOT_READY;
}

API Result cuStreamGetPriority(void* handle, int* priority) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *priority = stream->priority;
    return SUCCESS;
}

API Result cuStreamGetFlags(void* handle, unsigned* flags) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *flags = stream->flags;
    return SUCCESS;
}

API Result cuStreamGetCtx(void* handle, Context** context) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *context = stream->context;
    return SUCCESS;
}

API Result cuStreamGetId(void* handle, uint64_t* id) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *id = stream->id;
    return SUCCESS;
}

API Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    ENTER;
    if (least) *least = 0;
    if (greatest) *greatest = greatest_priority;
    return SUCCESS;
}

API Result cuLaunchHostFunc(void* handle, void (*function)(void*), void* argument) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    Work work;
    work.unlocked = true;
    work.run = [=] {
        function(argument);
        return SUCCESS;
    };
    return submit(stream, std::move(work));
}
