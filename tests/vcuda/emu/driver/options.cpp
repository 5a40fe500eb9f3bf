// Options, counters, and the vcuda_* functions through which tests steer the driver.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "driver.h"

namespace vcuda {

Options options;
Counters counters;
uint64_t launches_since_options;
std::mutex lock;
std::condition_variable_any changed;

namespace {

std::string last_fault;
std::mt19937_64 generator;

constexpr const char* names[] = {"devices", "memory",  "addresses", "peer_access",  "corrupt_peer",   "hang_at",
                                 "fail_at", "streams", "fibres",    "async_copies", "driver_version", "capability",
                                 "multiprocessors", "capture_copies", "peer_copies", "refuse_at", "launch_graphs",
                                 "start_error"};

/// "random:7" gives 7; without a number, 1.
uint64_t seed_in(const std::string& value) {
    size_t colon = value.find(':');
    return colon == std::string::npos ? 1 : strtoull(value.c_str() + colon + 1, nullptr, 10);
}

bool begins(const std::string& value, const char* word) { return value.rfind(word, 0) == 0; }

bool set_streams(const std::string& value) {
    if (value == "eager") options.streams = StreamOrder::eager;
    else if (value == "lazy") options.streams = StreamOrder::lazy;
    else if (begins(value, "random")) options.streams = StreamOrder::random, generator.seed(seed_in(value));
    else return false;
    return true;
}

bool set_fibres(const std::string& value) {
    if (value == "ascending") simt::schedule.order = simt::Order::ascending;
    else if (value == "descending") simt::schedule.order = simt::Order::descending;
    else if (begins(value, "random")) simt::schedule.order = simt::Order::random, simt::schedule.seed = seed_in(value);
    else return false;
    return true;
}

bool set_async_copies(const std::string& value) {
    if (value != "eager" && value != "deferred") return false;
    simt::schedule.deferred_copies = value == "deferred";
    return true;
}

bool set(const std::string& name, const std::string& value) {
    if (name == "streams") return set_streams(value);
    if (name == "fibres") return set_fibres(value);
    if (name == "async_copies") return set_async_copies(value);
    char* end;
    uint64_t number = strtoull(value.c_str(), &end, 10);
    if (value.empty() || *end) return false;
    if (name == "devices") options.devices = int(number < max_devices ? number : max_devices);
    else if (name == "memory") options.memory = number;
    else if (name == "addresses") options.addresses = number;
    else if (name == "peer_access") options.peer_access = number != 0;
    else if (name == "corrupt_peer") options.corrupt_peer = number != 0;
    else if (name == "peer_copies") options.peer_copies = number != 0;
    else if (name == "capture_copies") options.capture_copies = number != 0;
    else if (name == "launch_graphs") options.launch_graphs = number != 0;
    else if (name == "hang_at") options.hang_at = number;
    else if (name == "fail_at") options.fail_at = number;
    else if (name == "refuse_at") options.refuse_at = number;
    else if (name == "start_error") options.start_error = int(number);
    else if (name == "driver_version") options.driver_version = int(number);
    else if (name == "capability") options.capability = int(number);
    else if (name == "multiprocessors") options.multiprocessors = int(number);
    else return false;
    return true;
}

void read_environment() {
    options = Options();
    simt::schedule = simt::Schedule();
    launches_since_options = 0;
    for (const char* name : names) {
        std::string variable = "VCUDA_";
        for (const char* c = name; *c; c++) variable += char(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
        const char* value = getenv(variable.c_str());
        if (value && !set(name, value)) say(variable, std::string("not a value: ") + value);
    }
}

/// The environment holds from the start, with or without a test that sets options.
const bool environment_read = (read_environment(), true);

}  // namespace

uint64_t random_number() { return generator(); }

void say(const std::string& where, const std::string& what) {
    fprintf(stderr, "[vcuda] %s: %s\n", where.c_str(), what.c_str());
}

void report_fault(const std::string& what) {
    counters.faults++;
    last_fault = what;
    fprintf(stderr, "[vcuda] fault: %s\n", what.c_str());
}

}  // namespace vcuda

using namespace vcuda;

/// Sets one option by its name; 0 if name and value are understood.
API int vcuda_set_option(const char* name, const char* value) {
    Entry entry;
    bool understood = set(name, value);
    if (!understood) say(name, std::string("not an option, or not a value of it: ") + value);
    launches_since_options = 0;
    changed.notify_all();  // a hang may have been lifted
    return understood ? 0 : 1;
}

/// Back to what the environment says.
API void vcuda_reset_options() {
    Entry entry;
    read_environment();
    changed.notify_all();
}

/// Drops every context with its memory, streams and errors, as if the process had just begun.
API void vcuda_reset() {
    Entry entry;
    read_environment();
    changed.notify_all();
    forget_everything();
    counters = Counters();
    last_fault.clear();
}

API void vcuda_counters(Counters* to) {
    Entry entry;
    *to = counters;
}

/// What a device still has to do, in pieces of work: kernels, copies, marks.
API uint64_t vcuda_queued(int device) {
    Entry entry;
    return queued_work(device);
}

/// Starts the counters anew; what is allocated stays counted.
API void vcuda_reset_counters() {
    Entry entry;
    Counters fresh{};
    fresh.live_allocations = counters.live_allocations;
    fresh.live_bytes = fresh.peak_bytes = counters.live_bytes;
    counters = fresh;
}

/// The last fault's text, empty if there was none; returns its length.
API size_t vcuda_last_fault(char* text, size_t capacity) {
    Entry entry;
    if (capacity) snprintf(text, capacity, "%s", last_fault.c_str());
    return last_fault.size();
}
