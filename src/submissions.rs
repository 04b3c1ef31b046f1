//! Whether what was recorded is submitted. Micro-batches are counted when they are recorded, so the sum of a step whose encoder was
//! dropped would be silently wrong.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// What was recorded, and what has become of it.
#[derive(Debug, Default)]
pub(crate) struct Submissions {
    /// Calls that recorded something.
    recorded: u64,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Numbers of dropped calls that were part of a sum of gradients.
    dropped: Vec<u64>,
    /// Ranges of numbers whose dropping is ignored.
    void: Vec<Range<u64>>,
}

impl Seen {
    fn is_void(&self, number: u64) -> bool {
        self.void.iter().any(|range| range.contains(&number))
    }
}

/// Goes with the commands of a call: [`done`](Self::done) when the GPU is done with them, dropped with their encoder.
pub(crate) struct Ticket {
    number: u64,
    adds_up: bool,
    is_done: bool,
    seen: Arc<Mutex<Seen>>,
}

impl Submissions {
    /// A ticket for what is recorded now, a part of a sum of gradients or not.
    pub(crate) fn ticket(&mut self, adds_up: bool) -> Ticket {
        self.recorded += 1;
        Ticket { number: self.recorded, adds_up, is_done: false, seen: self.seen.clone() }
    }

    /// Refuses to go on where a part of a sum is missing.
    ///
    /// # Errors
    /// [`Error::MicroBatchDropped`] until [`forget_sums`](Self::forget_sums).
    pub(crate) fn check(&self) -> Result<(), Error> {
        match lock(&self.seen).dropped.is_empty() {
            true => Ok(()),
            false => Err(Error::MicroBatchDropped),
        }
    }

    /// How many calls have recorded something.
    pub(crate) fn recorded(&self) -> u64 {
        self.recorded
    }

    /// What was recorded since does not count, and is not missed.
    pub(crate) fn rewind(&mut self, recorded: u64) {
        let mut seen = lock(&self.seen);
        seen.dropped.retain(|&number| number <= recorded);
        if recorded < self.recorded {
            seen.void.push(recorded + 1..self.recorded + 1);
        }
    }

    /// The sums begin again: no part of them is missed.
    pub(crate) fn forget_sums(&mut self) {
        let mut seen = lock(&self.seen);
        seen.dropped.clear();
        seen.void.clear();
        seen.void.push(1..self.recorded + 1);
    }
}

impl Ticket {
    /// The GPU is done.
    pub(crate) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_done || !self.adds_up {
            return;
        }
        let mut seen = lock(&self.seen);
        if !seen.is_void(self.number) {
            seen.dropped.push(self.number);
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
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
        let before = all.recorded();
        drop(all.ticket(true));
        let late = all.ticket(true);
        all.rewind(before);
        drop(late);
        all.check().unwrap();
        drop(kept);
        assert!(all.check().is_err());
    }
}
