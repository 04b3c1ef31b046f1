//! Averages of the parameters over the steps of a run.

use super::precision::Precision;
use super::prelude::*;

/// An average of each parameter over the steps of a run, for evaluation: [`GpuOptimizer::evaluate`](crate::GpuOptimizer::evaluate) puts it
/// in the place of the parameter.
///
/// The first update of an average takes the parameter. Update n adds w (θ − average), with this weight w:
///
/// ```text
/// moving average:              max(1 − decay, 1 / n)
/// the same without warm-up:    1 − decay
/// mean (SWA):                  1 / n
/// ```
///
/// With warm-up, the moving average begins as the mean of all updates, so that it does not remember the first one for long. Moving
/// averages are those of Polyak (1990); the mean is the stochastic weight averaging of Izmailov et al. (2018), arXiv 1803.05407.
///
/// ```
/// use wgpu_optim::{Average, ParamGroups, Precision, Recipe};
///
/// let moving = ParamGroups::from(Recipe::adamw(1e-3)).with_average(Average::moving(0.999));
/// let late = Average::mean().start(7_500).every(100);
/// let mean = ParamGroups::from(Recipe::adamw(1e-3)).with_average(late);
/// assert!(late.is_due(7_600) && !late.is_due(7_650));
/// assert_eq!([late.weight(1), late.weight(2)], [1.0, 0.5]);
///
/// // Two bytes each, for parameters that have two bytes.
/// let half = Average::moving(0.999).precision(Precision::Bf16);
/// let small = ParamGroups::from(Recipe::adamw(1e-3)).with_precision(Precision::Bf16).with_split_masters().with_average(half);
/// # small.validate()?;
/// # moving.validate()?;
/// # mean.validate()?;
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Average {
    /// Whether it is the mean of all updates, whatever the decay. Default false.
    #[setters(skip)]
    pub mean: bool,
    /// Decay of a moving average, in [0, 1). Default 0.999.
    #[default(0.999)]
    pub decay: f64,
    /// Whether a moving average begins as a mean. Default true.
    #[default(true)]
    pub warmup: bool,
    /// Steps of a tensor before its average begins. The first update follows step `start + every`. Default 0.
    pub start: u32,
    /// Steps from one update to the next, at least 1. Default 1.
    #[default(1)]
    pub every: u32,
    /// How averages are stored. bf16 saves 2 bytes of memory and 4 of traffic per parameter, and rounds updates up or down at random, so that
    /// small ones add up. It needs bf16 parameters without whole masters. Default f32.
    #[serde(skip_serializing_if = "is_f32")]
    pub precision: Precision,
}

fn is_f32(precision: &Precision) -> bool {
    *precision == Precision::F32
}

impl Average {
    /// A moving average with this decay, in [0, 1), over all steps.
    pub fn moving(decay: f64) -> Self {
        Self { decay, ..Self::default() }
    }

    /// The mean of all updates: stochastic weight averaging.
    pub fn mean() -> Self {
        Self { mean: true, ..Self::default() }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check("average.decay", self.decay, UNIT)?;
        check("average.every", self.every.into(), AT_LEAST_1)
    }

    /// Whether an update follows step t of a tensor, which counts from 1.
    pub fn is_due(&self, t: u64) -> bool {
        let since = t.saturating_sub(self.start.into());
        since > 0 && since.is_multiple_of(self.every.into())
    }

    /// The weight of update n, which counts from 1.
    pub fn weight(&self, n: u64) -> f64 {
        let (least, of_mean) = (self.least_weight(), 1.0 / n as f64);
        if n == 1 || self.begins_as_mean() { of_mean.max(least) } else { least }
    }

    /// The weight of updates after many of them.
    pub(crate) fn least_weight(&self) -> f64 {
        if self.mean { 0.0 } else { 1.0 - self.decay }
    }

    /// Whether update n has at least the weight 1 / n.
    pub(crate) fn begins_as_mean(&self) -> bool {
        self.mean || self.warmup
    }
}
