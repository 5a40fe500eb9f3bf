// Contexts: one primary per device, and any number that a program creates.
#include <memory>

#include "driver.h"

namespace vcuda {

bool initialised;
thread_local Context* current_context;

namespace {

// Never freed: other threads may still have a destroyed context current.
std::vector<std::unique_ptr<Context>> every_context;
std::set<Context*> living;

Context* create_context(int device, bool primary) {
    every_context.push_back(std::make_unique<Context>());
    Context* context = every_context.back().get();
    context->device = device;
    context->primary = primary;
    context->null_stream.context = context;
    return context;
}

void enliven(Context* context) {
    context->alive = true;
    context->error = SUCCESS;
    living.insert(context);
}

void destroy(Context* context) {
    drop_streams(context);
    release_all(context);
    context->alive = false;
    context->error = SUCCESS;
    context->references = 0;
    context->peers.clear();
    context->modules.clear();
    living.erase(context);
    for (Context* other : living) other->peers.erase(context);
}

void finish_and_destroy(Context* context) {
    if (!options.hang_at) synchronise(context);
    destroy(context);
}

}  // namespace

Context* primary_context(int device) {
    static Context* primaries[max_devices];
    if (!primaries[device]) primaries[device] = create_context(device, true);
    return primaries[device];
}

const std::set<Context*>& live_contexts() { return living; }

bool is_context(Context* context) { return living.count(context) != 0; }

void forget_everything() {
    while (!living.empty()) destroy(*living.begin());
}

Result Entry::bad() const {
    if (!initialised) return NOT_INITIALIZED;
    if (!current_context) return INVALID_CONTEXT;
    if (!current_context->alive) return CONTEXT_IS_DESTROYED;
    return current_context->error;
}

}  // namespace vcuda

using namespace vcuda;

namespace {

bool is_device(int device) { return device >= 0 && device < options.devices; }

Result create_and_bind(Context** context, unsigned flags, int device) {
    if (!is_device(device)) return INVALID_DEVICE;
    *context = create_context(device, false);
    (*context)->flags = flags;
    enliven(*context);
    current_context = *context;
    return SUCCESS;
}

}  // namespace

API Result cuDevicePrimaryCtxRetain(Context** context, int device) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    *context = primary_context(device);
    if ((*context)->references++ == 0) enliven(*context);
    return SUCCESS;
}

API Result cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER_WITHOUT_CONTEXT;
    if (device < 0 || device >= max_devices) return INVALID_DEVICE;
    Context* context = primary_context(device);
    if (!context->references) return SUCCESS;  // a reset came first
    if (--context->references == 0) finish_and_destroy(context);
    return SUCCESS;
}

API Result cuDevicePrimaryCtxReset_v2(int device) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    destroy(primary_context(device));
    return SUCCESS;
}

API Result cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    *flags = primary_context(device)->flags;
    *active = primary_context(device)->alive;
    return SUCCESS;
}

API Result cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_device(device)) return INVALID_DEVICE;
    primary_context(device)->flags = flags;
    return SUCCESS;
}

API Result cuCtxCreate_v2(Context** context, unsigned flags, int device) {
    ENTER_WITHOUT_CONTEXT;
    return create_and_bind(context, flags, device);
}

API Result cuCtxCreate_v3(Context** context, void*, int, unsigned flags, int device) {
    ENTER_WITHOUT_CONTEXT;
    return create_and_bind(context, flags, device);
}

API Result cuCtxCreate_v4(Context** context, void*, unsigned flags, int device) {
    ENTER_WITHOUT_CONTEXT;
    return create_and_bind(context, flags, device);
}

API Result cuCtxDestroy_v2(Context* context) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_context(context) || context->primary) return INVALID_CONTEXT;
    finish_and_destroy(context);
    if (current_context == context) current_context = nullptr;
    return SUCCESS;
}

API Result cuCtxGetCurrent(Context** context) {
    ENTER_WITHOUT_CONTEXT;
    *context = current_context;
    return SUCCESS;
}

API Result cuCtxSetCurrent(Context* context) {
    ENTER_WITHOUT_CONTEXT;
    if (context && !is_context(context)) return CONTEXT_IS_DESTROYED;
    current_context = context;
    return SUCCESS;
}

thread_local std::vector<Context*> pushed_contexts;

API Result cuCtxPushCurrent_v2(Context* context) {
    ENTER_WITHOUT_CONTEXT;
    if (!is_context(context)) return INVALID_CONTEXT;
    pushed_contexts.push_back(current_context);
    current_context = context;
    return SUCCESS;
}

API Result cuCtxPopCurrent_v2(Context** context) {
    ENTER_WITHOUT_CONTEXT;
    if (context) *context = current_context;
    current_context = pushed_contexts.empty() ? nullptr : pushed_contexts.back();
    if (!pushed_contexts.empty()) pushed_contexts.pop_back();
    return SUCCESS;
}

API Result cuCtxGetDevice(int* device) {
    ENTER_WITHOUT_CONTEXT;
    if (!current_context) return INVALID_CONTEXT;
    *device = current_context->device;
    return SUCCESS;
}

API Result cuCtxGetFlags(unsigned* flags) {
    ENTER;
    *flags = current_context->flags;
    return SUCCESS;
}

API Result cuCtxSetFlags(unsigned flags) {
    ENTER;
    current_context->flags = flags;
    return SUCCESS;
}

API Result cuCtxGetApiVersion(Context*, unsigned* version) {
    *version = 3020;
    return SUCCESS;
}

API Result cuCtxSynchronize() {
    ENTER;
    if (Result refused = refuse_in_capture_mode()) return refused;
    return synchronise(current_context);
}

API Result cuCtxGetLimit(size_t* value, int) {
    ENTER;
    *value = 1024;
    return SUCCESS;
}

API Result cuCtxSetLimit(int, size_t) {
    ENTER;
    return SUCCESS;
}

API Result cuCtxGetCacheConfig(int* config) {
    ENTER;
    *config = 0;
    return SUCCESS;
}

API Result cuCtxSetCacheConfig(int) {
    ENTER;
    return SUCCESS;
}

API Result cuCtxEnablePeerAccess(Context* peer, unsigned flags) {
    ENTER;
    if (flags) return INVALID_VALUE;
    if (!is_context(peer) || peer == current_context) return INVALID_CONTEXT;
    if (!options.peer_access && peer->device != current_context->device) return PEER_ACCESS_UNSUPPORTED;
    if (!current_context->peers.insert(peer).second) return PEER_ACCESS_ALREADY_ENABLED;
    revoke_views();
    return SUCCESS;
}

API Result cuCtxDisablePeerAccess(Context* peer) {
    ENTER;
    if (!current_context->peers.erase(peer)) return PEER_ACCESS_NOT_ENABLED;
    revoke_views();
    return SUCCESS;
}
