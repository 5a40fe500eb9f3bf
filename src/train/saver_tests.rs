//! What the saver promises. Beside it, not in it: `tests/hand_offs.rs` takes its file as it is.

use super::saver::Saver;
use crate::error::checkpoint;
use crate::sync::{Arc, Mutex};
use std::sync::mpsc;

#[test]
fn a_job_is_handed_over_while_the_one_before_is_still_being_written() {
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let written = Arc::new(Mutex::new(vec![]));
    let seen = written.clone();
    let saver = Saver::new(move |job: u32| {
        begun.send(job).unwrap();
        released.recv().unwrap();
        seen.lock().unwrap().push(job);
        Ok(())
    });
    saver.submit(1).unwrap();
    assert_eq!(has_begun.recv().unwrap(), 1);
    // Were it to wait for the writing, this would never return.
    saver.submit(2).unwrap();
    assert!(written.lock().unwrap().is_empty());
    release.send(()).unwrap();
    release.send(()).unwrap();
    saver.finish().unwrap();
    assert_eq!(*written.lock().unwrap(), [1, 2]);
}

#[test]
fn a_failure_is_told_once_and_a_panic_is_one() {
    let saver = Saver::new(|job: u32| match job {
        1 => Err(checkpoint("the disk is full")),
        2 => panic!("a bug"),
        _ => Ok(()),
    });
    saver.submit(1).unwrap();
    assert_eq!(saver.finish().unwrap_err().to_string(), "the disk is full");
    saver.submit(2).unwrap();
    let panicked = saver.finish().unwrap_err();
    assert_eq!(panicked.exit_code(), 4);
    assert!(panicked.to_string().contains("a bug"), "{panicked}");
    saver.submit(3).unwrap();
    saver.finish().unwrap();
}

#[test]
fn what_was_handed_over_is_written_before_it_is_dropped() {
    let written = Arc::new(Mutex::new(0));
    let seen = written.clone();
    let saver = Saver::new(move |job: u32| {
        *seen.lock().unwrap() += job;
        Ok(())
    });
    saver.submit(7).unwrap();
    drop(saver);
    assert_eq!(*written.lock().unwrap(), 7);
}
