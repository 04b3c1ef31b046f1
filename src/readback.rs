//! GPU memory → host, as futures; blocking wrappers off the web only.

use futures_intrusive::channel::shared::oneshot_channel;

use crate::error::Error;

/// Copies ranges `(buffer, offset, bytes)` to the host. The copies are submitted at once; the future is ready when they
/// are done and the device has been polled (which a browser does by itself).
pub(crate) fn read(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    what: &str,
    ranges: &[(&wgpu::Buffer, u64, u64)],
) -> impl Future<Output = Result<Vec<u8>, Error>> + use<> {
    let size: u64 = ranges.iter().map(|r| r.2).sum();
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("wgpu-optim.readback.staging"),
        size,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder =
        device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("wgpu-optim.readback") });
    let mut at = 0;
    for &(buffer, offset, bytes) in ranges {
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, at, bytes);
        at += bytes;
    }
    queue.submit([encoder.finish()]);
    let (sender, receiver) = oneshot_channel();
    staging.map_async(wgpu::MapMode::Read, .., move |result| {
        let _ = sender.send(result);
    });
    let what = what.to_owned();
    async move {
        let failed = |reason: String| Error::Readback { what: what.clone(), reason };
        match receiver.receive().await {
            Some(Ok(())) => {}
            Some(Err(e)) => return Err(failed(e.to_string())),
            None => return Err(failed("the device went away".to_owned())),
        }
        let bytes = staging.get_mapped_range(..).map_err(|e| failed(e.to_string()))?.to_vec();
        // A browser frees a buffer that was merely dropped when it next collects garbage.
        staging.destroy();
        Ok(bytes)
    }
}

/// A struct of the kernels.
pub(crate) fn decode<T: encase::ShaderType + encase::internal::CreateFrom>(
    what: &str,
    bytes: Vec<u8>,
) -> Result<T, Error> {
    let failed =
        |e: encase::internal::Error| Error::Readback { what: what.to_owned(), reason: e.to_string() };
    encase::StorageBuffer::new(bytes).create().map_err(failed)
}

/// Waits for a future whose progress is that of the device.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn block_on<T>(
    device: &wgpu::Device,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    device
        .poll(wgpu::PollType::wait_indefinitely())
        .map_err(|e| Error::Gpu(format!("waiting for the device: {e}")))?;
    pollster::block_on(future)
}
