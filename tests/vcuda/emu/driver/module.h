// A kernel as a module hands it out.
#pragma once
#include "driver.h"

#pragma GCC visibility push(hidden)
namespace vcuda {

struct Function {
    static constexpr int max_dynamic_shared_attribute = 8;

    Context* context;
    const simt::Kernel* kernel;
    size_t max_dynamic_shared = 48 << 10;  // more must be asked for with cuFuncSetAttribute
};

bool is_function(Function*);
int max_block_size(const Function&);

}  // namespace vcuda
#pragma GCC visibility pop
