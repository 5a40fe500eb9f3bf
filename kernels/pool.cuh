// Geometry of pooling, shared with the fused LRN and pool.
#pragma once

#include "index.cuh"

// Of one image; extents in pixels and maps.
struct PoolShape {
    int height, width, out_height, out_width, maps;
    int size, stride, pad;
};

// Larger in the sense of a maximum that lets a NaN through.
__device__ __forceinline__ bool exceeds(float value, float best) { return value > best || value != value; }
