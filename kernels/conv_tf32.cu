// Convolution on tensor cores, numbers in tf32.
#define NUMBER Tf32
#include "conv_strip.cuh"

// Packed: maps and outputs are multiples of 4, so that copies go by 16 bytes.
TENSOR_KERNELS(Tensor128, 128_tf32, 4, 2)
TENSOR_KERNELS(Tensor96, 96_tf32, 4, 3)
TENSOR_KERNELS(Tensor64, 64_tf32, 4, 3)
TENSOR_KERNELS(Tensor48, 48_tf32, 4, 4)
TENSOR_KERNELS(Tensor48, single_tf32, 1, 4)
STRIP_KERNELS(Tensor48, strip_tf32, 4)
