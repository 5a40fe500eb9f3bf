// The part of NVML that `alexnet-mp devices` asks, for two GPUs under one PCIe switch.
#include <cstdio>
#include <cstring>

#define API extern "C" __attribute__((visibility("default")))

namespace {

using Device = const int*;
constexpr int numbers[8] = {0, 1, 2, 3, 4, 5, 6, 7};
constexpr int success = 0, not_supported = 3, not_found = 6;
constexpr int single_switch = 10;  // NVML_TOPOLOGY_SINGLE

}  // namespace

API int nvmlInit_v2() { return success; }
API int nvmlShutdown() { return success; }

API int nvmlSystemGetDriverVersion(char* text, unsigned length) {
    snprintf(text, length, "580.65.06");
    return success;
}

/// Addresses are those of the virtual driver: "0000:0N:00.0".
API int nvmlDeviceGetHandleByPciBusId_v2(const char* address, Device* device) {
    unsigned domain, bus, slot;
    if (sscanf(address, "%x:%x:%x", &domain, &bus, &slot) != 3) return not_found;
    if (domain != 0 || slot != 0 || bus < 1 || bus > 8) return not_found;
    *device = &numbers[bus - 1];
    return success;
}

API int nvmlDeviceGetTemperature(Device device, int, unsigned* celsius) {
    *celsius = 52 + unsigned(*device);
    return success;
}

API int nvmlDeviceGetPowerUsage(Device, unsigned* milliwatts) {
    *milliwatts = 310400;
    return success;
}

API int nvmlDeviceGetEnforcedPowerLimit(Device, unsigned* milliwatts) {
    *milliwatts = 700000;
    return success;
}

/// As many cards answer some questions and refuse others.
API int nvmlDeviceGetCurrPcieLinkGeneration(Device device, unsigned* generation) {
    *generation = 5;
    return *device == 0 ? success : not_supported;
}

API int nvmlDeviceGetCurrPcieLinkWidth(Device device, unsigned* width) {
    *width = 16;
    return *device == 0 ? success : not_supported;
}

struct Utilization {
    unsigned gpu, memory;
};

API int nvmlDeviceGetUtilizationRates(Device, Utilization* busy) {
    *busy = {17, 4};
    return success;
}

API int nvmlDeviceGetTopologyCommonAncestor(Device, Device, int* level) {
    *level = single_switch;
    return success;
}
