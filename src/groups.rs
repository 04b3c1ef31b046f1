//! Parameter groups: a recipe each, and what holds for all of them.

use serde::{Deserialize, Serialize, Serializer};

use crate::error::Error;
use crate::guard::{GradScaler, Gradients, NonFinite};
use crate::matrix::Matmul;
use crate::plan::TensorSpec;
use crate::precision::Precision;
use crate::ranges::{check, finite_non_negative, finite_positive};
use crate::recipe::Recipe;
use crate::schedule::{LrSchedule, Shape};

/// Parameter groups: a recipe each, and what holds for all of them. A tensor names its group by index, and a
/// [`Recipe`] alone is one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParamGroups {
    recipes: Vec<Recipe>,
    #[serde(serialize_with = "without_functions")]
    schedules: Vec<LrSchedule>,
    max_grad_norm: Option<f64>,
    max_grad_value: Option<f64>,
    non_finite: Option<NonFinite>,
    grad_scaler: Option<GradScaler>,
    accumulation: u32,
    precision: Precision,
    telemetry: Option<u32>,
    /// A choice for a machine, not for a run.
    #[serde(skip)]
    matmul: Option<Matmul>,
    may_lack_matrices: bool,
}

impl ParamGroups {
    /// The groups' recipes, in order.
    pub fn recipes(&self) -> &[Recipe] {
        &self.recipes
    }

    pub(crate) fn recipes_mut(&mut self) -> &mut [Recipe] {
        &mut self.recipes
    }

    /// The learning rate of every group follows this schedule.
    pub fn with_schedule(mut self, schedule: LrSchedule) -> Self {
        self.schedules.fill(schedule);
        self
    }

    /// The learning rate of one group follows this schedule; those of the others stay as they are.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn with_group_schedule(mut self, group: usize, schedule: LrSchedule) -> Self {
        self.schedules[group] = schedule;
        self
    }

    /// The groups' schedules, in order.
    pub fn schedules(&self) -> &[LrSchedule] {
        &self.schedules
    }

    /// The recipe of a group, as a step sees it: its learning rate times the schedule's factor, and in proportion that of a
    /// fallback.
    ///
    /// # Errors
    /// [`Error::Recipe`] if a function's factor is negative or not finite.
    pub(crate) fn scheduled(&self, group: usize, step: u64) -> Result<Recipe, Error> {
        let (recipe, factor) = (self.recipes[group], self.schedules[group].factor(step));
        if factor == 1.0 {
            return Ok(recipe);
        }
        check("schedule's factor", factor, finite_non_negative)?;
        let lr = recipe.lr() * factor;
        check("lr", lr, finite_non_negative)?;
        let recipe = recipe.with_lr(lr);
        recipe.validate()?;
        Ok(recipe)
    }

    /// Clips the gradients of every step to a global norm, by the factor of `torch.nn.utils.clip_grad_norm_`: all
    /// gradients of the step, of all tensors and groups, are multiplied by min(1, max_norm / (‖g‖₂ + 1e-6)) as they are read; the
    /// caller's buffers keep theirs. Default off, which costs nothing; on, it costs 4 bytes a parameter, a
    /// dispatch for each kind of recipe (and page), and one more.
    ///
    /// `max_norm` is > 0 and finite; [`GpuOptimizer::new`](crate::GpuOptimizer::new) refuses anything else. If the norm
    /// is not finite in f32, finite gradients count as 0, and the others spoil their own coordinates, unless
    /// [`with_non_finite`](Self::with_non_finite) skips the step.
    pub fn with_max_grad_norm(self, max_norm: f64) -> Self {
        Self { max_grad_norm: Some(max_norm), ..self }
    }

    /// Limits every gradient to [−`max_value`, `max_value`] as it is read, before the norm is taken, as
    /// `torch.nn.utils.clip_grad_value_`. Costs no dispatch and no byte. Default off.
    ///
    /// `max_value` is > 0 and finite; [`GpuOptimizer::new`](crate::GpuOptimizer::new) refuses anything else.
    pub fn with_max_grad_value(self, max_value: f64) -> Self {
        Self { max_grad_value: Some(max_value), ..self }
    }

    /// The value to which gradients are limited.
    pub fn max_grad_value(&self) -> Option<f64> {
        self.max_grad_value
    }

    /// What a step does when a gradient is not finite. Default [`NonFinite::Propagate`], or [`NonFinite::Skip`] with a
    /// [`GradScaler`]. Steps that may be skipped compute their bias corrections on the GPU, in f32.
    pub fn with_non_finite(self, policy: NonFinite) -> Self {
        Self { non_finite: Some(policy), ..self }
    }

    /// What a step does when a gradient is not finite.
    pub fn non_finite(&self) -> NonFinite {
        let scaled = if self.grad_scaler.is_some() { NonFinite::Skip } else { NonFinite::Propagate };
        self.non_finite.unwrap_or(scaled)
    }

    /// Undoes the scale of the loss, and finds it: multiply the loss by
    /// [`GpuOptimizer::loss_scale`](crate::GpuOptimizer::loss_scale), on the GPU, or by what was last read. Default off.
    pub fn with_grad_scaler(self, scaler: GradScaler) -> Self {
        Self { grad_scaler: Some(scaler), ..self }
    }

    /// How the scale of the loss is found, if there is one.
    pub fn grad_scaler(&self) -> Option<GradScaler> {
        self.grad_scaler
    }

    /// A step takes the mean gradient of so many micro-batches, 1 to 65,536: of as many calls that record a step, all but the last only
    /// add their gradients up, in f32. Default 1, which costs nothing; more cost 4 bytes of memory a parameter, and a
    /// dispatch a page and 12 bytes of traffic a parameter for each micro-batch.
    ///
    /// A tensor that is left out of the last micro-batch keeps its sum until a last one that it is part of.
    pub fn with_accumulation(self, micro_batches: u32) -> Self {
        Self { accumulation: micro_batches, ..self }
    }

    /// Micro-batches of a step.
    pub fn accumulation(&self) -> u32 {
        self.accumulation
    }

    /// Stores parameters and gradients in this format, those in the caller's buffers too. Below f32 it costs 4 bytes of memory a
    /// parameter for masters, and a dispatch a page and 6 bytes of traffic a parameter to round them; reading gradients saves 2. The caller's buffers take one more
    /// dispatch, which does nothing once a master holds its values. Default
    /// [`Precision::F32`].
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The format of parameters and gradients.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Observes the first of every so many steps, at least 1, for
    /// [`take_telemetry`](crate::GpuOptimizer::take_telemetry), and logs a line of it. Off by default. It costs 4 bytes of
    /// memory a parameter for a copy of the parameters, and in the steps that are observed two dispatches a page, one a kind
    /// of recipe, and about as much traffic as a step of AdamW; in others nothing.
    pub fn with_telemetry(self, every: u32) -> Self {
        Self { telemetry: Some(every), ..self }
    }

    /// Of how many steps the first is observed.
    pub fn telemetry(&self) -> Option<u32> {
        self.telemetry
    }

    /// What kernels do with gradients.
    pub(crate) fn gradients(&self) -> Gradients {
        let skips = self.non_finite() != NonFinite::Propagate;
        Gradients {
            // Sums of micro-batches are f32.
            format: if self.accumulation > 1 { Precision::F32 } else { self.precision },
            limited: self.max_grad_value.is_some(),
            guarded: skips || self.max_grad_norm.is_some(),
            skips,
        }
    }

    /// Refuses settings outside their ranges.
    ///
    /// # Errors
    /// [`Error::Recipe`] names the field, its value and what is allowed; [`Error::Plan`] if there is no group.
    pub fn validate(&self) -> Result<(), Error> {
        if self.recipes.is_empty() {
            return Err(Error::Plan("there must be at least one parameter group".to_owned()));
        }
        if self.schedules.len() != self.recipes.len() {
            let (schedules, recipes) = (self.schedules.len(), self.recipes.len());
            return Err(Error::Plan(format!("{schedules} schedules for {recipes} parameter groups")));
        }
        self.recipes.iter().try_for_each(Recipe::validate)?;
        for (field, value) in [("max_grad_norm", self.max_grad_norm), ("max_grad_value", self.max_grad_value)]
        {
            value.map_or(Ok(()), |value| check(field, value, finite_positive))?;
        }
        self.schedules.iter().try_for_each(LrSchedule::validate)?;
        let count = |x: f64| (!(1.0..=65_536.0).contains(&x)).then_some("1 to 65,536");
        check("accumulation", self.accumulation.into(), count)?;
        if self.telemetry == Some(0) {
            check("telemetry", 0.0, |_| Some("at least 1"))?;
        }
        let Some(scaler) = self.grad_scaler else { return Ok(()) };
        scaler.validate()?;
        if self.non_finite() == NonFinite::Propagate {
            return Err(Error::Recipe {
                field: "non_finite".to_owned(),
                value: "propagate".to_owned(),
                allowed:
                    "skip or error with a grad_scaler, which looks for the largest scale without overflow"
                        .to_owned(),
            });
        }
        Ok(())
    }

    /// The norm to which gradients are clipped.
    pub fn max_grad_norm(&self) -> Option<f64> {
        self.max_grad_norm
    }

    /// Computes the matrix products of Muon and AdaGO in this way. Default: what suits the kind of adapter.
    pub fn with_matmul(self, matmul: Matmul) -> Self {
        Self { matmul: Some(matmul), ..self }
    }

    /// How matrix products are computed, if that was chosen.
    pub fn matmul(&self) -> Option<Matmul> {
        self.matmul
    }

    /// Accepts groups of Muon or AdaGO in which no tensor is a matrix, as where tensors join later. Otherwise they are refused.
    pub fn allow_no_matrices(self) -> Self {
        Self { may_lack_matrices: true, ..self }
    }

    pub(crate) fn may_lack_matrices(&self) -> bool {
        self.may_lack_matrices
    }

    /// A recipe for each row of step scalars: the groups' own, then, if any has one, the fallbacks.
    ///
    /// # Errors
    /// As for [`scheduled`](Self::scheduled).
    pub(crate) fn rows(&self, step: u64) -> Result<Vec<Recipe>, Error> {
        let mut rows =
            (0..self.recipes.len()).map(|g| self.scheduled(g, step)).collect::<Result<Vec<_>, _>>()?;
        let fallbacks: Vec<_> = rows.iter().map(Recipe::fallback).collect();
        if fallbacks.iter().any(Option::is_some) {
            let own = rows.clone();
            rows.extend(own.into_iter().zip(fallbacks).map(|(own, fallback)| fallback.unwrap_or(own)));
        }
        Ok(rows)
    }

    /// How many rows there are.
    pub(crate) fn row_count(&self) -> usize {
        let falls_back = self.recipes.iter().any(|recipe| recipe.fallback().is_some());
        self.recipes.len() * if falls_back { 2 } else { 1 }
    }

    /// The row of a tensor.
    pub(crate) fn row_of(&self, spec: &TensorSpec) -> usize {
        let falls_back = self.recipes[spec.group].fallback().is_some() && spec.matrix().is_none();
        spec.group + if falls_back { self.recipes.len() } else { 0 }
    }

    /// What steps a tensor: its group's recipe, or that one's fallback.
    pub fn recipe_of(&self, spec: &TensorSpec) -> Recipe {
        self.recipes[spec.group].on(spec)
    }
}

/// No group, and every setting off: what a file says nothing about.
impl Default for ParamGroups {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Recipe> for ParamGroups {
    fn from(recipe: Recipe) -> Self {
        vec![recipe].into()
    }
}

impl From<Vec<Recipe>> for ParamGroups {
    fn from(recipes: Vec<Recipe>) -> Self {
        let schedules = vec![LrSchedule::constant(); recipes.len()];
        Self {
            recipes,
            schedules,
            max_grad_norm: None,
            max_grad_value: None,
            non_finite: None,
            grad_scaler: None,
            accumulation: 1,
            precision: Precision::F32,
            telemetry: None,
            matmul: None,
            may_lack_matrices: false,
        }
    }
}

/// Functions cannot be written: a constant stands for them, and who writes says where they were.
fn without_functions<S: Serializer>(schedules: &[LrSchedule], serializer: S) -> Result<S::Ok, S::Error> {
    let written = |schedule: &LrSchedule| match schedule.shape {
        Shape::Function(_) => LrSchedule::constant(),
        _ => schedule.clone(),
    };
    serializer.collect_seq(schedules.iter().map(written))
}
