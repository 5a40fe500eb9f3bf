// A virtual libcublas.so: matrix products, queued in the handle's stream like kernels.
#include <cstring>
#include <memory>
#include <vector>

#include "gemm.h"

#define API extern "C" __attribute__((visibility("default")))

// From the virtual driver, which is always loaded first.
extern "C" int vcuda_enqueue(void* stream, int (*run)(void*), void* argument, void (*drop)(void*));
extern "C" int vcuda_may_touch(const void* pointer, size_t bytes);
extern "C" int cuCtxGetCurrent(void** context);

using namespace vcublas;

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };

struct Handle {
    void* stream = nullptr;
    int math_mode = 0, pointer_mode = 0, atomics_mode = 0;
};

constexpr int tf32_mode = 3, device_pointers = 1;
constexpr int compute_f32 = 68, compute_f32_pedantic = 69, compute_fast_f16 = 74, compute_fast_bf16 = 75,
              compute_fast_tf32 = 77;

/// One call: the same product for every member of a batch, `strides` apart.
struct Job {
    Product product;
    const void *alpha, *beta;
    bool scalars_on_device;
    int64_t stride_a, stride_b, stride_c;
    int batch;
};

/// Elements that a matrix reaches over in memory.
size_t reach(const Matrix& m, int64_t rows, int64_t columns) {
    if (m.transposed) std::swap(rows, columns);
    return size_t(m.stride * (columns - 1) + rows);
}

bool is_dense_enough(const Matrix& m, int64_t rows, int64_t columns) {
    return m.stride >= (m.transposed ? columns : rows) && m.stride > 0;
}

Status check_memory(const Matrix& m, int64_t rows, int64_t columns, int64_t stride, int batch) {
    size_t elements = reach(m, rows, columns) + size_t(stride) * size_t(batch - 1);
    return vcuda_may_touch(m.data, elements * bytes_of(m.type)) ? INVALID_VALUE : SUCCESS;
}

Status check(const Job& job) {
    const Product& p = job.product;
    if (p.m < 0 || p.n < 0 || p.k < 0 || job.batch < 0) return INVALID_VALUE;
    if (!is_supported(p.a.type) || !is_supported(p.b.type) || !is_supported(p.c.type)) return NOT_SUPPORTED;
    if (p.a.type != p.b.type) return NOT_SUPPORTED;
    if (!job.alpha || !job.beta) return INVALID_VALUE;
    if (!is_dense_enough(p.a, p.m, p.k) || !is_dense_enough(p.b, p.k, p.n) || !is_dense_enough(p.c, p.m, p.n))
        return INVALID_VALUE;
    if (!p.m || !p.n || !job.batch) return SUCCESS;
    Status bad = check_memory(p.c, p.m, p.n, job.stride_c, job.batch);
    if (!bad && p.k) bad = check_memory(p.a, p.m, p.k, job.stride_a, job.batch);
    if (!bad && p.k) bad = check_memory(p.b, p.k, p.n, job.stride_b, job.batch);
    return bad;
}

void* shifted(const Matrix& m, int64_t elements) {
    return static_cast<char*>(m.data) + elements * int64_t(bytes_of(m.type));
}

int run(void* argument) {
    Job& job = *static_cast<Job*>(argument);
    if (job.scalars_on_device) {
        memcpy(&job.product.alpha, job.alpha, sizeof(float));
        memcpy(&job.product.beta, job.beta, sizeof(float));
    }
    for (int i = 0; i < job.batch; i++) {
        Product one = job.product;
        one.a.data = shifted(one.a, i * job.stride_a);
        one.b.data = shifted(one.b, i * job.stride_b);
        one.c.data = shifted(one.c, i * job.stride_c);
        multiply(one);
    }
    return 0;
}

Status enqueue(Handle* handle, Job job, int compute) {
    if (!handle) return NOT_INITIALIZED;
    bool known = compute == compute_f32 || compute == compute_f32_pedantic || compute == compute_fast_f16 ||
                 compute == compute_fast_bf16 || compute == compute_fast_tf32;
    if (!known) return NOT_SUPPORTED;
    job.product.tf32 = compute == compute_fast_tf32 || (compute == compute_f32 && handle->math_mode == tf32_mode);
    job.product.tf32 &= job.product.a.type == Type::f32;
    if (Status bad = check(job)) return bad;
    job.scalars_on_device = handle->pointer_mode == device_pointers;
    if (!job.scalars_on_device) {
        memcpy(&job.product.alpha, job.alpha, sizeof(float));
        memcpy(&job.product.beta, job.beta, sizeof(float));
    }
    if (!job.product.m || !job.product.n || !job.batch) return SUCCESS;
    auto drop = [](void* owned) { delete static_cast<Job*>(owned); };
    return vcuda_enqueue(handle->stream, run, new Job(job), drop) ? EXECUTION_FAILED : SUCCESS;
}

/// BLAS argument order to a Job. `operation` is 0 for a matrix as it is stored, 1 or 2 transposed.
Job describe(int operation_a, int operation_b, int m, int n, int k, const void* alpha, const void* a, int type_a,
             int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc) {
    Job job{};
    job.product.m = m, job.product.n = n, job.product.k = k;
    job.product.a = {const_cast<void*>(a), Type(type_a), lda, operation_a != 0};
    job.product.b = {const_cast<void*>(b), Type(type_b), ldb, operation_b != 0};
    job.product.c = {c, Type(type_c), ldc, false};
    job.alpha = alpha, job.beta = beta;
    job.batch = 1;
    return job;
}

Job batched(Job job, long long stride_a, long long stride_b, long long stride_c, int batch) {
    job.stride_a = stride_a, job.stride_b = stride_b, job.stride_c = stride_c;
    job.batch = batch;
    return job;
}

constexpr int f32 = int(Type::f32);

}  // namespace

// ---- handles --------------------------------------------------------------------------------------

API Status cublasCreate_v2(Handle** handle) {
    void* context = nullptr;
    if (cuCtxGetCurrent(&context) || !context) return NOT_INITIALIZED;
    *handle = new Handle;
    return SUCCESS;
}

API Status cublasDestroy_v2(Handle* handle) {
    delete handle;
    return SUCCESS;
}

API Status cublasGetVersion_v2(Handle*, int* version) {
    *version = 120804;
    return SUCCESS;
}

API Status cublasSetStream_v2(Handle* handle, void* stream) {
    if (!handle) return NOT_INITIALIZED;
    handle->stream = stream;
    return SUCCESS;
}

API Status cublasGetStream_v2(Handle* handle, void** stream) {
    if (!handle) return NOT_INITIALIZED;
    *stream = handle->stream;
    return SUCCESS;
}

API Status cublasSetWorkspace_v2(Handle* handle, void*, size_t) { return handle ? SUCCESS : NOT_INITIALIZED; }

#define SETTING(set, get, field)                  \
    API Status set(Handle* handle, int value) {   \
        if (!handle) return NOT_INITIALIZED;      \
        handle->field = value;                    \
        return SUCCESS;                           \
    }                                             \
    API Status get(Handle* handle, int* value) {  \
        if (!handle) return NOT_INITIALIZED;      \
        *value = handle->field;                   \
        return SUCCESS;                           \
    }
SETTING(cublasSetMathMode, cublasGetMathMode, math_mode)
SETTING(cublasSetPointerMode_v2, cublasGetPointerMode_v2, pointer_mode)
SETTING(cublasSetAtomicsMode, cublasGetAtomicsMode, atomics_mode)

API const char* cublasGetStatusName(Status status) {
    switch (status) {
        case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "CUBLAS_STATUS_UNKNOWN";
}
API const char* cublasGetStatusString(Status status) { return cublasGetStatusName(status); }

// ---- products -------------------------------------------------------------------------------------

API Status cublasSgemm_v2(Handle* handle, int operation_a, int operation_b, int m, int n, int k, const float* alpha,
                          const float* a, int lda, const float* b, int ldb, const float* beta, float* c, int ldc) {
    Job job = describe(operation_a, operation_b, m, n, k, alpha, a, f32, lda, b, f32, ldb, beta, c, f32, ldc);
    return enqueue(handle, job, compute_f32);
}

API Status cublasSgemmStridedBatched(Handle* handle, int operation_a, int operation_b, int m, int n, int k,
                                     const float* alpha, const float* a, int lda, long long stride_a, const float* b,
                                     int ldb, long long stride_b, const float* beta, float* c, int ldc,
                                     long long stride_c, int batch) {
    Job job = describe(operation_a, operation_b, m, n, k, alpha, a, f32, lda, b, f32, ldb, beta, c, f32, ldc);
    return enqueue(handle, batched(job, stride_a, stride_b, stride_c, batch), compute_f32);
}

API Status cublasGemmEx(Handle* handle, int operation_a, int operation_b, int m, int n, int k, const void* alpha,
                        const void* a, int type_a, int lda, const void* b, int type_b, int ldb, const void* beta,
                        void* c, int type_c, int ldc, int compute, int) {
    Job job = describe(operation_a, operation_b, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c, ldc);
    return enqueue(handle, job, compute);
}

API Status cublasGemmStridedBatchedEx(Handle* handle, int operation_a, int operation_b, int m, int n, int k,
                                      const void* alpha, const void* a, int type_a, int lda, long long stride_a,
                                      const void* b, int type_b, int ldb, long long stride_b, const void* beta,
                                      void* c, int type_c, int ldc, long long stride_c, int batch, int compute, int) {
    Job job = describe(operation_a, operation_b, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c, ldc);
    return enqueue(handle, batched(job, stride_a, stride_b, stride_c, batch), compute);
}

/// y = alpha·A·x + beta·y: a product with one column (vectors of stride 1, or columns of a wider matrix).
API Status cublasSgemv_v2(Handle* handle, int operation, int m, int n, const float* alpha, const float* a, int lda,
                          const float* x, int step_x, const float* beta, float* y, int step_y) {
    int rows = operation ? n : m, depth = operation ? m : n;
    if (step_x <= 0 || step_y <= 0) return INVALID_VALUE;
    // As rows: x is 1 x depth with columns step_x apart, and y likewise, so yᵀ = xᵀ·op(A)ᵀ.
    Job job = describe(0, operation ? 0 : 1, 1, rows, depth, alpha, x, f32, step_x, a, f32, lda, beta, y, f32, step_y);
    return enqueue(handle, job, compute_f32);
}
