// Qualifiers and built-in vector types.
#pragma once
#include <cstdint>

#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
#define __grid_constant__
#define __constant__ static
#define __builtin_assume(condition) ((void)0)
// The build script reads these two words in the preprocessed text, and takes them out again.
#define __global__ SIMT_GLOBAL
#define __launch_bounds__(...) SIMT_BOUNDS(__VA_ARGS__)
// Function-local statics of a kernel file are its shared memory: the linker gathers them (shared.ld).
#define __shared__ static
// How a kernel declares its dynamic shared memory.
#define DYN_SHARED(type, name) type* name = reinterpret_cast<type*>(simt::dynamic_shared())

#define SIMT_VECTOR2(name, type, alignment)        \
    struct alignas(alignment) name {               \
        type x, y;                                 \
    };                                             \
    inline name make_##name(type x, type y) { return {x, y}; }
#define SIMT_VECTOR3(name, type)                   \
    struct name {                                  \
        type x, y, z;                              \
    };                                             \
    inline name make_##name(type x, type y, type z) { return {x, y, z}; }
#define SIMT_VECTOR4(name, type, alignment)        \
    struct alignas(alignment) name {               \
        type x, y, z, w;                           \
    };                                             \
    inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }

using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;

SIMT_VECTOR2(char2, signed char, 2)
SIMT_VECTOR4(char4, signed char, 4)
SIMT_VECTOR2(uchar2, unsigned char, 2)
SIMT_VECTOR3(uchar3, unsigned char)
SIMT_VECTOR4(uchar4, unsigned char, 4)
SIMT_VECTOR2(short2, short, 4)
SIMT_VECTOR4(short4, short, 8)
SIMT_VECTOR2(ushort2, unsigned short, 4)
SIMT_VECTOR4(ushort4, unsigned short, 8)
SIMT_VECTOR2(int2, int, 8)
SIMT_VECTOR3(int3, int)
SIMT_VECTOR4(int4, int, 16)
SIMT_VECTOR2(uint2, unsigned, 8)
SIMT_VECTOR3(uint3, unsigned)
SIMT_VECTOR4(uint4, unsigned, 16)
SIMT_VECTOR2(longlong2, long long, 16)
SIMT_VECTOR2(ulonglong2, unsigned long long, 16)
SIMT_VECTOR2(float2, float, 8)
SIMT_VECTOR3(float3, float)
SIMT_VECTOR4(float4, float, 16)
SIMT_VECTOR2(double2, double, 16)
SIMT_VECTOR4(double4, double, 16)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
