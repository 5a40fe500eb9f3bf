//! What the watchdog promises. Beside it, not in it: `tests/hand_offs.rs` takes its file as it is.

use super::watchdog::{Watchdog, Work, allowed};
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn work_that_hangs_raises_the_alarm() {
    let (send, receive) = mpsc::channel();
    let dog = Watchdog::new(0.05, move |late| send.send(late).unwrap());
    dog.begin(Work::Evaluation);
    let late = receive.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(late.work, Work::Evaluation);
    assert!((late.limit - 0.05).abs() < 1e-6, "{late:?}");
}

#[test]
fn work_that_ends_in_time_raises_none() {
    let (send, receive) = mpsc::channel();
    let dog = Watchdog::new(30.0, move |late| send.send(late).unwrap());
    for _ in 0..1000 {
        dog.begin(Work::Step);
        dog.end();
    }
    drop(dog);
    assert!(receive.try_recv().is_err());
}

#[test]
fn a_step_that_usually_takes_long_may_take_ten_times_as_long() {
    assert_eq!(allowed(60.0, 0.0), 60.0);
    assert_eq!(allowed(60.0, 0.2), 60.0);
    assert_eq!(allowed(60.0, 40.0), 400.0);
}
