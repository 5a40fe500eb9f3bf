#include "common.cuh"
extern "C" __global__ void __launch_bounds__(256) vcuda_t(float* y, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] += 1; }
