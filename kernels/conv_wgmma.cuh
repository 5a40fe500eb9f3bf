// The convolutions of conv_tensor.cuh by wgmma, for whole tiles of outputs (backward: of maps).
#pragma once

#include "conv_tensor.cuh"
#include "warpgroup_tile.cuh"

// Gives each of a thread's sums what it begins with: its column's bias, or what another launch left. Read from one place or
// the other without a branch: ptxas lets products by wgmma wait for each other where their sums come by different ways.
template <class T>
__device__ __forceinline__ void start_sums(float (&sums)[1][T::FN][4], const PartialSums& partial, const float* bias,
                                           int first_column) {
    const bool left = partial.from != nullptr;
    const float* place = left ? partial_place<T, float[1][T::FN][4]>(partial.from) : bias + first_pair<T>(first_column);
    const int next = left ? T::THREADS : 1, other_row = left ? 2 * T::THREADS : 0, fragment = left ? 4 * T::THREADS : 8;
#pragma unroll
    for (int j = 0; j < T::FN; ++j)
#pragma unroll
        for (int v = 0; v < 4; ++v) sums[0][j][v] = place[j * fragment + v / 2 * other_row + v % 2 * next];
}

// Writes the sums, activated. They stand in one row of registers and would all be copied to be activated in place, so the
// ways part before they are written.
template <class T, class E>
__device__ __forceinline__ void write_activated(E* y, int first_row, Straight place_of, int first_column, int columns,
                                                const float (&sums)[1][T::FN][4], int activation) {
    const auto write = [&](auto finish) {
        write_sums<T>(y, first_row, place_of, first_column, columns, sums, finish);
    };
    if (activation == ACTIVATION_NONE)
        write([](float sum, float) { return sum; });
    else if (activation == ACTIVATION_RELU)
        write([](float sum, float) { return activate(ACTIVATION_RELU, sum); });
    else
        write([](float sum, float) { return activate(ACTIVATION_TANH, sum); });
}

template <class T, int Pack, class E>
__device__ __forceinline__ void warpgroup_forward(const E* x, const E* peer_x, const E* weights,
                                                  const E* peer_weights, const float* bias, E* y, int activation,
                                                  const PartialSums& partial, const ConvShape& shape) {
    using S = typename T::template Stages<true, false>;
    DYN_SHARED(E, memory);
    __shared__ Patch patches[T::BM];
    const BlockPlace<T> block(shape.outputs);
    fill_patches<T>(patches, block.row, shape.images, shape.out_height, shape.out_width, shape.stride, -shape.pad,
                    shape.height * shape.width * shape.maps);

    float sums[1][T::FN][4];
    start_sums<T>(sums, partial, bias, block.column);
    TensorForward<T, Pack> source{shape, x, weights, peer_x, peer_weights, patches, block.column};
    const int depth = shape.size * shape.size * shape.maps, tiles = (depth + T::BK - 1) / T::BK;
    S::accumulate(source, peer_x != nullptr ? 2 * tiles : tiles, memory, sums);
    if (leave<T>(partial, sums)) return;
    write_activated<T>(y, block.row, Straight{shape.images * shape.out_height * shape.out_width}, block.column,
                       shape.outputs, sums, activation);
}

// A tile of 192 columns has a multiprocessor for itself.
using Warpgroup192 = WarpgroupTile<NUMBER, 192, 4>;
using Warpgroup128 = WarpgroupTile<NUMBER, 128, 3>;
using Warpgroup48 = WarpgroupTile<NUMBER, 48, 4>;

#define WARPGROUP_KERNELS(number)                                                                       \
    TENSOR_FORWARD(warpgroup_forward, Warpgroup192, warpgroup192_##number, 8, 1, IF_WARPGROUP)          \
    TENSOR_FORWARD(warpgroup_forward, Warpgroup128, warpgroup128_##number, 8, 2, IF_WARPGROUP)          \
    TENSOR_BACKWARD_DATA(Warpgroup192, warpgroup192_##number, 8, 1, IF_WARPGROUP)                       \
    TENSOR_BACKWARD_DATA(Warpgroup128, warpgroup128_##number, 8, 2, IF_WARPGROUP)                       \
    TENSOR_BACKWARD_DATA(Warpgroup48, warpgroup48_##number, 8, 2, IF_WARPGROUP)                         \
    TENSOR_BACKWARD_WEIGHTS(Warpgroup192, warpgroup192_##number, 8, 1, IF_WARPGROUP)                    \
    TENSOR_BACKWARD_WEIGHTS(Warpgroup128, warpgroup128_##number, 8, 2, IF_WARPGROUP)
