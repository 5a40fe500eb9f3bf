// Warp shuffles, votes and reductions.
#pragma once
#include "../simt.h"

namespace simt {

template <class T>
struct Exchange {
    T value, received;
    int source;
};

template <class T>
SIMT_NO_TSAN void exchange(void** lanes, unsigned mask) {
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        auto* mine = static_cast<Exchange<T>*>(lanes[lane]);
        if (!(mask >> mine->source & 1)) trap("shuffle reads a lane outside its mask");
        mine->received = static_cast<Exchange<T>*>(lanes[mine->source])->value;
    }
}

template <class T>
inline T shuffle(unsigned mask, T value, int source) {
    Exchange<T> mine{value, value, source};
    warp_collective(mask, exchange<T>, &mine);
    return mine.received;
}

template <class T, class Function>
struct Reduction {
    T value;
    SIMT_NO_TSAN static void combine(void** lanes, unsigned mask) {
        T total{};
        bool first = true;
        for (int lane = 0; lane < 32; lane++) {
            if (!(mask >> lane & 1)) continue;
            T value = static_cast<Reduction*>(lanes[lane])->value;
            total = first ? value : Function::apply(total, value);
            first = false;
        }
        for (int lane = 0; lane < 32; lane++)
            if (mask >> lane & 1) static_cast<Reduction*>(lanes[lane])->value = total;
    }
    static T over(unsigned mask, T value) {
        Reduction mine{value};
        warp_collective(mask, combine, &mine);
        return mine.value;
    }
};

struct Add {
    template <class T>
    SIMT_NO_TSAN static T apply(T a, T b) { return T(std::make_unsigned_t<T>(a) + std::make_unsigned_t<T>(b)); }
};
struct Min {
    template <class T>
    SIMT_NO_TSAN static T apply(T a, T b) { return b < a ? b : a; }
};
struct Max {
    template <class T>
    SIMT_NO_TSAN static T apply(T a, T b) { return a < b ? b : a; }
};
struct And {
    SIMT_NO_TSAN static unsigned apply(unsigned a, unsigned b) { return a & b; }
};
struct Or {
    SIMT_NO_TSAN static unsigned apply(unsigned a, unsigned b) { return a | b; }
};
struct Xor {
    SIMT_NO_TSAN static unsigned apply(unsigned a, unsigned b) { return a ^ b; }
};

struct Ballot {
    unsigned vote, result;
    SIMT_NO_TSAN static void combine(void** lanes, unsigned mask) {
        unsigned result = 0;
        for (int lane = 0; lane < 32; lane++)
            if (mask >> lane & 1) result |= static_cast<Ballot*>(lanes[lane])->vote << lane;
        for (int lane = 0; lane < 32; lane++)
            if (mask >> lane & 1) static_cast<Ballot*>(lanes[lane])->result = result;
    }
};

}  // namespace simt

inline void __syncwarp(unsigned mask = 0xffffffffu) { simt::warp_collective(mask, nullptr, nullptr); }

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    int lane = int(simt::position.lane);
    return simt::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    int lane = int(simt::position.lane), source = lane ^ bits;
    // A segment may read earlier segments, never later ones.
    return simt::shuffle(mask, value, (source & ~(width - 1)) > (lane & ~(width - 1)) ? lane : source);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = int(simt::position.lane), inside = (lane & (width - 1)) + int(delta);
    return simt::shuffle(mask, value, inside >= width ? lane : lane + int(delta));
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = int(simt::position.lane), inside = (lane & (width - 1)) - int(delta);
    return simt::shuffle(mask, value, inside < 0 ? lane : lane - int(delta));
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    simt::Ballot mine{predicate != 0, 0};
    simt::warp_collective(mask, simt::Ballot::combine, &mine);
    return mine.result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

template <class T>
inline T __reduce_add_sync(unsigned mask, T value) { return simt::Reduction<T, simt::Add>::over(mask, value); }
template <class T>
inline T __reduce_min_sync(unsigned mask, T value) { return simt::Reduction<T, simt::Min>::over(mask, value); }
template <class T>
inline T __reduce_max_sync(unsigned mask, T value) { return simt::Reduction<T, simt::Max>::over(mask, value); }
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
    return simt::Reduction<unsigned, simt::And>::over(mask, value);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
    return simt::Reduction<unsigned, simt::Or>::over(mask, value);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
    return simt::Reduction<unsigned, simt::Xor>::over(mask, value);
}
