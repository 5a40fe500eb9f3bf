//! Stream capture and graphs.

use crate::{Gpu, STREAMS, session};
use cudarc::driver::sys::{self, CUresult::*};
use vcuda::Options;

#[test]
fn a_captured_graph_replays_across_streams() {
    for streams in STREAMS {
        let Some(session) = session(Options {
            streams: Some(streams),
            ..Options::default()
        }) else {
            return;
        };
        let gpu = Gpu::new(0);
        let side = gpu.stream.context().new_stream().unwrap();
        let x = gpu.stream.clone_htod(&[1.0f32; 500]).unwrap();
        let mut y = gpu.stream.alloc_zeros::<f32>(500).unwrap();
        gpu.stream.synchronize().unwrap();

        gpu.stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .unwrap();
        gpu.axpy(&gpu.stream, &mut y, 1.0, &x);
        side.wait(&gpu.stream.record_event(None).unwrap()).unwrap();
        gpu.axpy(&side, &mut y, 10.0, &x);
        gpu.stream.wait(&side.record_event(None).unwrap()).unwrap();
        let graph = gpu
            .stream
            .end_capture(sys::CUgraphInstantiate_flags(0))
            .unwrap()
            .unwrap();

        assert_eq!(
            gpu.stream.clone_dtoh(&y).unwrap(),
            [0.0; 500],
            "capturing runs nothing"
        );
        vcuda::reset_counters();
        for _ in 0..3 {
            graph.launch().unwrap();
        }
        assert_eq!(session.counters().host_synchronisations, 0);
        assert_eq!(gpu.stream.clone_dtoh(&y).unwrap(), [33.0; 500]);
        assert_eq!(session.counters().graph_launches, 3);
        assert_eq!(session.counters().launches, 6);
    }
}

#[test]
fn a_capture_refuses_what_a_gpu_refuses() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let x = gpu.stream.clone_htod(&[1.0f32; 10]).unwrap();
    let outside = gpu.stream.record_event(None).unwrap();
    let side = gpu.stream.context().new_stream().unwrap();
    let begin = || {
        gpu.stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
            .unwrap()
    };
    let end = || {
        gpu.stream
            .end_capture(sys::CUgraphInstantiate_flags(0))
            .err()
            .map(|error| error.0)
    };

    begin();
    assert_eq!(
        gpu.stream.synchronize().unwrap_err().0,
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    );
    assert_eq!(end(), Some(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));

    begin();
    assert_eq!(
        gpu.stream.wait(&outside).unwrap_err().0,
        CUDA_ERROR_STREAM_CAPTURE_ISOLATION
    );
    assert_eq!(end(), Some(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));

    let mut y = gpu.stream.alloc_zeros::<f32>(10).unwrap();
    begin();
    side.wait(&gpu.stream.record_event(None).unwrap()).unwrap();
    gpu.axpy(&side, &mut y, 1.0, &x);
    assert_eq!(end(), Some(CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
    gpu.stream.synchronize().unwrap();
}
