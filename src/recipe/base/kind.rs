//! What each base states: its rows in the table of kinds, its presets, the scalars of a step, its CPU twin.

use super::newton_schulz::NewtonSchulz;
use crate::recipe::matrix::Matrix;
use crate::recipe::prelude::*;

/// A row of the table of kinds: what plans and kernels know about a base, or about a variant of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseRow {
    /// The name in JSON. Variants after the first add a word, as in `adamw (rows)`.
    pub name: &'static str,
    /// The file in `shaders/base`, without its ending. Several rows may share one.
    pub shader: &'static str,
    /// The state, in the order in which kernels bind it. States per tensor come last.
    pub states: &'static [StateRow],
    /// How a later kernel of the same step finds the direction again.
    pub recall: Recall,
    /// The file in `shaders/base` that finds the rate of a matrix. `Some` means that the base orthogonalizes matrices.
    pub rate: Option<&'static str>,
}

/// The row of a base that orthogonalizes a momentum, except the name, the rate, and states per tensor.
pub(super) const MOMENTUM_ROW: BaseRow =
    BaseRow { name: "", shader: "momentum", states: &[MOMENTUM], recall: Recall::State, rate: None };

pub(super) const MOMENTUM: StateRow = StateRow { name: "momentum_buffer", per: Per::Coordinate, squares: false };

/// A state of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateRow {
    /// The name, as PyTorch calls it.
    pub name: &'static str,
    /// What has a number of its own.
    pub per: Per,
    /// Whether it sums squares: it is never negative, and its values differ widely in size.
    pub squares: bool,
}

/// What has its own number in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// Each coordinate.
    Coordinate,
    /// Each row: each index of a tensor's first dimension.
    Row,
    /// Each tensor.
    Tensor,
}

/// How a later kernel of a step finds the direction of a coordinate again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recall {
    /// It follows from the new state and the gradient.
    State,
    /// The new state has lost it. It is a sign, and two bits remember it.
    Sign,
}

/// The scalars of one step: hyper-parameters and bias corrections, computed in f64 on the host.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepScalars {
    /// Factor of the direction.
    pub step: f64,
    /// Share of the parameter that weight decay takes away.
    pub decay: f64,
    /// β1 and β2. Matrix bases have μ for the momentum, and for the direction: μ with Nesterov, else 1.
    pub betas: [f64; 2],
    /// ε as it is added to √v.
    pub eps: f64,
    /// Largest norm of a gradient, for AdaGO.
    pub clip: f64,
    /// Smallest step, for AdaGO.
    pub min_step: f64,
    /// √a before the first step, for AdaGO.
    pub accumulator_init: f64,
    /// Which of these depend on the step.
    pub(crate) corrects: Corrects,
}

impl StepScalars {
    /// (β, 1 − β) of each β, the difference taken in f64.
    pub(super) fn weights<T: Float>(&self) -> [(T, T); 2] {
        self.betas.map(|beta| (real(beta), real(1.0 - beta)))
    }
}

/// The scalars that a bias correction applies to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Corrects {
    pub step: bool,
    pub decay: bool,
    pub eps: bool,
}

/// Relative rounding of f32.
pub(super) const EPS: f64 = f32::EPSILON as f64;

/// A base: the hyper-parameters of a direction. Its struct also has the fields `lr` and `weight_decay`.
///
/// By default the direction is a momentum, as in bases that orthogonalize it.
pub(crate) trait Direction: Copy + Default {
    /// Rows of the table of kinds, one per variant.
    const ROWS: &'static [BaseRow];
    /// What steps tensors that are not matrices. `Self` if it steps any tensor.
    type Fallback;

    /// The row of this variant.
    fn row(&self) -> &'static BaseRow {
        &Self::ROWS[0]
    }

    /// The scalars of step `t`, counted from 1.
    fn scalars(&self, t: u64) -> StepScalars;

    /// Refuses values out of range that only this base has. `section` is where the base is in the recipe.
    fn validate(&self, _section: &str) -> Result<()> {
        Ok(())
    }

    fn fallback(&self) -> Option<Self::Fallback> {
        None
    }

    /// How it orthogonalizes matrices.
    fn newton_schulz(&self) -> Option<NewtonSchulz> {
        None
    }

    /// Changes what is proportional to the learning rate.
    fn follow(&mut self, _ratio: f64) {}

    /// Factor of the orthogonalized direction that follows from the shape of a matrix.
    fn rate(&self, _matrix: Matrix) -> f64 {
        1.0
    }

    /// Factor of the orthogonalized direction of a matrix in this step. Moves states per tensor on.
    fn matrix_rate<T: Float>(&self, matrix: Matrix, _grad: &[T], _states: &mut [Vec<T>]) -> T {
        real(self.rate(matrix))
    }

    /// Moves the states on, in the order of the row, and returns the direction.
    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let [(beta1, rest1), (beta2, rest2)] = scalars.weights::<T>();
        let moments = states[0].iter_mut().zip(grad);
        moments
            .map(|(m, &g)| {
                *m = beta1 * *m + rest1 * g;
                beta2 * *m + rest2 * g
            })
            .collect()
    }

    /// Bound of the rounding error of a direction `u` in f32, for a gradient `g` and the coordinate's states before the step. `None`
    /// if rounding decides the sign of the direction.
    fn direction_error(&self, scalars: &StepScalars, states: &[f64], g: f64, _u: f64) -> Option<f64> {
        let [beta1, beta2] = scalars.betas;
        let parts = (beta1 * states[0]).abs() + ((1.0 - beta1) * g).abs();
        Some(4.0 * EPS * (beta2 * parts + (1.0 - beta2) * g.abs()))
    }
}
