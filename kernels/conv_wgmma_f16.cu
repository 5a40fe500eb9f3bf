// Convolution by wgmma, numbers in f16. Tiles as wide as AlexNet's columns: 192, 128, and backward to conv1's maps 48.
#define NUMBER F16
#include "conv_wgmma.cuh"

WARPGROUP_KERNELS(f16)
