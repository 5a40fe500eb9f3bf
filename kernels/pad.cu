// Images copied with zeros around them, so that windows stay inside and rows start at a multiple of four numbers: what the
// convolutions of conv_strip.cuh read where an image is not so by itself. One thread for four numbers.
#include "index.cuh"

// From [image][height][length], a row's pixels and maps as one, to [image][padded_height][4 · quads]: `above` rows further
// down and `before` numbers further right.
struct Padding {
    int images, height, length, above, before;
    Divider padded_height, quads;
};

template <class T>
__device__ __forceinline__ void pad_images(const T* __restrict__ from, T* __restrict__ to, const Padding& p) {
    const int number = global_thread();
    int quad = number;
    int row = p.quads.take(quad);
    const int image = p.padded_height.take(row);
    if (image >= p.images) return;
    row -= p.above;
    const bool is_row = static_cast<unsigned>(row) < static_cast<unsigned>(p.height);
    const int first = quad * 4 - p.before;
    from += (image * p.height + row) * p.length;
    Neighbours<T, 4> four;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const bool inside = is_row && static_cast<unsigned>(first + i) < static_cast<unsigned>(p.length);
        four.v[i] = inside ? from[first + i] : narrow<T>(0.0f);
    }
    *reinterpret_cast<Neighbours<T, 4>*>(to + number * 4) = four;
}

#define PAD_KERNEL(suffix, T)                                                               \
    extern "C" __global__ void __launch_bounds__(256)                                       \
        pad##suffix(const T* __restrict__ from, T* __restrict__ to, Padding padding) {      \
        pad_images(from, to, padding);                                                      \
    }

FOR_EACH_TYPE(PAD_KERNEL)
