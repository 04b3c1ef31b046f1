//! Learning rate schedules.

use std::fmt;
use std::sync::Arc;

use super::prelude::*;

/// A factor of the learning rate per step: a linear warm-up, then a [`Shape`].
///
/// ```
/// use wgpu_optim::schedule::LrSchedule;
///
/// let schedule = LrSchedule::cosine(1_000, 0.1).with_warmup(100);
/// assert_eq!(schedule.factor(0), 0.01); // the first of 100 steps
/// assert_eq!(schedule.factor(100), 1.0);
/// assert_eq!(schedule.factor(5_000), 0.1);
/// ```
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LrSchedule {
    /// Steps of a linear warm-up. Step n, counted from 0, has the factor (n + 1) / warmup. Default 0: none.
    #[serde(default)]
    pub warmup: u64,
    /// The factor after the warm-up.
    #[default(Shape::Constant {})]
    pub shape: Shape,
}

/// A factor of the learning rate after the warm-up. Steps are counted from 0 and include the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Shape {
    /// The factor is always 1.
    Constant {},
    /// Half a cosine from 1 down to `floor` at step `steps`, then `floor`.
    Cosine {
        /// Number of steps with the warm-up, more than `warmup`.
        steps: u64,
        /// Last factor, in [0, 1].
        floor: f64,
    },
    /// A line from 1 down to `floor` at step `steps`, then `floor`.
    Linear {
        /// Number of steps with the warm-up, more than `warmup`.
        steps: u64,
        /// Last factor, in [0, 1].
        floor: f64,
    },
    /// Starts at 1 after the warm-up. Every `every` steps multiply it by `factor`.
    Step {
        /// Steps between changes, at least 1.
        every: u64,
        /// Factor of each change, in (0, 1].
        factor: f64,
    },
    /// Warm-up, stable, decay: 1, then a line down to `floor` over the last `decay` steps.
    Stable {
        /// Number of steps with warm-up and decay, at least `warmup` + `decay`.
        steps: u64,
        /// Number of steps of the decay, at least 1.
        decay: u64,
        /// Last factor, in [0, 1].
        floor: f64,
    },
    /// The result of a function. A checkpoint keeps the step, not the function.
    #[serde(skip)]
    Function(Function),
}

/// A function from the step, counted from 0, to the factor of the learning rate, ≥ 0 and finite.
#[derive(Clone)]
pub struct Function(Arc<dyn Fn(u64) -> f64 + Send + Sync>);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function(..)")
    }
}

/// Clones of the same function are equal.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<Shape> for LrSchedule {
    fn from(shape: Shape) -> Self {
        Self { warmup: 0, shape }
    }
}

impl LrSchedule {
    /// The factor 1.
    pub fn constant() -> Self {
        Self::default()
    }

    /// Half a cosine over `steps`, down to `floor`.
    pub fn cosine(steps: u64, floor: f64) -> Self {
        Shape::Cosine { steps, floor }.into()
    }

    /// A line over `steps`, down to `floor`.
    pub fn linear(steps: u64, floor: f64) -> Self {
        Shape::Linear { steps, floor }.into()
    }

    /// Starts at 1. Every `every` steps, at least 1, multiply it by `factor`, in (0, 1].
    pub fn step(every: u64, factor: f64) -> Self {
        Shape::Step { every, factor }.into()
    }

    /// Warm-up, stable, decay: the last `decay` of `steps` steps go down to `floor`.
    pub fn stable(steps: u64, decay: u64, floor: f64) -> Self {
        Shape::Stable { steps, decay, floor }.into()
    }

    /// Any function from the step, counted from 0, to the factor, ≥ 0 and finite. During a warm-up it is not called.
    ///
    /// ```
    /// use wgpu_optim::LrSchedule;
    /// use wgpu_optim::schedule::Shape;
    ///
    /// let halved = LrSchedule::function(|step| 0.5f64.powi((step / 1000) as i32));
    /// assert_eq!(halved.factor(2500), 0.25);
    /// assert!(matches!(halved.shape, Shape::Function(_)));
    /// ```
    pub fn function(factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Self {
        Shape::Function(Function(Arc::new(factor))).into()
    }

    /// The same schedule after a linear warm-up of this many steps.
    #[must_use]
    pub fn with_warmup(self, warmup: u64) -> Self {
        Self { warmup, ..self }
    }

    /// The factor of a step, counted from 0. A schedule out of range may return any number.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        // Progress from `first` to `steps`.
        let share = |first: u64, steps: u64| {
            let (done, all) = (step.saturating_sub(first), steps.saturating_sub(first));
            if done >= all { 1.0 } else { done as f64 / all as f64 }
        };
        let down = |floor: f64, share: f64| floor + (1.0 - floor) * (1.0 - share);
        match self.shape {
            Shape::Constant {} => 1.0,
            Shape::Cosine { steps, floor } => {
                down(floor, 0.5 - 0.5 * (std::f64::consts::PI * share(self.warmup, steps)).cos())
            }
            Shape::Linear { steps, floor } => down(floor, share(self.warmup, steps)),
            Shape::Step { every, factor } => {
                let times = (step - self.warmup) / every.max(1);
                factor.powi(i32::try_from(times).unwrap_or(i32::MAX))
            }
            Shape::Stable { steps, decay, floor } => down(floor, share(steps.saturating_sub(decay), steps)),
            Shape::Function(ref function) => function.0(step),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let steps_above = |steps: u64, others: u64| {
            let least = self.warmup.saturating_add(others);
            let allowed = format!("at least {least}: they include the warm-up");
            let refusal = Error::Recipe { field: "schedule.steps".to_owned(), value: steps.to_string(), allowed };
            if steps >= least { Ok(()) } else { Err(refusal) }
        };
        match self.shape {
            Shape::Constant {} | Shape::Function(_) => Ok(()),
            Shape::Cosine { steps, floor } | Shape::Linear { steps, floor } => {
                check("schedule.floor", floor, CLOSED_UNIT)?;
                steps_above(steps, 1)
            }
            Shape::Step { every, factor } => {
                check("schedule.every", every as f64, AT_LEAST_1)?;
                check("schedule.factor", factor, SHARE)
            }
            Shape::Stable { steps, decay, floor } => {
                check("schedule.floor", floor, CLOSED_UNIT)?;
                check("schedule.decay", decay as f64, AT_LEAST_1)?;
                steps_above(steps, decay)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_pass_through_their_corners() {
        let at = |schedule: &LrSchedule, steps: &[u64]| -> Vec<f64> {
            steps.iter().map(|&step| (schedule.factor(step) * 1e6).round() / 1e6).collect()
        };
        assert_eq!(at(&LrSchedule::constant(), &[0, 1, u64::MAX]), [1.0; 3]);
        let warm = LrSchedule::linear(12, 0.5).with_warmup(4);
        assert_eq!(at(&warm, &[0, 1, 3, 4, 8, 12, 99]), [0.25, 0.5, 1.0, 1.0, 0.75, 0.5, 0.5]);
        let cosine = LrSchedule::cosine(10, 0.2).with_warmup(2);
        assert_eq!(at(&cosine, &[1, 2, 6, 10, 11]), [1.0, 1.0, 0.6, 0.2, 0.2]);
        let stairs = LrSchedule::step(3, 0.5).with_warmup(1);
        assert_eq!(at(&stairs, &[0, 1, 3, 4, 7]), [1.0, 1.0, 1.0, 0.5, 0.25]);
        let stable = LrSchedule::stable(10, 4, 0.0).with_warmup(2);
        assert_eq!(at(&stable, &[0, 2, 5, 6, 8, 10]), [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]);
        let function = LrSchedule::function(|step| 1.0 / (1.0 + step as f64)).with_warmup(2);
        assert_eq!(at(&function, &[0, 1, 3]), [0.5, 1.0, 0.25]);
    }

    #[test]
    fn json_goes_and_comes() {
        let text = r#"{"warmup": 5, "shape": {"type": "cosine", "steps": 50, "floor": 0.1}}"#;
        let schedule: LrSchedule = serde_json::from_str(text).unwrap();
        assert_eq!(schedule, LrSchedule::cosine(50, 0.1).with_warmup(5));
        assert_eq!(serde_json::from_str::<LrSchedule>(&serde_json::to_string(&schedule).unwrap()).unwrap(), schedule);
        assert!(serde_json::to_string(&LrSchedule::function(|_| 1.0)).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for (schedule, field) in [
            (LrSchedule::cosine(10, 1.5), "schedule.floor"),
            (LrSchedule::cosine(10, 0.5).with_warmup(10), "schedule.steps"),
            (LrSchedule::step(0, 0.5), "schedule.every"),
            (LrSchedule::step(1, 0.0), "schedule.factor"),
            (LrSchedule::stable(10, 9, 0.0).with_warmup(2), "schedule.steps"),
            (LrSchedule::stable(10, 0, 0.0), "schedule.decay"),
        ] {
            let message = schedule.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
