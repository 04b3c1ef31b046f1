//! Does an optimizer help, or is it only a longer step? Studies that compare optimizers on tasks by a fixed [`protocol`].
//!
//! The program `wgpu-optim-lab` runs the studies that a TOML file describes. Programs with tasks of their own implement [`Task`] and call
//! [`Study::run`], as `examples/own_task.rs` does.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
mod learner;
mod open;
pub mod protocol;
pub mod report;
pub mod results;
pub mod statistics;
mod study;
mod task;
mod tasks;
pub mod ties;
mod train;

pub use learner::Place;
pub use study::{Ended, Study};
pub use task::{Held, Rng, Sources, Task};
pub use tasks::layers::{normal, ones, uniform, zeros};
pub use tasks::{
    AutoencoderConfig, ClassificationConfig, FineTuningConfig, LanguageConfig, Network, QuadraticConfig,
    RegressionConfig, TaskConfig,
};
pub use train::Trains;
pub(crate) use wgpu_optim_train::files;
