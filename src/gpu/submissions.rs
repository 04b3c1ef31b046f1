//! Whether what was recorded is submitted. Micro-batches are counted when they are recorded, so the sum of a step whose encoder was
//! dropped would be silently wrong.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result, ensure};

/// What was recorded, and what has become of it.
#[derive(Debug, Default)]
pub(crate) struct Submissions {
    /// Calls that recorded something.
    pub recorded: u64,
    /// Numbers of dropped calls that were part of a sum of gradients.
    dropped: Arc<Mutex<Vec<u64>>>,
    /// Ranges of numbers whose dropping is ignored.
    void: Vec<Range<u64>>,
}

/// Goes with the commands of a call: [`done`](Self::done) when the GPU is done with them, dropped with their encoder.
pub(crate) struct Ticket {
    /// The number of a call that is part of a sum and not done.
    number: Option<u64>,
    dropped: Arc<Mutex<Vec<u64>>>,
}

impl Submissions {
    /// A ticket for what is recorded now, a part of a sum of gradients or not.
    pub(crate) fn ticket(&mut self, adds_up: bool) -> Ticket {
        self.recorded += 1;
        Ticket { number: adds_up.then_some(self.recorded), dropped: self.dropped.clone() }
    }

    /// Refuses to go on where a part of a sum is missing.
    ///
    /// # Errors
    /// [`Error::MicroBatchDropped`] until [`forget_sums`](Self::forget_sums).
    pub(crate) fn check(&self) -> Result<()> {
        let is_void = |number: &u64| self.void.iter().any(|range| range.contains(number));
        ensure!(lock(&self.dropped).iter().all(is_void), Error::MicroBatchDropped);
        Ok(())
    }

    /// What was recorded since does not count, and is not missed.
    pub(crate) fn rewind(&mut self, recorded: u64) {
        self.void.push(recorded + 1..self.recorded + 1);
    }

    /// The sums begin again: no part of them is missed.
    pub(crate) fn forget_sums(&mut self) {
        // Tickets of before tell nobody.
        (self.dropped, self.void) = Default::default();
    }
}

impl Ticket {
    /// The GPU is done.
    pub(crate) fn done(mut self) {
        self.number = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.dropped).extend(self.number);
    }
}

/// Locks what stays usable after a panic.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_part_of_a_sum_is_missed_until_the_sum_begins_again() {
        let mut all = Submissions::default();
        drop(all.ticket(false));
        all.check().unwrap();
        drop(all.ticket(true));
        for _ in 0..2 {
            assert!(matches!(all.check(), Err(Error::MicroBatchDropped)));
        }
        let late = all.ticket(true);
        all.forget_sums();
        drop(late);
        all.check().unwrap();
        drop(all.ticket(true));
        assert!(all.check().is_err());
    }

    #[test]
    fn what_was_taken_back_is_not_missed() {
        let mut all = Submissions::default();
        let kept = all.ticket(true);
        let before = all.recorded;
        drop(all.ticket(true));
        let late = all.ticket(true);
        all.rewind(before);
        drop(late);
        all.check().unwrap();
        drop(kept);
        assert!(all.check().is_err());
    }
}
