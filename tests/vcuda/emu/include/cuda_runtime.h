// Everything a kernel needs of this header is in cuda_shim.h, which is included already.
#pragma once
