//! Messages between GPUs: over peer access and through the host, in every order that streams may take.
#![cfg(feature = "cuda")]

use alexnet_mp::device::Device;
use alexnet_mp::device::cuda::{CudaDevice, probe, prove};
use vcuda::{Driver, Fibres, Options, Session, Streams};

const ELEMENTS: usize = 70_001;

/// A session, unless there is no driver of any kind.
fn session(options: Options) -> Option<Session> {
    let session = vcuda::session(&options);
    if session.driver() == Driver::None {
        println!("skipped: there is no GPU, and the virtual one cannot be built here");
        return None;
    }
    Some(session)
}

/// As [`session`], where the options matter: not on a real GPU.
fn virtual_session(options: Options) -> Option<Session> {
    session(options).filter(Session::is_virtual)
}

/// The numbers of two GPUs; the same one twice where there is only one.
fn two() -> [usize; 2] {
    if probe().unwrap().len() > 1 {
        [0, 1]
    } else {
        [0, 0]
    }
}

fn open([first, second]: [usize; 2]) -> [CudaDevice; 2] {
    [
        CudaDevice::open(first).unwrap(),
        CudaDevice::open(second).unwrap(),
    ]
}

/// Both devices send, receive and compute in rounds, as the columns of a network do: each doubles what it received
/// last and sends it, while it goes on changing what it has sent.
fn play(ordinals: [usize; 2], rounds: usize) -> [f32; 2] {
    let [mut a, mut b] = open(ordinals);
    let there = CudaDevice::mailbox(&mut a, &mut b, ELEMENTS).unwrap();
    let back = CudaDevice::mailbox(&mut b, &mut a, ELEMENTS).unwrap();
    let run = |mut d: CudaDevice, first: f32, out: &<CudaDevice as Device>::Mailbox, inn: &_| {
        let mut own = d.allocate(ELEMENTS).unwrap();
        let mut inbox = d.allocate(ELEMENTS).unwrap();
        d.upload(&vec![first; ELEMENTS], &mut own).unwrap();
        for _ in 0..rounds {
            d.send(&own, ELEMENTS, out).unwrap();
            d.scale(ELEMENTS, 0.5, &mut own).unwrap();
            d.receive(inn, &mut inbox).unwrap();
            d.add(ELEMENTS, &inbox, &mut own).unwrap();
            d.scale(ELEMENTS, 7.0, &mut inbox).unwrap();
        }
        let mut result = vec![0.0; ELEMENTS];
        d.download(&own, &mut result).unwrap();
        assert!(
            result.iter().all(|x| *x == result[0]),
            "not all elements of a message are of one round"
        );
        result[0]
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(|| run(b, 3.0, &back, &there));
        let first = run(a, 1.0, &there, &back);
        [first, second.join().unwrap()]
    })
}

/// What `play` must give.
fn expected(rounds: usize) -> [f32; 2] {
    (0..rounds).fold([1.0, 3.0], |[a, b], _| [0.5 * a + b, 0.5 * b + a])
}

const STREAMS: [Streams; 5] = [
    Streams::Eager,
    Streams::Lazy,
    Streams::Random(1),
    Streams::Random(2),
    Streams::Random(3),
];

/// Runs a test in every order that streams may take.
fn in_any_order(test: impl Fn(Options)) {
    vcuda::in_own_process(|| {
        for streams in STREAMS {
            println!("{streams:?}");
            test(Options {
                streams: Some(streams),
                ..Options::default()
            });
        }
    });
}

/// Whether so many rounds give the numbers they must, without faults.
fn plays_right(ordinals: [usize; 2], rounds: usize, session: &Session) {
    assert_eq!(play(ordinals, rounds), expected(rounds));
    assert_eq!(session.counters().faults, 0, "{:?}", session.last_fault());
}

#[test]
fn two_gpus_exchange_directly_in_any_order() {
    in_any_order(|order| {
        let Some(session) = session(order) else {
            return;
        };
        plays_right(two(), 6, &session);
    });
}

#[test]
fn one_gpu_opened_twice_exchanges_with_itself_in_any_order() {
    in_any_order(|order| {
        let Some(session) = session(order) else {
            return;
        };
        plays_right([0, 0], 6, &session);
    });
}

#[test]
fn without_peer_access_messages_go_through_the_host_in_any_order() {
    in_any_order(|order| {
        let options = Options {
            peer_access: Some(false),
            ..order
        };
        let Some(session) = virtual_session(options) else {
            return;
        };
        plays_right([0, 1], 6, &session);
        assert_eq!(session.counters().peer_bytes, 0);
    });
}

#[test]
fn a_way_that_works_is_proven_and_timed() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let [mut a, mut b] = open(two());
    let report = prove(&mut a, &mut b).unwrap();
    assert!(report.bandwidth.iter().all(|b| *b > 0.0));
    let back = prove(&mut b, &mut a).unwrap();
    assert_eq!(
        (back.direct, back.bandwidth),
        (report.direct, [report.bandwidth[1], report.bandwidth[0]])
    );
}

#[test]
fn missing_peer_access_is_named() {
    let Some(_session) = virtual_session(Options {
        peer_access: Some(false),
        ..Options::default()
    }) else {
        return;
    };
    let [mut a, mut b] = open([0, 1]);
    let report = prove(&mut a, &mut b).unwrap();
    assert!(!report.direct && report.reason.unwrap().contains("no peer access"));
}

#[test]
fn copies_that_are_refused_though_access_is_granted_are_replaced() {
    in_any_order(|order| {
        let options = Options {
            peer_copies: Some(false),
            ..order
        };
        let Some(session) = virtual_session(options) else {
            return;
        };
        let [mut a, mut b] = open([0, 1]);
        let report = prove(&mut a, &mut b).unwrap();
        assert!(!report.direct && !report.is_corrupt());
        let reason = report.reason.unwrap();
        assert!(
            reason.contains("copying to GPU 1") && reason.contains("NOT_SUPPORTED"),
            "{reason}"
        );
        drop((a, b));
        plays_right([0, 1], 3, &session);
    });
}

#[test]
fn copies_that_lie_are_found_and_replaced() {
    vcuda::in_own_process(|| {
        for fibres in Fibres::ALL {
            let options = Options {
                corrupt_peer: Some(true),
                fibres: Some(fibres),
                ..Options::default()
            };
            let Some(session) = virtual_session(options) else {
                return;
            };
            let [mut a, mut b] = open([0, 1]);
            let report = prove(&mut a, &mut b).unwrap();
            assert!(!report.direct);
            assert!(report.reason.unwrap().contains("arrive wrong"));
            drop((a, b));
            plays_right([0, 1], 3, &session);
        }
    });
}

#[test]
fn a_message_too_large_for_its_mailbox_is_refused() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let [mut a, mut b] = open(two());
    let mailbox = CudaDevice::mailbox(&mut a, &mut b, 10).unwrap();
    let source = a.allocate(11).unwrap();
    let said = a.send(&source, 11, &mailbox).unwrap_err().to_string();
    assert!(
        said.contains("11 elements") && said.contains("10"),
        "{said}"
    );
}

#[test]
fn an_inbox_of_another_size_gets_a_copy() {
    let Some(_session) = session(Options {
        streams: Some(Streams::Lazy),
        ..Options::default()
    }) else {
        return;
    };
    let [mut a, mut b] = open(two());
    let mailbox = CudaDevice::mailbox(&mut a, &mut b, 10).unwrap();
    let mut source = a.allocate(10).unwrap();
    let mut inbox = b.allocate(20).unwrap();
    for round in 0..3 {
        let sent = [round as f32; 10];
        a.upload(&sent, &mut source).unwrap();
        a.send(&source, 10, &mailbox).unwrap();
        b.receive(&mailbox, &mut inbox).unwrap();
        let mut received = [0.0; 10];
        b.download(&inbox, &mut received).unwrap();
        assert_eq!(received, sent);
    }
}
