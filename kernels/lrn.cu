// Response normalisation over neighbouring maps. A block takes a few pixels with all their maps through shared memory.
#include "lrn.cuh"

// Floats of a block's tile: pixels_per_block · all maps, at most.
constexpr int LRN_TILE = 2048;

// Maps of one part, all maps, the number of this column's first map among all.
struct LrnMaps {
    int maps, all, offset;
    Divider by_maps;
};

// Copies `pixels` pixels of one part to their place among all maps of the tile.
template <class T>
__device__ __forceinline__ void load_part(float* tile, const T* part, int first_pixel, int pixels, int offset,
                                          const LrnMaps& maps) {
    for (int i = static_cast<int>(threadIdx.x); i < pixels * maps.maps; i += 256) {
        int map = i;
        const int pixel = maps.by_maps.take(map);
        tile[pixel * maps.all + offset + map] = widen(part[first_pixel * maps.maps + i]);
    }
}

// The peer's maps stand before this column's if that is the second one.
__device__ __forceinline__ int peer_offset(const LrnMaps& maps) { return maps.offset == 0 ? maps.maps : 0; }

template <class T>
__device__ __forceinline__ void forward(const T* __restrict__ x, const T* __restrict__ peer_x, T* __restrict__ y,
                                        int pixels, int pixels_per_block, const LrnMaps& maps,
                                        const LrnConstants& op) {
    __shared__ float values[LRN_TILE];
    const int first = static_cast<int>(blockIdx.x) * pixels_per_block, count = min(pixels_per_block, pixels - first);
    load_part(values, x, first, count, maps.offset, maps);
    if (peer_x != nullptr) load_part(values, peer_x, first, count, peer_offset(maps), maps);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count * maps.maps; i += 256) {
        int map = i;
        const float* pixel = values + maps.by_maps.take(map) * maps.all;
        map += maps.offset;
        const float sum = lrn_sum(pixel, map, maps.all, op.size);
        y[first * maps.maps + i] = narrow<T>(pixel[map] * LrnFactors(lrn_denominator(sum, op), op.beta).scale);
    }
}

// With t_j = dy_j · a_j · d_j^(−beta−1): dx_i = dy_i · d_i^(−beta) − 2·alpha·beta·a_i · sum of t_j over the j whose
// window holds i. `dx` may be `dy`: a block reads all of its share before it writes.
template <class T>
__device__ __forceinline__ void backward(const T* x, const T* peer_x, const T* dy, T* dx, T* peer_dx, int pixels,
                                         int pixels_per_block, const LrnMaps& maps, const LrnConstants& op) {
    __shared__ float values[LRN_TILE], terms[LRN_TILE], direct[LRN_TILE];
    const int first = static_cast<int>(blockIdx.x) * pixels_per_block, count = min(pixels_per_block, pixels - first);
    load_part(values, x, first, count, maps.offset, maps);
    if (peer_x != nullptr) load_part(values, peer_x, first, count, peer_offset(maps), maps);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count * maps.maps; i += 256) {
        int map = i;
        const int pixel = maps.by_maps.take(map) * maps.all;
        map += maps.offset;
        const float sum = lrn_sum(values + pixel, map, maps.all, op.size);
        const LrnFactors factors(lrn_denominator(sum, op), op.beta);
        const float scaled = widen(dy[first * maps.maps + i]) * factors.scale;
        direct[i] = scaled;
        terms[i] = scaled * values[pixel + map] * factors.inverse;
    }
    __syncthreads();
    const float factor = -2.0f * op.alpha * op.beta;
    // Own maps, then the peer's: only this column's outputs have gradients here.
    for (int part = 0; part < (peer_dx != nullptr ? 2 : 1); ++part) {
        const int offset = part == 0 ? maps.offset : peer_offset(maps);
        T* to = part == 0 ? dx : peer_dx;
        for (int i = static_cast<int>(threadIdx.x); i < count * maps.maps; i += 256) {
            int map = i;
            const int pixel = maps.by_maps.take(map);
            map += offset - maps.offset;
            float sum = 0.0f;
            for (int j = max(map - (op.size - 1) / 2, 0); j <= min(map + op.size / 2, maps.maps - 1); ++j)
                sum += terms[pixel * maps.maps + j];
            const float value = factor * values[pixel * maps.all + maps.offset + map] * sum;
            to[first * maps.maps + i] = narrow<T>(part == 0 ? value + direct[i] : value);
        }
    }
}

#define LRN_KERNELS(suffix, T)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                             \
        lrn_forward##suffix(const T* __restrict__ x, const T* __restrict__ peer_x, T* __restrict__ y, int pixels, \
            int pixels_per_block, LrnMaps maps, LrnConstants op) {                                                \
        forward(x, peer_x, y, pixels, pixels_per_block, maps, op);                                                \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(256)                                                             \
        lrn_backward##suffix(const T* x, const T* peer_x, const T* dy, T* dx, T* peer_dx, int pixels,             \
            int pixels_per_block, LrnMaps maps, LrnConstants op) {                                                \
        backward(x, peer_x, dy, dx, peer_dx, pixels, pixels_per_block, maps, op);                                 \
    }

FOR_EACH_TYPE(LRN_KERNELS)
