//! What wgpu refuses, as errors instead of panics.

use wgpu::ErrorFilter::{self, Internal, OutOfMemory, Validation};

use crate::error::{Error, Result};

/// Every kind of error.
pub(super) const ALL: [ErrorFilter; 3] = [Validation, OutOfMemory, Internal];

/// Runs `work`, and returns with its result the first error of these kinds that wgpu reports meanwhile. Off the web it is known at
/// once, and the future can be sent to another thread.
pub(super) fn errors<const N: usize, T, F: FnOnce() -> T>(
    device: &wgpu::Device,
    kinds: [ErrorFilter; N],
    work: F,
) -> (T, impl Future<Output = Option<wgpu::Error>> + use<N, T, F>) {
    let scopes = kinds.map(|kind| device.push_error_scope(kind));
    let done = work();
    let errors: Vec<_> = scopes.into_iter().rev().map(wgpu::ErrorScopeGuard::pop).collect();
    let first = async move {
        let mut first = None;
        for error in errors {
            first = first.or(error.await);
        }
        first
    };
    (done, first)
}

/// Runs `work`, and returns the validation error that wgpu reports meanwhile: a destroyed buffer, for one. In a browser, where the
/// answer takes a while and nothing panics, it reports none.
///
/// # Errors
/// [`Error::Gpu`] with wgpu's words.
pub(crate) fn watch<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> Result<T> {
    if cfg!(target_arch = "wasm32") {
        return Ok(work());
    }
    let (done, error) = errors(device, [Validation], work);
    pollster::block_on(error).map_or(Ok(done), |error| Err(Error::Gpu(error.to_string())))
}
