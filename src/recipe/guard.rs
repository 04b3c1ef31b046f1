//! Gradients between the loss and the step: scaling, clipping, and skipped steps.

use super::precision::Precision;
use crate::recipe::prelude::*;

/// What a step does when a gradient is infinite or not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NonFinite {
    /// The coordinate becomes unspecified. Costs nothing.
    #[default]
    Propagate,
    /// The step changes no parameter, no state and no step count. A count of skipped steps goes up. The GPU decides, so the CPU does
    /// not wait. Costs one pass over the gradients and two dispatches, shared with clipping.
    Skip,
    /// As `Skip`. In addition, the next `read_guarded`, `read_grad_norm` or `take_telemetry` returns [`Error::NonFinite`].
    Error,
}

/// Scales the loss so that small gradients do not round to 0 in f16. Like PyTorch's `GradScaler`, it finds the scale by itself. It does so
/// on the GPU, without waiting:
///
/// - A step with a gradient that is not finite is skipped, and the scale shrinks.
/// - After `interval` steps in a row without one, the scale grows.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GradScaler {
    /// First scale, 2⁻¹²⁶ to 2¹²⁶. The scale does not grow beyond 2¹²⁶. Default 65,536.
    #[default(65_536.0)]
    pub init: f64,
    /// Factor of the scale when it grows, 1 to 1e9. Default 2.
    #[default(2.0)]
    pub growth: f64,
    /// Factor of the scale when it shrinks, in (0, 1]. Default 0.5.
    #[default(0.5)]
    pub backoff: f64,
    /// Steps in a row without overflow after which it grows, 1 to 2³¹. Default 2,000.
    #[default(2_000)]
    pub interval: u32,
}

impl GradScaler {
    pub(crate) fn validate(&self) -> Result<()> {
        check("grad_scaler.init", self.init, INVERTIBLE)?;
        check("grad_scaler.growth", self.growth, (|x| (1.0..=1e9).contains(&x), "in [1, 1e9]"))?;
        check("grad_scaler.backoff", self.backoff, SHARE)?;
        check("grad_scaler.interval", self.interval.into(), (|x| (1.0..=2_147_483_648.0).contains(&x), "1 to 2^31"))
    }
}

/// What the kernels of a step do to gradients as they read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Gradients {
    /// Stored format.
    pub format: Precision,
    /// Whether each value is limited.
    pub limited: bool,
    /// Whether the GPU first finds factors for them: to clip their norm, and to undo the scale of the loss.
    pub guarded: bool,
    /// Whether a step may be skipped. Then they are guarded too.
    pub skips: bool,
}

/// The norm of the last step's gradients, whether the step was skipped, and the scale of the next loss.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Guarded {
    /// Norm of all gradients of the step, before clipping. The scale of the loss is undone, and values are limited. Infinite if it
    /// overflows, or if a gradient is not finite.
    pub grad_norm: f32,
    /// Factor for the next loss; 1 without a [`GradScaler`].
    pub loss_scale: f32,
    /// Whether the step was skipped.
    pub skipped: bool,
    /// Number of skipped steps so far.
    pub skipped_steps: u64,
}
