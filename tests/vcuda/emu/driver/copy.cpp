// Copies and fills, of rows or of one long row.
#include <cstring>

#include "driver.h"

using namespace vcuda;

namespace {

struct Side {
    DevicePtr device = 0;  // one of the two
    char* host = nullptr;
    size_t pitch = 0;
    Context* context = nullptr;  // that the caller names, if it does

    bool is_device() const { return host == nullptr; }
};

struct Copy {
    const char* name;
    Side to, from;
    size_t width, height;
};

size_t extent(const Side& side, const Copy& copy) { return side.pitch * (copy.height - 1) + copy.width; }

Result complain(const char* name, const std::string& what) {
    report_fault(std::string(name) + ": " + what);
    return INVALID_VALUE;
}

/// Device memory must lie within one allocation, and on the device that the caller says.
Result check(const char* name, const Side& side, size_t bytes) {
    if (!side.is_device()) return SUCCESS;
    Allocation* a = find_allocation(side.device, bytes);
    if (!a) return complain(name, "device range is not inside one allocation");
    if (side.context && side.context->device != a->context->device)
        return complain(name, "the pointer belongs to device " + std::to_string(a->context->device) +
                                  ", the call says " + std::to_string(side.context->device));
    return SUCCESS;
}

/// A link that answers "success" and delivers something else, as broken peer access does.
void corrupt(char* bytes, size_t count) {
    for (size_t i = 0; i < count; i += 64) bytes[i] = char(bytes[i] ^ 0x55);
}

bool between_devices(const Copy& copy) {
    if (!copy.to.is_device() || !copy.from.is_device()) return false;
    return find_allocation(copy.to.device, 1)->context->device != find_allocation(copy.from.device, 1)->context->device;
}

void count_bytes(const Copy& copy) {
    bool peer = between_devices(copy) || (copy.to.context && copy.from.context);
    uint64_t& counter = !copy.from.is_device() ? counters.host_to_device_bytes
                        : !copy.to.is_device() ? counters.device_to_host_bytes
                        : peer                 ? counters.peer_bytes
                                               : counters.device_to_device_bytes;
    counter += copy.width * copy.height;
}

/// Where a side's bytes are, opened to the copy engine; null where the allocation has gone meanwhile.
char* open(const Side& side, const Copy& copy) {
    if (!side.is_device()) return side.host;
    Allocation* a = find_allocation(side.device, extent(side, copy));
    if (!a) return nullptr;
    open_for_copy(*a);
    return reinterpret_cast<char*>(side.device);
}

Result execute(const Copy& copy) {
    char *to = open(copy.to, copy), *from = open(copy.from, copy);
    if (!to || !from) {
        report_fault(std::string(copy.name) + ": memory was freed before the copy ran");
        return ILLEGAL_ADDRESS;
    }
    count_bytes(copy);
    for (size_t row = 0; row < copy.height; row++)
        memmove(to + row * copy.to.pitch, from + row * copy.from.pitch, copy.width);
    if (options.corrupt_peer && between_devices(copy))
        for (size_t row = 0; row < copy.height; row++) corrupt(to + row * copy.to.pitch, copy.width);
    return SUCCESS;
}

/// Pageable memory is read before the call returns.
std::shared_ptr<std::vector<char>> stage(Copy& copy) {
    size_t bytes = extent(copy.from, copy);
    auto staging = std::make_shared<std::vector<char>>(copy.from.host, copy.from.host + bytes);
    copy.from.host = staging->data();
    return staging;
}

Result submit_copy(Copy copy, Stream* stream) {
    if (!stream) return INVALID_HANDLE;
    if (!copy.width || !copy.height) return SUCCESS;
    if (Result bad = check(copy.name, copy.to, extent(copy.to, copy))) return bad;
    if (Result bad = check(copy.name, copy.from, extent(copy.from, copy))) return bad;
    bool capturing = stream->capture != nullptr;
    bool on_devices = copy.to.is_device() && copy.from.is_device();
    if (capturing && on_devices && !options.capture_copies) return refuse_in_capture(stream);
    if (!options.peer_copies && between_devices(copy)) return NOT_SUPPORTED;
    std::shared_ptr<std::vector<char>> staging;
    if (!copy.from.is_device() && !capturing && !is_pinned(copy.from.host)) staging = stage(copy);
    Work work;
    work.run = [copy, staging] { return execute(copy); };
    if (Result failed = submit(stream, std::move(work))) return failed;
    bool returns_at_end = !copy.to.is_device() && !capturing && !is_pinned(copy.to.host);
    return returns_at_end ? synchronise(stream) : SUCCESS;
}

Result copy_and_wait(const Copy& copy) {
    if (Result refused = refuse_in_capture_mode()) return refused;
    Stream* stream = &current_context->null_stream;
    if (Result failed = submit_copy(copy, stream)) return failed;
    return synchronise(stream);
}

Side on_device(DevicePtr pointer, size_t bytes, Context* context = nullptr) {
    Side side;
    side.device = pointer;
    side.pitch = bytes;
    side.context = context;
    return side;
}

Side on_host(const void* pointer, size_t bytes) {
    Side side;
    side.host = static_cast<char*>(const_cast<void*>(pointer));
    side.pitch = bytes;
    return side;
}

/// Unified addressing: a pointer says by itself what it points at.
Side anywhere(DevicePtr pointer, size_t bytes) {
    if (find_allocation(pointer, 1)) return on_device(pointer, bytes);
    return on_host(reinterpret_cast<void*>(pointer), bytes);
}

}  // namespace

API Result cuMemcpyHtoDAsync_v2(DevicePtr to, const void* from, size_t bytes, void* stream) {
    ENTER;
    return submit_copy({"cuMemcpyHtoDAsync", on_device(to, bytes), on_host(from, bytes), bytes, 1}, stream_of(stream));
}

API Result cuMemcpyDtoHAsync_v2(void* to, DevicePtr from, size_t bytes, void* stream) {
    ENTER;
    return submit_copy({"cuMemcpyDtoHAsync", on_host(to, bytes), on_device(from, bytes), bytes, 1}, stream_of(stream));
}

API Result cuMemcpyDtoDAsync_v2(DevicePtr to, DevicePtr from, size_t bytes, void* stream) {
    ENTER;
    return submit_copy({"cuMemcpyDtoDAsync", on_device(to, bytes), on_device(from, bytes), bytes, 1},
                       stream_of(stream));
}

API Result cuMemcpyAsync(DevicePtr to, DevicePtr from, size_t bytes, void* stream) {
    ENTER;
    return submit_copy({"cuMemcpyAsync", anywhere(to, bytes), anywhere(from, bytes), bytes, 1}, stream_of(stream));
}

API Result cuMemcpyPeerAsync(DevicePtr to, Context* to_context, DevicePtr from, Context* from_context, size_t bytes,
                             void* stream) {
    ENTER;
    if (!is_context(to_context) || !is_context(from_context)) return INVALID_CONTEXT;
    // Nothing says that a capture may hold this call, as it may hold the others.
    Stream* in = stream_of(stream);
    if (Result refused = in ? refuse_in_capture(in) : SUCCESS) return refused;
    return submit_copy(
        {"cuMemcpyPeerAsync", on_device(to, bytes, to_context), on_device(from, bytes, from_context), bytes, 1},
        in);
}

API Result cuMemcpyHtoD_v2(DevicePtr to, const void* from, size_t bytes) {
    ENTER;
    return copy_and_wait({"cuMemcpyHtoD", on_device(to, bytes), on_host(from, bytes), bytes, 1});
}

API Result cuMemcpyDtoH_v2(void* to, DevicePtr from, size_t bytes) {
    ENTER;
    return copy_and_wait({"cuMemcpyDtoH", on_host(to, bytes), on_device(from, bytes), bytes, 1});
}

API Result cuMemcpyDtoD_v2(DevicePtr to, DevicePtr from, size_t bytes) {
    ENTER;
    return copy_and_wait({"cuMemcpyDtoD", on_device(to, bytes), on_device(from, bytes), bytes, 1});
}

API Result cuMemcpy(DevicePtr to, DevicePtr from, size_t bytes) {
    ENTER;
    return copy_and_wait({"cuMemcpy", anywhere(to, bytes), anywhere(from, bytes), bytes, 1});
}

API Result cuMemcpyPeer(DevicePtr to, Context* to_context, DevicePtr from, Context* from_context, size_t bytes) {
    ENTER;
    if (!is_context(to_context) || !is_context(from_context)) return INVALID_CONTEXT;
    return copy_and_wait(
        {"cuMemcpyPeer", on_device(to, bytes, to_context), on_device(from, bytes, from_context), bytes, 1});
}

// ---- rows -----------------------------------------------------------------------------------------

namespace {

/// One side of CUDA_MEMCPY2D.
struct Rectangle {
    size_t x, y;
    unsigned type;
    void* host;
    DevicePtr device;
    void* array;
    size_t pitch;
};

struct Copy2D {
    Rectangle from, to;
    size_t width, height;
};

bool describe(const Rectangle& rectangle, const Copy2D& copy, Side* side) {
    constexpr unsigned host = 1, device = 2, unified = 4;
    size_t pitch = rectangle.pitch ? rectangle.pitch : copy.width;
    size_t offset = rectangle.y * pitch + rectangle.x;
    if (pitch < copy.width) return false;
    if (rectangle.type == host) *side = on_host(static_cast<char*>(rectangle.host) + offset, pitch);
    else if (rectangle.type == device) *side = on_device(rectangle.device + offset, pitch);
    else if (rectangle.type == unified) *side = anywhere(rectangle.device + offset, pitch);
    else return false;  // arrays
    return true;
}

bool describe(const Copy2D& request, Copy* copy) {
    *copy = {"cuMemcpy2D", {}, {}, request.width, request.height};
    return describe(request.from, request, &copy->from) && describe(request.to, request, &copy->to);
}

}  // namespace

API Result cuMemcpy2DAsync_v2(const Copy2D* request, void* stream) {
    ENTER;
    Copy copy;
    return describe(*request, &copy) ? submit_copy(copy, stream_of(stream)) : INVALID_VALUE;
}

API Result cuMemcpy2D_v2(const Copy2D* request) {
    ENTER;
    Copy copy;
    return describe(*request, &copy) ? copy_and_wait(copy) : INVALID_VALUE;
}

API Result cuMemcpy2DUnaligned_v2(const Copy2D* request) { return cuMemcpy2D_v2(request); }

// ---- fills ----------------------------------------------------------------------------------------

namespace {

template <class T>
Result fill(DevicePtr to, T value, size_t count, Stream* stream) {
    if (!stream) return INVALID_HANDLE;
    if (!count) return SUCCESS;
    if (to % sizeof(T)) return INVALID_VALUE;
    size_t bytes = count * sizeof(T);
    if (Result bad = check("cuMemset", on_device(to, bytes), bytes)) return bad;
    Work work;
    work.run = [=]() -> Result {
        Allocation* a = find_allocation(to, bytes);
        if (!a) return ILLEGAL_ADDRESS;
        open_for_copy(*a);
        std::fill_n(reinterpret_cast<T*>(to), count, value);
        return SUCCESS;
    };
    return submit(stream, std::move(work));
}

}  // namespace

API Result cuMemsetD8Async(DevicePtr to, uint8_t value, size_t count, void* stream) {
    ENTER;
    return fill(to, value, count, stream_of(stream));
}

API Result cuMemsetD16Async(DevicePtr to, uint16_t value, size_t count, void* stream) {
    ENTER;
    return fill(to, value, count, stream_of(stream));
}

API Result cuMemsetD32Async(DevicePtr to, uint32_t value, size_t count, void* stream) {
    ENTER;
    return fill(to, value, count, stream_of(stream));
}

// On device memory even these return before the fill is done.
API Result cuMemsetD8_v2(DevicePtr to, uint8_t value, size_t count) {
    return cuMemsetD8Async(to, value, count, nullptr);
}
API Result cuMemsetD16_v2(DevicePtr to, uint16_t value, size_t count) {
    return cuMemsetD16Async(to, value, count, nullptr);
}
API Result cuMemsetD32_v2(DevicePtr to, uint32_t value, size_t count) {
    return cuMemsetD32Async(to, value, count, nullptr);
}
