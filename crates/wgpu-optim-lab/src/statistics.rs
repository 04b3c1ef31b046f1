//! Means, paired differences with an interval, and what they say.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Pairs of seeds that a verdict needs.
pub const SEEDS: usize = 5;

/// Mean and standard deviation of some runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation over n − 1; 0 for a single value.
    pub deviation: f64,
    /// How many values there are.
    pub count: usize,
}

impl Spread {
    /// The spread of these values, or `None` if there is no value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let deviation = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        (count > 0).then_some(Self { mean, deviation, count })
    }

    /// Half the width of the 95 % interval of the mean, by Student's t; infinite for a single value.
    pub fn half_width(&self) -> f64 {
        if self.count < 2 {
            return f64::INFINITY;
        }
        let freedom = (self.count - 1) as f64;
        let t = StudentsT::new(0.0, 1.0, freedom).expect("freedom > 0").inverse_cdf(0.975);
        t * self.deviation / (self.count as f64).sqrt()
    }
}

/// What a comparison says. Lower losses are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The interval of the difference lies below 0.
    Better,
    /// The interval of the difference lies above 0.
    Worse,
    /// The interval contains 0, or something is missing for a verdict.
    Undecided,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Undecided => "undecided",
        })
    }
}

/// The paired differences of two optimizers' losses, and what they say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Mean and deviation of the differences, own loss minus the other's, seed by seed. `None` without a pair.
    pub difference: Option<Spread>,
    /// What they say.
    pub verdict: Verdict,
    /// Why the verdict is undecided whatever the interval says.
    pub reason: Option<String>,
}

/// Compares the losses of pairs of runs, (own, other), each pair of one seed. A `reason` keeps the verdict undecided.
pub fn compare(pairs: &[(f64, f64)], reason: Option<String>) -> Comparison {
    let differences: Vec<f64> = pairs.iter().map(|(own, other)| own - other).collect();
    let difference = Spread::of(&differences);
    let few = (pairs.len() < SEEDS).then(|| format!("{} of at least {SEEDS} seeds", pairs.len()));
    let reason = reason.or(few);
    let verdict = match difference {
        Some(found) if reason.is_none() && found.mean + found.half_width() < 0.0 => Verdict::Better,
        Some(found) if reason.is_none() && found.mean - found.half_width() > 0.0 => Verdict::Worse,
        _ => Verdict::Undecided,
    };
    Comparison { difference, verdict, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five pairs whose differences have this mean and the deviation √0.025 ≈ 0.158.
    fn pairs(mean: f64) -> Vec<(f64, f64)> {
        [-0.2, -0.1, 0.0, 0.1, 0.2].iter().enumerate().map(|(seed, d)| (seed as f64 + mean + d, seed as f64)).collect()
    }

    #[test]
    fn the_interval_decides() {
        // t(0.975, 4) = 2.7764: half the width is 2.7764 · 0.15811 / √5 = 0.1963.
        let found = compare(&pairs(0.0), None).difference.unwrap();
        assert!((found.half_width() - 0.1963).abs() < 1e-4, "{}", found.half_width());
        for (mean, verdict) in [
            (-0.20, Verdict::Better),
            (-0.19, Verdict::Undecided),
            (0.0, Verdict::Undecided),
            (0.19, Verdict::Undecided),
            (0.20, Verdict::Worse),
        ] {
            assert_eq!(compare(&pairs(mean), None).verdict, verdict, "{mean}");
        }
    }

    #[test]
    fn equal_losses_are_undecided_and_a_constant_difference_is_decided() {
        let equal = [(1.0, 1.0); 5];
        assert_eq!(compare(&equal, None).verdict, Verdict::Undecided);
        assert_eq!(compare(&[(1.0, 1.5); 5], None).verdict, Verdict::Better);
    }

    #[test]
    fn few_seeds_and_other_reasons_leave_it_undecided() {
        let few = compare(&pairs(-1.0)[..4], None);
        assert_eq!((few.verdict, few.reason.as_deref()), (Verdict::Undecided, Some("4 of at least 5 seeds")));
        let edge = compare(&pairs(-1.0), Some("rate at edge".into()));
        assert_eq!((edge.verdict, edge.reason.as_deref()), (Verdict::Undecided, Some("rate at edge")));
        assert_eq!(compare(&[], None).difference, None);
    }
}
