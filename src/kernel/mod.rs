//! The kernels: WGSL files, the linker that joins them, and the structs that they share with the host.

pub mod catalog;
mod compact;
pub mod linker;
pub mod tables;
