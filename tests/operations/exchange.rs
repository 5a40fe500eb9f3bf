//! Messages from one device to another.

use crate::support::*;
use alexnet_mp::device::Device;
use std::time::Duration;

for_each_device!(
    messages_arrive_in_order_both_ways,
    the_sender_may_overwrite_what_it_sent,
    an_abandoned_mailbox_is_an_error_and_not_a_wait,
    abandoning_wakes_the_one_who_waits,
);

const ELEMENTS: usize = 1000;

fn messages_arrive_in_order_both_ways<D: Device>(open: Open<D>) {
    let (mut a, mut b) = (open(), open());
    let there = D::mailbox(&mut a, &mut b, ELEMENTS).unwrap();
    let back = D::mailbox(&mut b, &mut a, ELEMENTS).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut inbox = b.allocate(ELEMENTS).unwrap();
            for _ in 0..5 {
                b.receive(&there, &mut inbox).unwrap();
                b.scale(ELEMENTS, 2.0, &mut inbox).unwrap();
                b.send(&inbox, ELEMENTS, &back).unwrap();
            }
            b.synchronize().unwrap();
        });
        let mut inbox = a.allocate(ELEMENTS).unwrap();
        for i in 0..5 {
            let message = random(i, ELEMENTS);
            let outbox = filled(&mut a, &message);
            a.send(&outbox, ELEMENTS, &there).unwrap();
            a.receive(&back, &mut inbox).unwrap();
            let expected: Vec<f32> = message.iter().map(|x| 2.0 * x).collect();
            assert_eq!(read(&mut a, &inbox, ELEMENTS), expected);
        }
    });
}

fn the_sender_may_overwrite_what_it_sent<D: Device>(open: Open<D>) {
    let (mut a, mut b) = (open(), open());
    let mailbox = D::mailbox(&mut a, &mut b, ELEMENTS).unwrap();
    let message = random(0, ELEMENTS);
    let mut outbox = filled(&mut a, &message);
    a.send(&outbox, ELEMENTS, &mailbox).unwrap();
    a.scale(ELEMENTS, 0.0, &mut outbox).unwrap();
    let mut inbox = b.allocate(ELEMENTS).unwrap();
    b.receive(&mailbox, &mut inbox).unwrap();
    assert_eq!(read(&mut b, &inbox, ELEMENTS), message);
}

fn an_abandoned_mailbox_is_an_error_and_not_a_wait<D: Device>(open: Open<D>) {
    let (mut a, mut b) = (open(), open());
    let mailbox = D::mailbox(&mut a, &mut b, ELEMENTS).unwrap();
    D::abandon(&mailbox);
    let mut buffer = a.allocate(ELEMENTS).unwrap();
    assert!(a.send(&buffer, ELEMENTS, &mailbox).is_err());
    assert!(b.receive(&mailbox, &mut buffer).is_err());
}

fn abandoning_wakes_the_one_who_waits<D: Device>(open: Open<D>) {
    let (mut a, mut b) = (open(), open());
    let mailbox = D::mailbox(&mut a, &mut b, ELEMENTS).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut inbox = b.allocate(ELEMENTS).unwrap();
            b.receive(&mailbox, &mut inbox)
        });
        std::thread::sleep(Duration::from_millis(20));
        D::abandon(&mailbox);
        assert!(waiting.join().unwrap().is_err());
    });
}
