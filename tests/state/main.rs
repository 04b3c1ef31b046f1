//! What an optimizer holds and says: its files, sizes and types, and what is left of it when something fails.

#[path = "../common/mod.rs"]
mod common;

mod checkpoint;
mod faults;
mod hostile;
mod misuse;
mod precision;
mod resize;
mod telemetry;
