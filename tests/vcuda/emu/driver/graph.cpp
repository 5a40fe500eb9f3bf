// Stream capture and graphs: work is kept with what it depends on, and runs again at every launch of the graph.
#include <algorithm>
#include <thread>

#include "driver.h"

namespace vcuda {
namespace {

struct Node {
    std::function<Result()> run;
    Context* context;
    std::vector<int> after;  // indices of earlier nodes
};

struct Graph {
    std::vector<Node> nodes;
};

enum class Mode { global, thread_local_, relaxed };

}  // namespace

struct Capture {
    std::shared_ptr<Graph> graph = std::make_shared<Graph>();
    Stream* origin;
    std::vector<Stream*> members;
    Mode mode;
    std::thread::id thread;
    bool invalidated = false;
};

namespace {

std::set<Capture*> captures;  // those under way
std::map<void*, std::shared_ptr<Graph>> graphs;
std::map<void*, std::shared_ptr<Graph>> executables;

void add_all(std::vector<int>& to, const std::vector<int>& from) {
    for (int node : from)
        if (std::find(to.begin(), to.end(), node) == to.end()) to.push_back(node);
}

Result invalidate(Capture& capture, Result reason) {
    capture.invalidated = true;
    return reason;
}

/// Runs a graph's nodes in an order that their dependencies allow: as captured, or the latest or any ready node first.
Result run_graph(const Graph& graph) {
    std::vector<char> done(graph.nodes.size());
    for (size_t n = 0; n < graph.nodes.size(); n++) {
        std::vector<size_t> ready;
        for (size_t i = 0; i < graph.nodes.size(); i++) {
            const auto& after = graph.nodes[i].after;
            bool is_ready = !done[i] && std::all_of(after.begin(), after.end(), [&](int j) { return done[size_t(j)]; });
            if (is_ready) ready.push_back(i);
            if (is_ready && options.streams == StreamOrder::eager) break;
        }
        size_t pick = options.streams == StreamOrder::eager   ? ready.front()
                      : options.streams == StreamOrder::lazy ? ready.back()
                                                             : ready[random_number() % ready.size()];
        const Node& node = graph.nodes[pick];
        done[pick] = true;
        if (!node.run || node.context->error) continue;
        if (Result result = node.run()) node.context->error = result;
    }
    return SUCCESS;
}

}  // namespace

Result capture_work(Stream* stream, Work work) {
    Capture& capture = *stream->capture;
    if (capture.invalidated) return STREAM_CAPTURE_INVALIDATED;
    capture.graph->nodes.push_back({std::move(work.run), stream->context, stream->capture_after});
    stream->capture_after = {int(capture.graph->nodes.size()) - 1};
    return SUCCESS;
}

Result capture_record(Event* event, Stream* stream) {
    event->moment = nullptr;
    event->capture = stream->capture;
    event->capture_after = stream->capture_after;
    return SUCCESS;
}

Result capture_wait(Stream* stream, Event* event) {
    if (!event->capture) {
        if (!event->moment) return SUCCESS;
        return invalidate(*stream->capture, STREAM_CAPTURE_ISOLATION);  // recorded outside of the capture
    }
    if (!captures.count(event->capture.get())) return CAPTURED_EVENT;
    if (!stream->capture) {  // the wait draws the stream into the capture
        stream->capture = event->capture;
        stream->capture_after.clear();
        event->capture->members.push_back(stream);
    }
    if (stream->capture != event->capture) return invalidate(*stream->capture, STREAM_CAPTURE_ISOLATION);
    add_all(stream->capture_after, event->capture_after);
    return SUCCESS;
}

Result refuse_in_capture(Stream* stream) {
    return stream->capture ? invalidate(*stream->capture, STREAM_CAPTURE_UNSUPPORTED) : SUCCESS;
}

Result refuse_in_capture_mode() {
    for (Capture* capture : captures) {
        bool concerned = capture->mode == Mode::global ||
                         (capture->mode == Mode::thread_local_ && capture->thread == std::this_thread::get_id());
        if (concerned) return invalidate(*capture, STREAM_CAPTURE_UNSUPPORTED);
    }
    return SUCCESS;
}

}  // namespace vcuda

using namespace vcuda;

API Result cuStreamBeginCapture_v2(void* handle, int mode) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->capture) return INVALID_VALUE;
    if (stream == &current_context->null_stream) return STREAM_CAPTURE_UNSUPPORTED;
    auto capture = std::make_shared<Capture>();
    capture->origin = stream;
    capture->members = {stream};
    capture->mode = Mode(mode);
    capture->thread = std::this_thread::get_id();
    captures.insert(capture.get());
    stream->capture = capture;
    stream->capture_after.clear();
    return SUCCESS;
}

API Result cuStreamEndCapture(void* handle, void** graph) {
    ENTER;
    *graph = nullptr;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return INVALID_VALUE;
    if (capture->origin != stream) return STREAM_CAPTURE_UNMATCHED;
    if (capture->mode == Mode::thread_local_ && capture->thread != std::this_thread::get_id())
        return STREAM_CAPTURE_WRONG_THREAD;
    // Every node must lie before the origin's last: work that was not joined back would be lost.
    std::vector<int> reached = stream->capture_after;
    for (size_t i = 0; i < reached.size(); i++) add_all(reached, capture->graph->nodes[size_t(reached[i])].after);
    for (Stream* member : capture->members) {
        member->capture = nullptr;
        member->capture_after.clear();
    }
    captures.erase(capture.get());
    if (capture->invalidated) return STREAM_CAPTURE_INVALIDATED;
    if (reached.size() != capture->graph->nodes.size()) return STREAM_CAPTURE_UNJOINED;
    *graph = capture->graph.get();
    graphs[*graph] = capture->graph;
    return SUCCESS;
}

API Result cuStreamIsCapturing(void* handle, int* status) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *status = !stream->capture ? 0 : stream->capture->invalidated ? 2 : 1;
    return SUCCESS;
}

API Result cuThreadExchangeStreamCaptureMode(int* mode) {
    *mode = int(Mode::global);
    return SUCCESS;
}

API Result cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
    ENTER;
    constexpr unsigned long long auto_free = 1, device_launch = 4, known = 15;
    auto found = graphs.find(graph);
    if (found == graphs.end()) return INVALID_VALUE;
    if (flags & ~known || (flags & auto_free && flags & device_launch)) return INVALID_VALUE;
    auto copy = std::make_shared<Graph>(*found->second);
    *executable = copy.get();
    executables[*executable] = copy;
    return SUCCESS;
}

API Result cuGraphUpload(void* executable, void*) {
    ENTER;
    return executables.count(executable) ? SUCCESS : INVALID_VALUE;
}

API Result cuGraphLaunch(void* executable, void* handle) {
    ENTER;
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    auto found = executables.find(executable);
    if (found == executables.end()) return INVALID_VALUE;
    if (Result refused = refuse_in_capture(stream)) return refused;
    // A graph's own memory is taken at its first launch.
    if (!options.launch_graphs) return OUT_OF_MEMORY;
    Work work;
    work.run = [graph = found->second] {
        counters.graph_launches++;
        return run_graph(*graph);
    };
    return submit(stream, std::move(work));
}

API Result cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
    ENTER;
    auto found = graphs.find(graph);
    if (found == graphs.end()) return INVALID_VALUE;
    size_t all = found->second->nodes.size();
    for (size_t i = 0; nodes && i < *count; i++) nodes[i] = i < all ? &found->second->nodes[i] : nullptr;
    if (!nodes || *count > all) *count = all;
    return SUCCESS;
}

API Result cuGraphDestroy(void* graph) {
    ENTER_WITHOUT_CONTEXT;
    return graphs.erase(graph) ? SUCCESS : INVALID_VALUE;
}

API Result cuGraphExecDestroy(void* executable) {
    ENTER_WITHOUT_CONTEXT;
    return executables.erase(executable) ? SUCCESS : INVALID_VALUE;
}
