//! Parameter groups: a recipe per group, and the settings that all groups share.

use std::collections::HashMap;

use by_address::ByAddress;
use serde::Serializer;

use super::Recipe;
use super::average::Average;
use super::base::{Base, Direction};
use super::guard::{GradScaler, Gradients, NonFinite};
use super::launch::LaunchShape;
use super::matrix::Matmul;
use super::precision::{Precision, Rounding};
use super::prelude::*;
use super::schedule::{LrSchedule, Shape};
use super::spec::{self, TensorSpec};
use super::state::StateFormat;

/// Parameter groups: a recipe per group, and the settings that all groups share. A tensor names its group by index. A [`Recipe`] alone
/// is one group.
///
/// Settings cost dispatches per *page*: the tensors, or parts of one, that share kernels and fit into one binding.
///
/// ```
/// use wgpu_optim::{GradScaler, LrSchedule, NonFinite, ParamGroups, Precision, Recipe};
///
/// let groups = ParamGroups::from([Recipe::muon(2e-2).mgup(), Recipe::adamw(1e-3)])
///     .with_schedule(LrSchedule::cosine(10_000, 0.0).with_warmup(500))
///     .with_group_schedule(1, LrSchedule::constant())
///     .with_max_grad_norm(1.0)
///     .with_max_grad_value(100.0)
///     .with_grad_scaler(GradScaler::default().init(1024.0).growth(2.0).backoff(0.5).interval(500))
///     .with_accumulation(4)
///     .with_precision(Precision::F16)
///     .with_telemetry(100);
/// groups.validate()?;
/// assert_eq!(groups.non_finite(), NonFinite::Skip); // because of the scaler
/// assert_eq!(groups.max_grad_norm(), Some(1.0));
/// assert_eq!(groups.grad_scaler().unwrap().init, 1024.0);
/// assert_eq!((groups.accumulation(), groups.precision()), (4, Precision::F16));
/// assert_eq!(groups.schedules()[1].factor(9_999), 1.0);
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParamGroups {
    pub(crate) recipes: Vec<Recipe>,
    #[serde(serialize_with = "without_functions")]
    schedules: Vec<LrSchedule>,
    max_grad_norm: Option<f64>,
    pub(crate) max_grad_value: Option<f64>,
    non_finite: Option<NonFinite>,
    grad_scaler: Option<GradScaler>,
    #[default(1)]
    accumulation: u32,
    precision: Precision,
    pub(crate) telemetry: Option<u32>,
    average: Option<Average>,
    rounding: Option<Rounding>,
    #[serde(skip_serializing_if = "is_false")]
    split_masters: bool,
    /// Depends on the machine, not on the run.
    #[serde(skip)]
    pub(crate) matmul: Option<Matmul>,
    #[serde(skip)]
    pub(crate) launch_shape: Option<LaunchShape>,
    /// A `wgpu::PipelineCache`, whose type plain data does not know.
    #[serde(skip)]
    pub(crate) pipeline_cache: Option<ByAddress<std::sync::Arc<dyn std::any::Any + Send + Sync>>>,
    may_lack_matrices: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scalar_schedules: Vec<ScalarSchedule>,
}

/// The schedule of a hyper-parameter of a custom base or policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScalarSchedule {
    group: usize,
    scalar: String,
    schedule: LrSchedule,
}

impl ParamGroups {
    /// The groups' recipes, in order.
    pub fn recipes(&self) -> &[Recipe] {
        &self.recipes
    }

    /// Sets the learning rate schedule of all groups. Default [`LrSchedule::constant`].
    #[must_use]
    pub fn with_schedule(mut self, schedule: LrSchedule) -> Self {
        self.schedules.fill(schedule);
        self
    }

    /// Sets the schedule of the learning rate of one group.
    ///
    /// # Panics
    /// If the group does not exist.
    #[must_use]
    pub fn with_group_schedule(mut self, group: usize, schedule: LrSchedule) -> Self {
        self.schedules[group] = schedule;
        self
    }

    /// Adds a schedule whose factor multiplies a hyper-parameter of a group's custom base or policy in every step.
    ///
    /// `group` is the index of the group, and `scalar` the name that the WGSL declares. If base and policy declare the same name, the
    /// schedule applies to the base. A later schedule of the same hyper-parameter replaces it. The schedule counts recorded steps from 0,
    /// as for learning rates. The WGSL can also compute such values from `t`.
    ///
    /// [`validate`](Self::validate) refuses an unknown group or name, and a schedule with which the product leaves the declared range at
    /// its start or end. It also refuses [`LrSchedule::function`], because a checkpoint cannot hold a function.
    ///
    /// ```
    /// use wgpu_optim::base::CustomBase;
    /// use wgpu_optim::{LrSchedule, ParamGroups};
    ///
    /// let text = "
    /// //@ base slowing
    /// //@ state m
    /// //@ decay mu = 0.9
    /// fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    ///     let m = s.mu * old.m + g;
    ///     return Update(m, State(m));
    /// }";
    /// let warm = LrSchedule::constant().with_warmup(100);
    /// let groups = ParamGroups::from(CustomBase::new(text)?).with_scalar_schedule(0, "mu", warm);
    /// groups.validate()?;
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    #[must_use]
    pub fn with_scalar_schedule(mut self, group: usize, scalar: impl Into<String>, schedule: LrSchedule) -> Self {
        let scalar = scalar.into();
        self.scalar_schedules.retain(|own| (own.group, &own.scalar) != (group, &scalar));
        self.scalar_schedules.push(ScalarSchedule { group, scalar, schedule });
        self
    }

    /// The groups' schedules, in order.
    pub fn schedules(&self) -> &[LrSchedule] {
        &self.schedules
    }

    /// The recipe of a group in a step: its learning rate times the factor of the schedule. The rate of a fallback changes in
    /// proportion.
    ///
    /// # Errors
    /// [`Error::Recipe`] if a function's factor is negative or not finite.
    pub(crate) fn scheduled(&self, group: usize, step: u64) -> Result<Recipe> {
        let (mut recipe, factor) = (self.recipes[group], self.schedules[group].factor(step));
        recipe = self.scale(group, recipe, step)?;
        if factor == 1.0 {
            return Ok(recipe);
        }
        check("schedule's factor", factor, NOT_NEGATIVE)?;
        let lr = recipe.lr() * factor;
        check("lr", lr, NOT_NEGATIVE)?;
        let recipe = recipe.with_lr(lr);
        recipe.validate()?;
        Ok(recipe)
    }

    /// Multiplies the hyper-parameters of a group's recipe by the factors of their schedules in a step.
    ///
    /// # Errors
    /// Returns [`Error::Recipe`] if a hyper-parameter leaves its range.
    pub(crate) fn scale(&self, group: usize, mut recipe: Recipe, step: u64) -> Result<Recipe> {
        for ScalarSchedule { scalar, schedule, .. } in self.scalar_schedules.iter().filter(|own| own.group == group) {
            recipe = recipe.scaled(scalar, schedule.factor(step))?;
            recipe.validate()?;
        }
        Ok(recipe)
    }

    /// Clips the gradients of every step to a global norm, as `torch.nn.utils.clip_grad_norm_` does. Default off.
    ///
    /// All gradients of the step, of all tensors and groups, are multiplied by min(1, max_norm / (‖g‖₂ + 1e-6)) as they are read. The
    /// gradient buffers do not change. Costs 4 bytes of traffic per parameter, one dispatch per page, and one more.
    ///
    /// `max_norm` is > 0 and finite; [`GpuOptimizer::new`](crate::GpuOptimizer::new) refuses other values. If the norm is not finite in
    /// f32, finite gradients count as 0, and the others spoil their own coordinates, unless
    /// [`with_non_finite`](Self::with_non_finite) skips the step.
    #[must_use]
    pub fn with_max_grad_norm(self, max_norm: f64) -> Self {
        Self { max_grad_norm: Some(max_norm), ..self }
    }

    /// Limits every gradient to [−`max_value`, `max_value`] as it is read, as `torch.nn.utils.clip_grad_value_` does. The norm is that
    /// of the limited gradients. Costs no dispatch and no traffic. Default off.
    ///
    /// `max_value` is > 0 and finite; [`GpuOptimizer::new`](crate::GpuOptimizer::new) refuses other values.
    #[must_use]
    pub fn with_max_grad_value(self, max_value: f64) -> Self {
        Self { max_grad_value: Some(max_value), ..self }
    }

    /// Sets what a step does when a gradient is not finite. Default [`NonFinite::Propagate`], or [`NonFinite::Skip`] with a
    /// [`GradScaler`]. Steps that may be skipped compute their bias corrections on the GPU, in f32.
    ///
    /// ```
    /// use wgpu_optim::{NonFinite, ParamGroups, Recipe};
    ///
    /// let groups = ParamGroups::from(Recipe::adamw(1e-3)).with_non_finite(NonFinite::Error);
    /// ```
    #[must_use]
    pub fn with_non_finite(self, policy: NonFinite) -> Self {
        Self { non_finite: Some(policy), ..self }
    }

    /// What a step does when a gradient is not finite.
    pub fn non_finite(&self) -> NonFinite {
        let scaled = if self.grad_scaler.is_some() { NonFinite::Skip } else { NonFinite::Propagate };
        self.non_finite.unwrap_or(scaled)
    }

    /// Finds a scale for the loss, and undoes it in the gradients. Multiply the loss by
    /// [`GpuOptimizer::loss_scale`](crate::GpuOptimizer::loss_scale) on the GPU, or by the last scale that was read. Default off.
    #[must_use]
    pub fn with_grad_scaler(self, scaler: GradScaler) -> Self {
        Self { grad_scaler: Some(scaler), ..self }
    }

    /// How the scale of the loss is found; `None` without one.
    pub fn grad_scaler(&self) -> Option<GradScaler> {
        self.grad_scaler
    }

    /// Steps with the mean gradient of this many micro-batches, 1 to 65,536. Each recorded call is one micro-batch and adds its
    /// gradients to a sum in f32. The last call also steps. Default 1.
    ///
    /// More than 1 costs 4 bytes of memory per parameter. Each micro-batch costs one dispatch per page and 12 bytes of traffic per
    /// parameter. A tensor that is left out of the last micro-batch keeps its sum until a step that it is part of.
    #[must_use]
    pub fn with_accumulation(self, micro_batches: u32) -> Self {
        Self { accumulation: micro_batches, ..self }
    }

    /// Micro-batches per step.
    pub fn accumulation(&self) -> u32 {
        self.accumulation
    }

    /// Sets the format of parameters and gradients, including those in your own buffers. Default [`Precision::F32`].
    ///
    /// A format below f32 costs 4 bytes of memory per parameter for masters, and one dispatch per page and 6 bytes of traffic per
    /// parameter to round them. Reading gradients saves 2 bytes of traffic. In your own buffers, one more dispatch per page fills the
    /// masters in the first step, and does nothing in later ones.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Stores the states of all groups in this format; [`Recipe::with_state`] sets that of one. Default [`StateFormat::F32`].
    ///
    /// ```
    /// use wgpu_optim::{ParamGroups, Precision, Recipe, Rounding, StateFormat};
    ///
    /// // Two bytes per parameter for parameters, two for gradients, and two for state.
    /// let small = ParamGroups::from(Recipe::adamw(1e-3))
    ///     .with_state(StateFormat::EightBit)
    ///     .with_precision(Precision::Bf16)
    ///     .without_masters(Rounding::Stochastic { seed: 0 });
    /// small.validate()?;
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    #[must_use]
    pub fn with_state(mut self, state: StateFormat) -> Self {
        self.recipes.iter_mut().for_each(|recipe| recipe.state = state);
        self
    }

    /// Keeps no f32 masters of bf16 parameters. Each step rounds what it writes. Default: masters are kept.
    ///
    /// It saves the 4 bytes of memory per parameter for masters, and 10 bytes of traffic. [`Rounding::Stochastic`] keeps steps that are
    /// smaller than the distance of two bf16 values: on average, the parameter moves as far. [`Rounding::Nearest`] loses them.
    /// [`validate`](Self::validate) refuses other formats, and schedule-free bases, whose averages need masters.
    ///
    /// ```
    /// use wgpu_optim::{ParamGroups, Precision, Recipe, Rounding};
    ///
    /// let groups = ParamGroups::from(Recipe::adamw(1e-3))
    ///     .with_precision(Precision::Bf16)
    ///     .without_masters(Rounding::Stochastic { seed: 0 });
    /// assert!(groups.rounding().is_some() && groups.validate().is_ok());
    /// ```
    #[must_use]
    pub fn without_masters(self, rounding: Rounding) -> Self {
        Self { rounding: Some(rounding), ..self }
    }

    /// Keeps of each f32 master only the 16 bits that its bf16 parameter lacks. Default: masters are kept whole.
    ///
    /// It saves 2 bytes of memory per parameter, 6 bytes of traffic, and the dispatch that rounds masters. The masters have the same bits as
    /// whole ones. The parameter is the master rounded to the nearest, ties away from 0. Two states of a base share a binding then, so a
    /// tensor with two states must fit into half of one. [`validate`](Self::validate) refuses other formats, and schedule-free bases.
    ///
    /// Bases with three or four states under exact selection, and those with a second moment per row, need a device that binds nine storage
    /// buffers.
    ///
    /// ```
    /// use wgpu_optim::{ParamGroups, Precision, Recipe, StateFormat};
    ///
    /// // 2 bytes for the parameter, 2 for its master, 2 for its gradient, 2 for state.
    /// let groups = ParamGroups::from(Recipe::adamw(1e-3).with_state(StateFormat::EightBit))
    ///     .with_precision(Precision::Bf16)
    ///     .with_split_masters();
    /// assert!(groups.splits_masters() && groups.validate().is_ok());
    /// ```
    #[must_use]
    pub fn with_split_masters(self) -> Self {
        Self { split_masters: true, ..self }
    }

    /// Whether masters keep only what bf16 parameters lack.
    pub fn splits_masters(&self) -> bool {
        self.split_masters
    }

    /// How steps round parameters that have no masters; `None` if they have masters or are f32.
    pub fn rounding(&self) -> Option<Rounding> {
        self.rounding
    }

    /// The format of parameters and gradients.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Observes the first of every `every` steps, at least 1, for [`take_telemetry`](crate::GpuOptimizer::take_telemetry), and logs one
    /// line about it. Default off.
    ///
    /// It costs 4 bytes of memory per parameter for a copy of the parameters. An observed step costs two more dispatches per page, one
    /// per kind of recipe, and about the traffic of a step of AdamW. Other steps cost nothing.
    #[must_use]
    pub fn with_telemetry(self, every: u32) -> Self {
        Self { telemetry: Some(every), ..self }
    }

    /// Keeps an average of every parameter over the steps, for [`evaluate`](crate::GpuOptimizer::evaluate). Default off.
    ///
    /// It costs 4 bytes of memory per parameter. A step with an update costs one more dispatch per page and 12 bytes of traffic per
    /// parameter. Averages are f32 unless [`Average::precision`] is bf16, and those of f16 and bf16 parameters follow the masters. A skipped step changes no average, and where steps may be
    /// skipped, every step has that dispatch. Schedule-free
    /// bases have an average of their own, so [`validate`](Self::validate) refuses both together.
    #[must_use]
    pub fn with_average(self, average: Average) -> Self {
        Self { average: Some(average), ..self }
    }

    /// How parameters are averaged; `None` if they are not.
    pub fn average(&self) -> Option<Average> {
        self.average
    }

    /// Whether a step may be skipped.
    pub(crate) fn skips(&self) -> bool {
        self.non_finite() != NonFinite::Propagate
    }

    /// What kernels do to gradients.
    pub(crate) fn gradients(&self) -> Gradients {
        Gradients {
            // Sums of micro-batches are f32.
            format: if self.accumulation > 1 { Precision::F32 } else { self.precision },
            limited: self.max_grad_value.is_some(),
            guarded: self.skips() || self.max_grad_norm.is_some(),
            skips: self.skips(),
        }
    }

    /// Checks that all settings and recipes are in range. Constructors of optimizers call it.
    ///
    /// # Errors
    /// [`Error::Recipe`] names the field, its value and what is allowed; [`Error::Empty`] if there is no group.
    pub fn validate(&self) -> Result<()> {
        let (schedules, recipes) = (self.schedules.len(), self.recipes.len());
        ensure!(recipes > 0, Error::Empty { what: "parameter group" });
        ensure!(schedules == recipes, Error::Count { what: "schedules", given: schedules, needed: recipes });
        self.recipes.iter().try_for_each(Recipe::validate)?;
        for (field, value) in [("max_grad_norm", self.max_grad_norm), ("max_grad_value", self.max_grad_value)] {
            value.map_or(Ok(()), |value| check(field, value, POSITIVE))?;
        }
        self.schedules.iter().try_for_each(LrSchedule::validate)?;
        for ScalarSchedule { group, scalar, schedule } in &self.scalar_schedules {
            ensure!(*group < recipes, Error::UnknownGroup { group: *group, count: recipes });
            self.recipes[*group].scaled(scalar, 1.0)?;
            schedule.validate()?;
            let (field, value) = (format!("the schedule of `{scalar}`"), "a function".to_owned());
            let refused = || Error::Recipe { field, value, allowed: "one that a checkpoint can hold".to_owned() };
            ensure!(!matches!(schedule.shape, Shape::Function(_)), refused());
            // Factors of a million steps lie between the smallest and the largest of three: the first factor, the last factor, and 1.
            for step in [0, 1_000_000] {
                self.recipes[*group].scaled(scalar, schedule.factor(step))?.validate()?;
            }
        }
        check("accumulation", self.accumulation.into(), (|x| (1.0..=65_536.0).contains(&x), "1 to 65,536"))?;
        check("telemetry", self.telemetry.unwrap_or(1).into(), AT_LEAST_1)?;
        let mut all = self.recipes.iter().flat_map(|recipe| [Some(*recipe), recipe.fallback()]).flatten();
        let schedule_free = all.find(|recipe| recipe.base.averaging().is_some());
        let refused = |field: &str, value: &str, allowed: String| {
            Err(Error::Recipe { field: field.to_owned(), value: value.to_owned(), allowed })
        };
        if let Some(average) = self.average {
            average.validate()?;
            let halves = self.rounding.is_some() || self.split_masters;
            let needed = "f32, or bf16 if parameters are bf16 and have no masters or split ones".to_owned();
            let other = match average.precision {
                Precision::F32 => false,
                Precision::Bf16 => !halves,
                Precision::F16 => true,
            };
            if other { refused("average.precision", average.precision.name(), needed) } else { Ok(()) }?;
            let own = |recipe: Recipe| {
                refused("average", "set", format!("off with `{recipe}`, which has an average of its own"))
            };
            schedule_free.map_or(Ok(()), own)?;
        }
        let both = self.rounding.is_some() && self.split_masters;
        let one = || refused("split_masters", "true", "false with a rounding, which keeps no masters".to_owned());
        if both { one() } else { Ok(()) }?;
        for (field, is_set) in [("rounding", self.rounding.is_some()), ("split_masters", self.split_masters)] {
            let other = is_set && self.precision != Precision::Bf16;
            let masters = || refused("precision", self.precision.name(), format!("bf16 with `{field}`"));
            if other { masters() } else { Ok(()) }?;
            let needs =
                |recipe: Recipe| refused(field, "set", format!("off with `{recipe}`, whose averages need masters"));
            schedule_free.filter(|_| is_set).map_or(Ok(()), needs)?;
        }
        let Some(scaler) = self.grad_scaler else { return Ok(()) };
        scaler.validate()?;
        let allowed = "skip or error with a grad_scaler, which looks for the largest scale without overflow";
        let (field, value, allowed) = ("non_finite".to_owned(), "propagate".to_owned(), allowed.to_owned());
        ensure!(self.skips(), Error::Recipe { field, value, allowed });
        Ok(())
    }

    /// Refuses settings and specs out of range, and groups of matrix bases without matrices. Returns the index of each name.
    pub(crate) fn validate_specs(&self, specs: &[TensorSpec]) -> Result<HashMap<String, usize>> {
        self.validate()?;
        let names = spec::validate(specs, self.recipes.len())?;
        for (g, recipe) in self.recipes.iter().enumerate() {
            let needs_matrices = recipe.base.newton_schulz().is_some() && !self.may_lack_matrices;
            let Some(fallback) = recipe.fallback().filter(|_| needs_matrices) else { continue };
            let mut own = specs.iter().filter(|spec| spec.group == g).peekable();
            if own.peek().is_some() && own.all(|spec| spec.matrix().is_none()) {
                let reason = format!(
                    "`{recipe}` is for matrices, and none of its tensors is one: give a tensor rank 2 or another `MatrixLayout`, \
                     or use `{fallback}`"
                );
                return Err(Error::Group { group: g, reason });
            }
        }
        Ok(names)
    }

    /// The norm to which gradients are clipped; `None` if they are not.
    pub fn max_grad_norm(&self) -> Option<f64> {
        self.max_grad_norm
    }

    /// Sets how the matrix products of matrix bases are computed. Default [`adapter::matmul`](crate::adapter::matmul).
    ///
    /// ```
    /// use wgpu_optim::matrix::Matmul;
    /// use wgpu_optim::{ParamGroups, Recipe};
    ///
    /// let groups = ParamGroups::from(Recipe::muon(2e-2)).with_matmul(Matmul::TilesF16);
    /// ```
    #[must_use]
    pub fn with_matmul(self, matmul: Matmul) -> Self {
        Self { matmul: Some(matmul), ..self }
    }

    /// Sets how kernels over all coordinates are launched. Default [`adapter::launch_shape`](crate::adapter::launch_shape).
    ///
    /// ```
    /// use wgpu_optim::{LaunchShape, ParamGroups, Recipe};
    ///
    /// let groups = ParamGroups::from(Recipe::adamw(1e-3)).with_launch_shape(LaunchShape::Gpu);
    /// ```
    #[must_use]
    pub fn with_launch_shape(self, shape: LaunchShape) -> Self {
        Self { launch_shape: Some(shape), ..self }
    }

    /// Accepts groups of a matrix base without matrices, for tensors that join later. By default they are refused.
    ///
    /// ```
    /// use wgpu_optim::{ParamGroups, Recipe, TensorSpec};
    ///
    /// let groups = ParamGroups::from(Recipe::muon(2e-2)).allow_no_matrices();
    /// // The fallback steps a vector.
    /// assert_eq!(groups.recipe_of(&TensorSpec::new("bias", [64])).name(), "adamw");
    /// ```
    #[must_use]
    pub fn allow_no_matrices(self) -> Self {
        Self { may_lack_matrices: true, ..self }
    }

    /// A recipe per row of step scalars: those of the groups, then, if any group has one, the fallbacks.
    ///
    /// # Errors
    /// As for [`scheduled`](Self::scheduled).
    pub(crate) fn rows(&self, step: u64) -> Result<Vec<Recipe>> {
        let rows = (0..self.recipes.len()).map(|g| self.scheduled(g, step)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.with_fallbacks(rows))
    }

    /// The recipes of the groups, then, if any group has one, the fallbacks.
    pub(crate) fn with_fallbacks(&self, mut rows: Vec<Recipe>) -> Vec<Recipe> {
        if self.row_count() > rows.len() {
            rows.extend_from_within(..);
            rows.iter_mut().skip(self.recipes.len()).for_each(|row| *row = row.fallback().unwrap_or(*row));
        }
        rows
    }

    /// Number of rows.
    pub(crate) fn row_count(&self) -> usize {
        let falls_back = self.recipes.iter().any(|recipe| recipe.fallback().is_some());
        self.recipes.len() * if falls_back { 2 } else { 1 }
    }

    /// The row of a tensor.
    pub(crate) fn row_of(&self, spec: &TensorSpec) -> usize {
        let falls_back = self.recipes[spec.group].fallback().is_some() && spec.matrix().is_none();
        spec.group + if falls_back { self.recipes.len() } else { 0 }
    }

    /// The recipe that steps a tensor: that of its group, or the group's fallback if the tensor is not a matrix.
    ///
    /// # Panics
    /// If the group does not exist.
    pub fn recipe_of(&self, spec: &TensorSpec) -> Recipe {
        self.recipes[spec.group].on(spec)
    }
}

impl From<Recipe> for ParamGroups {
    fn from(recipe: Recipe) -> Self {
        vec![recipe].into()
    }
}

impl<B: Direction + Into<Base>> From<B> for ParamGroups {
    fn from(base: B) -> Self {
        Recipe::from(base).into()
    }
}

impl<const N: usize> From<[Recipe; N]> for ParamGroups {
    fn from(recipes: [Recipe; N]) -> Self {
        recipes.to_vec().into()
    }
}

impl From<Vec<Recipe>> for ParamGroups {
    fn from(recipes: Vec<Recipe>) -> Self {
        Self { schedules: vec![LrSchedule::constant(); recipes.len()], recipes, ..Self::default() }
    }
}

/// Writes a constant in place of functions, which cannot be written. The caller notes where they were.
fn without_functions<S: Serializer>(schedules: &[LrSchedule], serializer: S) -> Result<S::Ok, S::Error> {
    let written = |schedule: &LrSchedule| match schedule.shape {
        Shape::Function(_) => LrSchedule::constant(),
        _ => schedule.clone(),
    };
    serializer.collect_seq(schedules.iter().map(written))
}
