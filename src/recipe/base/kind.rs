//! What each base states: its rows in the table of kinds, its presets, the scalars of a step, its CPU twin.

use super::newton_schulz::NewtonSchulz;
use crate::recipe::custom::{Definition, WORDS};
use crate::recipe::matrix::Matrix;
use crate::recipe::prelude::*;
use crate::recipe::spec::TensorSpec;
use crate::recipe::state::{Code, StateFormat};

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
    /// The pipeline constants that are true in this variant.
    pub constants: &'static [&'static str],
    /// The file in `shaders/correction` that corrects the scalars of a step where steps may be skipped.
    pub correction: &'static str,
    /// The file in `shaders/base` that finds the rate of a matrix or tensor. `Some` means that only the GPU knows this factor of the step.
    /// Each tensor then lies in one page.
    pub rate: Option<&'static str>,
    /// The norms that determine the rate of a tensor, for bases that do not orthogonalize.
    pub norms: Option<Norms>,
    /// How sums of squares update the states of rows and columns of a matrix.
    pub lines: Option<Lines>,
    /// Whether the base is schedule-free: parameters lie between an average and z, which takes the steps. Its first state is then z minus
    /// the parameter.
    pub averages: bool,
    /// Whether it orthogonalizes matrices.
    pub is_matrix: bool,
    /// Why policies that follow the sign of the score do not work with it; `None` if they do.
    pub no_signs: Option<&'static str>,
    /// Why its states must be f32; `None` if they may be rounded to one byte.
    pub needs_f32: Option<&'static str>,
    /// The text of a custom base, which replaces the shader files. `None` for a built-in base.
    pub custom: Option<CustomRow>,
}

/// The fields of a row that only custom bases have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomRow {
    /// The checked text.
    pub definition: &'static Definition,
    pub(super) bindings: [&'static [StateBinding]; 2],
}

/// The pipeline constant of variants whose weight decay is a part of the gradient.
pub(super) const COUPLED: &str = "COUPLED";

/// The pipeline constant of bases whose rate of weight decay only the GPU knows, for each matrix.
pub(super) const OWN_DECAY: &str = "OWN_DECAY";

/// The pipeline constant of bases whose step has a factor that only the GPU knows, for each tensor.
pub(super) const OWN_STEP: &str = "OWN_STEP";

impl BaseRow {
    /// The module `package::base` of a custom base. Empty for a built-in base.
    pub(crate) fn text(&self) -> &'static str {
        self.custom.map_or("", |custom| &custom.definition.module)
    }

    /// A row without a name, a shader and states: the direction follows from the new state and the gradient.
    pub(super) const ELEMENTWISE: Self = Self {
        name: "",
        shader: "",
        states: &[],
        recall: Recall::State,
        constants: &[],
        correction: "none",
        rate: None,
        norms: None,
        lines: None,
        averages: false,
        is_matrix: false,
        no_signs: None,
        needs_f32: None,
        custom: None,
    };

    /// A base that orthogonalizes a momentum, except the name and the rate.
    pub(super) const MOMENTUM: Self =
        Self { shader: "momentum", states: &[MOMENTUM], is_matrix: true, ..Self::ELEMENTWISE };
}

/// The name of the first state of schedule-free bases: z minus the parameter.
pub(crate) const Z_OFFSET: &str = "z_offset";

pub(super) const MOMENTUM: StateRow = StateRow::new("momentum_buffer");

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

impl StateRow {
    /// A state per coordinate.
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, per: Per::Coordinate, squares: false }
    }

    /// The code of a byte that may hold it.
    pub(crate) fn code(&self) -> Code {
        if self.squares { Code::Squares } else { Code::Signed }
    }

    /// A state per coordinate that sums squares.
    pub(super) const fn squares(name: &'static str) -> Self {
        Self { squares: true, ..Self::new(name) }
    }
}

/// States that kernels bind together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateBinding {
    /// The names of the states, joined by `_and_`.
    pub name: String,
    /// What has a number of its own in each.
    pub per: Per,
    /// One state, or a pair. The states of a pair follow each other, tensor after tensor.
    pub states: Vec<&'static str>,
}

impl StateBinding {
    /// Bytes per coordinate of a binding of states per coordinate.
    pub(crate) fn bytes(&self, format: StateFormat) -> u64 {
        format.bytes() * self.states.len() as u64
    }
}

/// How kernels bind states: alone, or in pairs where there are more than two, or two per coordinate and something else.
pub(super) fn bindings_of(states: &[StateRow], has_more: bool) -> Vec<StateBinding> {
    let states: Vec<_> = states.iter().filter(|state| state.per != Per::Tensor).collect();
    let binding = |states: &[&StateRow]| {
        let names: Vec<_> = states.iter().map(|state| state.name).collect();
        StateBinding { name: names.join("_and_"), per: states[0].per, states: names }
    };
    let pairs = states.len() > 2 || (has_more && states.iter().all(|state| state.per == Per::Coordinate));
    states.chunks(if pairs { 2 } else { 1 }).map(binding).collect()
}

/// What has its own number in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// Each coordinate.
    Coordinate,
    /// Each row: each index of a tensor's first dimension.
    Row,
    /// Each column: each index within a row.
    Column,
    /// Each input of a matrix: a row or a column, see [`MatrixLayout`](crate::MatrixLayout).
    Input,
    /// Each output of a matrix.
    Output,
    /// Each tensor.
    Tensor,
}

impl Per {
    /// Whether rows or columns have a number each.
    pub(crate) fn is_line(self) -> bool {
        !matches!(self, Self::Coordinate | Self::Tensor)
    }

    /// Whether the rows of this tensor have a number each.
    pub fn is_row(self, spec: &TensorSpec) -> bool {
        let inputs_first = spec.matrix().is_some_and(|matrix| matrix.inputs_first);
        match self {
            Self::Row => true,
            Self::Input => inputs_first,
            Self::Output => !inputs_first,
            _ => false,
        }
    }

    /// The input or output of each coordinate of a matrix.
    pub(crate) fn lines(self, matrix: Matrix) -> Vec<usize> {
        let (cols, is_row) = (matrix.cols as usize, (self == Self::Input) == matrix.inputs_first);
        (0..matrix.rows as usize * cols).map(|i| if is_row { i / cols } else { i % cols }).collect()
    }

    /// The shape of a state of this tensor.
    pub fn shape(self, spec: &TensorSpec) -> &[usize] {
        let shape = &spec.shape[..];
        match self {
            Self::Coordinate => shape,
            Self::Tensor => &[],
            // If every row has one coordinate, a row is a coordinate.
            Self::Row if shape.iter().skip(1).all(|&n| n == 1) => shape,
            _ if self.is_row(spec) => &shape[..shape.len().min(1)],
            _ => shape.get(1..).unwrap_or_default(),
        }
    }
}

/// The norms that determine the rate of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// The norm of the gradient.
    Gradient,
    /// The norms of the direction and of the parameter.
    Update,
}

/// How the states of rows and columns of a matrix are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// The file in `shaders/base` that updates them.
    pub shader: &'static str,
    /// The sums of squares that the update needs.
    pub sums: LineSums,
}

/// Sums of squares over rows or columns of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineSums {
    /// Sums of squared gradients, per row and per column.
    Gradients,
    /// Sums of squared gradients and of squared directions, per input.
    Directions,
    /// Sums of squared orthogonalized directions, per output.
    Orthogonal,
}

impl LineSums {
    /// Whether rows are summed, and whether columns are.
    pub(crate) fn over(self, inputs_first: bool) -> [bool; 2] {
        match self {
            Self::Gradients => [true; 2],
            Self::Directions => [inputs_first, !inputs_first],
            Self::Orthogonal => [!inputs_first, inputs_first],
        }
    }
}

/// How a later kernel of a step finds the direction of a coordinate again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recall {
    /// It follows from the new state and the gradient.
    State,
    /// The new state has lost it. It is a sign, and two bits remember it.
    Sign,
    /// It depends on the parameter before the step, which is lost. Exact selection on large tensors is refused.
    Lost,
}

/// The scalars of one step: hyper-parameters and bias corrections, computed in f64 on the host.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepScalars {
    /// Factor of the direction.
    pub step: f64,
    /// Share of the parameter that weight decay takes away.
    pub decay: f64,
    /// β1 and β2. Bases with a momentum have μ for the momentum, and for the direction: μ with Nesterov, else 1.
    pub betas: [f64; 2],
    /// The weight of what is new in each: 1 − β where not stated otherwise.
    pub rests: [f64; 2],
    /// ε as it is added to √v.
    pub eps: f64,
    /// Largest norm of a gradient, for AdaGO. Bound c of the rates of inputs, for NAMO-D. Largest RMS(u), for Adafactor.
    pub clip: f64,
    /// Smallest step, for AdaGO. Smallest RMS(θ), for Adafactor.
    pub min_step: f64,
    /// Largest step, for NAMO and NAMO-D.
    pub max_step: f64,
    /// √a before the first step, for AdaGO, AdaGrad and AdaGrad-Norm.
    pub accumulator_init: f64,
    /// λ of a weight decay that is a part of the gradient.
    pub penalty: f64,
    /// Exponent of √v + ε. For schedule-free bases, exponent p of the largest learning rate in the weights of the average.
    pub power: f64,
    /// Weights of the two parts of a direction: gradient and momentum of NAdam, momentum and change of Adan. The first is the bias
    /// correction of NAMO and NAMO-D. The second is 1 if Adafactor scales steps by RMS(θ).
    pub blend: [f64; 2],
    /// β3 of Adan, μ₂ of NAMO and NAMO-D, β2 of NorMuon.
    pub beta3: f64,
    /// The largest 1 − β of mean and variance, for MAdam and LaMAdam; the least is that of β2.
    pub largest_rest: f64,
    /// Whether this is the first step, for Adan.
    pub is_first: bool,
    /// Whether a step of RAdam divides by √v + ε, or the learning rate of Adafactor is at most 1/√t.
    pub adaptive: bool,
    /// Share by which the learning rate shrinks per step, for AdaGrad. For schedule-free bases, exponent r of t in the weights of the
    /// average.
    pub lr_decay: f64,
    /// ψ ln 0.96, for NAdam. The exponent `decay_rate`, for Adafactor.
    pub ln_momentum_decay: f64,
    /// ρ at the end and at t = 0, for RAdam.
    pub rho: [f64; 2],
    /// Hyper-parameters of a custom base, as its kernels read them. They are stored in place of the coefficients of Newton–Schulz.
    pub words: [f64; WORDS],
    /// The step of a custom base, counted from 1.
    pub t: u64,
    /// Which of these `shaders/correction/adam.wgsl` corrects.
    pub(crate) corrects: Corrects,
}

impl StepScalars {
    /// The scalars of a step with these decays of the moments.
    pub(super) fn moments(betas: [f64; 2]) -> Self {
        Self { betas, rests: betas.map(|beta| 1.0 - beta), power: 1.0, ..Self::default() }
    }

    /// The same with a weight decay: a part of the gradient, or at the learning rate.
    pub(super) fn with_decay(self, lr: f64, weight_decay: f64, is_coupled: bool) -> Self {
        let (decay, penalty) = if is_coupled { (0.0, weight_decay) } else { (lr * weight_decay, 0.0) };
        Self { decay, penalty, ..self }
    }

    /// The weights of what is old and what is new in each moment, 1 − β taken in f64.
    pub(super) fn weights<T: Float>(&self) -> [(T, T); 2] {
        [0, 1].map(|i| (real(self.betas[i]), real(self.rests[i])))
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

/// A base: the hyper-parameters of a direction. Its struct also has the fields `lr`, `weight_decay` and `cautious_weight_decay`.
///
/// By default the direction is a momentum, as in bases that orthogonalize it.
pub(crate) trait Direction: Copy {
    /// Rows of the table of kinds, one per variant.
    const ROWS: &'static [BaseRow] = &[];
    /// What steps tensors that are not matrices. `Self` if it steps any tensor.
    type Fallback;

    /// A member for each row, in order, whose weight decay is decoupled unless the row says otherwise.
    fn variants(&self) -> Vec<Self> {
        vec![*self]
    }

    /// The same with a decoupled weight decay, for bases that have the choice.
    fn decoupled(self) -> Self {
        self
    }

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

    /// ε, for bases that divide by a root of squares and ε.
    fn added_eps(&self) -> Option<f64> {
        None
    }

    /// Changes what is proportional to the learning rate.
    fn follow(&mut self, _ratio: f64) {}

    /// Factor of the orthogonalized direction that follows from the shape of a matrix.
    fn rate(&self, _matrix: Matrix) -> f64 {
        1.0
    }

    /// Factors of the orthogonalized direction and of the weight decay of a matrix in this step, from its gradient and its direction. Moves
    /// states per tensor on.
    fn matrix_rate<T: Float>(
        &self,
        matrix: Matrix,
        _scalars: &StepScalars,
        _of: [&[T]; 2],
        _states: &mut [Vec<T>],
    ) -> [T; 2] {
        [real(self.rate(matrix)), T::one()]
    }

    /// Factor of the step of a tensor, where only the GPU knows it. It follows from the gradient, the direction and the parameter. Updates
    /// the states per tensor.
    fn tensor_rate<T: Float>(&self, _scalars: &StepScalars, _of: [&[T]; 3], _states: &mut [Vec<T>]) -> T {
        T::one()
    }

    /// Factors of the orthogonalized direction and of the weight decay, per input or per output of a matrix. They follow from its gradient,
    /// its direction and its orthogonalized direction. `None` if all are the same. Updates the states per input or output.
    fn line_rates<T: Float>(
        &self,
        _matrix: Matrix,
        _scalars: &StepScalars,
        _of: [&[T]; 3],
        _states: &mut [Vec<T>],
    ) -> Option<(Per, Vec<[T; 2]>)> {
        None
    }

    /// The weight of z in the average of step `t`, for schedule-free bases. Updates the states per tensor.
    fn average_weight<T: Float>(&self, _t: u64, _states: &mut [Vec<T>]) -> Option<T> {
        None
    }

    /// Moves the states on, in the order of the row, and returns the direction. The gradient has a coupled weight decay in it.
    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let (beta1, rest1) = scalars.weights::<T>()[0];
        states[0].iter_mut().zip(grad).for_each(|(m, &g)| *m = beta1 * *m + rest1 * g);
        self.direction(scalars, grad, states)
    }

    /// The direction from the new states, for [`Recall::State`].
    fn direction<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        let (beta2, rest2) = scalars.weights::<T>()[1];
        states[0].iter().zip(grad).map(|(&m, &g)| beta2 * m + rest2 * g).collect()
    }

    /// Bound of the rounding error of a direction `u` in f32, for a gradient with a coupled weight decay in it, the sum of the sizes of
    /// these two, and the coordinate's states before the step. `None` if rounding decides the sign of the direction.
    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [_, size]: [f64; 2], _u: f64) -> Option<f64> {
        let [beta1, beta2] = scalars.betas;
        let parts = (beta1 * states[0]).abs() + (1.0 - beta1) * size;
        Some(4.0 * EPS * (beta2 * parts + (1.0 - beta2) * size))
    }
}
