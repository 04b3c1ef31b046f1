//! Does this adapter compute correctly? Compares every recipe at a table of sizes with the CPU [`reference`](mod@crate::reference).
//!
//! A score that lies so close to a threshold that rounding decides its side may be decided differently by two correct
//! implementations. Such coordinates are counted as *uncertain* and left out of the comparison; too many of them fail
//! the case.

use crate::error::Result;
use crate::gpu::{GpuOptimizer, readback};
use crate::recipe::Recipe;
use crate::recipe::base::{Base, BaseKind, Per, StateRow};
use crate::recipe::groups::ParamGroups;
use crate::recipe::policy::{Mgup, PolicyKind, Selection, Selects, sampled_cut};
use crate::recipe::sampling::Sampling;
use crate::recipe::spec::TensorSpec;
use crate::recipe::state::StateFormat;
use crate::reference::{Step, Tensor};

/// Sizes of vectors around the edges of a vector of four, a workgroup, a chunk and a span.
#[doc(hidden)]
pub const SIZES: [usize; 10] = [1, 2, 3, 255, 256, 257, 4096, 4097, 65_537, 1_000_003];

/// The sizes for bases whose kernels differ from AdamW's and Lion's only in the direction of a coordinate.
const FEW_SIZES: [usize; 4] = [3, 257, 4097, 65_537];

/// Shapes of matrices, for the bases that orthogonalize them: around the edges of a vector of four and of a block, wide and
/// tall, with the three ways of selection.
#[doc(hidden)]
pub const SHAPES: [[usize; 2]; 12] = [
    [1, 1],
    [3, 5],
    [1, 300],
    [300, 1],
    [7, 13],
    [16, 16],
    [40, 24],
    [64, 64],
    [67, 129],
    [130, 65],
    [128, 256],
    [61, 1031],
];

/// Largest difference allowed: absolute, and relative to the reference.
#[doc(hidden)]
pub const TOLERANCE: (f64, f64) = (2e-6, 1e-5);

/// The same for orthogonalized matrices: rounding grows with what Newton–Schulz amplifies.
#[doc(hidden)]
pub const MATRIX_TOLERANCE: (f64, f64) = (2e-4, 2e-3);

/// A recipe on a tensor of some shape.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Case {
    /// The name of the case in a report.
    pub name: String,
    /// The recipe under test.
    pub recipe: Recipe,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Number of steps.
    pub steps: u64,
}

impl Case {
    /// A recipe on a tensor of a shape, for so many steps.
    pub fn new(name: impl Into<String>, recipe: Recipe, shape: impl Into<Vec<usize>>, steps: u64) -> Self {
        Self { name: name.into(), recipe, shape: shape.into(), steps }
    }
}

/// How a case ended.
///
/// ```
/// use wgpu_optim::verify::Outcome;
///
/// fn holds(Outcome { failure, .. }: &Outcome) -> bool {
///     failure.is_none()
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Largest absolute difference of a parameter, without uncertain coordinates; NaN if any difference of a parameter or state is NaN.
    pub max_error: f64,
    /// Number of coordinates for which rounding decides the side of a threshold.
    pub uncertain: usize,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// Whether the results were compared with the CPU. False for a custom base or policy without a twin: its WGSL is only compiled and run,
    /// and `failure` names a result that is not finite, if any.
    pub compared: bool,
}

/// The recipes of the table: every pair of base and policy, and every variant of a base under MGUP, with weight decay and a learning rate that makes a wrong
/// factor stand out.
pub fn recipes() -> Vec<(String, Recipe)> {
    let mut recipes = Vec::new();
    for name in Recipe::presets() {
        let recipe: Recipe = name.parse().expect("a preset parses");
        let recipe = Recipe { base: recipe.base.verified(), ..recipe };
        if let Some((word, policy)) = recipe.policy.other_normalizer() {
            recipes.push((format!("{name} ({word})"), Recipe { policy, ..recipe }));
        }
        recipes.push((name, recipe));
    }
    // The presets have the first row of each base.
    for base in Base::variants().into_iter().filter(|base| BaseKind::of(base).row().name.contains('(')) {
        let name = BaseKind::of(&base).row().name;
        let exact = Recipe::from(base).mgup();
        let (name, recipe) = match exact.validate() {
            Ok(()) => (format!("mgup-{name}"), exact),
            Err(_) => (
                format!("mgup-{name}-approximate"),
                exact.with_policy(Mgup::default().selection(Selection::Approximate)),
            ),
        };
        recipes.push((name, recipe));
    }
    // With 8-bit states: every base that allows them, under exact selection.
    for base in Base::members() {
        let recipe = Recipe::from(base.verified()).mgup().with_state(StateFormat::EightBit);
        if recipe.validate().is_ok() {
            recipes.push((format!("{} (8-bit state)", recipe.name()), recipe));
        }
    }
    recipes
}

/// Every recipe at sizes or shapes around the edges of what kernels handle together. AdamW and Lion have vectors of ten sizes, up to
/// 1,000,003 coordinates; bases that differ from them only in the direction of a coordinate have four of these sizes.
///
/// ```
/// use wgpu_optim::verify::cases;
///
/// let large = cases().into_iter().filter(|case| case.shape == [65_537]);
/// println!("{}", large.map(|case| case.name).collect::<Vec<_>>().join(", "));
/// ```
pub fn cases() -> Vec<Case> {
    let of = |(name, recipe): (String, Recipe)| {
        let shapes: Vec<Vec<usize>> = match recipe.fallback() {
            Some(_) => SHAPES.map(Vec::from).into(),
            None => {
                let all = matches!(recipe.base, Base::Adamw(_) | Base::Lion(_));
                let sizes = if all { &SIZES[..] } else { &FEW_SIZES };
                sizes.iter().map(|&numel| vec![numel]).collect()
            }
        };
        shapes.into_iter().map(move |shape| Case::new(&name, recipe, shape, 3))
    };
    recipes().into_iter().flat_map(of).collect()
}

/// Reproducible parameters in [−1, 1).
pub fn params(numel: usize) -> Vec<f32> {
    (0..numel).map(|i| uniform(0, i)).collect()
}

/// Reproducible gradients of step `t`: of widely differing sizes, every eighth exactly zero.
pub fn grads(numel: usize, t: u64) -> Vec<f32> {
    let gradient = |i| {
        if hash(t, i).is_multiple_of(8) {
            return 0.0;
        }
        // A sum of uniforms for the bulk, a cube for the tails.
        let x = (0..3).map(|k| uniform(4 * t + k + 1, i)).sum::<f32>();
        x * x * x * 0.1
    };
    (0..numel).map(gradient).collect()
}

/// Runs cases one after the other, and compiles no pipeline twice.
///
/// ```no_run
/// # async fn check(device: &wgpu_optim::wgpu::Device, queue: &wgpu_optim::wgpu::Queue) -> Result<(), wgpu_optim::Error> {
/// use wgpu_optim::verify::{Case, Runner};
/// use wgpu_optim::{ParamGroups, Recipe};
///
/// let case = Case::new("my recipe", Recipe::lion(1e-3).weight_decay(0.2).mgup(), [300, 70], 5);
/// let outcome = Runner::new(device, queue).run(&case, ParamGroups::from(case.recipe)).await?;
/// assert_eq!(outcome.failure, None, "differs from the CPU by {}", outcome.max_error);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Runner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    last: Option<GpuOptimizer>,
}

impl Runner {
    /// A runner on this device.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        Self { device: device.clone(), queue: queue.clone(), last: None }
    }

    /// The same with the pipelines that this optimizer of the device and its siblings have compiled.
    #[doc(hidden)]
    #[must_use]
    pub fn beside(mut self, optimizer: GpuOptimizer) -> Self {
        self.last = Some(optimizer);
        self
    }

    /// Runs a case by its recipe, perhaps with settings that hold for all groups.
    ///
    /// # Errors
    /// If the optimizer cannot be made or read; a wrong result is an [`Outcome`].
    pub async fn run(&mut self, case: &Case, groups: impl Into<ParamGroups>) -> Result<Outcome> {
        let specs = [TensorSpec::new(NAME, case.shape.clone())];
        let made = match &self.last {
            Some(last) => last.sibling(&specs, groups).await?,
            None => GpuOptimizer::new(&self.device, &self.queue, &specs, groups).await?,
        };
        self.last.take().into_iter().for_each(GpuOptimizer::destroy);
        let gpu = self.last.insert(made);
        let numel = specs[0].numel() as usize;
        gpu.write_param(NAME, &params(numel))?;
        if !case.recipe.has_twin() {
            return is_finite(&self.device, gpu, case).await;
        }
        let mut cpu = Tensor::with_shape(case.recipe, &specs[0], params(numel))?;
        let mut uncertain = vec![false; numel];
        let (mut selected, mut others) = (0, 0);
        let rows = BaseKind::of(&cpu.recipe.base).row().states;
        let rounds = cpu.recipe.state != StateFormat::F32;
        let in_bytes = rows.iter().filter(move |row| rounds && row.per == Per::Coordinate);
        for t in 1..=case.steps {
            let grad = grads(numel, t);
            gpu.write_grad(NAME, &grad)?;
            gpu.poison_scratch();
            gpu.step()?;
            let states = in_bytes.clone().map(|row| gpu.read_state(NAME, row.name)).collect::<Result<Vec<_>>>()?;
            let mut found = Vec::new();
            if !states.is_empty() {
                readback::wait(&self.device)?;
            }
            for state in states {
                found.push(state.await?);
            }
            let before = cpu.clone();
            let (step, differ) = cpu.step_beside(&grad, &found);
            others += differ;
            mark_uncertain(&before, &grad, &step, &mut uncertain);
            selected = step.selected;
        }
        let param = gpu.read_param(NAME)?;
        let states = rows.iter().map(|state| gpu.read_state(NAME, state.name)).collect::<Result<Vec<_>>>()?;
        let count = gpu.read_selected(NAME)?;
        readback::wait(&self.device)?;
        let (param, count) = (param.await?, count.await?.count as usize);

        let uncertain_count = uncertain.iter().filter(|&&u| u).count();
        let is_matrix = case.recipe.base.newton_schulz().is_some();
        let tolerance = if is_matrix { MATRIX_TOLERANCE } else { TOLERANCE };
        let (mut max_error, mut failure) = compare_within(tolerance, &param, &cpu.param, Some(&uncertain));
        for ((state, found), expected) in rows.iter().zip(states).zip(&cpu.states) {
            let is_rounded = in_bytes.clone().any(|row| row == state);
            let tolerance = if is_rounded { (0.0, 0.0) } else { state_tolerance(state) };
            let (error, wrong) = compare_within(tolerance, &found.await?, expected, None);
            max_error = if error.is_nan() { f64::NAN } else { max_error };
            failure = failure.or(wrong.map(|f| format!("{}: {f}", state.name)));
        }

        let allowed = 8 + numel * case.steps as usize / 50_000;
        let many = || format!("{uncertain_count} coordinates are uncertain, more than {allowed}");
        failure = failure.or_else(|| (uncertain_count > allowed).then(many));
        let differ = || format!("{others} states were rounded to another byte than on the CPU, more than {allowed}");
        failure = failure.or_else(|| (others > allowed).then(differ));
        let selects = PolicyKind::of(&case.recipe.policy, numel as u64).selects();
        let exact = matches!(selects, Selects::Exact | Selects::Small | Selects::Random);
        let off = count.abs_diff(selected) > if exact { 0 } else { uncertain_count };
        failure = failure.or_else(|| off.then(|| format!("{count} coordinates were selected instead of {selected}")));
        Ok(Outcome { max_error, uncertain: uncertain_count, failure, compared: true })
    }
}

/// Takes the steps of a case, and checks that the parameters and states are finite.
async fn is_finite(device: &wgpu::Device, gpu: &mut GpuOptimizer, case: &Case) -> Result<Outcome> {
    for t in 1..=case.steps {
        gpu.write_grad(NAME, &grads(case.shape.iter().product(), t))?;
        gpu.poison_scratch();
        gpu.step()?;
    }
    let mut failure = None;
    let mut check = |name: &str, values: Vec<f32>| {
        let wrong = values.iter().position(|x| !x.is_finite());
        failure = failure.take().or(wrong.map(|at| format!("{name} at {at} is {}", values[at])));
    };
    let names: Vec<_> = gpu.state_names(NAME)?.collect();
    let states = names.iter().map(|name| gpu.read_state(NAME, name)).collect::<Result<Vec<_>>>()?;
    let param = gpu.read_param(NAME)?;
    readback::wait(device)?;
    check("the parameter", param.await?);
    for (name, state) in names.iter().zip(states) {
        check(name, state.await?);
    }
    Ok(Outcome { max_error: 0.0, uncertain: 0, failure, compared: false })
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.last.take().into_iter().for_each(GpuOptimizer::destroy);
    }
}

const NAME: &str = "tensor";

/// Largest difference of a state: absolute, and relative to the reference.
#[doc(hidden)]
pub fn state_tolerance(state: &StateRow) -> (f64, f64) {
    match (state.squares, state.per) {
        (false, _) => TOLERANCE,
        // Squares differ in size by far more than moments do.
        (true, Per::Coordinate | Per::Row | Per::Column) => (1e-30, TOLERANCE.1),
        // Of directions that Newton–Schulz has amplified.
        (true, Per::Output) => MATRIX_TOLERANCE,
        // A sum over the matrix, in another order.
        (true, Per::Tensor | Per::Input) => (0.0, 1e-4),
    }
}

/// The largest absolute difference, and what is wrong: a NaN, or else the first value that is off by more than 2e-6 + 1e-5 |expected|.
/// Coordinates that are true in `skip` are left out.
///
/// ```
/// use wgpu_optim::verify::{compare, grads, params};
///
/// let (found, expected) = (params(100), params(100));
/// assert_eq!(compare(&found, &expected, None), (0.0, None));
/// let (error, wrong) = compare(&grads(100, 1), &expected, None);
/// assert!(error > 0.1 && wrong.is_some());
/// ```
pub fn compare(actual: &[f32], expected: &[f32], skip: Option<&[bool]>) -> (f64, Option<String>) {
    compare_within(TOLERANCE, actual, expected, skip)
}

/// [`compare`] with another tolerance: absolute, and relative to what is expected.
#[doc(hidden)]
pub fn compare_within(
    tolerance: (f64, f64),
    actual: &[f32],
    expected: &[f32],
    skip: Option<&[bool]>,
) -> (f64, Option<String>) {
    if actual.len() != expected.len() {
        return (f64::NAN, Some(format!("{} values instead of {}", actual.len(), expected.len())));
    }
    let mut max_error = 0.0f64;
    let mut failure = None;
    let all = actual.iter().zip(expected).enumerate();
    for (i, (&a, &e)) in all.filter(|(i, _)| skip.is_none_or(|skip| !skip[*i])) {
        let error = (f64::from(a) - f64::from(e)).abs();
        let wrong = || format!("at {i}: {a} instead of {e}");
        if error.is_nan() {
            return (f64::NAN, Some(wrong()));
        }
        max_error = max_error.max(error);
        let close = e.is_finite() && error <= tolerance.0 + tolerance.1 * f64::from(e).abs();
        failure = failure.or_else(|| (!close).then(wrong));
    }
    (max_error, failure)
}

/// Marks the coordinates of a step whose factor or direction hangs on rounding.
fn mark_uncertain(before: &Tensor<f32>, grad: &[f32], step: &Step<f32>, uncertain: &mut [bool]) {
    let Recipe { base, policy, .. } = before.recipe;
    let (scalars, numel) = (base.scalars(before.steps + 1), grad.len() as u64);
    let selects = PolicyKind::of(&policy, numel).selects();
    let of = |i: usize| {
        let states: Vec<f64> = before.states.iter().map(|state| state[i * state.len() / grad.len()].into()).collect();
        let (g, decay) = (f64::from(grad[i]), scalars.penalty * f64::from(before.param[i]));
        base.direction_error(&scalars, &states, [g + decay, g.abs() + decay.abs()], step.direction[i].into())
    };
    let errors: Vec<_> = (0..grad.len()).map(of).collect();
    let flipped: Vec<_> = (0..grad.len()).filter(|&i| errors[i].is_none()).collect();
    flipped.iter().for_each(|&i| uncertain[i] = true);
    if base.has_cautious_decay() {
        // Whether a parameter decays hangs on the sign.
        let is_near_zero = |i: usize| errors[i].is_some_and(|error| f64::from(step.direction[i]).abs() <= error);
        (0..grad.len()).filter(|&i| grad[i] != 0.0 && is_near_zero(i)).for_each(|i| uncertain[i] = true);
    }
    // Error of each score: that of the direction, whose moment may have cancelled, times the gradient.
    let error: Vec<f64> = errors.iter().zip(grad).map(|(e, g)| e.unwrap_or(0.0) * f64::from(g.abs())).collect();
    let score = |i: usize| f64::from(step.score[i]);
    match selects {
        Selects::Exact | Selects::Small => {
            // A coordinate may change sides with the nearest one of the other side: the highest that is not selected, or the lowest that
            // is. A flipped direction moves every rank behind it.
            let (k, flips) = (step.selected, flipped.len());
            let mut order: Vec<usize> = (0..grad.len()).filter(|&i| !step.score[i].is_nan()).collect();
            let compare = |a: &usize, b: &usize| step.score[*b].total_cmp(&step.score[*a]).then(a.cmp(b));
            let ends = [k.checked_sub(flips + 1), Some(k + flips)].map(|rank| {
                let rank = rank.filter(|&rank| rank < order.len())?;
                Some(*order.select_nth_unstable_by(rank, compare).1)
            });
            let [Some(lowest), Some(highest)] = ends else { return };
            for i in 0..grad.len() {
                let other = if step.phi[i] == step.phi[lowest] { highest } else { lowest };
                let between = (score(highest)..=score(lowest)).contains(&score(i)) && grad[i] != 0.0;
                uncertain[i] |= (score(i) - score(other)).abs() < error[i] + error[other] || (flips > 0 && between);
            }
        }
        Selects::Sampled => {
            // The threshold is a sampled score: its neighbors in the sample may take its place. A flipped direction moves
            // every rank behind it.
            let sampling = Sampling::new(numel, policy.k(numel));
            let sampled = sampling.indices(numel, before.steps + 1);
            let reach = sampled.filter(|i| flipped.binary_search(i).is_ok()).count() as isize;
            let ends = [reach, -reach].map(|shift| sampled_cut(&step.score, sampling, before.steps + 1, shift));
            let [Some(lowest), Some(highest)] = ends else { return };
            for i in (0..grad.len()).filter(|&i| grad[i] != 0.0) {
                let [above, below] = [score(highest) + error[highest], score(lowest) - error[lowest]];
                uncertain[i] |= score(i) <= above + error[i] && score(i) >= below - error[i];
            }
        }
        Selects::Random => {}
        // The orthogonalized direction may be large where the direction is small.
        _ if base.newton_schulz().is_some() => {
            (0..grad.len()).for_each(|i| uncertain[i] |= score(i) != 0.0 && score(i).abs() <= error[i]);
        }
        // Where the sign of a score is uncertain, the direction is so small that its factor does not matter.
        _ => {}
    }
}

fn uniform(stream: u64, i: usize) -> f32 {
    (hash(stream, i) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// SplitMix64 of a stream and an index.
fn hash(stream: u64, i: usize) -> u64 {
    let mut z = (stream << 40 ^ i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
