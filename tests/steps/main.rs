//! What steps compute, on every adapter.

#[path = "../common/mod.rs"]
mod common;

mod averages;
mod components;
mod custom;
mod eight_bit;
mod golden;
mod gradients;
mod matrix;
mod optimizer;
mod pass;
mod poison;
mod rounding;
mod rounds;
mod rows;
mod selection;
mod shape;
mod step_averages;
mod table;
mod threads;
