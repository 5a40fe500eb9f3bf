// Dropout of a layer's outputs. The mask is never stored: it is a function of the step, the image and the unit, or a
// given array. One thread a unit.
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

__device__ __forceinline__ bool kept(int i, const float* mask, const DropoutPlace& place,
                                     const DropoutStream& stream) {
    if (mask != nullptr) return mask[i] != 0.0f;
    int unit = i;
    const unsigned image = static_cast<unsigned>(place.units.take(unit)) + place.first_image;
    const unsigned element = image * place.all_units + place.first_unit + static_cast<unsigned>(unit);
    return philox_word(stream.key, element, stream.lane, stream.step) >= stream.threshold;
}

extern "C" __global__ void __launch_bounds__(256)
    dropout_forward(float* __restrict__ y, const float* __restrict__ mask, int elements, float factor,
                    DropoutPlace place, DropoutStream stream) {
    const int i = global_thread();
    if (i >= elements) return;
    y[i] = kept(i, mask, place, stream) ? y[i] * factor : 0.0f;
}

// `unscale` takes the factor out of the kept outputs again.
extern "C" __global__ void __launch_bounds__(256)
    dropout_backward(float* __restrict__ y, float* __restrict__ dy, const float* __restrict__ mask, int elements,
                     float factor, float unscale, DropoutPlace place, DropoutStream stream) {
    const int i = global_thread();
    if (i >= elements) return;
    const bool keep = kept(i, mask, place, stream);
    dy[i] = keep ? dy[i] * factor : 0.0f;
    if (keep && unscale != 1.0f) y[i] *= unscale;
}
