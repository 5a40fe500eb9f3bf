// Launches: arguments are copied at the call, the kernel runs when its stream comes to it.
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

#include "module.h"

using namespace vcuda;

namespace {

/// A launch's arguments, copied.
struct Arguments {
    std::vector<char> bytes;
    std::vector<size_t> offsets;
};

/// Reads memory that may not be there: a caller with too few arguments shall get an error, not a crash.
bool read_safely(void* to, const void* from, size_t bytes) {
    iovec local{to, bytes}, remote{const_cast<void*>(from), bytes};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == ssize_t(bytes);
}

bool copy_arguments(const simt::Kernel& kernel, void** parameters, Arguments* arguments) {
    std::vector<void*> pointers(size_t(kernel.argument_count));
    size_t pointer_bytes = pointers.size() * sizeof(void*);
    if (pointer_bytes && !read_safely(pointers.data(), parameters, pointer_bytes)) return false;
    for (int i = 0; i < kernel.argument_count; i++) {
        size_t offset = (arguments->bytes.size() + 15) / 16 * 16, size = kernel.argument_sizes[i];
        arguments->bytes.resize(offset + size);
        arguments->offsets.push_back(offset);
        if (!read_safely(arguments->bytes.data() + offset, pointers[size_t(i)], size)) return false;
    }
    return true;
}

/// A pointer that the kernel could not follow. It may still go unused, so this is a remark and no error.
void remark_on_pointers(const simt::Kernel& kernel, const Arguments& arguments) {
    for (int i = 0; i < kernel.argument_count; i++) {
        if (!kernel.argument_is_pointer[i]) continue;
        DevicePtr pointer;
        memcpy(&pointer, arguments.bytes.data() + arguments.offsets[size_t(i)], sizeof pointer);
        if (!pointer || is_pinned(reinterpret_cast<void*>(pointer))) continue;
        const Allocation* a = find_allocation(pointer, 0);
        if (a && may_touch(current_context, *a)) continue;
        say(kernel.name, "argument " + std::to_string(i) +
                             (a ? " points to device " + std::to_string(a->context->device) + " without peer access"
                                : " is not a device pointer"));
    }
}

Result result_of(simt::Outcome outcome) {
    switch (outcome) {
        case simt::Outcome::done: return SUCCESS;
        case simt::Outcome::illegal_address: return ILLEGAL_ADDRESS;
        case simt::Outcome::failed: return LAUNCH_FAILED;
    }
    return UNKNOWN;
}

Result run_kernel(Context* context, simt::Launch launch, Arguments& arguments, bool fails) {
    std::vector<void*> pointers;
    for (size_t offset : arguments.offsets) pointers.push_back(arguments.bytes.data() + offset);
    launch.arguments = pointers.data();
    counters.launches++;
    std::string where = "device " + std::to_string(context->device) + ", ", fault;
    if (fails) {
        report_fault(where + launch.kernel->name + ": made to fail by option fail_at");
        return LAUNCH_FAILED;
    }
    show_memory_to(context);
    simt::Outcome outcome = simt::run(launch, fault);
    counters.wgmma += simt::take_issued_products();
    if (outcome != simt::Outcome::done) report_fault(where + fault);
    return result_of(outcome);
}

Result refuse(const simt::Kernel& kernel, Result result, const char* why) {
    say(kernel.name, why);
    return result;
}

Result launch_kernel(Function* function, dim3 grid, dim3 block, size_t shared, void* handle, void** parameters) {
    Stream* stream = stream_of(handle);
    if (!stream || !is_function(function)) return INVALID_HANDLE;
    const simt::Kernel& kernel = *function->kernel;
    Context* context = current_context;
    if (stream->context != context || function->context != context)
        return refuse(kernel, INVALID_HANDLE, "stream, function and current context do not belong together");
    if (shared > function->max_dynamic_shared)
        return refuse(kernel, INVALID_VALUE, "more dynamic shared memory than cuFuncSetAttribute allowed");
    simt::Launch launch{&kernel, grid, block, shared, nullptr};
    if (const char* objection = simt::objection(launch)) return refuse(kernel, INVALID_VALUE, objection);
    auto arguments = std::make_shared<Arguments>();
    if (!copy_arguments(kernel, parameters, arguments.get()))
        return refuse(kernel, INVALID_VALUE, "an argument cannot be read: are there as many as the kernel takes?");
    remark_on_pointers(kernel, *arguments);
    uint64_t number = ++launches_since_options;
    if (number == options.refuse_at) return refuse(kernel, LAUNCH_OUT_OF_RESOURCES, "refused by option refuse_at");
    Work work;
    work.hangs = number == options.hang_at;
    work.run = [=, fails = number == options.fail_at] { return run_kernel(context, launch, *arguments, fails); };
    return submit(stream, std::move(work));
}

}  // namespace

API Result cuLaunchKernel(Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** parameters,
                          void** extra) {
    ENTER;
    if (extra) return NOT_SUPPORTED;
    return launch_kernel(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream, parameters);
}

namespace {
/// CUlaunchConfig.
struct LaunchConfig {
    unsigned grid[3], block[3], shared;
    void* stream;
    void* attributes;
    unsigned attribute_count;
};
}  // namespace

API Result cuLaunchKernelEx(const LaunchConfig* config, Function* function, void** parameters, void** extra) {
    ENTER;
    if (extra || config->attribute_count) return NOT_SUPPORTED;
    const unsigned *grid = config->grid, *block = config->block;
    return launch_kernel(function, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, config->shared,
                         config->stream, parameters);
}

/// Blocks run one after another here, so one that waits for another would wait for ever.
API Result cuLaunchCooperativeKernel(Function*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                                     void*, void**) {
    return NOT_SUPPORTED;
}

// ---- for the virtual cuBLAS, which queues its own work --------------------------------------------------

/// Queues `run(argument)` in a stream as if it were a kernel; `drop` frees the argument when nothing needs it any more.
API int vcuda_enqueue(void* handle, int (*run)(void*), void* argument, void (*drop)(void*)) {
    std::shared_ptr<void> owned(argument, drop);
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    Context* context = stream->context;
    Work work;
    work.run = [=]() -> Result {
        counters.products++;
        show_memory_to(context);
        return Result(run(owned.get()));
    };
    return submit(stream, std::move(work));
}

/// Whether the current context may touch a range of device memory.
API int vcuda_may_touch(const void* pointer, size_t bytes) {
    ENTER;
    const Allocation* a = find_allocation(reinterpret_cast<DevicePtr>(pointer), bytes);
    return a && may_touch(current_context, *a) ? SUCCESS : INVALID_VALUE;
}
