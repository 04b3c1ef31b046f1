#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![doc = include_str!("../README.md")]

pub mod adapter;
pub mod base;
mod batches;
mod error;
mod groups;
pub mod guard;
mod json;
pub mod kernel;
pub mod matrix;
mod members;
mod optimizer;
pub mod passes;
pub mod plan;
pub mod policy;
mod precision;
mod ranges;
mod readback;
mod recipe;
pub mod reference;
mod requirements;
mod ring;
pub mod sampling;
pub mod schedule;
mod scope;
mod slices;
mod submissions;
mod telemetry;
pub mod verify;

pub use base::Base;
pub use error::{Error, Missing};
pub use groups::ParamGroups;
pub use guard::{GradScaler, Guarded, NonFinite};
pub use matrix::MatrixLayout;
pub use members::Members;
#[cfg(not(target_arch = "wasm32"))]
pub use optimizer::{Checkpoint, FORMAT_VERSION};
#[doc(hidden)]
pub use optimizer::{Counts, Miss};
pub use optimizer::{GpuOptimizer, Rows, Selected};
pub use plan::TensorSpec;
pub use policy::Policy;
pub use precision::Precision;
pub use recipe::Recipe;
pub use requirements::Requirements;
pub use schedule::LrSchedule;
pub use slices::{TensorBuffers, TensorSlice};
pub use telemetry::{Telemetry, TensorTelemetry};
pub use wgpu;
