// State of dynamic loss scaling. All floats, so that messages between devices carry it.
#pragma once

#include "index.cuh"

struct LossScale {
    // What the loss is multiplied by; the one that the last gradients were.
    float scale, used;
    // Updates since the scale changed.
    float steps;
    // Not 0 where a gradient of this step is not finite.
    float overflow;
};
