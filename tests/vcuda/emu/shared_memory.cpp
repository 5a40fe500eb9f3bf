// The block's shared memory: NaN before every block, so that what is read before it is written shows.
#include <algorithm>
#include <map>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "scheduler.h"

// Laid out by the linker: the function-local statics of all kernel files (shared.ld).
extern "C" {
extern char simt_shared_start[] __attribute__((visibility("hidden")));
extern char simt_shared_stop[] __attribute__((visibility("hidden")));
}

namespace simt {
namespace {

// A NaN as f32, f16 and bf16; as an index it is far out of every array.
constexpr uint32_t poison_word = 0x7fff7fff;
constexpr size_t chunk_bytes = 1024;

alignas(1024) char dynamic_memory[228 << 10];

struct Chunk {
    uint32_t* words;
    size_t count;
};

/// What a kernel was seen to write of the static shared memory. Filling all kernels' memory before each block would
/// take longer than most blocks do.
struct Footprint {
    uint64_t launches = 0;
    std::vector<Chunk> chunks;

    /// Looked at ever less often: it hardly changes from launch to launch, or from block to block.
    bool is_learning() const { return (launches & (launches - 1)) == 0; }
};
std::map<const Kernel*, Footprint> footprints;
Footprint* footprint;  // of the running kernel

NO_SANITIZE void poison(uint32_t* words, size_t count) {
    for (size_t i = 0; i < count; i++) words[i] = poison_word;
}

NO_SANITIZE bool is_written(const Chunk& chunk) {
    uint32_t difference = 0;
    for (size_t i = 0; i < chunk.count; i++) difference |= chunk.words[i] ^ poison_word;
    return difference != 0;
}

template <class Function>
void each_chunk(Function function) {
    for (char* at = simt_shared_start; at < simt_shared_stop; at += chunk_bytes) {
        size_t bytes = std::min(chunk_bytes, size_t(simt_shared_stop - at));
        function(Chunk{reinterpret_cast<uint32_t*>(at), bytes / 4});
    }
}

}  // namespace

void* dynamic_shared() { return dynamic_memory; }

void open_shared(const Launch& l) {
#ifdef __SANITIZE_ADDRESS__
    // What lies beyond the launch's dynamic shared memory is out of bounds.
    size_t usable = (l.dynamic_shared + 7) & ~size_t(7);
    __asan_unpoison_memory_region(dynamic_memory, sizeof dynamic_memory);
    __asan_poison_memory_region(dynamic_memory + usable, sizeof dynamic_memory - usable);
#endif
    footprint = &footprints[l.kernel];
    footprint->launches++;
    if (footprint->is_learning()) each_chunk([](Chunk chunk) { poison(chunk.words, chunk.count); });
}

void poison_shared(const Launch& l) {
    for (const Chunk& chunk : footprint->chunks) poison(chunk.words, chunk.count);
    poison(reinterpret_cast<uint32_t*>(dynamic_memory), (l.dynamic_shared + 3) / 4);
}

void learn_footprint(uint64_t block) {
    if (block != 0 || !footprint->is_learning()) return;
    footprint->chunks.clear();
    each_chunk([](Chunk chunk) {
        if (is_written(chunk)) footprint->chunks.push_back(chunk);
    });
}

}  // namespace simt
