//! What wgpu refuses, as errors instead of panics.

use crate::error::Error;

/// Runs `work`, and returns the validation error that wgpu reports meanwhile: a destroyed buffer, for one. In a browser, where the
/// answer takes a while and nothing panics, it reports none.
///
/// # Errors
/// [`Error::Gpu`] with wgpu's words.
pub(crate) fn watch<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> Result<T, Error> {
    if cfg!(target_arch = "wasm32") {
        return Ok(work());
    }
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let done = work();
    // Off the web it is known at once.
    match pollster::block_on(scope.pop()) {
        None => Ok(done),
        Some(error) => Err(Error::Gpu(error.to_string())),
    }
}
