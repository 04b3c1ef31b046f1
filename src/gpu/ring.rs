//! Slots for what the host says in each recorded step: its scalars and, for the caller's buffers, where the tensors lie.
//!
//! `queue.write_buffer` lands before everything of the next submit, so two steps in one encoder must not share a
//! place. A slot is taken when a step is recorded and comes back when the encoder's work is done, or when the encoder
//! is dropped.

use std::sync::{Arc, Mutex};

use wgpu::BufferUsages as To;

use super::pipelines::Pipelines;
use super::slices::{TensorSlice, new_buffer};
use super::submissions::lock;
use crate::error::{Error, Result};
use crate::kernel::tables::{Chunk, Grid, STRIDE, table};
use crate::plan::layout::{ROWS, within};

/// Memory for slots: as many as fit, within [8, 256], unless 8 exceed a buffer.
const BYTES: u64 = 4 << 20;

pub(super) struct Ring {
    pipelines: Pipelines,
    /// The plan's grids, chunks, tensors and rates.
    plan: [wgpu::Buffer; 4],
    pub buffer: wgpu::Buffer,
    /// Bind groups of the tables: with the plan's grids and chunks, and with a slot's. Both read their scalars from a slot.
    pub tables: [wgpu::BindGroup; 2],
    slots: usize,
    slot_bytes: u64,
    /// Bytes of the chunks of a step.
    table_bytes: u64,
    free: Arc<Mutex<Vec<usize>>>,
    /// For each slot, its chunks and their place. Then the last chunks of all slots, because they seldom change.
    known: Vec<(u64, Arc<Vec<Chunk>>)>,
    last: Arc<Vec<Chunk>>,
}

/// A slot, until it is dropped.
pub(super) struct Slot {
    /// Where its uniforms begin in the buffer, and its chunks.
    pub uniforms: u64,
    pub chunks: u64,
    index: usize,
    free: Arc<Mutex<Vec<usize>>>,
}

impl Ring {
    /// A ring whose slots hold up to `slot_bytes`, `table_bytes` of them chunks. The bindings of a slot may reach beyond its end.
    pub(super) fn new(pipelines: Pipelines, plan: [wgpu::Buffer; 4], slot_bytes: u64, table_bytes: u64) -> Self {
        let device = &pipelines.device;
        let slot_bytes = slot_bytes.next_multiple_of(STRIDE);
        let tail = tail(table_bytes);
        let most = device.limits().max_buffer_size.saturating_sub(tail) / slot_bytes;
        let slots = (BYTES / slot_bytes).clamp(8, 256).min(most).max(1) as usize;
        let (size, usage) = (slot_bytes * slots as u64 + tail, To::UNIFORM | To::STORAGE | To::COPY_SRC | To::COPY_DST);
        let buffer = new_buffer(device, "wgpu-optim.table.steps", size, usage);
        let [grids, chunks, tensors, rates] = &plan;
        let tables = [(grids, chunks, chunks.size()), (&buffer, &buffer, table_bytes)].map(|(grids, chunks, size)| {
            let slices = [
                TensorSlice { size: size_of::<Grid>() as u64, ..TensorSlice::whole(grids) },
                TensorSlice { size: STRIDE * ROWS as u64, ..TensorSlice::whole(&buffer) },
                TensorSlice { size, ..TensorSlice::whole(chunks) },
                TensorSlice::whole(tensors),
                TensorSlice::whole(rates),
            ];
            pipelines.bind("tables", &pipelines.tables, (0..).zip(slices))
        });
        Self {
            pipelines,
            plan,
            buffer,
            tables,
            slots,
            slot_bytes,
            table_bytes,
            free: Arc::new(Mutex::new((0..slots).rev().collect())),
            known: vec![(0, Arc::default()); slots],
            last: Arc::default(),
        }
    }

    /// Takes a slot, and writes uniforms into it. When all are taken, waits for the GPU, which has that many steps ahead of it.
    ///
    /// # Errors
    /// [`Error::RingFull`] if what was recorded is not submitted.
    pub(super) fn take(&self, queue: &wgpu::Queue, uniforms: &[u8]) -> Result<Slot> {
        if lock(&self.free).is_empty() {
            // No effect in a browser, where callbacks run between the page's own tasks.
            let waited = self.pipelines.device.poll(wgpu::PollType::wait_indefinitely());
            waited.map_err(|e| Error::Gpu(format!("waiting for earlier steps: {e}")))?;
        }
        let index = lock(&self.free).pop().ok_or(Error::RingFull { slots: self.slots })?;
        let offset = self.slot_bytes * index as u64;
        queue.write_buffer(&self.buffer, offset, uniforms);
        Ok(Slot { uniforms: offset, chunks: offset + uniforms.len() as u64, index, free: self.free.clone() })
    }

    /// Takes a slot that has room for uniforms, and for chunks after them, and writes both.
    ///
    /// # Errors
    /// As for [`take`](Self::take); [`Error::Unsupported`] if a slot exceeds a buffer.
    pub(super) fn put(&mut self, queue: &wgpu::Queue, uniforms: &[u8], chunks: &[Chunk]) -> Result<Slot> {
        let table_bytes = size_of_val(chunks) as u64;
        let slot_bytes = uniforms.len() as u64 + table_bytes;
        if slot_bytes > self.slot_bytes || table_bytes > self.table_bytes {
            self.grow(slot_bytes, table_bytes)?;
        }
        let slot = self.take(queue, uniforms)?;
        if chunks.is_empty() {
            // The uniforms may lie where the slot had its chunks.
            self.known[slot.index] = Default::default();
            return Ok(slot);
        }
        if self.last[..] != *chunks {
            self.last = Arc::new(chunks.to_vec());
        }
        let (place, known) = &mut self.known[slot.index];
        if *place != slot.chunks || !Arc::ptr_eq(known, &self.last) {
            queue.write_buffer(&self.buffer, slot.chunks, &table(chunks));
            (*place, *known) = (slot.chunks, self.last.clone());
        }
        Ok(slot)
    }

    /// Makes room for slots of so many bytes, so many of them chunks. Slots that are taken stay as they are, in the buffer that they were
    /// taken from, which what was recorded keeps until it is submitted.
    fn grow(&mut self, slot_bytes: u64, table_bytes: u64) -> Result<()> {
        let most = self.pipelines.device.limits().max_buffer_size;
        let table_bytes = table_bytes.max(self.table_bytes);
        within("max_buffer_size", slot_bytes.next_multiple_of(STRIDE) + tail(table_bytes), most)?;
        // Half as much again, so that a model that grows does not make a buffer for every step.
        let room = (most - tail(table_bytes)) / STRIDE * STRIDE;
        let slot_bytes = (slot_bytes + slot_bytes / 2).max(self.slot_bytes).min(room);
        *self = Self::new(self.pipelines.clone(), self.plan.clone(), slot_bytes, table_bytes);
        Ok(())
    }
}

/// What a binding of a slot may reach beyond its end.
fn tail(table_bytes: u64) -> u64 {
    table_bytes.max(STRIDE * ROWS as u64)
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.free).push(self.index);
    }
}
