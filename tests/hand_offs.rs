//! How threads hand over to one another, in every order of their turns (up to three preemptions):
//! the very files of the program, with loom's locks and threads in place of the system's, and a
//! channel made of these in place of crossbeam's. Loom fails a model that can deadlock or lose a
//! wake-up.

#[path = "hand_offs/channel.rs"]
pub mod channel;
#[allow(dead_code)]
#[path = "../src/data/loader/pool.rs"]
mod pool;
#[allow(dead_code)]
#[path = "../src/device/rendezvous.rs"]
mod rendezvous;
#[allow(dead_code)]
#[path = "../src/train/saver.rs"]
mod saver;
#[allow(dead_code)]
#[path = "../src/engine/watchdog.rs"]
mod watchdog;

/// What stands for `crate::error` in those files.
mod error {
    pub use alexnet_mp::error::*;
}

/// What stands for `crate::sync`.
mod sync {
    pub use crate::channel;
    pub use loom::sync::{Arc, Condvar, Mutex, atomic};
    pub use loom::thread;
    pub use std::sync::PoisonError;
}

use error::{Result, checkpoint, data};
use pool::Pool;
use rendezvous::Rendezvous;
use saver::Saver;
use std::time::Duration;
use sync::atomic::AtomicBool;
use sync::{Arc, Condvar, Mutex, thread};
use watchdog::{Watchdog, Work};

fn in_every_order(model: impl Fn() + Sync + Send + 'static) {
    with_preemptions(3, model);
}

fn with_preemptions(most: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(most);
    builder.check(model);
}

/// A flag that one thread raises and another waits for.
#[derive(Default)]
struct Flag(Mutex<u32>, Condvar);

impl Flag {
    fn raise(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }

    fn wait(&self) {
        let mut raised = self.0.lock().unwrap();
        while *raised == 0 {
            raised = self.1.wait(raised).unwrap();
        }
    }
}

#[test]
fn messages_between_two_devices_arrive_once_and_in_order() {
    in_every_order(|| {
        let boxes = Arc::new([Rendezvous::new(0), Rendezvous::new(0)]);
        let exchange = |boxes: &[Rendezvous<u32>; 2], own: usize| {
            for step in 1..=2 {
                boxes[own]
                    .put(|slot| {
                        *slot = 10 * own as u32 + step;
                        Ok(())
                    })
                    .unwrap();
                let found = boxes[1 - own].take(|slot| Ok(*slot)).unwrap();
                assert_eq!(found, 10 * (1 - own as u32) + step);
            }
        };
        let theirs = boxes.clone();
        let other = thread::spawn(move || exchange(&theirs, 1));
        exchange(&boxes, 0);
        other.join().unwrap();
    });
}

#[test]
fn a_device_that_stops_releases_the_other_wherever_it_waits() {
    in_every_order(|| {
        let boxes = Arc::new([Rendezvous::new(0), Rendezvous::new(0)]);
        let theirs = boxes.clone();
        // It fails after its first message, as a device would in the middle of a step.
        let other = thread::spawn(move || {
            let _ = theirs[1].put(|slot| {
                *slot = 1;
                Ok(())
            });
            theirs.iter().for_each(Rendezvous::abandon);
        });
        let mut taken = 0;
        let ended = loop {
            let sent = boxes[0].put(|_| Ok(()));
            let received = boxes[1].take(|_| Ok(()));
            match sent.and(received) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(ended.to_string().contains("stopped") && taken <= 1);
        other.join().unwrap();
    });
}

#[test]
fn the_watchdog_ends_with_its_owner_and_barks_at_nothing_that_is_in_time() {
    in_every_order(|| {
        let dog = Watchdog::new(1e6, |_| panic!("nothing was late"));
        dog.begin(Work::Step);
        dog.end();
        drop(dog);
    });
}

#[test]
fn the_watchdog_always_barks_at_work_that_does_not_end() {
    in_every_order(|| {
        let barked = Arc::new(Flag::default());
        let heard = barked.clone();
        let dog = Watchdog::new(0.0, move |late| {
            assert_eq!(late.work, Work::Copy);
            heard.raise();
        });
        dog.begin(Work::Copy);
        barked.wait();
        drop(dog);
        assert_eq!(*barked.0.lock().unwrap(), 1);
    });
}

#[test]
fn all_that_is_handed_over_is_written_in_order() {
    in_every_order(|| {
        let written = Arc::new(Mutex::new(vec![]));
        let seen = written.clone();
        let saver = Saver::new(move |job: u32| {
            seen.lock().unwrap().push(job);
            Ok(())
        });
        saver.submit(1).unwrap();
        saver.submit(2).unwrap();
        saver.finish().unwrap();
        assert_eq!(*written.lock().unwrap(), [1, 2]);
        saver.submit(3).unwrap();
        drop(saver);
        assert_eq!(*written.lock().unwrap(), [1, 2, 3]);
    });
}

#[test]
fn a_failed_write_is_told_exactly_once() {
    in_every_order(|| {
        let saver = Saver::new(|job: u32| match job {
            1 => Err(checkpoint("full")),
            _ => Ok(()),
        });
        saver.submit(1).unwrap();
        let mut told = usize::from(saver.check().is_err());
        told += usize::from(saver.finish_within(Duration::from_secs(1000)).is_err());
        told += usize::from(saver.finish().is_err());
        assert_eq!(told, 1);
    });
}

/// A pool of numbers that two workers fill with ten times their place, but for the piece that is
/// `bad`.
fn tens(buffers: usize, end: Option<u64>, bad: Option<u64>) -> Pool<u64> {
    let worker = |_| {
        move |number: u64, buffer: &mut u64, _: &AtomicBool| -> Result<()> {
            *buffer = 10 * number;
            match bad {
                Some(bad) if bad == number => Err(data("unreadable")),
                _ => Ok(()),
            }
        }
    };
    let fills = (0..2).map(worker).collect();
    Pool::start(vec![0; buffers], fills, 0, end).unwrap()
}

#[test]
fn batches_come_in_order_and_once_whichever_worker_made_them() {
    with_preemptions(2, || {
        let mut pool = tens(3, Some(3), None);
        for expected in [0, 10, 20] {
            let batch = pool.take().unwrap().unwrap();
            assert_eq!(batch, expected);
            pool.give_back(batch);
        }
        assert!(pool.take().unwrap().is_none());
    });
}

#[test]
fn a_consumer_that_leaves_early_leaves_no_worker_behind() {
    with_preemptions(2, || {
        let mut pool = tens(3, None, None);
        assert_eq!(pool.take().unwrap(), Some(0));
        // Its end waits for the workers' ends.
        drop(pool);
    });
}

#[test]
fn a_worker_that_fails_ends_the_run_at_its_step_with_its_error() {
    with_preemptions(2, || {
        let mut pool = tens(3, None, Some(1));
        let first = pool.take().unwrap().unwrap();
        assert_eq!(first, 0);
        pool.give_back(first);
        let error = pool.take().unwrap_err();
        assert!(error.to_string().contains("unreadable"), "{error}");
    });
}

#[test]
fn a_consumer_that_gives_nothing_back_is_told_and_not_left_waiting() {
    with_preemptions(2, || {
        let mut pool = tens(3, None, None);
        for expected in [0, 10, 20] {
            assert_eq!(pool.take().unwrap(), Some(expected));
        }
        let error = pool.take().unwrap_err();
        assert!(error.to_string().contains("none was recycled"), "{error}");
    });
}
