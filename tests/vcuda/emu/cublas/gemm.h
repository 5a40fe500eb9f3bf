// Host matrix product behind the virtual cuBLAS.
#pragma once
#include <cstddef>
#include <cstdint>

#pragma GCC visibility push(hidden)
namespace vcublas {

/// cudaDataType_t of the element types that are supported.
enum class Type : int { f32 = 0, f16 = 2, bf16 = 14 };
inline bool is_supported(Type type) { return type == Type::f32 || type == Type::f16 || type == Type::bf16; }
inline size_t bytes_of(Type type) { return type == Type::f32 ? 4 : 2; }

float load(const void* data, Type type, size_t index);
void store(void* data, Type type, size_t index, float value);

/// A matrix stored by columns, as BLAS has it.
struct Matrix {
    void* data;
    Type type;
    int64_t stride;  // between columns
    bool transposed;

    size_t at(int64_t row, int64_t column) const {
        return size_t(transposed ? row * stride + column : column * stride + row);
    }
};

struct Product {
    int64_t m, n, k;
    float alpha, beta;
    Matrix a, b, c;
    bool tf32;  // operands are rounded as the tensor cores would
};

/// C = alpha·A·B + beta·C, accumulated in f32. With beta 0, C is not read.
void multiply(const Product&);

}  // namespace vcublas
#pragma GCC visibility pop
