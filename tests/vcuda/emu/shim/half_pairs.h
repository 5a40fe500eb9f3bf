// __half2 and __nv_bfloat162: element-wise over two 16-bit floats in one register.
#pragma once
#include "atomics.h"
#include "half.h"

#define SIMT_SHORT_FLOAT_PAIR(T, T2)                                                          \
    struct alignas(4) T2 {                                                                    \
        T x, y;                                                                               \
        T2() = default;                                                                       \
        T2(T x, T y) : x(x), y(y) {}                                                          \
        T2& operator+=(T2 b) { return *this = T2(x + b.x, y + b.y); }                         \
        T2& operator-=(T2 b) { return *this = T2(x - b.x, y - b.y); }                         \
        T2& operator*=(T2 b) { return *this = T2(x * b.x, y * b.y); }                         \
    };                                                                                        \
    inline T2 operator+(T2 a, T2 b) { return {a.x + b.x, a.y + b.y}; }                        \
    inline T2 operator-(T2 a, T2 b) { return {a.x - b.x, a.y - b.y}; }                        \
    inline T2 operator*(T2 a, T2 b) { return {a.x * b.x, a.y * b.y}; }                        \
    inline T2 operator/(T2 a, T2 b) { return {a.x / b.x, a.y / b.y}; }                        \
    inline T2 operator-(T2 a) { return {-a.x, -a.y}; }                                        \
    inline T2 __hadd2(T2 a, T2 b) { return a + b; }                                           \
    inline T2 __hsub2(T2 a, T2 b) { return a - b; }                                           \
    inline T2 __hmul2(T2 a, T2 b) { return a * b; }                                           \
    inline T2 __h2div(T2 a, T2 b) { return a / b; }                                           \
    inline T2 __hneg2(T2 a) { return -a; }                                                    \
    inline T2 __habs2(T2 a) { return {__habs(a.x), __habs(a.y)}; }                            \
    inline T2 __hfma2(T2 a, T2 b, T2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
    inline T2 __hmax2(T2 a, T2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }            \
    inline T2 __hmin2(T2 a, T2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }            \
    inline T2 __hgt2(T2 a, T2 b) { return {T(float(__hgt(a.x, b.x))), T(float(__hgt(a.y, b.y)))}; } \
    inline float __low2float(T2 a) { return float(a.x); }                                     \
    inline float __high2float(T2 a) { return float(a.y); }                                    \
    inline T2 __lowhigh2highlow(T2 a) { return {a.y, a.x}; }                                  \
    inline T atomicAdd(T* address, T value) {                                                 \
        return simt::atomic_update(address, [&](T old) { return old + value; });              \
    }                                                                                         \
    inline T2 atomicAdd(T2* address, T2 value) {                                              \
        return simt::atomic_update(address, [&](T2 old) { return old + value; });             \
    }

SIMT_SHORT_FLOAT_PAIR(__half, __half2)
SIMT_SHORT_FLOAT_PAIR(__nv_bfloat16, __nv_bfloat162)
using half2 = __half2;
using nv_bfloat162 = __nv_bfloat162;

inline __half2 __halves2half2(__half low, __half high) { return {low, high}; }
inline __half2 make_half2(__half low, __half high) { return {low, high}; }
inline __half2 __half2half2(__half value) { return {value, value}; }
inline __half2 __float2half2_rn(float value) { return {__half(value), __half(value)}; }
inline __half2 __floats2half2_rn(float low, float high) { return {__half(low), __half(high)}; }
inline __half2 __float22half2_rn(float2 pair) { return {__half(pair.x), __half(pair.y)}; }
inline float2 __half22float2(__half2 pair) { return {float(pair.x), float(pair.y)}; }
inline __half __low2half(__half2 pair) { return pair.x; }
inline __half __high2half(__half2 pair) { return pair.y; }

inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) { return {low, high}; }
inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) { return {low, high}; }
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 value) { return {value, value}; }
inline __nv_bfloat162 __float2bfloat162_rn(float value) { return {__nv_bfloat16(value), __nv_bfloat16(value)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
    return {__nv_bfloat16(low), __nv_bfloat16(high)};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 pair) { return {__nv_bfloat16(pair.x), __nv_bfloat16(pair.y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 pair) { return {float(pair.x), float(pair.y)}; }
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 pair) { return pair.x; }
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 pair) { return pair.y; }
