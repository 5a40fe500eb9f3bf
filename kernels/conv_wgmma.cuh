// The convolutions of conv_tensor.cuh by wgmma, for whole tiles of outputs (backward: of maps).
#pragma once

#include "conv_tensor.cuh"
#include "warpgroup_tile.cuh"

// A tile of 192 columns has a multiprocessor for itself.
using Warpgroup192 = WarpgroupTile<NUMBER, 192, 4>;
using Warpgroup128 = WarpgroupTile<NUMBER, 128, 3>;
using Warpgroup48 = WarpgroupTile<NUMBER, 48, 4>;

#define WARPGROUP_KERNELS(number)                                                            \
    TENSOR_FORWARD(Warpgroup192, warpgroup192_##number, 8, 1, IF_WARPGROUP)                  \
    TENSOR_FORWARD(Warpgroup128, warpgroup128_##number, 8, 2, IF_WARPGROUP)                  \
    TENSOR_BACKWARD_DATA(Warpgroup192, warpgroup192_##number, 8, 1, IF_WARPGROUP)            \
    TENSOR_BACKWARD_DATA(Warpgroup128, warpgroup128_##number, 8, 2, IF_WARPGROUP)            \
    TENSOR_BACKWARD_DATA(Warpgroup48, warpgroup48_##number, 8, 2, IF_WARPGROUP)              \
    TENSOR_BACKWARD_WEIGHTS(Warpgroup192, warpgroup192_##number, 8, 1, IF_WARPGROUP)         \
    TENSOR_BACKWARD_WEIGHTS(Warpgroup128, warpgroup128_##number, 8, 2, IF_WARPGROUP)
