// Softmax, loss and error counts: one block of 128 threads an image.
#include "index.cuh"
#include "reduce.cuh"

constexpr int THREADS = 32 * REDUCE_WARPS;

// Largest logit, and the sum of exp(logit − largest).
struct Normaliser {
    float largest, sum;
};

__device__ __forceinline__ Normaliser normalise(const float* logits, int classes, float (&scratch)[REDUCE_WARPS]) {
    Normaliser n;
    float largest = -INFINITY;
    for (int c = static_cast<int>(threadIdx.x); c < classes; c += THREADS) largest = Larger()(logits[c], largest);
    n.largest = block_reduce(largest, scratch, Larger());
    float sum = 0.0f;
    for (int c = static_cast<int>(threadIdx.x); c < classes; c += THREADS) sum += expf(logits[c] - n.largest);
    n.sum = block_reduce(sum, scratch, Plus());
    return n;
}

extern "C" __global__ void __launch_bounds__(128)
    softmax_forward(const float* __restrict__ logits, float* __restrict__ probabilities, int classes) {
    __shared__ float scratch[REDUCE_WARPS];
    const int first = static_cast<int>(blockIdx.x) * classes;
    const Normaliser n = normalise(logits + first, classes, scratch);
    for (int c = static_cast<int>(threadIdx.x); c < classes; c += THREADS)
        probabilities[first + c] = expf(logits[first + c] - n.largest) / n.sum;
}

// dlogits = (probabilities − one-hot(label)) · scale · *loss_scale, one thread an element.
template <class T>
__device__ __forceinline__ void backward(const float* __restrict__ probabilities, const unsigned* __restrict__ labels,
                                         T* __restrict__ dlogits, int elements, float scale,
                                         const float* __restrict__ loss_scale, const Divider& classes) {
    const int i = global_thread();
    if (i >= elements) return;
    int c = i;
    const unsigned label = labels[classes.take(c)];
    const float factor = loss_scale != nullptr ? scale * *loss_scale : scale;
    dlogits[i] = narrow<T>((probabilities[i] - (static_cast<unsigned>(c) == label ? 1.0f : 0.0f)) * factor);
}

#define SOFTMAX_KERNEL(suffix, T)                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                          \
        softmax_backward##suffix(const float* __restrict__ probabilities, const unsigned* __restrict__ labels, \
            T* __restrict__ dlogits, int elements, float scale,                                                \
            const float* __restrict__ loss_scale, Divider classes) {                                           \
        backward(probabilities, labels, dlogits, elements, scale, loss_scale, classes);                        \
    }

FOR_EACH_TYPE(SOFTMAX_KERNEL)

// Loss of one image, and whether its label is missing from the first one and the first five.
struct ImageScore {
    float loss;
    int top1_error, top5_error;
};

// The sums of src/device's `Score`.
struct Tally {
    double loss;
    unsigned long long top1_errors, top5_errors;
};

extern "C" __global__ void __launch_bounds__(128)
    score_images(const float* __restrict__ logits, const unsigned* __restrict__ labels,
                 ImageScore* __restrict__ scores, int classes) {
    __shared__ float scratch[REDUCE_WARPS];
    __shared__ int counts[REDUCE_WARPS];
    const float* row = logits + static_cast<int>(blockIdx.x) * classes;
    const unsigned label = labels[blockIdx.x];
    const Normaliser n = normalise(row, classes, scratch);
    // A label that is no class, and a logit that is no number, count as errors with a loss that is no number.
    const bool known = label < static_cast<unsigned>(classes);
    const float own = known ? row[label] : NAN;
    int before = 0;
    for (int c = static_cast<int>(threadIdx.x); c < classes; c += THREADS)
        if (static_cast<unsigned>(c) != label && (!(row[c] <= own) || (row[c] == own && c < static_cast<int>(label))))
            ++before;
    before = block_reduce(before, counts, Plus());
    if (threadIdx.x == 0) scores[blockIdx.x] = {n.largest - own + logf(n.sum), before >= 1, before >= 5};
}

// One block adds the images' scores to the tally.
extern "C" __global__ void __launch_bounds__(128)
    score_add(const ImageScore* __restrict__ scores, Tally* __restrict__ tally, int images) {
    __shared__ double losses[THREADS];
    __shared__ int top1[THREADS], top5[THREADS];
    const int t = static_cast<int>(threadIdx.x);
    double loss = 0.0;
    int first = 0, five = 0;
    for (int i = t; i < images; i += THREADS) {
        const ImageScore score = scores[i];
        loss += static_cast<double>(score.loss);
        first += score.top1_error;
        five += score.top5_error;
    }
    losses[t] = loss, top1[t] = first, top5[t] = five;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) losses[t] += losses[t + half], top1[t] += top1[t + half], top5[t] += top5[t + half];
    }
    if (t == 0) {
        tally->loss += losses[0];
        tally->top1_errors += static_cast<unsigned long long>(top1[0]);
        tally->top5_errors += static_cast<unsigned long long>(top5[0]);
    }
}
