//! GPU memory → host, as futures; blocking wrappers off the web only.

use futures_intrusive::channel::shared::oneshot_channel;

use super::slices::{TensorSlice, new_buffer};
use crate::error::{Error, Result};

/// A buffer that is copied into and read by the host.
pub(super) fn staging(device: &wgpu::Device, label: &str, size: u64) -> wgpu::Buffer {
    new_buffer(device, label, size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)
}

/// Copies slices to the host, one after the other. The copies are submitted at once; the future is ready when they
/// are done and the device has been polled (which a browser does by itself).
pub(crate) fn read(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    what: &str,
    slices: &[TensorSlice<'_>],
) -> impl Future<Output = Result<Vec<u8>>> + use<> {
    let size = slices.iter().map(|slice| slice.size).sum();
    let staging = staging(device, "wgpu-optim.readback.staging", size);
    let label = Some("wgpu-optim.readback");
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
    let mut at = 0;
    for &TensorSlice { buffer, offset, size } in slices {
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, at, size);
        at += size;
    }
    queue.submit([encoder.finish()]);
    let (sender, receiver) = oneshot_channel();
    staging.map_async(wgpu::MapMode::Read, .., move |result| {
        let _ = sender.send(result);
    });
    let what = what.to_owned();
    async move {
        let mapped = receiver.receive().await;
        mapped.ok_or_else(|| Error::readback(&what, "the device went away"))?.map_err(|e| Error::readback(&what, e))?;
        let bytes = staging.get_mapped_range(..).map_err(|e| Error::readback(&what, e))?.to_vec();
        // A browser frees a buffer that was merely dropped when it next collects garbage.
        staging.destroy();
        Ok(bytes)
    }
}

/// A struct of the kernels.
pub(crate) fn decode<T>(what: &str, bytes: &[u8]) -> Result<T>
where
    T: encase::ShaderType + encase::internal::CreateFrom,
{
    encase::StorageBuffer::new(bytes).create().map_err(|e| Error::readback(what, e))
}

/// Waits for all that was submitted. In a browser, whose reads get ready by themselves, it returns at once.
pub(crate) fn wait(device: &wgpu::Device) -> Result<()> {
    let waited = device.poll(wgpu::PollType::wait_indefinitely());
    waited.map(drop).map_err(|e| Error::Gpu(format!("waiting for the device: {e}")))
}

/// Waits for a future whose progress is that of the device.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn block_on<T>(device: &wgpu::Device, future: impl Future<Output = Result<T>>) -> Result<T> {
    wait(device)?;
    pollster::block_on(future)
}
