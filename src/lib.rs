#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
#![doc = include_str!("../README.md")]

mod error;
mod gpu;
#[doc(hidden)]
pub mod kernel;
#[doc(hidden)]
pub mod plan;
mod recipe;
pub mod reference;
pub mod verify;

pub use error::{Error, Missing};
pub use gpu::adapter;
#[cfg(not(target_arch = "wasm32"))]
pub use gpu::{Checkpoint, FORMAT_VERSION, Part};
#[doc(hidden)]
pub use gpu::{Counts, Miss};
pub use gpu::{GpuOptimizer, Requirements, Rows, Selected, Telemetry, TensorBuffers, TensorSlice, TensorTelemetry};
pub use plan::cost::Cost;
pub use plan::layout::PlanLimits;
pub use plan::program::{self, Program};
pub use recipe::Recipe;
pub use recipe::base::{self, Base};
pub use recipe::groups::ParamGroups;
pub use recipe::guard::{self, GradScaler, Guarded, NonFinite};
pub use recipe::matrix::{self, MatrixLayout};
pub use recipe::members::Members;
pub use recipe::policy::{self, Policy};
pub use recipe::precision::Precision;
pub use recipe::schedule::{self, LrSchedule};
pub use recipe::spec::TensorSpec;
pub use wgpu;

/// The page's snippets compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/from-torch.md")]
struct FromTorch;

/// WGSL of `p[i] = g[i]`, the yardstick of the benchmarks: 8 bytes per parameter. Its constant `RUN` is the number of vectors of four per
/// workgroup.
#[doc(hidden)]
pub const COPY: &str = include_str!("../benches/copy.wgsl");
