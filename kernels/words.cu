// Values that change from step to step, written where captured kernels read them. They travel as the launch's own
// arguments, so that no memory of the host has to outlive it.
#include "index.cuh"

constexpr int WORDS = 64;

struct Words {
    unsigned v[WORDS];
};

extern "C" __global__ void __launch_bounds__(WORDS) set_words(unsigned* to, int count, Words words) {
    if (static_cast<int>(threadIdx.x) < count) to[threadIdx.x] = words.v[threadIdx.x];
}
