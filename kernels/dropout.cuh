// Which units dropout keeps. The mask is never stored: it is a function of the step, the image and the unit, or a given
// array.
#pragma once

#include "index.cuh"
#include "philox.cuh"

// Column's units, first unit's number and number of all units; `first_image` counts within the step's whole batch.
struct DropoutPlace {
    Divider units;
    unsigned first_unit, all_units, first_image;
};

struct DropoutStream {
    PhiloxKey key;
    unsigned long long step;
    unsigned lane, threshold;
};

// `later`, if there is one, holds the step instead of `stream`.
__device__ __forceinline__ bool kept(int i, const float* mask, const DropoutPlace& place, const DropoutStream& stream,
                                     const unsigned long long* later) {
    if (mask != nullptr) return mask[i] != 0.0f;
    const unsigned long long step = later != nullptr ? *later : stream.step;
    int unit = i;
    const unsigned image = static_cast<unsigned>(place.units.take(unit)) + place.first_image;
    const unsigned element = image * place.all_units + place.first_unit + static_cast<unsigned>(unit);
    return philox_word(stream.key, element, stream.lane, step) >= stream.threshold;
}

// What dropout makes of unit `i`, counted over the images.
__device__ __forceinline__ float dropped_out(float value, int i, const float* mask, float factor,
                                             const DropoutPlace& place, const DropoutStream& stream,
                                             const unsigned long long* later) {
    return kept(i, mask, place, stream, later) ? value * factor : 0.0f;
}
