// Allocation: device memory, pools, pinned host memory.
#include <sys/mman.h>

#include <cstdlib>

#include "driver.h"

namespace vcuda {
namespace {

std::map<const char*, size_t> pinned;
std::set<const char*> registered;  // of these, the ones that the program allocated itself

}  // namespace

bool is_pinned(const void* pointer) {
    auto* byte = static_cast<const char*>(pointer);
    auto it = pinned.upper_bound(byte);
    if (it == pinned.begin()) return false;
    --it;
    return byte < it->first + it->second;
}

}  // namespace vcuda

using namespace vcuda;

API Result cuMemAlloc_v2(DevicePtr* pointer, size_t bytes) {
    ENTER;
    if (!bytes) return INVALID_VALUE;
    if (Result refused = refuse_in_capture_mode()) return refused;
    return allocate(pointer, bytes, nullptr);
}

API Result cuMemAllocPitch_v2(DevicePtr* pointer, size_t* pitch, size_t width, size_t height, unsigned) {
    ENTER;
    constexpr size_t pitch_unit = 512;
    *pitch = (width + pitch_unit - 1) / pitch_unit * pitch_unit;
    if (!width || !height) return INVALID_VALUE;
    return allocate(pointer, *pitch * height, nullptr);
}

API Result cuMemFree_v2(DevicePtr pointer) {
    ENTER;
    if (!pointer) return SUCCESS;
    if (Result refused = refuse_in_capture_mode()) return refused;
    if (Result failed = synchronise(current_context)) return failed;  // the real call waits as well
    return release(pointer);
}

namespace {

Result allocate_in_order(DevicePtr* pointer, size_t bytes, Pool* pool, void* handle) {
    Stream* stream = stream_of(handle);
    if (!stream || !pool) return INVALID_HANDLE;
    if (Result refused = refuse_in_capture(stream)) return refused;
    *pointer = 0;
    return bytes ? allocate(pointer, bytes, pool) : SUCCESS;
}

}  // namespace

API Result cuMemAllocAsync(DevicePtr* pointer, size_t bytes, void* handle) {
    ENTER;
    return allocate_in_order(pointer, bytes, default_pool(current_context->device), handle);
}

API Result cuMemAllocFromPoolAsync(DevicePtr* pointer, size_t bytes, Pool* pool, void* handle) {
    ENTER;
    return allocate_in_order(pointer, bytes, pool, handle);
}

API Result cuMemFreeAsync(DevicePtr pointer, void* handle) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (Result refused = refuse_in_capture(stream)) return refused;
    if (!pointer) return SUCCESS;
    Work work;
    work.run = [=] { return release(pointer); };
    return submit(stream, std::move(work));
}

API Result cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    ENTER;
    uint64_t used = used_bytes(current_context->device);
    *total = options.memory;
    *free_bytes = used < options.memory ? options.memory - used : 0;
    return SUCCESS;
}

API Result cuMemGetAddressRange_v2(DevicePtr* start, size_t* bytes, DevicePtr pointer) {
    ENTER;
    Allocation* a = find_allocation(pointer, 1);
    if (!a) return NOT_FOUND;
    if (start) *start = a->start;
    if (bytes) *bytes = a->bytes;
    return SUCCESS;
}

API Result cuPointerGetAttribute(void* value, int attribute, DevicePtr pointer) {
    ENTER_WITHOUT_CONTEXT;
    constexpr int context = 1, memory_type = 2, ordinal = 9, host = 1, device = 2;
    Allocation* a = find_allocation(pointer, 1);
    bool is_host = !a && is_pinned(reinterpret_cast<void*>(pointer));
    if (!a && !is_host) return INVALID_VALUE;
    if (attribute == memory_type) *static_cast<unsigned*>(value) = is_host ? host : device;
    else if (attribute == context && a) *static_cast<Context**>(value) = a->context;
    else if (attribute == ordinal && a) *static_cast<int*>(value) = a->context->device;
    else return INVALID_VALUE;
    return SUCCESS;
}

// ---- pools --------------------------------------------------------------------------------------

API Result cuDeviceGetDefaultMemPool(Pool** pool, int device) {
    ENTER_WITHOUT_CONTEXT;
    if (device < 0 || device >= options.devices) return INVALID_DEVICE;
    *pool = default_pool(device);
    return SUCCESS;
}

API Result cuDeviceGetMemPool(Pool** pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
API Result cuMemPoolSetAttribute(Pool*, int, void*) { return SUCCESS; }
API Result cuMemPoolTrimTo(Pool*, size_t) { return SUCCESS; }

API Result cuMemPoolGetAttribute(Pool* pool, int attribute, void* value) {
    ENTER_WITHOUT_CONTEXT;
    constexpr int release_threshold = 4, reserved_now = 5, used_now = 7;
    bool measured = attribute == reserved_now || attribute == used_now;
    if (attribute < release_threshold) *static_cast<int*>(value) = 1;
    else *static_cast<uint64_t*>(value) = measured ? used_bytes(pool->device) : 0;
    return SUCCESS;
}

namespace {
struct Access {
    int location_type, device, flags;
};
constexpr int read_write = 3;
}  // namespace

API Result cuMemPoolSetAccess(Pool* pool, const Access* accesses, size_t count) {
    ENTER_WITHOUT_CONTEXT;
    for (size_t i = 0; i < count; i++) {
        int device = accesses[i].device;
        if (device < 0 || device >= options.devices) return INVALID_DEVICE;
        if (!options.peer_access && device != pool->device) return INVALID_DEVICE;
        if (accesses[i].flags == read_write) pool->readers.insert(device);
        else pool->readers.erase(device);
    }
    revoke_views();
    return SUCCESS;
}

API Result cuMemPoolGetAccess(int* flags, Pool* pool, const Access* location) {
    ENTER_WITHOUT_CONTEXT;
    bool may = location->device == pool->device || pool->readers.count(location->device);
    *flags = may ? read_write : 0;
    return SUCCESS;
}

// ---- host memory ----------------------------------------------------------------------------------

API Result cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    ENTER;
    if (!bytes) return INVALID_VALUE;
    constexpr size_t page = 4096;
    *pointer = aligned_alloc(page, (bytes + page - 1) / page * page);
    if (!*pointer) return OUT_OF_MEMORY;
    pinned[static_cast<char*>(*pointer)] = bytes;
    return SUCCESS;
}

API Result cuMemAllocHost_v2(void** pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }

API Result cuMemFreeHost(void* pointer) {
    ENTER_WITHOUT_CONTEXT;
    auto found = pinned.find(static_cast<char*>(pointer));
    if (found == pinned.end() || registered.count(found->first)) return INVALID_VALUE;
    if (!options.hang_at) synchronise_everything();  // copies may still be under way
    pinned.erase(found);
    free(pointer);
    return SUCCESS;
}

API Result cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned) {
    ENTER;
    if (!bytes) return INVALID_VALUE;
    if (is_pinned(pointer)) return HOST_MEMORY_ALREADY_REGISTERED;
    pinned[static_cast<char*>(pointer)] = bytes;
    registered.insert(static_cast<char*>(pointer));
    return SUCCESS;
}

API Result cuMemHostUnregister(void* pointer) {
    ENTER_WITHOUT_CONTEXT;
    if (!registered.erase(static_cast<char*>(pointer))) return HOST_MEMORY_NOT_REGISTERED;
    if (!options.hang_at) synchronise_everything();
    pinned.erase(static_cast<char*>(pointer));
    return SUCCESS;
}

API Result cuMemHostGetDevicePointer_v2(DevicePtr* device_pointer, void* pointer, unsigned) {
    ENTER;
    if (!is_pinned(pointer)) return INVALID_VALUE;
    *device_pointer = reinterpret_cast<DevicePtr>(pointer);
    return SUCCESS;
}
