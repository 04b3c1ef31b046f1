//! Slots for the scalars of recorded steps.
//!
//! `queue.write_buffer` lands before everything of the next submit, so two steps in one encoder must not share a
//! place. A slot is taken when a step is recorded and comes back when the encoder's work is done, or when the encoder
//! is dropped.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::kernel::{Row, STRIDE};
use crate::plan::ROWS;

/// Memory for slots: as many as fit, within [8, 256].
const BYTES: u64 = 4 << 20;

pub(crate) struct Ring {
    pub buffer: wgpu::Buffer,
    slots: usize,
    slot_bytes: u64,
    free: Arc<Mutex<Vec<usize>>>,
}

/// A slot, until it is dropped.
pub(crate) struct Slot {
    pub offset: u64,
    index: usize,
    free: Arc<Mutex<Vec<usize>>>,
}

impl Ring {
    /// A ring whose slots hold up to `rows` rows.
    pub(crate) fn new(device: &wgpu::Device, rows: usize) -> Self {
        let slot_bytes = STRIDE * rows as u64;
        let slots = (BYTES / slot_bytes).clamp(8, 256) as usize;
        Self {
            buffer: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("wgpu-optim.table.rows"),
                // A binding always spans ROWS rows, also when it begins at the last one.
                size: slot_bytes * slots as u64 + STRIDE * ROWS as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
            slots,
            slot_bytes,
            free: Arc::new(Mutex::new((0..slots).rev().collect())),
        }
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

    pub(crate) fn write(&self, queue: &wgpu::Queue, slot: &Slot, rows: &[Row]) {
        let mut bytes = encase::StorageBuffer::new(Vec::new());
        bytes.write(&rows).expect("a vector grows");
        queue.write_buffer(&self.buffer, slot.offset, bytes.as_ref());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}
