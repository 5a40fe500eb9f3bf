// Kernels without a mistake: the emulator must run them as a GPU would.
#include "common.cuh"

// y = a·x + y
extern "C" __global__ void __launch_bounds__(256)
    vcuda_axpy(float* __restrict__ y, const float* __restrict__ x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = fmaf(a, __ldg(&x[i]), y[i]);
}

// The sum of x, added to *total.
extern "C" __global__ void __launch_bounds__(256) vcuda_sum(float* total, const float* __restrict__ x, int n) {
    __shared__ float of_warp[8];
    float sum = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    for (int step = 16; step; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    sum = threadIdx.x < 8 ? of_warp[threadIdx.x] : 0.0f;
    for (int step = 4; step; step >>= 1) sum += __shfl_down_sync(0xffffffffu, sum, step);
    if (threadIdx.x == 0) atomicAdd(total, sum);
}

// C[m,n] = A[m,k]·B[k,n], row by row, in tiles that go through shared memory; each thread holds 8 x 8 sums.
template <int Tile, int Depth>
__device__ __forceinline__ void tiled_product(float* c, const float* a, const float* b, int m, int n, int k) {
    constexpr int PerThread = 8, Across = Tile / PerThread, Threads = Across * Across;
    __shared__ float tile_a[Depth][Tile];
    __shared__ float tile_b[Depth][Tile];
    int thread = threadIdx.x, row = thread / Across * PerThread, column = thread % Across * PerThread;
    int first_row = blockIdx.y * Tile, first_column = blockIdx.x * Tile;
    float sum[PerThread][PerThread] = {};
    for (int depth = 0; depth < k; depth += Depth) {
        for (int i = thread; i < Tile * Depth; i += Threads) {
            int r = first_row + i / Depth, d = depth + i % Depth;
            tile_a[i % Depth][i / Depth] = r < m && d < k ? a[r * k + d] : 0.0f;
        }
        for (int i = thread; i < Tile * Depth; i += Threads) {
            int d = depth + i / Tile, col = first_column + i % Tile;
            tile_b[i / Tile][i % Tile] = d < k && col < n ? b[d * n + col] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < Depth; d++)
#pragma unroll
            for (int i = 0; i < PerThread; i++)
#pragma unroll
                for (int j = 0; j < PerThread; j++) sum[i][j] += tile_a[d][row + i] * tile_b[d][column + j];
        __syncthreads();
    }
    for (int i = 0; i < PerThread; i++)
        for (int j = 0; j < PerThread; j++) {
            int r = first_row + row + i, col = first_column + column + j;
            if (r < m && col < n) c[r * n + col] = sum[i][j];
        }
}

extern "C" __global__ void __launch_bounds__(64)
    vcuda_product(float* c, const float* a, const float* b, int m, int n, int k) {
    tiled_product<64, 16>(c, a, b, m, n, k);
}

// C[m,n] = A[m,k]·B[n,k]ᵀ on tensor cores, bf16: 64 x 64 per block, four warps, cp.async into two buffers, ldmatrix.
// m and n are multiples of 64, k of 32.
extern "C" __global__ void __launch_bounds__(128)
    vcuda_product_bf16(float* c, const __nv_bfloat16* a, const __nv_bfloat16* b, int m, int n, int k) {
    constexpr int Depth = 32, Stride = Depth + 8, Tile = 64 * Stride;
    DYN_SHARED(__nv_bfloat16, shared);  // [2][a, b][64][Stride]
    int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    int first_row = blockIdx.y * 64, first_column = blockIdx.x * 64;
    int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
    float sum[2][4][4] = {};
    auto load = [&](int buffer, int depth) {
        for (int i = thread; i < 64 * 4; i += 128) {
            int row = i / 4, column = i % 4 * 8;
            __nv_bfloat16* to = shared + buffer * 2 * Tile + row * Stride + column;
            cp_async<16>(to, a + (size_t)(first_row + row) * k + depth + column);
            cp_async<16>(to + Tile, b + (size_t)(first_column + row) * k + depth + column);
        }
        cp_async_commit();
    };
    load(0, 0);
    for (int depth = 0, buffer = 0; depth < k; depth += Depth, buffer ^= 1) {
        if (depth + Depth < k) {
            load(buffer ^ 1, depth + Depth);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        __syncthreads();
        const __nv_bfloat16 *tile_a = shared + buffer * 2 * Tile, *tile_b = tile_a + Tile;
        for (int d = 0; d < Depth; d += 16) {
            unsigned of_a[2][4], of_b[4][2];
            for (int i = 0; i < 2; i++)
                ldmatrix_x4(of_a[i], tile_a + (warp_row + i * 16 + lane % 16) * Stride + d + lane / 16 * 8);
            for (int j = 0; j < 4; j++)
                ldmatrix_x2(of_b[j], tile_b + (warp_column + j * 8 + lane % 8) * Stride + d + lane / 8 % 2 * 8);
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++) mma_bf16(sum[i][j], of_a[i], of_b[j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++) {
            int row = first_row + warp_row + i * 16 + lane / 4;
            int column = first_column + warp_column + j * 8 + lane % 4 * 2;
            float2* to = reinterpret_cast<float2*>(c + (size_t)row * n + column);
            to[0] = make_float2(sum[i][j][0], sum[i][j][1]);
            to[4 * n] = make_float2(sum[i][j][2], sum[i][j][3]);  // eight rows further down
        }
}

// D[16,8] = A[16,8]·B[8,8] in TF32, one warp, all row by row.
extern "C" __global__ void __launch_bounds__(32) vcuda_mma_tf32(float* d, const float* a, const float* b) {
    int group = threadIdx.x / 4, column = threadIdx.x % 4;
    unsigned of_a[4] = {to_tf32(a[group * 8 + column]), to_tf32(a[(group + 8) * 8 + column]),
                        to_tf32(a[group * 8 + column + 4]), to_tf32(a[(group + 8) * 8 + column + 4])};
    unsigned of_b[2] = {to_tf32(b[column * 8 + group]), to_tf32(b[(column + 4) * 8 + group])};
    float sum[4] = {};
    mma_tf32(sum, of_a, of_b);
    d[group * 8 + column * 2] = sum[0], d[group * 8 + column * 2 + 1] = sum[1];
    d[(group + 8) * 8 + column * 2] = sum[2], d[(group + 8) * 8 + column * 2 + 1] = sum[3];
}

// D[16,8] = A[16,16]·B[16,8] in f16, B stored row by row and therefore loaded transposed.
extern "C" __global__ void __launch_bounds__(32) vcuda_mma_f16(float* d, const __half* a, const __half* b) {
    __shared__ __align__(16) __half tile_a[16 * 16], tile_b[16 * 8];
    int lane = threadIdx.x;
    for (int i = lane; i < 16 * 16; i += 32) tile_a[i] = a[i];
    for (int i = lane; i < 16 * 8; i += 32) tile_b[i] = b[i];
    __syncthreads();
    unsigned of_a[4], of_b[2];
    ldmatrix_x4(of_a, tile_a + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix_x2<true>(of_b, tile_b + lane % 16 * 8);
    float sum[4] = {};
    mma_f16(sum, of_a, of_b);
    d[lane / 4 * 8 + lane % 4 * 2] = sum[0], d[lane / 4 * 8 + lane % 4 * 2 + 1] = sum[1];
    d[(lane / 4 + 8) * 8 + lane % 4 * 2] = sum[2], d[(lane / 4 + 8) * 8 + lane % 4 * 2 + 1] = sum[3];
}

// One number per built-in that is easily got wrong; the test knows the values.
extern "C" __global__ void __launch_bounds__(64) vcuda_builtins(float* out) {
    int t = threadIdx.x;
    unsigned all = 0xffffffffu;
    float votes = (float)__popc(__ballot_sync(all, t % 3 == 0)) + (__any_sync(all, t == 7) ? 100.0f : 0.0f) +
                  (__all_sync(all, t < 64) ? 1000.0f : 0.0f);
    float up = (float)__shfl_up_sync(all, t, 3), quarter = (float)__shfl_sync(all, t, 1, 8);
    float reduced = (float)(__reduce_add_sync(all, t) + (int)__reduce_max_sync(all, t) + __reduce_min_sync(all, t));
    int counted = __syncthreads_count(t % 2), any = __syncthreads_or(t == 63), every = __syncthreads_and(t < 63);
    __half h = __float2half(0.1f);
    __half2 pair = __hmul2(__floats2half2_rn(1.5f, -2.0f), __float2half2_rn(2.0f));
    __nv_bfloat162 wide = __floats2bfloat162_rn(1.00390625f, 3.0f);  // exactly between two bf16: to even
    float values[] = {votes,
                      up,
                      quarter,
                      reduced,
                      (float)(counted * 100 + any * 10 + every),
                      __half2float(h),
                      __low2float(pair) + __high2float(pair),
                      __bfloat162float(wide.x),
                      __saturatef(-1.0f) + __saturatef(0.25f) + __saturatef(7.0f),
                      (float)__umulhi(0x80000000u, 6u),
                      (float)__float2int_rn(2.5f),
                      (float)max(3, -5) + fminf(2.0f, 1.0f),
                      __uint_as_float(to_tf32(1.0f + 0x1p-11f))};
    for (int i = 0; i < (int)(sizeof values / sizeof values[0]); i++) out[i * 64 + t] = values[i];
}
