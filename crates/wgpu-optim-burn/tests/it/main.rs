//! The crate as a Burn program meets it, on the adapter that `WGPU_ADAPTER_NAME` chooses or the first.

mod checkpoint;
mod common;
mod drop_in;
mod edges;
mod lost;
mod record;
mod settings;
mod step;
