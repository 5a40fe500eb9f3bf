// Convolution on tensor cores, numbers in bf16.
#define NUMBER Bf16
#include "conv_strip.cuh"

// Packed: maps and outputs are multiples of 8, so that copies go by 16 bytes.
TENSOR_KERNELS(Tensor128, 128_bf16, 8, 2)
TENSOR_KERNELS(Tensor96, 96_bf16, 8, 3)
TENSOR_KERNELS(Tensor64, 64_bf16, 8, 3)
TENSOR_KERNELS(Tensor48, 48_bf16, 8, 4)
TENSOR_KERNELS(Tensor48, single_bf16, 1, 4)
STRIP_KERNELS(Tensor48, strip_bf16, 4)
