//! Non-temporal stores: past the processor's caches, for what is written once and read by another thread, or after much
//! else. An ordinary store first fetches the cache line that it overwrites, which doubles the traffic, and what it puts
//! into the cache drives something out.

/// Writes past the caches.
pub struct Writer(());

/// Bytes of one store, and their alignment.
const VECTOR: usize = 16;

/// Runs `body`; once it has ended, what it wrote is seen by other threads as after ordinary stores.
pub fn writing<T>(body: impl FnOnce(&Writer) -> T) -> T {
    let _fence = Fence;
    body(&Writer(()))
}

impl Writer {
    /// Copies `from` to `to`, slices of one length. What `to` has before and after whole aligned vectors is written by
    /// ordinary stores; a `to` that begins and ends at a multiple of 16 bytes has nothing there.
    ///
    /// # Panics
    /// Where the lengths differ.
    #[inline(always)]
    pub fn copy(&self, from: &[u8], to: &mut [u8]) {
        assert_eq!(from.len(), to.len());
        let head = to.as_ptr().align_offset(VECTOR).min(to.len());
        to[..head].copy_from_slice(&from[..head]);
        let (from, from_rest) = from[head..].as_chunks::<VECTOR>();
        let (to, to_rest) = to[head..].as_chunks_mut::<VECTOR>();
        for (from, to) in from.iter().zip(to) {
            store(from, to);
        }
        to_rest.copy_from_slice(from_rest);
    }

    /// Writes `values` where `to` is aligned to 16 bytes; elsewhere an ordinary store does.
    #[inline(always)]
    pub fn put<const N: usize>(&self, values: [f32; N], to: &mut [f32; N]) {
        if !N.is_multiple_of(VECTOR / 4) || to.as_ptr().align_offset(VECTOR) != 0 {
            *to = values;
            return;
        }
        let (from, _) = bytemuck::cast_slice(&values).as_chunks::<VECTOR>();
        let (to, _) = bytemuck::cast_slice_mut(to).as_chunks_mut::<VECTOR>();
        for (from, to) in from.iter().zip(to) {
            store(from, to);
        }
    }
}

/// `to` begins at a multiple of its length.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn store(from: &[u8; VECTOR], to: &mut [u8; VECTOR]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_stream_si128};
    // SAFETY: sixteen bytes each, `to` aligned to them; every x86-64 processor has the instructions; `writing` ends with
    // a fence before the borrow of `to` can pass to another thread.
    unsafe {
        _mm_stream_si128(
            to.as_mut_ptr().cast(),
            _mm_loadu_si128(from.as_ptr().cast()),
        )
    };
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline(always)]
fn store(from: &[u8; VECTOR], to: &mut [u8; VECTOR]) {
    *to = *from;
}

/// Orders the stores before whatever follows it, a panic included.
struct Fence;

impl Drop for Fence {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: every x86-64 processor has it.
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_any_length_to_any_place_are_equal_and_touch_nothing_else() {
        let from: Vec<u8> = (0..200).map(|i| i as u8 + 1).collect();
        for length in 0..100 {
            for (start, offset) in (0..20).flat_map(|s| (0..3).map(move |o| (s, o))) {
                let mut to = [0; 128];
                let (source, range) = (&from[offset..][..length], start..start + length);
                writing(|writer| writer.copy(source, &mut to[range.clone()]));
                assert_eq!(&to[range.clone()], source);
                let outside = to[..start].iter().chain(&to[range.end..]);
                assert!(outside.into_iter().all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn values_are_put_at_any_place() {
        let values: [f32; 24] = std::array::from_fn(|i| i as f32 + 0.5);
        for start in 0..8 {
            let mut to = [0.0; 40];
            writing(|writer| writer.put(values, to[start..].first_chunk_mut().unwrap()));
            assert_eq!(to[start..][..24], values);
            assert_eq!(to.iter().filter(|&&value| value != 0.0).count(), 24);
        }
    }
}
