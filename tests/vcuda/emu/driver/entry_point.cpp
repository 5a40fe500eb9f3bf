// cuGetProcAddress and the profiler's switches.
#include <dlfcn.h>

#include <string>

#include "driver.h"

using namespace vcuda;

namespace {

/// This very library, whatever its path.
void* own_handle() {
    static void* handle = [] {
        Dl_info info;
        dladdr(reinterpret_cast<void*>(&own_handle), &info);
        return dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    }();
    return handle;
}

}  // namespace

API Result cuGetProcAddress_v2(const char* name, void** function, int, uint64_t, int* status) {
    constexpr int found = 0, not_found = 1;
    *function = nullptr;
    for (const char* suffix : {"_v2", ""})  // the newest form, as the real function gives it
        if (!*function) *function = dlsym(own_handle(), (name + std::string(suffix)).c_str());
    if (status) *status = *function ? found : not_found;
    return *function ? SUCCESS : NOT_FOUND;
}

API Result cuGetProcAddress(const char* name, void** function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

API Result cuProfilerStart() { return SUCCESS; }
API Result cuProfilerStop() { return SUCCESS; }
