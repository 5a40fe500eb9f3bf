// Events: marks in streams that other streams and the host wait for.
#include <unordered_map>

#include "driver.h"

using namespace vcuda;

namespace {

constexpr unsigned disable_timing = 2;
std::unordered_map<Event*, std::unique_ptr<Event>> events;

bool is_event(Event* event) { return events.count(event) != 0; }

}  // namespace

API Result cuEventCreate(Event** event, unsigned flags) {
    ENTER;
    auto fresh = std::make_unique<Event>();
    fresh->context = current_context;
    fresh->flags = flags;
    *event = fresh.get();
    events.emplace(*event, std::move(fresh));
    return SUCCESS;
}

API Result cuEventDestroy_v2(Event* event) {
    ENTER_WITHOUT_CONTEXT;
    return events.erase(event) ? SUCCESS : INVALID_HANDLE;
}

API Result cuEventRecord(Event* event, void* handle) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream || !is_event(event)) return INVALID_HANDLE;
    if (event->context != stream->context) {
        say("cuEventRecord", "event and stream belong to different contexts");
        return INVALID_HANDLE;
    }
    if (stream->capture) return capture_record(event, stream);
    event->capture = nullptr;
    event->moment = std::make_shared<Moment>();
    Work work;
    work.end = event->moment;
    return submit(stream, std::move(work));
}

API Result cuEventRecordWithFlags(Event* event, void* handle, unsigned) { return cuEventRecord(event, handle); }

API Result cuStreamWaitEvent(void* handle, Event* event, unsigned) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream || !is_event(event)) return INVALID_HANDLE;
    if (stream->capture || event->capture) return capture_wait(stream, event);
    if (!event->moment || event->moment->done) return SUCCESS;  // an event never recorded counts as done
    Work work;
    work.after.push_back(event->moment);
    return submit(stream, std::move(work));
}

API Result cuEventSynchronize(Event* event) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_event(event)) return INVALID_HANDLE;
    if (event->capture) return CAPTURED_EVENT;
    counters.host_synchronisations++;
    Context* context = event->context;
    if (MomentRef moment = event->moment) wait_until(moment->stream, [=] { return moment->done; });
    return context->error;
}

API Result cuEventQuery(Event* event) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_event(event)) return INVALID_HANDLE;
    if (event->capture) return CAPTURED_EVENT;
    if (!event->moment || event->moment->done) return event->context->error;
    poll(event->moment->stream);
    return event->moment->done ? event->context->error : NOT_READY;
}

API Result cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_event(start) || !is_event(end) || !start->moment || !end->moment) return INVALID_HANDLE;
    if ((start->flags | end->flags) & disable_timing) return INVALID_HANDLE;
    if (!start->moment->done || !end->moment->done) return NOT_READY;
    *milliseconds = float((end->moment->time - start->moment->time) * 1e3);
    return SUCCESS;
}

API Result cuEventElapsedTime_v2(float* milliseconds, Event* start, Event* end) {
    return cuEventElapsedTime(milliseconds, start, end);
}
