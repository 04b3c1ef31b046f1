//! The blocking twins of calls that return futures. Not on the web, where nothing may block.

use pollster::block_on;

use super::optimizer::{GpuOptimizer, Selected};
use super::readback;
use super::resize::Rows;
use crate::error::Result;
use crate::recipe::groups::ParamGroups;
use crate::recipe::guard::Guarded;
use crate::recipe::spec::TensorSpec;

/// Declares twins: their names, the calls that they block on, and how.
macro_rules! twins {
    ($($twin:ident = $name:ident($($argument:tt)*) -> $out:ty { $block:expr })*) => {
        impl GpuOptimizer {
            $(
                #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), "), blocking. Not on the web.")]
                ///
                /// # Errors
                #[doc = concat!("As for [`", stringify!($name), "`](Self::", stringify!($name), ").")]
                pub fn $twin($($argument)*) -> Result<$out> {
                    $block
                }
            )*
        }
    };
}

twins! {
    new_blocking = new(device: &wgpu::Device, queue: &wgpu::Queue, specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Self {
        block_on(Self::new(device, queue, specs, groups))
    }

    for_buffers_blocking = for_buffers(device: &wgpu::Device, queue: &wgpu::Queue, specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Self {
        block_on(Self::for_buffers(device, queue, specs, groups))
    }

    stateless_blocking = stateless(device: &wgpu::Device, queue: &wgpu::Queue, specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Self {
        block_on(Self::stateless(device, queue, specs, groups))
    }

    sibling_blocking = sibling(&self, specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Self {
        block_on(self.sibling(specs, groups))
    }

    resized_blocking = resized(&self, specs: &[TensorSpec], rows: &[(&str, Rows<'_>)]) -> Self {
        block_on(self.resized(specs, rows))
    }

    read_param_blocking = read_param(&self, name: &str) -> Vec<f32> {
        readback::block_on(&self.device, self.read_param(name)?)
    }

    read_state_blocking = read_state(&self, name: &str, state: &str) -> Vec<f32> {
        readback::block_on(&self.device, self.read_state(name, state)?)
    }

    read_selected_blocking = read_selected(&self, name: &str) -> Selected {
        readback::block_on(&self.device, self.read_selected(name)?)
    }

    read_steps_blocking = read_steps(&self, name: &str) -> u64 {
        readback::block_on(&self.device, self.read_steps(name)?)
    }

    read_guarded_blocking = read_guarded(&self) -> Guarded {
        readback::block_on(&self.device, self.read_guarded()?)
    }

    read_grad_norm_blocking = read_grad_norm(&self) -> f32 {
        readback::block_on(&self.device, self.read_grad_norm()?)
    }
}
