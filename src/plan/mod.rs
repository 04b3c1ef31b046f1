//! Plan: where tensors lie, and the step as a program. Plain data, no wgpu.

pub(crate) mod assemble;
pub(crate) mod batches;
pub mod cost;
mod counters;
mod describe;
mod elementwise;
pub(crate) mod held;
pub mod layout;
mod orthogonal;
mod pages;
pub mod program;
pub(crate) mod scalars;
pub(crate) mod stage;
pub(crate) mod storage;
pub(crate) mod work;
