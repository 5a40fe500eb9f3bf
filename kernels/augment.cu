// The network's input from 8-bit crops: mean, colour noise, mirror. One thread a pixel.
#include "index.cuh"

// As src/batch.rs's `Draw`, laid out for the device.
struct Draw {
    unsigned short top, left;
    unsigned mirror;
    float shift[3];
    float gain;
};

// `mean` is [side][side][3], `pixels` [image][crop][crop][3], `x` likewise.
template <class T>
__device__ __forceinline__ void make_input(const unsigned char* __restrict__ pixels, const Draw* __restrict__ draws,
                                           const float* __restrict__ mean, T* __restrict__ x, int images, int side,
                                           const Divider& crop) {
    const int edge = static_cast<int>(crop.divisor);
    const int number = global_thread();
    if (number >= images * edge * edge) return;
    int column = number;
    int row = crop.take(column);
    const int image = crop.take(row);
    const Draw draw = draws[image];
    // A window that leaves the mean image is a broken draw; it must not become a stray read.
    const int mean_row = min(draw.top + row, side - 1), mean_column = min(draw.left + column, side - 1);
    const int from = number * 3, mean_from = (mean_row * side + mean_column) * 3;
    const int to = (number - column + (draw.mirror ? edge - 1 - column : column)) * 3;
#pragma unroll
    for (int c = 0; c < 3; ++c)
        x[to + c] = narrow<T>((static_cast<float>(pixels[from + c]) - mean[mean_from + c] + draw.shift[c]) * draw.gain);
}

#define AUGMENT_KERNEL(suffix, T)                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                \
        augment##suffix(const unsigned char* __restrict__ pixels, const Draw* __restrict__ draws,    \
            const float* __restrict__ mean, T* __restrict__ x, int images, int side, Divider crop) { \
        make_input(pixels, draws, mean, x, images, side, crop);                                      \
    }

FOR_EACH_TYPE(AUGMENT_KERNEL)
