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
