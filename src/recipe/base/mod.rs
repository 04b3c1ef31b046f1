//! Base optimizers: the direction of a step.
//!
//! `ARCHITECTURE.md` lists the steps to add one.

mod adafactor;
mod adago;
mod adagrad;
mod adagrad_norm;
mod adam;
mod adamomentum;
mod adamw;
mod adan;
mod custom;
mod kind;
mod lamadam;
mod lion;
mod madam;
mod muon;
mod nadam;
mod namo;
mod namo_d;
mod newton_schulz;
mod normuon;
mod radam;
mod rmsprop;
mod schedule_free_adamw;
mod schedule_free_sgd;
mod sgd;

pub use custom::CustomBase;
use kind::bindings_of;
#[doc(hidden)]
pub use kind::{BaseRow, CustomRow, LineSums, Lines, Norms, Per, Recall, StateBinding, StateRow, StepScalars};
pub(crate) use kind::{Corrects, Direction, Z_OFFSET};
pub use newton_schulz::NsCoefficients;
#[doc(hidden)]
pub use newton_schulz::{NS_LIST, NewtonSchulz, newton_schulz};

use std::sync::OnceLock;

use super::kinds::kinds;
use super::matrix::Matrix;
use crate::recipe::prelude::*;
use crate::recipe::state::StateFormat;

kinds! { $
    /// A base optimizer and its hyper-parameters.
    Base, BaseKind, BaseRow, "base", CustomBase: "A custom base, which the program supplies as WGSL.";
    Adamw(adamw::AdamW): "Adaptive moments with decoupled weight decay.",
    Lion(lion::Lion): "The sign of an interpolated momentum.",
    Muon(muon::Muon): "Momentum, orthogonalized: for matrices.",
    Adago(adago::AdaGo): "Momentum, orthogonalized, with a rate per matrix that adapts to the norms of its gradients.",
    Sgd(sgd::Sgd): "The gradient, or a momentum.",
    Rmsprop(rmsprop::RmsProp): "The gradient over a root mean square.",
    Adagrad(adagrad::AdaGrad): "The gradient over the root of the sum of its squares.",
    Adam(adam::Adam): "Adaptive moments with weight decay in the gradient.",
    Nadam(nadam::NAdam): "Adaptive moments that look a step ahead.",
    Radam(radam::RAdam): "Adaptive moments whose first steps do not divide by the second.",
    Adamomentum(adamomentum::AdaMomentum): "Adaptive moments whose second is that of the first.",
    Madam(madam::MAdam): "A momentum over moments whose decay each coordinate chooses.",
    Lamadam(lamadam::LaMAdam): "MAdam that divides each gradient before the momentum averages it.",
    AdagradNorm(adagrad_norm::AdaGradNorm): "The gradient, with a rate per tensor that adapts to the norms of its gradients.",
    Adan(adan::Adan): "Adaptive moments of the gradient and of its change.",
    Adafactor(adafactor::Adafactor): "The gradient over second moments per row and column, in proportion to the size of the parameter.",
    ScheduleFreeAdamw(schedule_free_adamw::ScheduleFreeAdamW): "AdamW with an average of its iterates instead of a momentum.",
    ScheduleFreeSgd(schedule_free_sgd::ScheduleFreeSgd): "The gradient. An average of the iterates is the result.",
    Namo(namo::Namo): "Momentum, orthogonalized, with Adam's rate per matrix.",
    NamoD(namo_d::NamoD): "Momentum, orthogonalized, with Adam's rate per input.",
    Normuon(normuon::NorMuon): "Momentum, orthogonalized, with steps of a similar size for all outputs.",
}

/// Smallest ε that bounds the step where g² underflows to 0.
const LEAST_EPS: f64 = 1e-20;

impl Base {
    /// The scalars of a tensor's step `t`, counted from 1.
    #[doc(hidden)]
    pub fn scalars(&self, t: u64) -> StepScalars {
        each!(self, b => b.scalars(t))
    }

    /// Bound of the rounding error of a direction, see [`Direction::direction_error`].
    pub(crate) fn direction_error(&self, scalars: &StepScalars, states: &[f64], g: [f64; 2], u: f64) -> Option<f64> {
        each!(self, b => b.direction_error(scalars, states, g, u))
    }

    /// Whether weight decay leaves out parameters that the step moves away from 0.
    pub(crate) fn has_cautious_decay(&self) -> bool {
        each!(self, b => b.cautious_weight_decay)
    }

    /// The learning rate.
    pub fn lr(&self) -> f64 {
        each!(self, b => b.lr)
    }

    /// The same base with another learning rate. The rate of a fallback and AdaGO's smallest step change in proportion. They stay as
    /// they are if the old rate is 0.
    pub fn with_lr(mut self, lr: f64) -> Self {
        let old = self.lr();
        let ratio = if old > 0.0 { lr / old } else { 1.0 };
        each!(&mut self, b => {
            b.follow(ratio);
            b.lr = lr;
        });
        self
    }

    /// λ.
    pub(crate) fn weight_decay(&self) -> f64 {
        each!(self, b => b.weight_decay)
    }

    /// The same base with another weight decay.
    pub(crate) fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        each!(&mut self, b => b.weight_decay = weight_decay);
        self
    }

    /// The base for tensors that are not matrices, under matrix bases and Adafactor. `None` for other bases.
    pub fn fallback(&self) -> Option<Base> {
        each!(self, b => b.fallback().map(Base::from))
    }

    /// How it orthogonalizes, for matrix bases.
    #[doc(hidden)]
    pub fn newton_schulz(&self) -> Option<NewtonSchulz> {
        each!(self, b => b.newton_schulz())
    }

    /// Factor of the orthogonalized direction of a matrix, in addition to the learning rate, where it follows from the shape.
    pub(crate) fn rate(&self, matrix: Matrix) -> f64 {
        each!(self, b => b.rate(matrix))
    }

    /// Logs warnings about values that are allowed and seldom meant.
    pub(crate) fn warn(&self) {
        let Some(eps) = each!(self.fallback().unwrap_or(*self), b => b.added_eps()) else { return };
        if eps == 0.0 {
            log::warn!("eps is 0: a coordinate that never had a gradient becomes NaN");
        } else if eps < LEAST_EPS {
            let (eps, least) = (number(eps), number(LEAST_EPS));
            log::warn!(
                "eps is {eps}: gradients below 1e-22, whose square f32 rounds to 0, take large steps; {least} or more bounds them"
            );
        }
    }

    /// Refuses a format of its states. `section` is where the base is in the recipe.
    pub(crate) fn validate_state(&self, section: &str, format: StateFormat) -> Result<()> {
        let (kind, f32) = (BaseKind::of(self), format == StateFormat::F32);
        let none = (kind.state_bytes(format) == 0).then_some("it has no state per coordinate");
        let Some(reason) = none.or(kind.row().needs_f32).filter(|_| !f32) else { return Ok(()) };
        let allowed = format!("a base whose state may be rounded, with \"state\": \"8bit\"; of this one, {reason}");
        Err(Error::Recipe { field: section.to_owned(), value: format!("`{}`", kind.row().name), allowed })
    }

    /// Refuses values out of range. `section` is where the base is in the recipe.
    pub(crate) fn validate(&self, section: &str) -> Result<()> {
        let check = |field: &str, value, rule| check(&format!("{section}.{field}"), value, rule);
        each!(self, b => b.validate(section))?;
        if let Self::Custom(custom) = self {
            custom.definition().check_name(Self::members().map(|base| base.type_name()))?;
        }
        if let Some(ns) = self.newton_schulz() {
            check("ns_steps", ns.steps.into(), (|x| (1.0..=100.0).contains(&x), "1 to 100"))?;
            let triples = ns.coefficients.triples();
            for (k, triple) in triples.iter().enumerate() {
                let of = if triples.len() > 1 { format!("[{k}]") } else { String::new() };
                for (i, &coefficient) in triple.iter().enumerate() {
                    check(&format!("ns_coefficients{of}[{i}]"), coefficient, FINITE)?;
                }
            }
        }
        if let Some(fallback) = self.fallback() {
            fallback.validate("base.fallback")?;
        }
        check("lr", self.lr(), NOT_NEGATIVE)?;
        check("weight_decay", self.weight_decay(), NOT_NEGATIVE)?;
        // What the kernels multiply by, at both ends of the bias corrections.
        for t in [1, u64::MAX] {
            let StepScalars { step, decay, .. } = self.scalars(t);
            check("lr, times the bias corrections", step, NOT_NEGATIVE)?;
            check("lr times base.weight_decay", decay, NOT_NEGATIVE)?;
        }
        Ok(())
    }

    /// A base for each row of the table of kinds, with values at which a wrong factor stands out.
    pub(crate) fn variants() -> Vec<Self> {
        fn of<D: Direction + Into<Base>>(base: D) -> Vec<Base> {
            base.variants().into_iter().map(Into::into).collect()
        }
        let all = Self::members().flat_map(|member| each!(member, b => of(b)));
        all.map(|base| base.with_verified_scalars()).collect()
    }

    /// The same with values at which a wrong factor stands out, and a decoupled weight decay.
    pub(crate) fn verified(self) -> Self {
        each!(self, b => Self::from(b.decoupled())).with_verified_scalars()
    }

    fn with_verified_scalars(mut self) -> Self {
        let lr = if self.newton_schulz().is_some() { 1.0 } else { 1e-2 };
        each!(&mut self, b => b.lr = lr);
        // Unless weight decay needs other kernels.
        let decaying = self.with_weight_decay(1e-2);
        if BaseKind::of(&decaying) == BaseKind::of(&self) {
            self = decaying;
        }
        if let Self::Adago(adago) = &mut self {
            adago.clip = 1.0;
        }
        self
    }

    /// The CPU twin: moves the states on, in the order of the row, and returns the direction.
    pub(crate) fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        each!(self, b => b.advance(scalars, grad, states))
    }

    /// The CPU twin: the direction from the new states, see [`Direction::direction`].
    pub(crate) fn direction<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        each!(self, b => b.direction(scalars, grad, states))
    }

    /// The CPU twin: factors of a matrix in this step, see [`Direction::matrix_rate`].
    pub(crate) fn matrix_rate<T: Float>(
        &self,
        matrix: Matrix,
        scalars: &StepScalars,
        of: [&[T]; 2],
        states: &mut [Vec<T>],
    ) -> [T; 2] {
        // Lines have factors of their own, which begin with that of the shape.
        if BaseKind::of(self).row().lines.is_some() {
            return [T::one(); 2];
        }
        each!(self, b => b.matrix_rate(matrix, scalars, of, states))
    }

    /// The CPU twin: factor of the step of a tensor that is not orthogonalized, see [`Direction::tensor_rate`].
    pub(crate) fn tensor_rate<T: Float>(&self, scalars: &StepScalars, of: [&[T]; 3], states: &mut [Vec<T>]) -> T {
        each!(self, b => b.tensor_rate(scalars, of, states))
    }

    /// The CPU twin: the weight of z in the average, see [`Direction::average_weight`].
    pub(crate) fn average_weight<T: Float>(&self, t: u64, states: &mut [Vec<T>]) -> Option<T> {
        each!(self, b => b.average_weight(t, states))
    }

    /// β1 of bases that average parameters.
    pub(crate) fn averaging(&self) -> Option<f64> {
        BaseKind::of(self).row().averages.then(|| self.scalars(1).betas[0])
    }

    /// The CPU twin: factors of the lines of a matrix in this step, see [`Direction::line_rates`].
    pub(crate) fn line_rates<T: Float>(
        &self,
        matrix: Matrix,
        scalars: &StepScalars,
        of: [&[T]; 3],
        states: &mut [Vec<T>],
    ) -> Option<(Per, Vec<[T; 2]>)> {
        each!(self, b => b.line_rates(matrix, scalars, of, states))
    }
}

impl BaseKind {
    /// The kind of a base.
    pub fn of(base: &Base) -> Self {
        Self::at(each!(base, b => b.row()))
    }

    /// Whether it orthogonalizes matrices.
    pub fn is_matrix(self) -> bool {
        self.row().is_matrix
    }

    /// Whether a kernel finds a number of each tensor before the step, although it is not orthogonalized: a factor of the step, or the weight
    /// of z in an average.
    pub(crate) fn has_rate(self) -> bool {
        self.row().rate.is_some() && !self.is_matrix()
    }

    /// Whether a step is the direction of each coordinate times numbers that are known before it, and a decay.
    pub(crate) fn has_plain_steps(self) -> bool {
        !self.takes_wholes() && !self.has_lines() && !self.row().averages
    }

    /// How kernels bind the states per coordinate or line: alone, or in pairs where there are more than two. Two per coordinate also share a
    /// binding where something else needs one more.
    pub fn state_bindings(self, has_more: bool) -> &'static [StateBinding] {
        type Bindings = Vec<StateBinding>;
        let of = |has_more| TABLE.iter().map(|row| bindings_of(row.states, has_more)).collect();
        static ALL: OnceLock<[Vec<Bindings>; 2]> = OnceLock::new();
        let all = ALL.get_or_init(|| [false, true].map(of));
        let at = usize::from(has_more);
        self.row().custom.map_or_else(|| &all[at][self.0 as usize][..], |custom| custom.bindings[at])
    }

    /// Whether two states share a binding.
    pub(crate) fn has_pairs(self, has_more: bool) -> bool {
        self.state_bindings(has_more).iter().any(|binding| binding.states.len() > 1)
    }

    /// Whether a tensor lies in one page, for its rate, lines or pairs of states.
    pub(crate) fn keeps_whole(self, has_more: bool) -> bool {
        self.has_rate() || self.has_lines() || self.has_pairs(has_more)
    }

    /// Bytes per coordinate of the widest binding: of parameters in f32, or of states.
    pub(crate) fn widest_binding(self, format: StateFormat, has_more: bool) -> u64 {
        (format.bytes() * if self.has_pairs(has_more) { 2 } else { 1 }).max(4)
    }

    /// Names of the states per coordinate or line, as PyTorch calls them, in the order in which kernels bind them.
    pub fn state_names(self) -> impl Iterator<Item = &'static str> {
        self.names(|per| per != Per::Tensor)
    }

    /// Names of the states that are one number per tensor.
    pub fn scalar_names(self) -> impl Iterator<Item = &'static str> {
        self.names(|per| per == Per::Tensor)
    }

    fn names(self, which: fn(Per) -> bool) -> impl Iterator<Item = &'static str> {
        self.row().states.iter().filter(move |state| which(state.per)).map(|state| state.name)
    }

    /// Bytes of states per coordinate.
    pub fn state_bytes(self, format: StateFormat) -> u64 {
        format.bytes() * self.names(|per| per == Per::Coordinate).count() as u64
    }

    /// States of rows or columns.
    pub(crate) fn line_states(self) -> u64 {
        self.names(Per::is_line).count() as u64
    }

    /// Whether rows or columns have a state of their own.
    pub fn has_lines(self) -> bool {
        self.line_states() > 0
    }

    /// Whether inputs or outputs have a state of their own.
    pub(crate) fn depends_on_layout(self) -> bool {
        self.names(|per| matches!(per, Per::Input | Per::Output)).next().is_some()
    }

    /// Whether kernels take all of a tensor at once: a matrix, or one with a rate of its own.
    pub(crate) fn takes_wholes(self) -> bool {
        self.row().rate.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let names: Vec<_> = BaseKind::all().map(|kind| kind.row().name).collect();
        let bases: Vec<_> = names.iter().copied().filter(|name| !name.contains('(')).collect();
        assert_eq!(
            bases,
            [
                "adamw",
                "lion",
                "muon",
                "adago",
                "sgd",
                "rmsprop",
                "adagrad",
                "adam",
                "nadam",
                "radam",
                "adamomentum",
                "madam",
                "lamadam",
                "adagrad_norm",
                "adan",
                "adafactor",
                "schedule_free_adamw",
                "schedule_free_sgd",
                "namo",
                "namo_d",
                "normuon"
            ]
        );
        assert!(BaseKind::all().is_sorted());
        for kind in BaseKind::all() {
            let states = kind.row().states;
            assert!(states.is_sorted_by_key(|state| state.per == Per::Tensor), "{kind:?}");
        }
        let variants: Vec<_> = Base::variants().iter().map(BaseKind::of).collect();
        assert_eq!(variants, BaseKind::all().collect::<Vec<_>>(), "a variant for each row");
        for base in Base::members() {
            let (row, name) = (BaseKind::of(&base).row(), base.type_name());
            assert_eq!(serde_json::to_value(base).unwrap()["type"], row.name);
            assert_eq!(base.newton_schulz().is_some(), row.is_matrix, "{name}");
            assert_eq!(base.fallback().is_some(), row.is_matrix || row.name == "adafactor", "{name}");
        }
    }
}
