// Names and descriptions of errors.
#include "driver.h"

using namespace vcuda;

namespace {

struct Description {
    int number;
    const char *name, *text;
};
constexpr Description descriptions[] = {
#define X(name, number, text) {number, number ? "CUDA_ERROR_" #name : "CUDA_SUCCESS", text},
#include "errors.def"
#undef X
};

const Description* describe(int error) {
    for (const Description& one : descriptions)
        if (one.number == error) return &one;
    return nullptr;
}

}  // namespace

API Result cuGetErrorName(int error, const char** name) {
    const Description* found = describe(error);
    *name = found ? found->name : nullptr;
    return found ? SUCCESS : INVALID_VALUE;
}

API Result cuGetErrorString(int error, const char** text) {
    const Description* found = describe(error);
    *text = found ? found->text : nullptr;
    return found ? SUCCESS : INVALID_VALUE;
}
