//! What happens to gradients between the loss and the step: scaling, clipping, and steps that are skipped because a gradient
//! is not finite.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::precision::Precision;
use crate::ranges::{check, invertible};

/// What a step does when a gradient is infinite or not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// Nothing looks at it: its coordinate becomes unspecified. Costs nothing.
    #[default]
    Propagate,
    /// The step changes no parameter, no state and no count, and is itself counted. The GPU decides, so nothing waits: one pass
    /// over the gradients and two dispatches, shared with clipping.
    Skip,
    /// As `Skip`, and what is read about the step is [`Error::NonFinite`], once.
    Error,
}

/// Scales the loss so that small gradients survive a format of few bits, and finds the scale by itself, as PyTorch's
/// `GradScaler` does: a step with gradients that are not finite is skipped and the scale shrinks; after `interval` steps
/// without one it grows. All of it stays on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GradScaler {
    /// First scale, 2⁻¹²⁶ to 2¹²⁶, beyond which it does not grow. Default 65,536.
    pub init: f64,
    /// What the scale is multiplied by when it grows, ≥ 1. Default 2.
    pub growth: f64,
    /// What the scale is multiplied by when it shrinks, in (0, 1]. Default 0.5.
    pub backoff: f64,
    /// Steps in a row without overflow after which it grows, 1 to 2³¹. Default 2,000.
    pub interval: u32,
}

impl Default for GradScaler {
    fn default() -> Self {
        Self { init: 65_536.0, growth: 2.0, backoff: 0.5, interval: 2_000 }
    }
}

impl GradScaler {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        check("grad_scaler.init", self.init, invertible)?;
        check("grad_scaler.growth", self.growth, |x| (!(1.0..=1e9).contains(&x)).then_some("in [1, 1e9]"))?;
        let share = |x: f64| (!(x > 0.0 && x <= 1.0)).then_some("in (0, 1]");
        check("grad_scaler.backoff", self.backoff, share)?;
        let count = |x: f64| (!(1.0..=f64::from(1u32 << 31)).contains(&x)).then_some("1 to 2^31");
        check("grad_scaler.interval", self.interval.into(), count)
    }
}

/// What the kernels of a step do with gradients as they read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Gradients {
    /// How they are stored.
    pub format: Precision,
    /// Whether each value is limited.
    pub limited: bool,
    /// Whether they are multiplied by factors that the GPU finds first: to clip their norm, to undo the scale of the loss.
    pub guarded: bool,
    /// Whether a step may be skipped; then they are guarded as well.
    pub skips: bool,
}

/// What the guard of a step found: that of the last one that ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guarded {
    /// Norm of all gradients of the step, after the loss's scale was undone and values were limited, before it was clipped. Infinite
    /// if it overflows, or if a gradient is not finite.
    pub grad_norm: f32,
    /// What the next loss is to be multiplied by; 1 without a [`GradScaler`].
    pub loss_scale: f32,
    /// Whether the step was skipped.
    pub skipped: bool,
    /// Steps that were skipped so far.
    pub skipped_steps: u64,
}
