//! How long a GPU works on what an encoder holds, from timestamps before and after it.

use anyhow::{Context, Result};
use wgpu_optim::wgpu;

/// Bytes of two timestamps.
const BYTES: u64 = 16;

pub struct Timer {
    queries: wgpu::QuerySet,
    ticks: wgpu::Buffer,
    readback: wgpu::Buffer,
    /// Nanoseconds of a tick.
    period: f64,
}

impl Timer {
    /// What a device needs for timestamps in encoders.
    pub const FEATURES: wgpu::Features =
        wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

    /// `None` on devices without timestamps.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Option<Self> {
        device.features().contains(Self::FEATURES).then(|| {
            let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("wgpu-optim.bench.timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            });
            let buffer = |usage: wgpu::BufferUsages| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("wgpu-optim.bench.timestamps"),
                    size: BYTES,
                    usage,
                    mapped_at_creation: false,
                })
            };
            Self {
                queries,
                ticks: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                readback: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
                period: queue.get_timestamp_period().into(),
            }
        })
    }

    /// Submits what is recorded and returns the nanoseconds between its beginning and its end on the GPU.
    pub fn time(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        record: &mut dyn FnMut(&mut wgpu::CommandEncoder) -> Result<()>,
    ) -> Result<f64> {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.write_timestamp(&self.queries, 0);
        record(&mut encoder)?;
        encoder.write_timestamp(&self.queries, 1);
        encoder.resolve_query_set(&self.queries, 0..2, &self.ticks, 0);
        encoder.copy_buffer_to_buffer(&self.ticks, 0, &self.readback, 0, BYTES);
        queue.submit([encoder.finish()]);
        self.readback.map_async(wgpu::MapMode::Read, .., |_| ());
        device.poll(wgpu::PollType::wait_indefinitely()).context("waiting for the device")?;
        let ticks: [u64; 2] = {
            let mapped = self.readback.get_mapped_range(..).context("timestamps cannot be read")?;
            [0, 8].map(|at| u64::from_le_bytes(mapped[at..at + 8].try_into().expect("eight bytes")))
        };
        self.readback.unmap();
        Ok(ticks[1].saturating_sub(ticks[0]) as f64 * self.period)
    }
}
