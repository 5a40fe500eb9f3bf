//! What this processor can do at most: multiply-adds in registers, and copies in memory.

use super::buffer::Buffer;
use super::simd::{Vector, kernel};
use super::team::{CHUNK, Team};
use crate::device::Peak;
use crate::error::Result;
use std::time::Instant;

/// Independent sums in registers: enough to hide an addition's latency on two units.
const SUMS: usize = 12;
/// Multiply-adds of each sum in one task, and tasks a thread.
const ROUNDS: usize = 1 << 16;
const TASKS: usize = 4;
/// Elements of the copied memory, far more than the caches hold.
const COPIED: usize = 16 << 20;
/// The best of so many laps counts: others may use the processor too.
const LAPS: usize = 5;

kernel!(
    /// Writes the results of `SUMS` chains of `rounds` multiply-adds to `to`.
    unsafe fn multiply_add = [chains::<Portable>] [chains::<Avx2>] [chains::<Avx512>] (rounds: usize, to: *mut f32)
);

/// # Safety
/// `to` must be good for `SUMS` vectors.
#[inline(always)]
unsafe fn chains<V: Vector>(rounds: usize, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let (factor, term) = (V::splat(0.999), V::splat(0.001));
        let mut sums = [V::splat(0.5); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, term);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            sum.store(to.add(i * V::LANES));
        }
    }
}

/// Measures for a fraction of a second, on all threads of the team.
pub fn measure(team: &mut Team) -> Result<Peak> {
    const MOST_LANES: usize = 16;
    team.reserve(0, SUMS * MOST_LANES)?;
    let (from, mut to) = (Buffer::new(COPIED)?, Buffer::new(COPIED)?);
    let tasks = team.threads() * TASKS;
    let flops = (tasks * ROUNDS * SUMS * lanes(team) * 2) as f64;
    let mut peak = Peak {
        tensor_flops: [0.0; 2],
        flops: 0.0,
        bandwidth: 0.0,
        measured: true,
    };
    for _ in 0..LAPS {
        let isa = team.workers.isa;
        let start = Instant::now();
        team.workers.run(tasks, |_, own| {
            assert!(own.len() >= SUMS * MOST_LANES);
            // SAFETY: the work space was made this large; `isa` was found on this processor.
            unsafe { multiply_add(isa, ROUNDS, own.as_mut_ptr()) }
        });
        peak.flops = peak.flops.max(flops / start.elapsed().as_secs_f64());
        let start = Instant::now();
        team.workers.chunks(&mut to, CHUNK, |t, chunk, _| {
            chunk.copy_from_slice(&from[t * CHUNK..][..chunk.len()]);
        });
        let bytes = (2 * 4 * COPIED) as f64;
        peak.bandwidth = peak.bandwidth.max(bytes / start.elapsed().as_secs_f64());
    }
    std::hint::black_box(&to[..]);
    Ok(peak)
}

/// Elements of a vector of the team's instruction set.
fn lanes(team: &Team) -> usize {
    use super::simd::{Isa, Portable};
    match team.workers.isa {
        Isa::Portable => Portable::LANES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => super::simd::Avx2::LANES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => super::simd::Avx512::LANES,
    }
}
