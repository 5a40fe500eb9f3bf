//! Two devices, two host threads, two contexts.

use crate::{Gpu, STREAMS, session};
use cudarc::driver::sys::{self, CUresult::*};
use cudarc::driver::{CudaContext, DevicePtr, result};
use std::sync::{Barrier, Mutex};
use vcuda::Options;

/// Two host threads, one per GPU: each computes, and they exchange what they have, ordered by
/// events. Returns whether both end with the right numbers.
fn exchange(ordinals: [usize; 2], rounds: usize) -> bool {
    const N: usize = 1000;
    let gpus: Vec<Gpu> = ordinals.iter().map(|ordinal| Gpu::new(*ordinal)).collect();
    let addresses = Mutex::new([0u64; 2]);
    let events = Mutex::new([None, None]);
    let together = Barrier::new(2);
    let right: Vec<bool> = std::thread::scope(|scope| {
        let worker = |me: usize| {
            let (gpu, other) = (&gpus[me], &gpus[1 - me]);
            let (context, peer) = (gpu.stream.context().clone(), other.stream.context().clone());
            let (addresses, events, together) = (&addresses, &events, &together);
            move || {
                let stream = &gpu.stream;
                context.bind_to_thread().unwrap();
                let one = stream.clone_htod(&vec![1.0f32; N]).unwrap();
                let mut own = stream.clone_htod(&vec![me as f32; N]).unwrap();
                let inbox = stream.alloc_zeros::<f32>(N).unwrap();
                stream.synchronize().unwrap();
                addresses.lock().unwrap()[me] = inbox.device_ptr(stream).0;
                together.wait();
                let outbox = addresses.lock().unwrap()[1 - me];
                let publish = |event| {
                    events.lock().unwrap()[me] = Some(event);
                    together.wait();
                    let theirs = events.lock().unwrap()[1 - me].take().unwrap();
                    stream.wait(&theirs).unwrap();
                    together.wait();
                };
                for _ in 0..rounds {
                    gpu.axpy(stream, &mut own, 1.0, &one);
                    let from = own.device_ptr(stream).0;
                    let (to_ctx, from_ctx) = (peer.cu_ctx(), context.cu_ctx());
                    // SAFETY: both sides hold N floats until the scope ends.
                    unsafe {
                        result::memcpy_peer_async(
                            to_ctx,
                            outbox,
                            from_ctx,
                            from,
                            N * 4,
                            stream.cu_stream(),
                        )
                    }
                    .unwrap();
                    publish(stream.record_event(None).unwrap()); // the other's half has arrived
                    gpu.axpy(stream, &mut own, 1.0, &inbox);
                    publish(stream.record_event(None).unwrap()); // my inbox may be overwritten
                }
                let got = stream.clone_dtoh(&own).unwrap();
                together.wait();
                // The same on the host: each adds one, then what the other sent.
                let mut pair = [0.0f32, 1.0];
                for _ in 0..rounds {
                    let next = [pair[0] + 1.0, pair[1] + 1.0];
                    pair = [next[0] + next[1], next[1] + next[0]];
                }
                got == vec![pair[me]; N]
            }
        };
        let handles = [scope.spawn(worker(0)), scope.spawn(worker(1))];
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .collect()
    });
    right == [true, true]
}

#[test]
fn two_host_threads_exchange_halves() {
    for streams in STREAMS {
        for ordinals in [[0, 1], [0, 0]] {
            let Some(session) = session(Options {
                streams: Some(streams),
                ..Options::default()
            }) else {
                return;
            };
            assert!(exchange(ordinals, 10), "{streams:?} {ordinals:?}");
            assert_eq!(session.counters().peer_bytes, 2 * 10 * 4000);
        }
    }
}

#[test]
fn a_corrupting_link_shows_between_devices_only() {
    let Some(_session) = session(Options {
        corrupt_peer: Some(true),
        ..Options::default()
    }) else {
        return;
    };
    assert!(!exchange([0, 1], 1));
    assert!(exchange([0, 0], 1));
}

#[test]
fn peer_access_can_be_absent() {
    for peer_access in [true, false] {
        let Some(_session) = session(Options {
            peer_access: Some(peer_access),
            ..Options::default()
        }) else {
            return;
        };
        let gpus = [Gpu::new(0), Gpu::new(1)];
        let mut can = -1;
        // SAFETY: both contexts live to the end of the round.
        let enabled = unsafe {
            sys::cuDeviceCanAccessPeer(&mut can, 0, 1).result().unwrap();
            gpus[0].stream.context().bind_to_thread().unwrap();
            sys::cuCtxEnablePeerAccess(gpus[1].stream.context().cu_ctx(), 0)
        };
        assert_eq!(can, i32::from(peer_access));
        assert_eq!(
            enabled,
            if peer_access {
                CUDA_SUCCESS
            } else {
                CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
            }
        );
        drop(gpus);
        assert!(
            exchange([0, 1], 1),
            "the driver stages the copy through the host"
        );
    }
}

#[test]
fn two_contexts_on_one_device_work_side_by_side() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let contexts = [
        CudaContext::new(0).unwrap(),
        CudaContext::new_non_primary(0, 0).unwrap(),
    ];
    let streams = contexts
        .each_ref()
        .map(|context| context.new_stream().unwrap());
    let x = streams[0].clone_htod(&[7.0f32; 100]).unwrap();
    streams[0].synchronize().unwrap();
    let mut y = streams[1].alloc_zeros::<f32>(100).unwrap();
    streams[1].memcpy_dtod(&x, &mut y).unwrap();
    assert_eq!(streams[1].clone_dtoh(&y).unwrap(), [7.0; 100]);
}
