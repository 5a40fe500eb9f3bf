// Dynamic loss scaling (Micikevicius et al., Mixed Precision Training, ICLR 2018): small gradients do not vanish in f16,
// and a step with a gradient that is not finite is skipped.
#include "loss_scale.cuh"

constexpr float GROWTH_STEPS = 2000.0f, LARGEST_SCALE = 16777216.0f;

// Sets `overflow` where one of the gradients is not finite. One thread for four.
extern "C" __global__ void __launch_bounds__(256)
    loss_scale_check(const float* __restrict__ gradient, int elements, float* overflow) {
    const int first = quad_start();
    const Quad quad = load_quad(gradient, first, elements);
    bool finite = true;
#pragma unroll
    for (int i = 0; i < 4; ++i) finite = finite && fabsf(quad.v[i]) <= 3.402823466e38f;
    if (!finite) atomicExch(overflow, 1.0f);
}

// Another device's overflow is this one's.
extern "C" __global__ void __launch_bounds__(32) loss_scale_merge(const LossScale* other, LossScale* state) {
    if (threadIdx.x == 0 && other->overflow != 0.0f) state->overflow = 1.0f;
}

// Ends a step: half the scale after an overflow, twice the scale after many steps without one.
extern "C" __global__ void __launch_bounds__(32) loss_scale_update(LossScale* state) {
    if (threadIdx.x != 0) return;
    LossScale next = *state;
    next.used = next.scale;
    if (next.overflow != 0.0f) {
        next.scale = fmaxf(next.scale * 0.5f, 1.0f);
        next.steps = 0.0f;
    } else if (++next.steps >= GROWTH_STEPS) {
        next.scale = fminf(next.scale * 2.0f, LARGEST_SCALE);
        next.steps = 0.0f;
    }
    next.overflow = 0.0f;
    *state = next;
}
