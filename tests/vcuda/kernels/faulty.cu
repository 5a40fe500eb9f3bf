// Kernels with a planted mistake each, and their twins without it: the emulator must tell them apart.
#include "common.cuh"

constexpr int Block = 256;

// out[block] = the block's sum of x, by halves.
template <bool WithBarrier>
__device__ __forceinline__ void block_sum(float* out, const float* x) {
    __shared__ float part[Block];
    int t = threadIdx.x;
    part[t] = x[blockIdx.x * Block + t];
    __syncthreads();
    for (int half = Block / 2; half; half /= 2) {
        if (t < half) part[t] += part[t + half];
        if (WithBarrier) __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = part[0];
}
extern "C" __global__ void __launch_bounds__(Block) vcuda_block_sum(float* out, const float* x) {
    block_sum<true>(out, x);
}
extern "C" __global__ void __launch_bounds__(Block) vcuda_block_sum_without_barrier(float* out, const float* x) {
    block_sum<false>(out, x);
}

// Each warp sums its part of x by shuffles, leaves the sum in shared memory and ends, before the next one starts. With
// `stride` 0 all warps leave theirs in one place.
extern "C" __global__ void __launch_bounds__(Block) vcuda_warp_sums(float* out, const float* x, int stride) {
    __shared__ float sums[Block / 32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float sum = x[threadIdx.x];
    for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
    if (lane == 0) sums[warp * stride] = sum;
    __syncwarp();
    if (lane == 1) out[warp] = sums[warp * stride];
}

// y[i] = 2·x[i]. With `past` above zero, so many threads go beyond the end of the arrays.
extern "C" __global__ void __launch_bounds__(Block) vcuda_read(float* y, const float* x, int n, int past) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float value = i < n + past ? 2.0f * x[i] : 0.0f;
    if (i < n) y[i] = value;
}
extern "C" __global__ void __launch_bounds__(Block) vcuda_write(float* y, const float* x, int n, int past) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float value = i < n ? 2.0f * x[i] : 0.0f;
    if (i < n + past) y[i] = value;
}

// Shared memory indexed up to `reach`; the array holds 256. `reach` 257 is out of bounds.
extern "C" __global__ void __launch_bounds__(Block) vcuda_shared_reach(float* out, int reach) {
    __shared__ float values[Block];
    values[threadIdx.x] = 1.0f;
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (int i = 0; i < reach; i++) sum += values[i];
        out[0] = sum;
    }
}

// Half of the threads meet one barrier and half another, or all the same.
extern "C" __global__ void __launch_bounds__(Block) vcuda_barriers(float* out, int divergent) {
    if (divergent && threadIdx.x >= Block / 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1.0f;
}

// A lane that its warp's shuffle waits for leaves early.
extern "C" __global__ void __launch_bounds__(32) vcuda_shuffle(float* out, int leaving) {
    int lane = threadIdx.x;
    if (lane < leaving) return;
    out[lane] = __shfl_xor_sync(0xffffffffu, (float)lane, 1);
}

// Copies through shared memory with cp.async, waiting for it or not.
template <bool WithWait>
__device__ __forceinline__ void copy_behind(float* out, const float* x) {
    __shared__ float staged[Block];
    cp_async<4>(&staged[threadIdx.x], &x[threadIdx.x]);
    cp_async_commit();
    if (WithWait) cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = staged[Block - 1 - threadIdx.x];
    cp_async_wait_all();
}
extern "C" __global__ void __launch_bounds__(Block) vcuda_copy_behind(float* out, const float* x) {
    copy_behind<true>(out, x);
}
extern "C" __global__ void __launch_bounds__(Block) vcuda_copy_behind_without_wait(float* out, const float* x) {
    copy_behind<false>(out, x);
}

// A sum that starts from what shared memory happens to hold, unless `cleared`. Static and dynamic memory.
extern "C" __global__ void __launch_bounds__(Block) vcuda_shared_start(float* out, int cleared) {
    __shared__ float in_static[Block];
    DYN_SHARED(float, in_dynamic);
    int t = threadIdx.x;
    if (cleared) in_static[t] = in_dynamic[t] = 0.0f;
    in_static[t] += 1.0f;
    in_dynamic[t] += 2.0f;
    out[t] = in_static[t];
    out[Block + t] = in_dynamic[t];
}

// Divides by zero, if told to. (A GPU answers with some number; the host traps.)
extern "C" __global__ void __launch_bounds__(Block) vcuda_divide(int* out, int by) { out[threadIdx.x] = 100 / by; }

// Reads four floats at once from x + offset: misaligned unless offset is a multiple of four.
extern "C" __global__ void __launch_bounds__(Block) vcuda_vector(float* out, const float* x, int offset) {
    float4 four = *reinterpret_cast<const float4*>(x + offset);
    out[threadIdx.x] = four.x + four.y + four.z + four.w;
}
