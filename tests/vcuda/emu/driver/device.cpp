// Devices: what they say about themselves. The numbers are those of an H200.
#include <cstdio>
#include <cstring>

#include "driver.h"

using namespace vcuda;

namespace {

struct Attribute {
    int id, value;
};
constexpr Attribute attributes[] = {
    {1, 1024},          // threads per block
    {2, 1024},          // block, x
    {3, 1024},          // block, y
    {4, 64},            // block, z
    {5, 0x7fffffff},    // grid, x
    {6, 65535},         // grid, y
    {7, 65535},         // grid, z
    {8, 48 << 10},      // shared memory per block
    {9, 64 << 10},      // constant memory
    {10, 32},           // warp
    {11, 0x7fffffff},   // pitch
    {12, 64 << 10},     // registers per block
    {13, 1980000},      // clock, kHz
    {14, 512},          // texture alignment
    {15, 1},            // copies overlap kernels
    {19, 1},            // host memory can be mapped
    {31, 1},            // concurrent kernels
    {32, 1},            // error correction
    {34, 0},            // PCI device
    {36, 3201000},      // memory clock, kHz
    {37, 6144},         // memory bus, bits
    {38, 50 << 20},     // second-level cache
    {39, 2048},         // threads per multiprocessor
    {40, 3},            // copy engines
    {41, 1},            // unified addressing
    {50, 0},            // PCI domain
    {78, 1},            // stream priorities
    {79, 1},            // global loads cached in the first level
    {80, 1},            // local loads as well
    {81, 228 << 10},    // shared memory per multiprocessor
    {82, 64 << 10},     // registers per multiprocessor
    {97, 227 << 10},    // shared memory per block, opted in
    {106, 32},          // blocks per multiprocessor
    {111, 1024},        // shared memory reserved per block
    {115, 1},           // memory pools
};
constexpr int multiprocessor_count = 16, pci_bus = 33, capability_major = 75, capability_minor = 76;

bool is_device(int device) { return device >= 0 && device < options.devices; }

int attribute(int id, int device) {
    if (id == multiprocessor_count) return options.multiprocessors;
    if (id == pci_bus) return device + 1;
    if (id == capability_major) return options.capability / 10;
    if (id == capability_minor) return options.capability % 10;
    for (const Attribute& one : attributes)
        if (one.id == id) return one.value;
    return 0;
}

}  // namespace

API Result cuInit(unsigned flags) {
    Entry entry;
    if (flags) return INVALID_VALUE;
    if (options.start_error) return Result(options.start_error);
    if (!options.devices) return NO_DEVICE;
    if (initialised) return SUCCESS;
    if (Result failed = reserve_address_space()) return failed;
    initialised = true;
    return SUCCESS;
}

API Result cuDriverGetVersion(int* version) {
    Entry entry;
    *version = options.driver_version;
    return SUCCESS;
}

API Result cuDeviceGetCount(int* count) {
    ENTER_WITHOUT_CONTEXT;
    *count = options.devices;
    return SUCCESS;
}

API Result cuDeviceGet(int* device, int ordinal) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(ordinal)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

API Result cuDeviceGetName(char* name, int capacity, int device) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    snprintf(name, size_t(capacity), "Virtual CUDA device %d", device);
    return SUCCESS;
}

API Result cuDeviceGetUuid(unsigned char* uuid, int device) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    memcpy(uuid, "virtual-cuda-gpu", 16);
    uuid[15] = static_cast<unsigned char>('0' + device);
    return SUCCESS;
}

API Result cuDeviceGetUuid_v2(unsigned char* uuid, int device) { return cuDeviceGetUuid(uuid, device); }

API Result cuDeviceGetPCIBusId(char* text, int capacity, int device) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    snprintf(text, size_t(capacity), "0000:%02X:00.0", device + 1);
    return SUCCESS;
}

API Result cuDeviceTotalMem_v2(size_t* bytes, int device) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    *bytes = options.memory;
    return SUCCESS;
}

API Result cuDeviceGetAttribute(int* value, int id, int device) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    *value = attribute(id, device);
    return SUCCESS;
}

API Result cuDeviceComputeCapability(int* major, int* minor, int device) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    *major = options.capability / 10;
    *minor = options.capability % 10;
    return SUCCESS;
}

API Result cuDeviceCanAccessPeer(int* can, int device, int peer) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device) || !is_device(peer)) return INVALID_DEVICE;
    *can = device != peer && options.peer_access;
    return SUCCESS;
}

API Result cuDeviceGetP2PAttribute(int* value, int attribute, int source, int destination) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(source) || !is_device(destination) || source == destination) return INVALID_DEVICE;
    constexpr int performance_rank = 1, access_supported = 2, native_atomics = 3;
    bool known = attribute == access_supported || attribute == native_atomics;
    *value = known && options.peer_access;
    return known || attribute == performance_rank ? SUCCESS : INVALID_VALUE;
}
