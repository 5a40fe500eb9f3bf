// Atomics: real ones, so that ThreadSanitizer does not take two of them for a race.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace simt {

template <size_t Bytes>
using Word = std::conditional_t<Bytes == 8, uint64_t, std::conditional_t<Bytes == 4, uint32_t, uint16_t>>;

/// Replaces *address by change(*address), whole or not at all; returns what stood there before.
template <class T, class Change>
inline T atomic_update(T* address, Change change) {
    using Bits = Word<sizeof(T)>;
    auto* word = reinterpret_cast<Bits*>(address);
    Bits before = __atomic_load_n(word, __ATOMIC_RELAXED), after;
    T old;
    do {
        memcpy(&old, &before, sizeof old);
        T fresh = change(old);
        memcpy(&after, &fresh, sizeof after);
    } while (!__atomic_compare_exchange_n(word, &before, after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

}  // namespace simt

// Every width of scope is the same here: one thread runs at a time.
#define SIMT_ATOMIC(name, expression)                                                  \
    template <class T>                                                                 \
    inline T name(T* address, std::common_type_t<T> value) {                           \
        return simt::atomic_update(address, [&](T old) -> T { return (expression); }); \
    }                                                                                  \
    template <class T>                                                                 \
    inline T name##_block(T* address, std::common_type_t<T> value) {                   \
        return name(address, value);                                                   \
    }                                                                                  \
    template <class T>                                                                 \
    inline T name##_system(T* address, std::common_type_t<T> value) {                  \
        return name(address, value);                                                   \
    }

SIMT_ATOMIC(atomicAdd, old + value)
SIMT_ATOMIC(atomicSub, old - value)
SIMT_ATOMIC(atomicExch, ((void)old, value))
SIMT_ATOMIC(atomicMin, value < old ? value : old)
SIMT_ATOMIC(atomicMax, old < value ? value : old)
SIMT_ATOMIC(atomicAnd, old & value)
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicXor, old ^ value)
SIMT_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)

template <class T>
inline T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
    return simt::atomic_update(address, [&](T old) -> T { return old == expected ? value : old; });
}

// The hardware adds the elements of a vector one by one, each atomically.
inline float2 atomicAdd(float2* address, float2 value) {
    return {atomicAdd(&address->x, value.x), atomicAdd(&address->y, value.y)};
}
inline float4 atomicAdd(float4* address, float4 value) {
    return {atomicAdd(&address->x, value.x), atomicAdd(&address->y, value.y), atomicAdd(&address->z, value.z),
            atomicAdd(&address->w, value.w)};
}
