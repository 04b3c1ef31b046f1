//! Execute: buffers, pipelines and dispatches on a wgpu device.

mod access;
pub mod adapter;
mod average;
#[cfg(not(target_arch = "wasm32"))]
mod blocking;
mod build;
#[cfg(not(target_arch = "wasm32"))]
mod checkpoint;
#[cfg(not(target_arch = "wasm32"))]
mod compare;
mod custom;
#[cfg(not(target_arch = "wasm32"))]
mod entries;
#[cfg(not(target_arch = "wasm32"))]
mod file;
mod held;
mod observe;
mod optimizer;
mod pipelines;
pub(crate) mod readback;
mod record;
mod requirements;
mod resize;
mod ring;
mod scope;
mod slices;
mod submissions;
mod target;
mod telemetry;

#[cfg(not(target_arch = "wasm32"))]
pub use checkpoint::Part;
#[cfg(not(target_arch = "wasm32"))]
pub use file::{Checkpoint, FORMAT_VERSION};
#[doc(hidden)]
pub use optimizer::{Counts, Miss};
pub use optimizer::{GpuOptimizer, Selected};
pub use requirements::Requirements;
pub use resize::Rows;
pub use slices::{TensorBuffers, TensorSlice};
pub use telemetry::{StepLength, Telemetry, TensorTelemetry};
