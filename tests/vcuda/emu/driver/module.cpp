// Modules and functions. A module's image is not looked at: every kernel that the library was built from is in it.
#include <algorithm>
#include <cstring>
#include <memory>

#include "module.h"

namespace vcuda {
namespace {

struct Module {
    Context* context;
    std::map<std::string, std::unique_ptr<Function>> functions;
};

std::map<Module*, std::unique_ptr<Module>> modules;
std::set<Function*> functions;

// What the binary in the image would demand of a real driver and device.
constexpr int oldest_driver = 12000, oldest_capability = 75;

Result load(Module** module, const void* image) {
    if (!image) return INVALID_VALUE;
    if (options.driver_version < oldest_driver) return UNSUPPORTED_PTX_VERSION;
    if (options.capability < oldest_capability) return NO_BINARY_FOR_GPU;
    auto fresh = std::make_unique<Module>();
    fresh->context = current_context;
    *module = fresh.get();
    modules.emplace(*module, std::move(fresh));
    return SUCCESS;
}

/// How many blocks fit on a multiprocessor, taking 64 registers per thread: the host compiler knows none.
int blocks_per_multiprocessor(const Function& function, int block_size, size_t dynamic_shared) {
    constexpr size_t registers = 64 << 10, registers_per_thread = 64, threads = 2048, blocks = 32;
    constexpr size_t shared = 228 << 10, reserved = 1 << 10;
    if (block_size < 1 || block_size > max_block_size(function)) return 0;
    if (dynamic_shared > function.max_dynamic_shared) return 0;
    size_t size = (size_t(block_size) + 31) / 32 * 32;
    return int(std::min({blocks, threads / size, registers / (registers_per_thread * size),
                         shared / (dynamic_shared + reserved)}));
}

}  // namespace

bool is_function(Function* function) { return functions.count(function) != 0; }

int max_block_size(const Function& function) {
    return function.kernel->max_threads ? function.kernel->max_threads : simt::max_threads_per_block;
}

}  // namespace vcuda

using namespace vcuda;

API Result cuModuleLoadData(Module** module, const void* image) {
    ENTER;
    return load(module, image);
}

API Result cuModuleLoadDataEx(Module** module, const void* image, unsigned, void*, void*) {
    ENTER;
    return load(module, image);
}

API Result cuModuleLoadFatBinary(Module** module, const void* image) {
    ENTER;
    return load(module, image);
}

API Result cuModuleLoad(Module** module, const char* path) {
    ENTER;
    return load(module, path);
}

API Result cuModuleUnload(Module* module) {
    ENTER_WITHOUT_CONTEXT;
    auto found = modules.find(module);
    if (found == modules.end()) return INVALID_HANDLE;
    // A kernel still queued keeps its function: only the handles go.
    for (auto& [name, function] : module->functions) functions.erase(function.get());
    modules.erase(found);
    return SUCCESS;
}

API Result cuModuleGetFunction(Function** function, Module* module, const char* name) {
    ENTER;
    if (!modules.count(module)) return INVALID_HANDLE;
    const simt::Kernel* kernel = simt::find_kernel(name);
    if (!kernel) {
        say("cuModuleGetFunction", std::string("no kernel of this name: ") + name);
        return NOT_FOUND;
    }
    auto& slot = module->functions[name];
    if (!slot) slot = std::make_unique<Function>(Function{module->context, kernel});
    functions.insert(slot.get());
    *function = slot.get();
    return SUCCESS;
}

API Result cuModuleGetGlobal_v2(DevicePtr*, size_t*, Module*, const char* name) {
    ENTER;
    say("cuModuleGetGlobal", std::string("not supported: ") + name);
    return NOT_FOUND;
}

API Result cuModuleGetLoadingMode(int* mode) {
    *mode = 1;  // eager
    return SUCCESS;
}

API Result cuFuncGetModule(Module** module, Function* function) {
    ENTER;
    for (auto& [handle, owner] : modules)
        for (auto& [name, candidate] : owner->functions)
            if (candidate.get() == function) return *module = handle, SUCCESS;
    return INVALID_HANDLE;
}

API Result cuFuncGetName(const char** name, Function* function) {
    ENTER;
    if (!is_function(function)) return INVALID_HANDLE;
    *name = function->kernel->name;
    return SUCCESS;
}

API Result cuFuncSetAttribute(Function* function, int attribute, int value) {
    ENTER;
    if (!is_function(function)) return INVALID_HANDLE;
    if (attribute != Function::max_dynamic_shared_attribute) return SUCCESS;  // preferences
    if (value < 0 || size_t(value) > simt::max_dynamic_shared) return INVALID_VALUE;
    function->max_dynamic_shared = size_t(value);
    return SUCCESS;
}

API Result cuFuncGetAttribute(int* value, int attribute, Function* function) {
    ENTER;
    if (!is_function(function)) return INVALID_HANDLE;
    constexpr int max_threads = 0, registers = 4, ptx_version = 5, binary_version = 6;
    if (attribute == max_threads) *value = max_block_size(*function);
    else if (attribute == registers) *value = 64;
    else if (attribute == ptx_version || attribute == binary_version) *value = options.capability;
    else if (attribute == Function::max_dynamic_shared_attribute) *value = int(function->max_dynamic_shared);
    else *value = 0;
    return SUCCESS;
}

API Result cuFuncSetCacheConfig(Function*, int) { return SUCCESS; }

// ---- occupancy ------------------------------------------------------------------------------------

API Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function* function, int block_size, size_t shared) {
    ENTER;
    if (!is_function(function)) return INVALID_HANDLE;
    *blocks = blocks_per_multiprocessor(*function, block_size, shared);
    return SUCCESS;
}

API Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, Function* function, int block_size,
                                                                size_t shared, unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, block_size, shared);
}

API Result cuOccupancyMaxPotentialBlockSize(int* grid, int* block, Function* function, size_t (*shared_of)(int),
                                            size_t shared, int limit) {
    ENTER;
    if (!is_function(function)) return INVALID_HANDLE;
    int largest = max_block_size(*function), best = 0;
    if (limit > 0) largest = std::min(largest, limit);
    for (int size = largest / 32 * 32; size > 0; size -= 32) {
        int blocks = blocks_per_multiprocessor(*function, size, shared_of ? shared_of(size) : shared);
        if (blocks * size <= best) continue;
        best = blocks * size;
        *block = size;
        *grid = blocks * options.multiprocessors;
    }
    return best ? SUCCESS : INVALID_VALUE;
}

API Result cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid, int* block, Function* function,
                                                     size_t (*shared_of)(int), size_t shared, int limit, unsigned) {
    return cuOccupancyMaxPotentialBlockSize(grid, block, function, shared_of, shared, limit);
}

API Result cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, Function* function, int blocks, int) {
    ENTER;
    if (!is_function(function) || blocks < 1) return INVALID_VALUE;
    size_t share = (size_t(228) << 10) / size_t(blocks);
    *bytes = std::min(simt::max_dynamic_shared, share > 1024 ? share - 1024 : 0);
    return SUCCESS;
}
