//! What a parameter carries in addition to its values.

use burn::module::ParamId;
use burn::tensor::{GradientCheckpointingStrategy, Tensor};

/// A step leaves the autodiff tape; this is what its result needs to come back onto it.
#[derive(Clone, PartialEq)]
pub(crate) struct Context {
    autodiff: bool,
    pub require_grad: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
    distributed: bool,
}

impl Context {
    pub(crate) fn capture<const D: usize>(parameter: &Tensor<D>) -> Self {
        let autodiff = parameter.is_autodiff();
        Self {
            autodiff,
            require_grad: parameter.is_require_grad(),
            checkpointing: parameter.gradient_checkpointing_strategy(),
            // Burn has no answer for quantized tensors.
            distributed: autodiff && parameter.dtype().is_float() && parameter.is_distributed(),
        }
    }

    pub(crate) fn restore<const D: usize>(self, tensor: Tensor<D>, id: ParamId) -> Tensor<D> {
        if !self.autodiff {
            return tensor;
        }
        let mut tensor = Tensor::from_inner(tensor);
        if let Some(strategy) = self.checkpointing {
            tensor = tensor.with_gradient_checkpointing_strategy(strategy);
        }
        if self.require_grad {
            tensor = tensor.require_grad();
        }
        if self.distributed { tensor.set_distributed(id) } else { tensor }
    }
}
