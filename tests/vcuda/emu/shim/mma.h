// The tensor-core instructions behind kernels/common.cuh, in the fragment layouts of the PTX ISA.
#pragma once
#include "half.h"
#include "../simt.h"

namespace simt {

constexpr unsigned whole_warp = 0xffffffffu;
using Octet = float __attribute__((vector_size(32), aligned(4)));

struct BFloat16 {
    SIMT_NO_TSAN static float low(unsigned pair) { return bit_cast<float>(pair << 16); }
    SIMT_NO_TSAN static float high(unsigned pair) { return bit_cast<float>(pair & 0xffff0000u); }
};
struct Float16 {
    SIMT_NO_TSAN static float low(unsigned pair) { return half_to_float(uint16_t(pair)); }
    SIMT_NO_TSAN static float high(unsigned pair) { return half_to_float(uint16_t(pair >> 16)); }
};

/// What a lane hands to mma.sync: its registers of A and B, and of C, which become those of D.
struct Fragments {
    const unsigned *a, *b;
    float* d;
};

/// D[16,8] += A[16,K] · B[K,8], with all 32 lanes' registers of D in place.
template <int K>
SIMT_NO_TSAN inline void multiply(void** lanes, const float (&a)[16][K], const float (&b)[K][8]) {
    for (int lane = 0; lane < 32; lane += 4) {  // the four lanes of a group share two rows of D
        int group = lane >> 2;
        Octet upper{}, lower{};
        for (int k = 0; k < K; k++) {
            Octet row = *reinterpret_cast<const Octet*>(b[k]);
            upper += a[group][k] * row;
            lower += a[group + 8][k] * row;
        }
        for (int i = 0; i < 4; i++) {
            float* d = static_cast<Fragments*>(lanes[lane + i])->d;
            d[0] += upper[2 * i], d[1] += upper[2 * i + 1];
            d[2] += lower[2 * i], d[3] += lower[2 * i + 1];
        }
    }
}

/// mma.sync.aligned.m16n8k16.row.col.f32.T.T.f32
template <class T>
SIMT_NO_TSAN void mma_16816(void** lanes, unsigned mask) {
    if (mask != whole_warp) trap("mma.sync needs the whole warp");
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        auto* from = static_cast<Fragments*>(lanes[lane]);
        int group = lane >> 2, column = 2 * (lane & 3);
        for (int part = 0; part < 4; part++) {
            float* to = &a[group + (part & 1) * 8][column + (part >> 1) * 8];
            to[0] = T::low(from->a[part]), to[1] = T::high(from->a[part]);
        }
        for (int part = 0; part < 2; part++) {
            b[column + part * 8][group] = T::low(from->b[part]);
            b[column + part * 8 + 1][group] = T::high(from->b[part]);
        }
    }
    multiply<16>(lanes, a, b);
}

/// mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32: the hardware ignores the low 13 bits of its operands.
SIMT_NO_TSAN inline void mma_1688(void** lanes, unsigned mask) {
    if (mask != whole_warp) trap("mma.sync needs the whole warp");
    float a[16][8], b[8][8];
    auto operand = [](unsigned bits) SIMT_NO_TSAN { return bit_cast<float>(bits & 0xffffe000u); };
    for (int lane = 0; lane < 32; lane++) {
        auto* from = static_cast<Fragments*>(lanes[lane]);
        int group = lane >> 2, column = lane & 3;
        for (int part = 0; part < 4; part++)
            a[group + (part & 1) * 8][column + (part >> 1) * 4] = operand(from->a[part]);
        for (int part = 0; part < 2; part++) b[column + part * 4][group] = operand(from->b[part]);
    }
    multiply<8>(lanes, a, b);
}

inline void mma(Combine combine, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Fragments mine{a, b, d};
    warp_collective(whole_warp, combine, &mine);
}

/// What a lane hands to ldmatrix: the row it addresses, and where its registers go.
struct MatrixLoad {
    const void* row;
    unsigned* to;
};

/// ldmatrix.sync.aligned.m8n8.xN[.trans].shared.b16: lane i of matrix m reads from the row that lane 8·m+… names.
template <int N, bool Transposed>
SIMT_NO_TSAN void load_matrices(void** lanes, unsigned mask) {
    if (mask != whole_warp) trap("ldmatrix needs the whole warp");
    for (int matrix = 0; matrix < N; matrix++) {
        const uint16_t* rows[8];
        for (int i = 0; i < 8; i++) {
            rows[i] = static_cast<const uint16_t*>(static_cast<MatrixLoad*>(lanes[matrix * 8 + i])->row);
            if (reinterpret_cast<uintptr_t>(rows[i]) % 16) trap("ldmatrix: a row is not aligned to 16 bytes");
        }
        for (int lane = 0; lane < 32; lane++) {
            int row = lane >> 2, column = 2 * (lane & 3);
            unsigned low = Transposed ? rows[column][row] : rows[row][column];
            unsigned high = Transposed ? rows[column + 1][row] : rows[row][column + 1];
            static_cast<MatrixLoad*>(lanes[lane])->to[matrix] = low | high << 16;
        }
    }
}

template <int N, bool Transposed>
inline void ldmatrix(unsigned (&to)[N], const void* row) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    // The row counts as read by the thread that names it, or a missing barrier before ldmatrix would go unseen.
    if (position.lane < 8 * N) (void)*static_cast<const volatile __int128*>(row);
#endif
    MatrixLoad mine{row, to};
    warp_collective(whole_warp, load_matrices<N, Transposed>, &mine);
}

}  // namespace simt
