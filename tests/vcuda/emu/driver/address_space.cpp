// Device memory: disjoint address ranges per device, guard pages after every allocation, protection per viewer.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "driver.h"

namespace vcuda {
namespace {

// Inside the address range that ThreadSanitizer and AddressSanitizer both leave to the program.
constexpr DevicePtr base = 0x7e9000000000, span = uint64_t(32) << 30;
constexpr uint64_t page = 4096, alignment = 16;
constexpr uint32_t poison_word = 0x7fff7fff;  // a NaN as f32, f16 and bf16

struct Range {
    DevicePtr fresh;                        // never used from here on
    std::map<DevicePtr, uint64_t> returned;  // start to length, neighbours merged
    uint64_t used = 0;
};
Range ranges[max_devices];
std::map<DevicePtr, Allocation> allocations;
Pool pools[max_devices];
Context* viewer;  // whom the protection suits; null when unknown

DevicePtr end_of(int device) { return base + span * uint64_t(device) + std::min(span, options.addresses); }

uint64_t round_up(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

/// What an allocation takes of a device's memory: large ones come in whole blocks of 2 MiB, as from the real driver.
uint64_t taken(uint64_t bytes) {
    constexpr uint64_t unit = 512, large = uint64_t(1) << 20, block = uint64_t(2) << 20;
    return round_up(bytes, bytes >= large ? block : unit);
}

void protect(const Allocation& a, bool open) {
    mprotect(reinterpret_cast<void*>(a.pages), a.page_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

/// Fresh addresses first, so that a pointer kept after its free faults for as long as possible.
DevicePtr take_addresses(int device, uint64_t bytes) {
    Range& range = ranges[device];
    if (range.fresh + bytes <= end_of(device)) {
        DevicePtr start = range.fresh;
        range.fresh += bytes;
        return start;
    }
    for (auto it = range.returned.begin(); it != range.returned.end(); ++it) {
        auto [start, length] = *it;
        if (length < bytes) continue;
        range.returned.erase(it);
        if (length > bytes) range.returned[start + bytes] = length - bytes;
        return start;
    }
    return 0;
}

void give_back_addresses(int device, DevicePtr start, uint64_t bytes) {
    auto& returned = ranges[device].returned;
    auto next = returned.lower_bound(start);
    if (next != returned.end() && start + bytes == next->first) {
        bytes += next->second;
        next = returned.erase(next);
    }
    if (next != returned.begin()) {
        auto before = std::prev(next);
        if (before->first + before->second == start) {
            before->second += bytes;
            return;
        }
    }
    returned[start] = bytes;
}

/// What AddressSanitizer shall report around an allocation: the guard page alone is up to 15 bytes late.
void mark_margins([[maybe_unused]] const Allocation& a, [[maybe_unused]] bool poisoned) {
#ifdef __SANITIZE_ADDRESS__
    auto* pages = reinterpret_cast<char*>(a.pages);
    __asan_unpoison_memory_region(pages, a.page_bytes);
    if (!poisoned) return;
    __asan_poison_memory_region(pages, a.start - a.pages);
    uint64_t end = a.start + a.bytes - a.pages;
    __asan_poison_memory_region(pages + end, a.page_bytes - end);
#endif
}

/// Fills the margins too: nobody may write there, which is checked when the memory is freed.
void fill_with_poison(const Allocation& a) {
    auto* words = reinterpret_cast<uint32_t*>(a.pages);
    std::fill(words, words + a.page_bytes / 4, poison_word);
}

void check_margin(const Allocation& a) {
#ifndef __SANITIZE_ADDRESS__
    auto* words = reinterpret_cast<uint32_t*>(a.pages);
    size_t count = (a.start - a.pages) / 4;
    if (std::all_of(words, words + count, [](uint32_t word) { return word == poison_word; })) return;
    report_fault("something was written before the start of an allocation of " + std::to_string(a.bytes) +
                 " bytes on device " + std::to_string(a.context->device));
#else
    (void)a;
#endif
}

void count_allocation(const Allocation& a) {
    ranges[a.context->device].used += taken(a.bytes);
    counters.allocations++;
    counters.live_allocations++;
    counters.live_bytes += a.bytes;
    counters.peak_bytes = std::max(counters.peak_bytes, counters.live_bytes);
}

void unmap(std::map<DevicePtr, Allocation>::iterator it) {
    Allocation& a = it->second;
    open_for_copy(a);
    check_margin(a);
    mark_margins(a, false);
    madvise(reinterpret_cast<void*>(a.pages), a.page_bytes, MADV_DONTNEED);
    protect(a, false);
    ranges[a.context->device].used -= taken(a.bytes);
    counters.live_allocations--;
    counters.live_bytes -= a.bytes;
    give_back_addresses(a.context->device, a.pages, a.page_bytes + page);
    allocations.erase(it);
}

}  // namespace

Result reserve_address_space() {
    for (int device = 0; device < max_devices; device++) {
        void* start = reinterpret_cast<void*>(base + span * uint64_t(device));
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        if (mmap(start, span, PROT_NONE, flags, -1, 0) != start) {
            say("cuInit", "the address range of device " + std::to_string(device) + " is taken");
            return OUT_OF_MEMORY;
        }
        madvise(start, span, MADV_DONTDUMP);
        ranges[device].fresh = DevicePtr(start) + page;
        pools[device].device = device;
    }
    return SUCCESS;
}

Result allocate(DevicePtr* pointer, uint64_t bytes, Pool* pool) {
    Context* context = current_context;
    int device = pool ? pool->device : context->device;
    if (ranges[device].used + taken(bytes) > options.memory) return OUT_OF_MEMORY;
    Allocation a{};
    uint64_t padded = round_up(bytes, alignment);
    a.page_bytes = round_up(padded, page);
    a.pages = take_addresses(device, a.page_bytes + page);
    if (!a.pages) return OUT_OF_MEMORY;
    a.start = a.pages + a.page_bytes - padded;  // the end meets the guard page
    a.bytes = bytes;
    a.context = context;
    a.pool = pool;
    a.open = true;
    protect(a, true);
    fill_with_poison(a);
    mark_margins(a, true);
    allocations[a.start] = a;
    count_allocation(a);
    revoke_views();
    *pointer = a.start;
    return SUCCESS;
}

Result release(DevicePtr pointer) {
    auto it = allocations.find(pointer);
    if (it == allocations.end()) {
        report_fault("free of something that is not an allocation");
        return INVALID_VALUE;
    }
    unmap(it);
    return SUCCESS;
}

void release_all(Context* context) {
    for (auto it = allocations.begin(); it != allocations.end();) {
        auto next = std::next(it);
        if (it->second.context == context) unmap(it);
        it = next;
    }
}

Allocation* find_allocation(DevicePtr pointer, uint64_t bytes) {
    auto it = allocations.upper_bound(pointer);
    if (it == allocations.begin()) return nullptr;
    Allocation& a = std::prev(it)->second;
    return pointer + bytes <= a.start + a.bytes && pointer + bytes >= pointer ? &a : nullptr;
}

uint64_t used_bytes(int device) { return ranges[device].used; }

Pool* default_pool(int device) { return &pools[device]; }

bool may_touch(const Context* context, const Allocation& a) {
    if (a.context == context) return true;
    if (a.pool) return a.pool->device == context->device || a.pool->readers.count(context->device);
    return context->peers.count(a.context) != 0;
}

void open_for_copy(Allocation& a) {
    if (a.open) return;
    protect(a, true);
    a.open = true;
    viewer = nullptr;
}

void show_memory_to(Context* context) {
    if (viewer == context) return;
    for (auto& [start, a] : allocations) {
        bool open = may_touch(context, a);
        if (open != a.open) protect(a, open);
        a.open = open;
    }
    viewer = context;
}

void revoke_views() { viewer = nullptr; }

}  // namespace vcuda
