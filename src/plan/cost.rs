//! What an optimizer costs, counted from its plan.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::layout::Plan;

/// Memory, traffic and dispatches of an optimizer: [`GpuOptimizer::cost`](crate::GpuOptimizer::cost), or without a device
/// [`Program::cost`](crate::Program::cost). Tables, a few hundred bytes per tensor, are left out.
///
/// ```
/// use wgpu_optim::matrix::Matmul;
/// use wgpu_optim::{Cost, PlanLimits, Program, Recipe, TensorSpec};
///
/// let specs = [TensorSpec::new("weight", [1024, 1024])];
/// let program = Program::new(&specs, Recipe::adamw(1e-3), PlanLimits::WEBGPU, Matmul::Tiles)?;
/// let Cost { traffic, dispatches, .. } = program.cost;
/// assert_eq!((traffic / program.parameters, dispatches), (28, 1));
/// assert_eq!(program.cost.to_string(), "16.8 MB of buffers; a step: 1 dispatch, 29.4 MB read and written");
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cost {
    /// Size in bytes of the optimizer's buffers: state, `scratch`, and parameters and gradients if it holds them.
    pub memory: u64,
    /// Size in bytes of the part of `memory` that is scratch space within a step.
    pub scratch: u64,
    /// Bytes that a step reads and writes in storage buffers, summed over its dispatches. It assumes the expected number of candidates
    /// and no missed bracket.
    pub traffic: u64,
    /// Number of dispatches of a step, without those that observe it or add up micro-batches. In your buffers, a dispatch that touches
    /// parameters or gradients is repeated for each pair of buffers that they lie in.
    pub dispatches: u64,
    /// Multiplications and additions of Newton–Schulz in a step, with all products counted in full: 4 m² n + 2 m³ per iteration on an
    /// m × n matrix, m ≤ n.
    pub flops: f64,
}

impl Cost {
    /// What a plan costs whose dispatches of a step move so many bytes each.
    pub(crate) fn of(plan: &Plan, dispatches: &[u64]) -> Self {
        Self {
            memory: plan.memory(),
            scratch: plan.scratch_memory(),
            traffic: dispatches.iter().sum(),
            dispatches: dispatches.len() as u64,
            flops: plan.flops(),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, traffic, dispatches, .. } = *self;
        let [memory, traffic] = [memory, traffic].map(|bytes| bytes as f64 / 1e6);
        let dispatches = if dispatches == 1 { "1 dispatch".to_owned() } else { format!("{dispatches} dispatches") };
        write!(f, "{memory:.1} MB of buffers; a step: {dispatches}, {traffic:.1} MB read and written")
    }
}
