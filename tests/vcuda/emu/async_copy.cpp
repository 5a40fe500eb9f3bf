// cp.async: per thread a list of copies under way, in groups.
#include <cstring>

#include "scheduler.h"

namespace simt {
namespace {

NO_SANITIZE void land(const AsyncCopy& copy) {
    auto* to = static_cast<char*>(copy.destination);
    auto* from = static_cast<const char*>(copy.source);
    // By hand: a sanitizer's memcpy would report the access at the wait instead of at the copy.
    for (int i = 0; i < copy.bytes; i++) to[i] = i < copy.source_bytes ? from[i] : 0;
    TSAN_WRITTEN(to, unsigned(copy.bytes));
    current->unfenced_writes = true;
}

void land_groups_before(int group) {
    auto& copies = current->copies;
    size_t landed = 0;
    while (landed < copies.size() && copies[landed].group < group) land(copies[landed++]);
    copies.erase(copies.begin(), copies.begin() + long(landed));
}

}  // namespace

void async_copy(void* destination, const void* source, int bytes, int source_bytes) {
    if (reinterpret_cast<uintptr_t>(destination) % unsigned(bytes)) trap("cp.async: destination is not aligned");
    if (source_bytes && reinterpret_cast<uintptr_t>(source) % unsigned(bytes)) trap("cp.async: source is not aligned");
    AsyncCopy copy{destination, source, bytes, source_bytes, current->copy_group};
    // Touch both ends now, so that an address out of bounds is reported here and not at the wait.
    if (source_bytes) (void)*static_cast<const volatile char*>(source);
    (void)*static_cast<volatile char*>(destination);
    if (schedule.deferred_copies) current->copies.push_back(copy);
    else land(copy);
}

void async_commit() { current->copy_group++; }
void async_wait(int groups_left) { land_groups_before(current->copy_group - groups_left); }
void async_wait_all() { land_groups_before(current->copy_group + 1); }

}  // namespace simt
