// Max pooling. Forward one thread an output, backward one thread an input that gathers: no atomics.
#include "pool.cuh"

template <class T>
__device__ __forceinline__ void forward(const T* __restrict__ x, T* __restrict__ y, int elements,
                                        const PoolShape& shape, const Divider& maps, const Divider& out_width,
                                        const Divider& out_height) {
    const int number = global_thread();
    if (number >= elements) return;
    int map = number;
    int column = maps.take(map);
    int row = out_width.take(column);
    const int image = out_height.take(row);
    const int top = row * shape.stride - shape.pad, left = column * shape.stride - shape.pad;
    const T* source = x + image * shape.height * shape.width * shape.maps + map;
    // A window of padding alone, as the ceiling rule may give, has no maximum.
    const bool empty = top >= shape.height || left >= shape.width || top + shape.size <= 0 || left + shape.size <= 0;
    float best = empty ? 0.0f : -INFINITY;
    for (int r = max(top, 0); r < min(top + shape.size, shape.height); ++r)
        for (int c = max(left, 0); c < min(left + shape.size, shape.width); ++c) {
            const float value = widen(source[(r * shape.width + c) * shape.maps]);
            if (exceeds(value, best)) best = value;
        }
    y[number] = narrow<T>(best);
}

// Whether no pixel of the window before (row, column), in row-major order, has the value `best`.
template <class T>
__device__ __forceinline__ bool is_first(const T* source, const PoolShape& shape, int top, int left, int row,
                                         int column, float best) {
    for (int r = max(top, 0); r <= row; ++r) {
        const int end = r == row ? column : min(left + shape.size, shape.width);
        for (int c = max(left, 0); c < end; ++c)
            if (widen(source[(r * shape.width + c) * shape.maps]) == best) return false;
    }
    return true;
}

// Sums `dy` of the windows whose first maximum this input is; then back through the activation that gave x, if any.
template <class T>
__device__ __forceinline__ void backward(const T* __restrict__ x, const T* __restrict__ y, const T* __restrict__ dy,
                                         T* __restrict__ dx, int elements, const PoolShape& shape,
                                         const Divider& maps, const Divider& width, const Divider& height,
                                         int activated) {
    const int number = global_thread();
    if (number >= elements) return;
    int map = number;
    int column = maps.take(map);
    int row = width.take(column);
    const int image = height.take(row);
    const T* source = x + image * shape.height * shape.width * shape.maps + map;
    const int outputs = image * shape.out_height * shape.out_width * shape.maps + map;
    const float value = widen(x[number]);
    const int first_p = max(0, (row + shape.pad - shape.size + shape.stride) / shape.stride);
    const int first_q = max(0, (column + shape.pad - shape.size + shape.stride) / shape.stride);
    float sum = 0.0f;
    for (int p = first_p; p <= min((row + shape.pad) / shape.stride, shape.out_height - 1); ++p)
        for (int q = first_q; q <= min((column + shape.pad) / shape.stride, shape.out_width - 1); ++q) {
            const int output = outputs + (p * shape.out_width + q) * shape.maps;
            if (widen(y[output]) == value && is_first(source, shape, p * shape.stride - shape.pad,
                                                      q * shape.stride - shape.pad, row, column, value))
                sum += widen(dy[output]);
        }
    dx[number] = narrow<T>(activation_slope(activated, value) * sum);
}

#define POOL_KERNELS(suffix, T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        pool_forward##suffix(const T* __restrict__ x, T* __restrict__ y, int elements, PoolShape shape, Divider maps, \
            Divider out_width, Divider out_height) {                                                                  \
        forward(x, y, elements, shape, maps, out_width, out_height);                                                  \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        pool_backward##suffix(const T* __restrict__ x, const T* __restrict__ y, const T* __restrict__ dy,             \
            T* __restrict__ dx, int elements, PoolShape shape, Divider maps, Divider width, Divider height,           \
            int activated) {                                                                                          \
        backward(x, y, dy, dx, elements, shape, maps, width, height, activated);                                      \
    }

FOR_EACH_TYPE(POOL_KERNELS)
