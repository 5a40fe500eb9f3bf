//! Convolution of two parts whose second one is a message: where it is still on its way from another GPU, the first
//! part is multiplied before it arrives. The bits are those of one launch over both.
#![cfg(feature = "cuda")]

use crate::conv::{self, expected, odd_shapes, op, the_five_layers};
use crate::support::*;
use alexnet_mp::device::Device;
use alexnet_mp::device::cuda::{Buffer, CudaDevice, probe};
use alexnet_mp::network::op::{Activation, Conv};
use alexnet_mp::precision::Precision;
use vcuda::{Driver, Fibres, Options, Session, Streams};

/// A convolution of some images, its operands, and what float64 makes of them.
struct Case {
    op: Conv,
    images: usize,
    operands: conv::Operands,
    y: Vec<f64>,
}

impl Case {
    fn new(op: Conv) -> Self {
        let images = if op.depth() > 1000 { 1 } else { 3 };
        let operands = conv::operands(&op, images);
        let sums = (0..images).flat_map(|image| expected(&op, &operands, image));
        let sums: Vec<f64> = sums.collect();
        let y = match op.activation {
            Some(activation) => activate(activation, &sums),
            None => sums,
        };
        Case {
            op,
            images,
            operands,
            y,
        }
    }
}

/// Shapes for tiles of every width, in f32 and on tensor cores, and conv3's own.
fn cases() -> Vec<Case> {
    let odd = odd_shapes().into_iter().filter(|op| op.parts == 2);
    let tanh = Conv {
        activation: Some(Activation::Tanh),
        ..op((8, 7, 6), 2, 96, (3, 1, 1))
    };
    let none = Conv {
        activation: None,
        ..op((16, 5, 9), 2, 128, (1, 1, 0))
    };
    let more = [
        op((8, 7, 6), 2, 64, (3, 1, 1)),
        tanh,
        none,
        op((5, 6, 7), 2, 48, (3, 2, 1)),
        op((3, 9, 8), 2, 20, (3, 1, 2)),
        the_five_layers()[2],
    ];
    let shapes = affordable(odd.chain(more), |op| {
        op.parts * op.depth() * op.output.len()
    });
    shapes.into_iter().map(Case::new).collect()
}

/// The operands on the GPU that reads the message, and where the output goes.
struct Operands {
    own: Buffer,
    inbox: Buffer,
    weights: Vec<Buffer>,
    bias: Buffer,
    y: Buffer,
}

impl Operands {
    fn new(d: &mut CudaDevice, case: &Case) -> Self {
        let (op, o) = (&case.op, &case.operands);
        let matrix = |w: &Vec<f32>| {
            let mut buffer = d.allocate_weights(w.len()).unwrap();
            d.upload_matrix(op.depth(), op.output.maps, w, &mut buffer)
                .unwrap();
            buffer
        };
        Operands {
            weights: o.weights.iter().map(matrix).collect(),
            own: filled_maps(d, &o.x[0]),
            inbox: filled_maps(d, &vec![5.0; o.x[1].len()]),
            bias: filled(d, &o.bias),
            y: filled_maps(d, &vec![7.0; case.y.len()]),
        }
    }

    fn convolve(&mut self, d: &mut CudaDevice, case: &Case) {
        let (x, weights) = ([&self.own, &self.inbox], all(&self.weights));
        d.conv_forward(&case.op, case.images, &x, &weights, &self.bias, &mut self.y)
            .unwrap();
    }
}

/// Bits of the convolution, and the kernels it takes, of a message on its way; when it is here; in a captured step.
fn outcomes(
    [d, peer]: &mut [CudaDevice; 2],
    case: &Case,
    session: &Session,
    tolerance: f64,
) -> [(Vec<u32>, u64); 3] {
    let sent = filled_maps(peer, &case.operands.x[1]);
    let (elements, mut o) = (case.operands.x[1].len(), Operands::new(d, case));
    let mailbox = CudaDevice::mailbox(peer, d, elements).unwrap();
    let inputs = [&mut *d, &mut *peer].map(|d| d.allocate_input(1, 1).unwrap());
    ["arriving", "here", "captured"].map(|what| {
        let before = session.counters().launches;
        if what == "captured" {
            CudaDevice::begin_capture(&mut [d, peer]).unwrap();
        }
        if what != "here" {
            peer.send(&sent, elements, &mailbox).unwrap();
            d.receive(&mailbox, &mut o.inbox).unwrap();
        }
        o.convolve(d, case);
        if what == "captured" {
            let graph = CudaDevice::end_capture(&mut [d, peer]).unwrap();
            d.upload(&vec![7.0; case.y.len()], &mut o.y).unwrap();
            let [first, second] = &inputs;
            let refused = CudaDevice::launch_graph(&graph, (d, first), Some((peer, second)));
            assert!(refused.unwrap().is_none());
            d.synchronize().unwrap();
        }
        let y = read(d, &o.y, case.y.len());
        assert_close((what, &case.op), &y, &case.y, tolerance);
        let bits = y.iter().map(|y| y.to_bits()).collect();
        (bits, session.counters().launches - before)
    })
}

/// Compares bits in every precision. The first GPU reads what the other one sends; `launches`: of the convolution of a
/// message on its way.
fn in_every_precision(cases: &[Case], gpus: [usize; 2], options: &Options, launches: u64) {
    let session = vcuda::session(options);
    let enough = match session.driver() {
        Driver::Virtual => true,
        Driver::Real => probe().is_ok_and(|all| gpus.iter().all(|&gpu| gpu < all.len())),
        Driver::None => false,
    };
    if !enough {
        println!("skipped: not so many GPUs as {gpus:?}, and no virtual driver here");
        return;
    }
    for precision in Precision::ALL {
        let mut devices = gpus.map(|gpu| {
            let mut device = CudaDevice::open(gpu).unwrap();
            device.set_precision(precision).unwrap();
            device
        });
        // Operands are rounded, and what is stored.
        let tolerance = match precision {
            Precision::F32 => FORWARD,
            _ => 2.0 * precision.rounding(),
        };
        for case in cases {
            let [arriving, here, captured] = outcomes(&mut devices, case, &session, tolerance);
            let what = (precision, &case.op);
            assert!(arriving.0 == here.0, "other bits: {what:?}");
            assert!(captured.0 == here.0, "other bits in a graph: {what:?}");
            if session.is_virtual() {
                let found = [arriving.1, here.1, captured.1];
                assert_eq!(found, [launches, 1, launches], "{what:?}");
            }
        }
    }
    assert_eq!(session.counters().faults, 0, "{:?}", session.last_fault());
}

#[test]
fn cut_by_an_arriving_message_it_gives_the_same_bits() {
    vcuda::in_own_process(|| {
        let cases = cases();
        for (streams, fibres, peer_access) in [
            (Streams::Lazy, Fibres::Ascending, true),
            (Streams::Random(7), Fibres::Random(3), false),
        ] {
            let options = Options {
                streams: Some(streams),
                fibres: Some(fibres),
                peer_access: Some(peer_access),
                ..Options::default()
            };
            in_every_precision(&cases, [0, 1], &options, 2);
        }
    });
}

#[test]
fn cut_by_an_arriving_message_it_gives_the_same_bits_by_wgmma() {
    by_wgmma(|| {
        let shapes = [
            op((16, 9, 7), 2, 192, (3, 1, 1)),
            op((8, 7, 6), 2, 128, (2, 1, 1)),
        ];
        let options = Options {
            streams: Some(Streams::Lazy),
            ..Options::default()
        };
        in_every_precision(&shapes.map(Case::new), [0, 1], &options, 2);
    });
}

#[test]
fn a_message_of_the_same_gpu_does_not_cut_it() {
    vcuda::in_own_process(|| {
        let options = Options {
            streams: Some(Streams::Lazy),
            ..Options::default()
        };
        let small = odd_shapes().into_iter().filter(|op| op.parts == 2);
        let cases: Vec<_> = small.map(Case::new).collect();
        in_every_precision(&cases, [0, 0], &options, 1);
    });
}
