//! How kernels over all coordinates are launched: for CPUs or for GPUs.

use super::matrix::Matmul;

/// How a step over all coordinates of a tensor is divided among workgroups. Software adapters give the same bits in both shapes.
///
/// [`adapter::launch_shape`](crate::adapter::launch_shape) chooses one for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LaunchShape {
    /// Workgroups of 32 invocations, each of which takes 128 coordinates in a loop. For adapters that are CPUs, where a long run per
    /// invocation is fast.
    #[default]
    Cpu,
    /// Workgroups of 256 invocations, each of which takes 4 coordinates, without a loop. For GPUs, which hide the latency of memory behind
    /// many invocations.
    Gpu,
}

impl LaunchShape {
    /// Both shapes.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Gpu];

    /// The shape for the same kind of adapter as these matrix products.
    pub(crate) fn of(matmul: Matmul) -> Self {
        if [Matmul::Registers, Matmul::Subgroups].contains(&matmul) { Self::Cpu } else { Self::Gpu }
    }
}
