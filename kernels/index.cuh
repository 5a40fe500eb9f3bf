// Index arithmetic and small numeric helpers that several kernels share.
#pragma once

#include "number.cuh"

// Division of 0 <= n < 2^31 by a number known at launch: a multiplication and a shift. The host fills it in
// (src/device/cuda/geometry.rs).
struct Divider {
    unsigned divisor, multiplier, shift;

    __device__ __forceinline__ int quotient(int n) const {
        const unsigned long long product = static_cast<unsigned long long>(static_cast<unsigned>(n)) * multiplier;
        return static_cast<int>(product >> shift);
    }
    // Divides `n` and leaves the remainder in it.
    __device__ __forceinline__ int take(int& n) const {
        const int q = quotient(n);
        n -= q * static_cast<int>(divisor);
        return q;
    }
};

// Number of this thread in a one-dimensional grid; the host keeps it below 2^31.
__device__ __forceinline__ int global_thread() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

// How activations are told to a kernel.
constexpr int ACTIVATION_NONE = 0, ACTIVATION_RELU = 1, ACTIVATION_TANH = 2;

// A NaN stays a NaN, so that it is seen in the loss.
__device__ __forceinline__ float activate(int activation, float value) {
    if (activation == ACTIVATION_RELU) return value < 0.0f ? 0.0f : value;
    if (activation == ACTIVATION_TANH) return tanhf(value);
    return value;
}

// Does `change(value)` for every number of an array of any rank.
template <class Change>
__device__ __forceinline__ void for_each_number(float& value, Change change) {
    change(value);
}
template <class Row, int Rows, class Change>
__device__ __forceinline__ void for_each_number(Row (&values)[Rows], Change change) {
#pragma unroll
    for (int i = 0; i < Rows; ++i) for_each_number(values[i], change);
}

// Activates a thread's sums. The activation is asked for once, not by every one of them.
template <class Sums>
__device__ __forceinline__ void activate_all(Sums& sums, int activation) {
    if (activation == ACTIVATION_RELU)
        for_each_number(sums, [](float& sum) { sum = activate(ACTIVATION_RELU, sum); });
    else if (activation == ACTIVATION_TANH)
        for_each_number(sums, [](float& sum) { sum = activate(ACTIVATION_TANH, sum); });
}

// The derivative, told from the activation's output `y`.
__device__ __forceinline__ float activation_slope(int activation, float y) {
    if (activation == ACTIVATION_RELU) return y > 0.0f ? 1.0f : 0.0f;
    if (activation == ACTIVATION_TANH) return 1.0f - y * y;
    return 1.0f;
}

// Four neighbouring numbers of an array of `elements`; at its end, as many as are left.
struct Quad {
    float v[4];
};

// Place of this thread's quad.
__device__ __forceinline__ int quad_start() { return global_thread() * 4; }

template <class T>
__device__ __forceinline__ Quad load_quad(const T* from, int first, int elements) {
    Quad quad = {};
    if (first + 4 <= elements) {
        const Neighbours<T, 4> all = *reinterpret_cast<const Neighbours<T, 4>*>(from + first);
#pragma unroll
        for (int i = 0; i < 4; ++i) quad.v[i] = widen(all.v[i]);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (first + i < elements) quad.v[i] = widen(from[first + i]);
    }
    return quad;
}

template <class T>
__device__ __forceinline__ void store_quad(T* to, int first, int elements, const Quad& quad) {
    if (first + 4 <= elements) {
        Neighbours<T, 4> all;
#pragma unroll
        for (int i = 0; i < 4; ++i) all.v[i] = narrow<T>(quad.v[i]);
        *reinterpret_cast<Neighbours<T, 4>*>(to + first) = all;
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (first + i < elements) to[first + i] = narrow<T>(quad.v[i]);
    }
}
