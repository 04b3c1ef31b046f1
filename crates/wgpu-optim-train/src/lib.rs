//! What the trainer shares with other programs on pictures: data sets, charts, files and Ctrl-C.

#![forbid(unsafe_code)]

pub mod chart;
pub mod data;
#[path = "../../wgpu-optim-cli/src/files.rs"]
pub mod files;
pub mod interrupt;
