#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
//! Optimizer steps on any GPU through [wgpu](https://wgpu.rs): WGSL compute shaders for Vulkan, Metal, DirectX 12 and WebGPU.
//!
//! A [`GpuOptimizer`] keeps its state in storage buffers and records a step as a few dispatches. It steps parameters in its own
//! buffers, or in yours.
//!
//! ```
//! use wgpu_optim::{GpuOptimizer, Recipe, TensorSpec, adapter, wgpu};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (_instance, adapter) = pollster::block_on(adapter::from_env())?; // or any device
//! let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
//!
//! let specs = [TensorSpec::new("weight", [64, 32]), TensorSpec::new("bias", [64])];
//! let mut optimizer = GpuOptimizer::new_blocking(&device, &queue, &specs, Recipe::adamw(1e-3).mgup())?;
//! optimizer.write_grad("weight", &vec![0.5; 64 * 32])?; // or write `optimizer.grad("weight")?` with a kernel
//! let mut encoder = device.create_command_encoder(&Default::default());
//! optimizer.record(&mut encoder)?; // one step
//! queue.submit([encoder.finish()]);
//! assert!(optimizer.read_param_blocking("weight")?[0] < 0.0);
//! # Ok(()) }
//! ```
//!
//! # Where to look
//!
//! - **What to optimize with:** a [`Recipe`] is a [base] ([`AdamW`](base::AdamW), [`Lion`](base::Lion), [`Muon`](base::Muon) and 18
//!   more) times an update [policy] (plain, Cautious, MGUP, Cautious-MGUP, Grams). [`ParamGroups`] holds one recipe per group and the settings that all groups share: [schedules](schedule),
//!   clipping, [loss scaling](GradScaler), micro-batches, [`Precision`], [averages of parameters](Average), telemetry.
//! - **What to optimize:** [`TensorSpec`] names a tensor and its shape. [`MatrixLayout`] says how matrix bases view it as a matrix.
//! - **Where it lies:** in the optimizer's buffers ([`GpuOptimizer::new`]), in yours ([`GpuOptimizer::for_buffers`], [`TensorBuffers`]),
//!   or in yours together with the state ([`GpuOptimizer::stateless`]).
//! - **Steps:** [`record`](GpuOptimizer::record) adds one to an encoder, [`record_in_pass`](GpuOptimizer::record_in_pass) to an open compute
//!   pass, and [`step`](GpuOptimizer::step) also submits.
//! - **Saving:** [`save`](GpuOptimizer::save), [`resume`](GpuOptimizer::resume), [`load_matching`](GpuOptimizer::load_matching) and
//!   [`Checkpoint`]. The files are safetensors files. Not on the web.
//! - **Devices:** [`Requirements`] computes the limits that a device needs before you open one, [`adapter`] finds an adapter, and [`Cost`]
//!   counts memory, traffic and dispatches.
//! - **Checks:** [`reference`](mod@reference) takes the same steps on the CPU, and [`verify`] compares your GPU with it.
//! - **Other hosts:** [`Program`] is a step as data: buffers, WGSL and dispatches.
//!
//! Disable the default feature `backends` to choose wgpu's backends yourself. Errors are one type, [`Error`], with a stable
//! [code](Error::code) per kind.

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
pub use gpu::{
    GpuOptimizer, Requirements, Rows, Selected, StepLength, Telemetry, TensorBuffers, TensorSlice, TensorTelemetry,
};
pub use plan::cost::Cost;
pub use plan::layout::PlanLimits;
pub use plan::program::{self, Program};
pub use recipe::Recipe;
pub use recipe::average::Average;
pub use recipe::base::{self, Base};
pub use recipe::custom::TwinScalars;
pub use recipe::groups::ParamGroups;
pub use recipe::guard::{self, GradScaler, Guarded, NonFinite};
pub use recipe::launch::LaunchShape;
pub use recipe::matrix::{self, MatrixLayout};
pub use recipe::members::Members;
pub use recipe::policy::{self, Policy};
pub use recipe::precision::{Precision, Rounding};
pub use recipe::schedule::{self, LrSchedule};
pub use recipe::spec::TensorSpec;
pub use recipe::state::StateFormat;
pub use wgpu;

/// The snippets of the pages compile, and run where they say so.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/buffers.md")]
    struct Buffers;
    #[doc = include_str!("../docs/custom.md")]
    struct Custom;
    #[doc = include_str!("../docs/from-torch.md")]
    struct FromTorch;
    #[doc = include_str!("../docs/optimizers.md")]
    struct Optimizers;
    #[doc = include_str!("../docs/training.md")]
    struct Training;
}

/// WGSL of `p[i] = g[i]`, the yardstick of the benchmarks: 8 bytes per parameter. Its constant `RUN` is the number of vectors of four per
/// workgroup.
#[doc(hidden)]
pub const COPY: &str = include_str!("../benches/copy.wgsl");
