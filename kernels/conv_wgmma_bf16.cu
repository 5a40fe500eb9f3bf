// Convolution by wgmma, numbers in bf16. Tiles as wide as AlexNet's columns: 192, 128, and backward to conv1's maps 48.
#define NUMBER Bf16
#include "conv_wgmma.cuh"

WARPGROUP_KERNELS(bf16)
