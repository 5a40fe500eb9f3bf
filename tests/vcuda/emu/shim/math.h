// Arithmetic built into CUDA C++ beyond <cmath>.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// ---- bits -------------------------------------------------------------------------------------
namespace simt {
template <class To, class From>
inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
// Keeps the compiler from fusing what __fmul_rn and the like promise to round by itself.
template <class T>
inline T rounded(T value) {
    asm("" : "+x"(value));
    return value;
}
}  // namespace simt

inline int __float_as_int(float value) { return simt::bit_cast<int>(value); }
inline unsigned __float_as_uint(float value) { return simt::bit_cast<unsigned>(value); }
inline float __int_as_float(int value) { return simt::bit_cast<float>(value); }
inline float __uint_as_float(unsigned value) { return simt::bit_cast<float>(value); }
inline long long __double_as_longlong(double value) { return simt::bit_cast<long long>(value); }
inline double __longlong_as_double(long long value) { return simt::bit_cast<double>(value); }

// ---- integers ---------------------------------------------------------------------------------
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __clz(int value) { return value ? __builtin_clz(unsigned(value)) : 32; }
inline int __clzll(long long value) { return value ? __builtin_clzll((unsigned long long)value) : 64; }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
inline int __mul24(int a, int b) { return int(unsigned(a << 8 >> 8) * unsigned(b << 8 >> 8)); }
inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffffu) * (b & 0xffffffu); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned((((uint64_t(high) << 32) | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((uint64_t(high) << 32) | low) >> (shift & 31));
}
inline unsigned __brev(unsigned value) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (value >> bit & 1u) << (31 - bit);
    return reversed;
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    uint64_t bytes = (uint64_t(high) << 32) | low;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned select = selector >> (4 * i) & 0xf, byte = unsigned(bytes >> (8 * (select & 7))) & 0xff;
        if (select & 8) byte = byte & 0x80 ? 0xff : 0;  // replicate the sign
        result |= byte << (8 * i);
    }
    return result;
}

// ---- min, max ---------------------------------------------------------------------------------
template <class A, class B, class T = std::common_type_t<A, B>>
inline std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, T> min(A a, B b) {
    if constexpr (std::is_floating_point_v<T>) return std::fmin(T(a), T(b));
    else return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B, class T = std::common_type_t<A, B>>
inline std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, T> max(A a, B b) {
    if constexpr (std::is_floating_point_v<T>) return std::fmax(T(a), T(b));
    else return T(a) < T(b) ? T(b) : T(a);
}

// ---- floats -----------------------------------------------------------------------------------
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
inline float sinpif(float x) { return float(sin(M_PI * double(x))); }
inline float cospif(float x) { return float(cos(M_PI * double(x))); }
inline void sincospif(float x, float* s, float* c) { *s = sinpif(x), *c = cospif(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }  // NaN becomes 0

// The fast forms are as exact as the host's: only a GPU shows their real error.
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline void __sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline float __fdividef(float a, float b) { return a / b; }

inline float __fadd_rn(float a, float b) { return simt::rounded(a + b); }
inline float __fsub_rn(float a, float b) { return simt::rounded(a - b); }
inline float __fmul_rn(float a, float b) { return simt::rounded(a * b); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return float(1.0 / sqrt(double(x))); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return simt::rounded(a + b); }
inline double __dmul_rn(double a, double b) { return simt::rounded(a * b); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// ---- conversions, clamped as the hardware does --------------------------------------------------
namespace simt {
template <class Int>
inline Int to_integer(double x) {
    constexpr Int low = std::numeric_limits<Int>::min(), high = std::numeric_limits<Int>::max();
    if (x != x) return 0;
    return x <= double(low) ? low : x >= double(high) ? high : Int(x);
}
}  // namespace simt
inline int __float2int_rn(float x) { return simt::to_integer<int>(rintf(x)); }
inline int __float2int_rz(float x) { return simt::to_integer<int>(truncf(x)); }
inline int __float2int_rd(float x) { return simt::to_integer<int>(floorf(x)); }
inline int __float2int_ru(float x) { return simt::to_integer<int>(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return simt::to_integer<unsigned>(rintf(x)); }
inline unsigned __float2uint_rz(float x) { return simt::to_integer<unsigned>(truncf(x)); }
inline unsigned __float2uint_rd(float x) { return simt::to_integer<unsigned>(floorf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }
inline float __ull2float_rn(unsigned long long x) { return float(x); }
