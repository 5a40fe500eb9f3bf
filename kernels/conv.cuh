// Geometry that the convolution kernels share, in f32 (conv.cu) and on tensor cores (conv_tensor.cuh).
#pragma once

#include "index.cuh"

// Extents in pixels and maps; `height`, `width`, `maps` of one part of the input.
struct ConvShape {
    int images, height, width, maps;
    int out_height, out_width, outputs;
    int size, stride, pad;
};

// A pixel of the matrix's rows: the place of its image in the source, and the window's first row and column there.
struct Patch {
    int image, y, x;
};

// Further outside than any window reaches, and small enough for products of it to fit an int.
constexpr int OUTSIDE = -(1 << 12);

// Where this thread's elements along K stand: window row and column, map.
struct WindowPlace {
    int row, column, map;

    __device__ __forceinline__ void start(int k, int size, int maps) {
        row = column = 0;
        map = k;
        settle(size, maps);
    }
    __device__ __forceinline__ void settle(int size, int maps) {
        while (map >= maps) {
            map -= maps;
            if (++column == size) column = 0, ++row;
        }
    }
    // Whether it is the first place after the window's last. Ones stand there for the gradient of the bias: their
    // products with dy are its terms.
    __device__ __forceinline__ bool after(int size) const { return row == size && column == 0 && map == 0; }
};

// An element of the window: its place among the source's pixels, and whether it lies there.
struct WindowPixel {
    int place;
    bool inside;
};

// The window of `patch` moves with (row, column) of `at`, backward against them.
template <bool Backward>
__device__ __forceinline__ WindowPixel window_pixel(const Patch& patch, const WindowPlace& at, int height, int width,
                                                    int size, int stride) {
    int y = Backward ? patch.y - at.row : patch.y + at.row;
    int x = Backward ? patch.x - at.column : patch.x + at.column;
    bool inside = at.row < size;
    if (Backward && stride != 1) {
        // Only every stride-th pixel of the input met this element of the window.
        inside = inside && y >= 0 && x >= 0 && y % stride == 0 && x % stride == 0;
        y /= stride, x /= stride;
    }
    inside = inside && static_cast<unsigned>(y) < static_cast<unsigned>(height) &&
             static_cast<unsigned>(x) < static_cast<unsigned>(width);
    return {y * width + x, inside};
}

// Where the window of output pixel `number`, counted over all images, begins in the input.
__device__ __forceinline__ Patch patch_of(int number, const Divider& image_pixels, const Divider& row_pixels,
                                          const ConvShape& shape) {
    const int image = image_pixels.take(number), row = row_pixels.take(number);
    return {image * shape.height * shape.width * shape.maps, row * shape.stride - shape.pad,
            number * shape.stride - shape.pad};
}

// The block's tile in a product of so many columns: its first row and column.
template <class T>
struct BlockPlace {
    int row, column;

    __device__ __forceinline__ explicit BlockPlace(int columns) {
        const int across = (columns + T::BN - 1) / T::BN, number = static_cast<int>(blockIdx.x);
        row = number / across * T::BM;
        column = number % across * T::BN;
    }
};

// A product over two parts of its input may be done in two launches of the same grid. Where the sums begin instead of
// with zeros, and where they stay for the next launch instead of being finished; null for neither.
struct PartialSums {
    const float* from;
    float* to;
};

// Place of the first of a thread's sums in `all`; the others follow, each after those of the block's other threads. One
// by one and not by fours, for which ptxas would keep them in neighbouring registers, and take more of them.
template <class T, class Sums, class Place>
__device__ __forceinline__ Place* partial_place(Place* all) {
    constexpr size_t SUMS = sizeof(Sums) / sizeof(float);
    return all + blockIdx.x * (SUMS * T::THREADS) + threadIdx.x;
}

template <class T, class Sums>
__device__ __forceinline__ void take_up(const PartialSums& partial, Sums& sums) {
    if (partial.from == nullptr) return;
    const float* place = partial_place<T, Sums>(partial.from);
    for_each_number(sums, [&](float& sum) { sum = *place, place += T::THREADS; });
}

// Whether they stay.
template <class T, class Sums>
__device__ __forceinline__ bool leave(const PartialSums& partial, Sums& sums) {
    if (partial.to == nullptr) return false;
    float* place = partial_place<T, Sums>(partial.to);
    for_each_number(sums, [&](float& sum) { *place = sum, place += T::THREADS; });
    return true;
}

// The output pixels that the block sums over for the gradient of the weights.
struct PixelShare {
    int begin, end;

    __device__ __forceinline__ PixelShare(const ConvShape& shape, int pixels_per_part) {
        begin = static_cast<int>(blockIdx.y) * pixels_per_part;
        end = min(begin + pixels_per_part, shape.images * shape.out_height * shape.out_width);
    }
    __device__ __forceinline__ int tiles(int depth) const { return (end - begin + depth - 1) / depth; }
};

// Fills the block's table of patches: rows `first` and on of `images` x `rows` x `columns` pixels. A row past the end
// gets a window that lies outside.
template <class T>
__device__ __forceinline__ void fill_patches(Patch* patches, int first, int images, int rows, int columns, int stride,
                                             int shift, int image_stride) {
    for (int i = static_cast<int>(threadIdx.x); i < T::BM; i += T::THREADS) {
        const int pixel = first + i, image = pixel / (rows * columns), place = pixel % (rows * columns);
        const bool inside = image < images;
        patches[i].image = inside ? image * image_stride : 0;
        patches[i].y = inside ? place / columns * stride + shift : OUTSIDE;
        patches[i].x = inside ? place % columns * stride + shift : OUTSIDE;
    }
    __syncthreads();
}
