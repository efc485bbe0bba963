//! Buffers that a loop's tasks share: an idle connection holds none of its own.

use std::cell::RefCell;

/// Bytes one read may take. A read that fills it is followed by another; a shorter one is not.
pub const READ_BYTES: usize = 65_536;

/// Output buffers a loop keeps for the next one who has something to say.
const POOLED: usize = 64;

/// A larger one goes back to the allocator.
const POOLED_BYTES: usize = 65_536;

thread_local! {
    static READ: RefCell<Option<Box<[u8]>>> = const { RefCell::new(None) };
    static WRITE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Lends this thread's read buffer of [`READ_BYTES`].
pub fn with_read_buffer<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = READ.take().unwrap_or_else(|| vec![0; READ_BYTES].into());
    let result = use_it(&mut buffer);
    READ.set(Some(buffer));
    result
}

/// An empty output buffer, with capacity if one was given back.
#[must_use]
pub fn take() -> Vec<u8> {
    WRITE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives an output buffer back.
pub fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > POOLED_BYTES {
        return;
    }
    buffer.clear();
    WRITE.with_borrow_mut(|pool| {
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_buffer_comes_back_empty_and_with_its_capacity() {
        let mut buffer = take();
        buffer.extend_from_slice(&[7; 1_000]);
        let capacity = buffer.capacity();
        give_back(buffer);
        let again = take();
        assert_eq!((again.len(), again.capacity()), (0, capacity));
    }

    #[test]
    fn huge_buffers_and_more_than_the_pool_holds_are_freed() {
        give_back(Vec::with_capacity(POOLED_BYTES + 1));
        assert_eq!(take().capacity(), 0);
        for _ in 0..2 * POOLED {
            give_back(Vec::with_capacity(16));
        }
        assert_eq!(WRITE.with_borrow(Vec::len), POOLED);
    }

    #[test]
    fn the_read_buffer_is_the_same_one_each_time_even_when_lent_twice() {
        let outer = with_read_buffer(|outer| {
            let inner = with_read_buffer(|inner| inner.as_ptr());
            assert_ne!(outer.as_ptr(), inner);
            outer.as_ptr()
        });
        assert_eq!(with_read_buffer(|buffer| buffer.as_ptr()), outer);
    }
}
