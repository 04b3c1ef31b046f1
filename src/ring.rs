//! Slots for what the host says in each recorded step: its scalars and, for the caller's buffers, where the tensors lie.
//!
//! `queue.write_buffer` lands before everything of the next submit, so two steps in one encoder must not share a
//! place. A slot is taken when a step is recorded and comes back when the encoder's work is done, or when the encoder
//! is dropped.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::kernel::{STRIDE, table};
use crate::plan::{Chunk, within};

/// Memory for slots: as many as fit, within [8, 256], unless 8 exceed a buffer.
const BYTES: u64 = 4 << 20;

pub(crate) struct Ring {
    pub buffer: wgpu::Buffer,
    slots: usize,
    slot_bytes: u64,
    tail: u64,
    free: Arc<Mutex<Vec<usize>>>,
    /// Of each slot, the table that lies in it and where; and the last of them all: it seldom changes.
    tables: Vec<(u64, Arc<Vec<Chunk>>)>,
    last: Arc<Vec<Chunk>>,
}

/// A slot, until it is dropped.
pub(crate) struct Slot {
    pub offset: u64,
    index: usize,
    free: Arc<Mutex<Vec<usize>>>,
}

/// Slots that one call may take: for the sums, for masters, for the step, and for rounding.
const SLOTS_PER_STEP: u64 = 4;

impl Ring {
    /// A ring whose slots hold up to `slot_bytes`; a binding of `tail` bytes may begin anywhere in the last of them.
    pub(crate) fn new(device: &wgpu::Device, slot_bytes: u64, tail: u64) -> Self {
        let slot_bytes = slot_bytes.next_multiple_of(STRIDE);
        let most = device.limits().max_buffer_size.saturating_sub(tail) / slot_bytes;
        let slots = (BYTES / slot_bytes).clamp(8, 256).min(most).max(1) as usize;
        Self {
            buffer: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("wgpu-optim.table.steps"),
                size: slot_bytes * slots as u64 + tail,
                usage: wgpu::BufferUsages::UNIFORM
                    | wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
            slots,
            slot_bytes,
            tail,
            free: Arc::new(Mutex::new((0..slots).rev().collect())),
            tables: vec![(0, Arc::default()); slots],
            last: Arc::default(),
        }
    }

    /// Makes room for slots of so many bytes, and returns whether the buffer is another one then. Slots that are taken stay as they
    /// are, in the buffer that they were taken from.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the slots of one step exceed a buffer.
    pub(crate) fn fit(&mut self, device: &wgpu::Device, slot_bytes: u64) -> Result<bool, Error> {
        if slot_bytes <= self.slot_bytes {
            return Ok(false);
        }
        let most = device.limits().max_buffer_size;
        let least = slot_bytes.next_multiple_of(STRIDE);
        within("max_buffer_size", SLOTS_PER_STEP * least + self.tail, most)?;
        // Half as much again, so that a model that grows does not make a buffer for every step.
        let room = (most - self.tail) / SLOTS_PER_STEP / STRIDE * STRIDE;
        *self = Self::new(device, (slot_bytes + slot_bytes / 2).min(room), self.tail);
        Ok(true)
    }

    /// Takes a slot. When all are taken, waits for the GPU, which has that many steps ahead of it.
    pub(crate) fn take(&self, device: &wgpu::Device) -> Result<Slot, Error> {
        let pop = || self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let index = match pop() {
            Some(index) => index,
            None => {
                // No effect in a browser, where callbacks run between the page's own tasks.
                device
                    .poll(wgpu::PollType::wait_indefinitely())
                    .map_err(|e| Error::Gpu(format!("waiting for earlier steps: {e}")))?;
                pop().ok_or(Error::RingFull { slots: self.slots })?
            }
        };
        Ok(Slot { offset: self.slot_bytes * index as u64, index, free: self.free.clone() })
    }

    pub(crate) fn write(&self, queue: &wgpu::Queue, slot: &Slot, bytes: &[u8]) {
        assert!(bytes.len() as u64 <= self.slot_bytes, "a slot holds a step");
        queue.write_buffer(&self.buffer, slot.offset, bytes);
    }

    /// [`write`](Self::write) with a table behind; returns where that lies in the buffer.
    pub(crate) fn write_with_table(
        &mut self,
        queue: &wgpu::Queue,
        slot: &Slot,
        bytes: &[u8],
        chunks: Vec<Chunk>,
    ) -> u64 {
        self.write(queue, slot, bytes);
        let offset = slot.offset + bytes.len() as u64;
        if *self.last != chunks {
            self.last = Arc::new(chunks);
        }
        let (place, known) = &mut self.tables[slot.index];
        if *place != offset || !Arc::ptr_eq(known, &self.last) {
            let bytes = table(&self.last);
            assert!(offset + bytes.len() as u64 <= slot.offset + self.slot_bytes, "a slot holds a step");
            queue.write_buffer(&self.buffer, offset, &bytes);
            (*place, *known) = (offset, self.last.clone());
        }
        offset
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}
