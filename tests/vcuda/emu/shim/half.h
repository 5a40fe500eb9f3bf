// __half and __nv_bfloat16: stored in 16 bits, computed in f32, rounded to nearest even.
#pragma once
#include "math.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace simt {

#ifdef __F16C__
inline float half_to_float(uint16_t bits) { return _cvtsh_ss(bits); }
inline uint16_t float_to_half(float value) { return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }
#else
inline float half_to_float(uint16_t bits) {
    unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    if (exponent == 31) return bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    float magnitude = float(mantissa) * 0x1p-24f;  // subnormal
    return sign ? -magnitude : magnitude;
}
inline uint16_t float_to_half(float value) {
    unsigned bits = bit_cast<unsigned>(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);
    if (magnitude < 0x38800000u)  // below the normal range: the float adder rounds to a multiple of 2^-24
        return uint16_t(sign | (bit_cast<unsigned>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u));
    unsigned odd = magnitude >> 13 & 1;
    return uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}
#endif

inline float bfloat_to_float(uint16_t bits) { return bit_cast<float>(unsigned(bits) << 16); }
inline uint16_t float_to_bfloat(float value) {
    unsigned bits = bit_cast<unsigned>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
/// TF32: f32 with 10 bits of mantissa, rounded to nearest, ties away from zero (cvt.rna).
inline float round_to_tf32(float value) {
    unsigned bits = bit_cast<unsigned>(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) return value;
    return bit_cast<float>((bits + 0x1000u) & 0xffffe000u);
}

}  // namespace simt

// The operators and functions of one 16-bit type; `Float` names its conversions in the intrinsics.
#define SIMT_SHORT_FLOAT(T, widen, narrow)                                                \
    struct T {                                                                            \
        uint16_t x;                                                                       \
        T() = default;                                                                    \
        T(float value) : x(simt::narrow(value)) {}                                        \
        T(double value) : x(simt::narrow(float(value))) {}                                \
        T(int value) : x(simt::narrow(float(value))) {}                                   \
        operator float() const { return simt::widen(x); }                                 \
        static T of_bits(uint16_t bits) {                                                 \
            T value;                                                                      \
            value.x = bits;                                                               \
            return value;                                                                 \
        }                                                                                 \
        T& operator+=(T other) { return *this = T(float(*this) + float(other)); }         \
        T& operator-=(T other) { return *this = T(float(*this) - float(other)); }         \
        T& operator*=(T other) { return *this = T(float(*this) * float(other)); }         \
        T& operator/=(T other) { return *this = T(float(*this) / float(other)); }         \
    };                                                                                    \
    inline T operator+(T a, T b) { return T(float(a) + float(b)); }                       \
    inline T operator-(T a, T b) { return T(float(a) - float(b)); }                       \
    inline T operator*(T a, T b) { return T(float(a) * float(b)); }                       \
    inline T operator/(T a, T b) { return T(float(a) / float(b)); }                       \
    inline T operator-(T a) { return T::of_bits(a.x ^ 0x8000); }                          \
    inline T __hadd(T a, T b) { return a + b; }                                           \
    inline T __hsub(T a, T b) { return a - b; }                                           \
    inline T __hmul(T a, T b) { return a * b; }                                           \
    inline T __hdiv(T a, T b) { return a / b; }                                           \
    inline T __hneg(T a) { return -a; }                                                   \
    inline T __habs(T a) { return T::of_bits(a.x & 0x7fff); }                             \
    inline T __hfma(T a, T b, T c) { return T(float(double(float(a)) * float(b) + float(c))); } \
    inline T __hmax(T a, T b) { return T(fmaxf(float(a), float(b))); }                    \
    inline T __hmin(T a, T b) { return T(fminf(float(a), float(b))); }                    \
    inline bool __heq(T a, T b) { return float(a) == float(b); }                          \
    inline bool __hne(T a, T b) { return float(a) != float(b); }                          \
    inline bool __hlt(T a, T b) { return float(a) < float(b); }                           \
    inline bool __hle(T a, T b) { return float(a) <= float(b); }                          \
    inline bool __hgt(T a, T b) { return float(a) > float(b); }                           \
    inline bool __hge(T a, T b) { return float(a) >= float(b); }                          \
    inline bool __hisnan(T a) { return float(a) != float(a); }                            \
    inline T hexp(T a) { return T(expf(float(a))); }                                      \
    inline T hlog(T a) { return T(logf(float(a))); }                                      \
    inline T hsqrt(T a) { return T(sqrtf(float(a))); }                                    \
    inline T hrsqrt(T a) { return T(rsqrtf(float(a))); }                                  \
    inline T hrcp(T a) { return T(1.0f / float(a)); }

SIMT_SHORT_FLOAT(__half, half_to_float, float_to_half)
SIMT_SHORT_FLOAT(__nv_bfloat16, bfloat_to_float, float_to_bfloat)
using half = __half;
using nv_bfloat16 = __nv_bfloat16;

inline __half __float2half(float value) { return __half(value); }
inline __half __float2half_rn(float value) { return __half(value); }
inline __half __double2half(double value) { return __half(value); }
inline float __half2float(__half value) { return float(value); }
inline __half __int2half_rn(int value) { return __half(value); }
inline int __half2int_rn(__half value) { return __float2int_rn(float(value)); }
inline unsigned short __half_as_ushort(__half value) { return value.x; }
inline __half __ushort_as_half(unsigned short bits) { return __half::of_bits(bits); }

inline __nv_bfloat16 __float2bfloat16(float value) { return __nv_bfloat16(value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
inline __nv_bfloat16 __double2bfloat16(double value) { return __nv_bfloat16(value); }
inline float __bfloat162float(__nv_bfloat16 value) { return float(value); }
inline __nv_bfloat16 __int2bfloat16_rn(int value) { return __nv_bfloat16(value); }
inline int __bfloat162int_rn(__nv_bfloat16 value) { return __float2int_rn(float(value)); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.x; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16::of_bits(bits); }
