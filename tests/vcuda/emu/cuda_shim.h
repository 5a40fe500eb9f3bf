// Force-included when a .cu file is compiled by the host C++ compiler: CUDA C++ as far as the kernels use it.
#pragma once
// The standard headers come first, because the kernels themselves are compiled inside a namespace.
#include <assert.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <cassert>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "shim/language.h"
#include "simt.h"
#include "shim/launch.h"
#include "shim/math.h"
#include "shim/warp.h"
#include "shim/atomics.h"
#include "shim/half.h"
#include "shim/half_pairs.h"
#include "shim/mma.h"
