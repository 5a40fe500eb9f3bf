// wgmma: products of four warps, whose operands are read in shared memory while the threads go on. Each warp computes its
// 16 rows of D; when, the schedule says: at the wait, or at once.
#include <cstring>
#include <utility>
#include <vector>

#include "scheduler.h"
#include "shim/half.h"

namespace simt {
namespace {

constexpr int warp_width = 32, rows_of_warp = 16, depth = 16, most_columns = 256;
constexpr uint64_t swizzle_128 = 1;
using Octet = float __attribute__((vector_size(32), aligned(4)));

struct Pending {
    WarpgroupProduct product;
    float* sums[warp_width];
    int group;
};

struct Warp {
    std::vector<Pending> pending;
    int group = 0;
    bool fenced = false;
    // what it issued, to be compared with the other warps of its group
    uint64_t count = 0, digest = 0;
};
Warp warps[max_threads_per_block / warp_width];
uint64_t issued_products;

/// What a lane hands in.
struct Request {
    int warp;
    WarpgroupProduct product;
    int groups_left;
};

int own_warp() { return int(current - threads) / warp_width; }

/// Place in the window of shared memory of row `i` (or column) and depth `k` of an operand with swizzled rows of 128
/// bytes: along K, or along rows where it is transposed. PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory
/// Layout".
NO_SANITIZE unsigned element_address(uint64_t descriptor, int i, int k, bool transposed) {
    auto field = [descriptor](int first) { return unsigned(descriptor >> first & 0x3fff) << 4; };
    unsigned start = field(0), leading = field(16), stride = field(32), address;
    if (transposed)
        address = start + unsigned(i / 64) * leading + unsigned(i % 64) * 2 + unsigned(k / 8) * stride + unsigned(k % 8) * 128;
    else
        address = start + unsigned(i / 8) * stride + unsigned(i % 8) * 128 + unsigned(k) * 2;
    return address ^ ((address >> 7 & 7) << 4);
}

NO_SANITIZE const char* operand(uint64_t descriptor, int i, int k, bool transposed) {
    unsigned address = element_address(descriptor, i, k, transposed);
    if (address < shared_window || address + 2 > shared_window + launch->dynamic_shared)
        trap("wgmma: an operand lies outside the block's dynamic shared memory");
    return static_cast<const char*>(dynamic_shared()) + (address - shared_window);
}

NO_SANITIZE float value(const WarpgroupProduct& product, const char* place) {
    uint16_t bits;
    memcpy(&bits, place, 2);
    return product.is_bfloat ? bfloat_to_float(bits) : half_to_float(bits);
}

NO_SANITIZE void multiply(const Pending& pending, int warp) {
    const WarpgroupProduct& product = pending.product;
    float a[rows_of_warp][depth], b[depth][most_columns];
    int first_row = warp % 4 * rows_of_warp;
    for (int k = 0; k < depth; k++) {
        for (int row = 0; row < rows_of_warp; row++)
            a[row][k] = value(product, operand(product.a, first_row + row, k, product.a_transposed));
        for (int n = 0; n < product.columns; n++)
            b[k][n] = value(product, operand(product.b, n, k, product.b_transposed));
    }
    for (int row = 0; row < rows_of_warp; row++) {
        for (int n = 0; n < product.columns; n += 8) {
            Octet sum{};
            for (int k = 0; k < depth; k++) sum += a[row][k] * *reinterpret_cast<const Octet*>(&b[k][n]);
            for (int i = 0; i < 8; i++)
                pending.sums[row % 8 * 4 + i / 2][n / 2 + row / 8 * 2 + i % 2] += sum[i];
        }
    }
}

/// Counts the operands as read by the warp's lanes, 16 bytes each in turn, or a missing barrier before or after the
/// product would go unseen.
void touch([[maybe_unused]] const WarpgroupProduct& product) {
#ifdef SIMT_TSAN
    int lane = int(position.lane);
    auto read = [lane](uint64_t descriptor, int rows, bool transposed) {
        for (int chunk = lane; chunk < rows * 2; chunk += warp_width) {
            int i = transposed ? chunk % (rows / 8) * 8 : chunk / 2, k = transposed ? chunk / (rows / 8) : chunk % 2 * 8;
            TSAN_READ(operand(descriptor, i, k, transposed), 16);
        }
    };
    read(product.a, 64, product.a_transposed);
    read(product.b, product.columns, product.b_transposed);
#endif
}

void expect_whole_warp(unsigned mask) {
    if (mask != 0xffffffffu) trap("wgmma needs the whole warp");
}

void expect_descriptor(uint64_t descriptor) {
    if (descriptor >> 62 != swizzle_128 || (descriptor >> 49 & 7))
        trap("wgmma: only operands swizzled by 128 bytes, from multiples of 1024 on, are known here");
}

void issue(void** lanes, unsigned mask) {
    expect_whole_warp(mask);
    auto* first = static_cast<Request*>(lanes[0]);
    Warp& warp = warps[first->warp];
    if (!warp.fenced) trap("wgmma.mma_async: its registers were used since the last wgmma.fence");
    for (unsigned i = 0; i < launch->block.x; i++)
        if (threads[i].unfenced_writes)
            trap("wgmma.mma_async: copies of cp.async were not made visible to it by fence.proxy.async");
    Pending pending{first->product, {}, warp.group};
    for (int lane = 0; lane < warp_width; lane++) {
        const WarpgroupProduct& product = static_cast<Request*>(lanes[lane])->product;
        if (product.a != first->product.a || product.b != first->product.b)
            trap("wgmma.mma_async: the lanes of a warp name different operands");
        pending.sums[lane] = product.sums;
    }
    expect_descriptor(first->product.a), expect_descriptor(first->product.b);
    warp.count++, issued_products++;
    warp.digest = (warp.digest ^ first->product.a * 31 ^ first->product.b) * 0x9e3779b97f4a7c15ull;
    if (schedule.deferred_copies) warp.pending.push_back(pending);
    else multiply(pending, first->warp);
}

void fence(void** lanes, unsigned mask) {
    expect_whole_warp(mask);
    warps[static_cast<Request*>(lanes[0])->warp].fenced = true;
}

void commit(void** lanes, unsigned mask) {
    expect_whole_warp(mask);
    warps[static_cast<Request*>(lanes[0])->warp].group++;
}

void complete(void** lanes, unsigned mask) {
    expect_whole_warp(mask);
    auto* first = static_cast<Request*>(lanes[0]);
    Warp& warp = warps[first->warp];
    size_t done = 0;
    while (done < warp.pending.size() && warp.pending[done].group < warp.group - first->groups_left)
        multiply(warp.pending[done++], first->warp);
    warp.pending.erase(warp.pending.begin(), warp.pending.begin() + long(done));
    if (first->groups_left == 0) warp.fenced = false;
}

}  // namespace

unsigned shared_address(const void* place) {
    return shared_window + unsigned(static_cast<const char*>(place) - static_cast<const char*>(dynamic_shared()));
}

void fence_proxy_async() { current->unfenced_writes = false; }

void warpgroup_fence() {
    Request mine{own_warp(), {}, 0};
    warp_collective(0xffffffffu, fence, &mine);
}

void warpgroup_multiply(const WarpgroupProduct& product) {
    Request mine{own_warp(), product, 0};
    touch(product);
    warp_collective(0xffffffffu, issue, &mine);
}

void warpgroup_commit() {
    Request mine{own_warp(), {}, 0};
    warp_collective(0xffffffffu, commit, &mine);
}

void warpgroup_wait(int groups_left) {
    Request mine{own_warp(), {}, groups_left};
    const Warp& warp = warps[mine.warp];
    // Until here they may be read.
    for (const Pending& pending : warp.pending)
        if (pending.group < warp.group - groups_left) touch(pending.product);
    warp_collective(0xffffffffu, complete, &mine);
}

uint64_t take_issued_products() { return std::exchange(issued_products, 0); }

void open_warpgroups(int thread_count) {
    for (int warp = 0; warp * warp_width < thread_count; warp++) warps[warp] = {};
}

void close_warpgroups(int thread_count) {
    for (int i = 0; i * warp_width < thread_count; i++) {
        const Warp &warp = warps[i], &first = warps[i / 4 * 4];
        if (!warp.pending.empty()) trap("the block ends with a wgmma under way");
        if (warp.count != first.count || warp.digest != first.digest)
            trap("wgmma.mma_async: the four warps of a group did not issue the same products");
        if (warp.count != 0 && (i / 4 + 1) * 4 * warp_width > thread_count)
            trap("wgmma.mma_async: a group of less than four warps");
    }
}

}  // namespace simt
