// Convolution on tensor cores, numbers in f16.
#define NUMBER F16
#include "conv_strip.cuh"

// Packed: maps and outputs are multiples of 8, so that copies go by 16 bytes.
TENSOR_KERNELS(Tensor128, 128_f16, 8, 2)
TENSOR_KERNELS(Tensor96, 96_f16, 8, 3)
TENSOR_KERNELS(Tensor64, 64_f16, 8, 3)
TENSOR_KERNELS(Tensor48, 48_f16, 8, 4)
TENSOR_KERNELS(Tensor48, single_f16, 1, 4)
STRIP_KERNELS(Tensor48, strip_f16, 4)
