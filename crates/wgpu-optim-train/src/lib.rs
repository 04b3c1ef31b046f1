//! What the trainer shares with other programs on pictures: data sets and charts.

#![forbid(unsafe_code)]

pub mod chart;
pub mod data;
#[path = "../../wgpu-optim-cli/src/files.rs"]
pub mod files;
