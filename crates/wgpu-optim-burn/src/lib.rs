#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![doc = include_str!("../README.md")]

#[cfg(target_family = "wasm")]
compile_error!("wgpu-optim-burn blocks on the GPU, which a browser forbids: build it for a native target");

mod checkpoint;
mod context;
mod error;
mod gpu;
mod groups;
mod module;
mod optimizer;
mod record;
mod state;
mod survey;
mod tensor;

pub use error::{Error, StepError};
pub use gpu::Gpu;
pub use groups::Select;
pub use module::GpuModuleOptimizer;
pub use optimizer::{RecipeOptimizer, RecipeState};
pub use wgpu_optim;
