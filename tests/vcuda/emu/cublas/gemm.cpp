#include "gemm.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "../shim/half.h"

namespace vcublas {
namespace {

// A block of the product: `rows` of A and `columns` of B, packed so that the inner loop reads both in order.
constexpr int64_t tile_rows = 16, tile_columns = 6;
constexpr int64_t block_rows = 128, block_columns = 192, block_depth = 256;

using Octet = float __attribute__((vector_size(32), aligned(4)));

float packed_value(const Matrix& matrix, int64_t row, int64_t column, bool tf32) {
    float value = load(matrix.data, matrix.type, matrix.at(row, column));
    return tf32 ? simt::round_to_tf32(value) : value;
}

/// A[row.., depth..] as tiles of 16 rows, each stored depth by depth; rows past the end are zero.
void pack_a(const Product& p, int64_t row, int64_t rows, int64_t depth, int64_t depths, float* to) {
    for (int64_t tile = 0; tile < rows; tile += tile_rows)
        for (int64_t d = 0; d < depths; d++)
            for (int64_t i = 0; i < tile_rows; i++)
                *to++ = tile + i < rows ? packed_value(p.a, row + tile + i, depth + d, p.tf32) : 0.0f;
}

void pack_b(const Product& p, int64_t column, int64_t columns, int64_t depth, int64_t depths, float* to) {
    for (int64_t tile = 0; tile < columns; tile += tile_columns)
        for (int64_t d = 0; d < depths; d++)
            for (int64_t j = 0; j < tile_columns; j++)
                *to++ = tile + j < columns ? packed_value(p.b, depth + d, column + tile + j, p.tf32) : 0.0f;
}

/// One tile of 16 x 6, added to `sum`, whose columns lie `stride` apart.
void multiply_tile(const float* a, const float* b, int64_t depths, int64_t rows, int64_t columns, float* sum,
                   int64_t stride) {
    Octet total[tile_columns][2] = {};
    for (int64_t d = 0; d < depths; d++, a += tile_rows, b += tile_columns) {
        Octet upper = *reinterpret_cast<const Octet*>(a), lower = *reinterpret_cast<const Octet*>(a + 8);
        for (int j = 0; j < tile_columns; j++) {
            total[j][0] += upper * b[j];
            total[j][1] += lower * b[j];
        }
    }
    for (int64_t j = 0; j < columns; j++)
        for (int64_t i = 0; i < rows; i++) sum[j * stride + i] += total[j][i / 8][i % 8];
}

/// The product itself, without alpha and beta, into a plain m x n array.
void accumulate(const Product& p, float* sum) {
    std::vector<float> a(size_t(block_rows * block_depth)), b(size_t(block_columns * block_depth));
    for (int64_t depth = 0; depth < p.k; depth += block_depth) {
        int64_t depths = std::min(block_depth, p.k - depth);
        for (int64_t column = 0; column < p.n; column += block_columns) {
            int64_t columns = std::min(block_columns, p.n - column);
            pack_b(p, column, columns, depth, depths, b.data());
            for (int64_t row = 0; row < p.m; row += block_rows) {
                int64_t rows = std::min(block_rows, p.m - row);
                pack_a(p, row, rows, depth, depths, a.data());
                for (int64_t j = 0; j < columns; j += tile_columns)
                    for (int64_t i = 0; i < rows; i += tile_rows)
                        multiply_tile(a.data() + i * depths, b.data() + j * depths, depths,
                                      std::min(tile_rows, rows - i), std::min(tile_columns, columns - j),
                                      sum + (column + j) * p.m + row + i, p.m);
            }
        }
    }
}

}  // namespace

float load(const void* data, Type type, size_t index) {
    if (type == Type::f32) return static_cast<const float*>(data)[index];
    uint16_t bits = static_cast<const uint16_t*>(data)[index];
    return type == Type::f16 ? simt::half_to_float(bits) : simt::bfloat_to_float(bits);
}

void store(void* data, Type type, size_t index, float value) {
    if (type == Type::f32) static_cast<float*>(data)[index] = value;
    else static_cast<uint16_t*>(data)[index] =
        type == Type::f16 ? simt::float_to_half(value) : simt::float_to_bfloat(value);
}

void multiply(const Product& p) {
    std::vector<float> sum(size_t(p.m * p.n));
    if (p.alpha != 0.0f) accumulate(p, sum.data());
    for (int64_t column = 0; column < p.n; column++)
        for (int64_t row = 0; row < p.m; row++) {
            size_t index = p.c.at(row, column);
            float value = p.alpha * sum[size_t(column * p.m + row)];
            if (p.beta != 0.0f) value += p.beta * load(p.c.data, p.c.type, index);
            store(p.c.data, p.c.type, index, value);
        }
}

}  // namespace vcublas
