//! Does this adapter compute correctly? Every recipe over a table of sizes, GPU against the CPU twin.
//!
//! A score that lies so close to a threshold that rounding decides its side may be decided differently by two correct
//! implementations. Such coordinates are counted as *uncertain* and left out of the comparison; too many of them fail
//! the case.

use crate::base::Base;
use crate::error::Error;
use crate::groups::ParamGroups;
use crate::optimizer::GpuOptimizer;
use crate::plan::{SMALL, TensorSpec};
use crate::policy::{Cautious, Normalizer, Policy, Selection};
use crate::recipe::Recipe;
use crate::reference;
use crate::sampling::Sampling;

/// Sizes of vectors around the edges of a vector of four, a workgroup, a chunk and a span.
pub const SIZES: [usize; 10] = [1, 2, 3, 255, 256, 257, 4096, 4097, 65_537, 1_000_003];

/// Shapes of matrices, for the bases that orthogonalise them: around the edges of a vector of four and of a block, wide and
/// tall, with the three ways of selection.
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
pub const TOLERANCE: (f64, f64) = (2e-6, 1e-5);

/// The same for orthogonalised matrices: rounding grows with what Newton–Schulz amplifies.
pub const MATRIX_TOLERANCE: (f64, f64) = (2e-4, 2e-3);

/// A recipe on a tensor of some shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What it is called in a report.
    pub name: String,
    /// What steps it.
    pub recipe: Recipe,
    /// Shape.
    pub shape: Vec<usize>,
    /// Steps.
    pub steps: u64,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Largest absolute difference, uncertain coordinates left out; NaN if a value is NaN on one side only.
    pub max_error: f64,
    /// Coordinates whose side of a threshold rounding decides.
    pub uncertain: usize,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// The recipes of the table: every pair of base and policy, with weight decay and a learning rate that makes a wrong
/// factor stand out.
pub fn recipes() -> Vec<(String, Recipe)> {
    let mut recipes = Vec::new();
    for name in Recipe::presets() {
        let mut recipe: Recipe = name.parse().expect("a preset parses");
        match &mut recipe.base {
            Base::Adamw(b) => (b.lr, b.weight_decay) = (1e-2, 1e-2),
            Base::Lion(b) => (b.lr, b.weight_decay) = (1e-2, 1e-2),
            Base::Muon(b) => (b.lr, b.weight_decay) = (1.0, 1e-2),
            Base::Adago(b) => (b.lr, b.weight_decay, b.clip) = (1.0, 1e-2, 1.0),
        }
        if let Policy::Cautious(Cautious { normalizer }) = recipe.policy {
            let (other, word) = match normalizer {
                Normalizer::Mean => (Normalizer::Count, "count"),
                Normalizer::Count => (Normalizer::Mean, "mean"),
            };
            let policy = Policy::Cautious(Cautious { normalizer: other });
            recipes.push((format!("{name} ({word})"), Recipe { policy, ..recipe }));
        }
        recipes.push((name, recipe));
    }
    recipes
}

/// Every recipe at every size or shape.
pub fn cases() -> Vec<Case> {
    let of = |(name, recipe): (String, Recipe)| {
        let shapes: Vec<Vec<usize>> = match recipe.base.newton_schulz() {
            Some(_) => SHAPES.map(Vec::from).into(),
            None => SIZES.map(|numel| vec![numel]).into(),
        };
        shapes.into_iter().map(move |shape| Case { name: name.clone(), recipe, shape, steps: 3 })
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

    /// Runs a case by its recipe, perhaps with settings that hold for all groups.
    ///
    /// # Errors
    /// If the optimizer cannot be made or read; a wrong result is an [`Outcome`].
    pub async fn run(&mut self, case: &Case, groups: impl Into<ParamGroups>) -> Result<Outcome, Error> {
        let specs = [TensorSpec::new(NAME, case.shape.clone())];
        let made = match &self.last {
            Some(last) => last.sibling(&specs, groups).await?,
            None => GpuOptimizer::new(&self.device, &self.queue, &specs, groups).await?,
        };
        if let Some(last) = self.last.take() {
            last.destroy();
        }
        follow(&self.device, case, &specs[0], self.last.insert(made)).await
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(last) = self.last.take() {
            last.destroy();
        }
    }
}

const NAME: &str = "tensor";

async fn follow(
    device: &wgpu::Device,
    case: &Case,
    spec: &TensorSpec,
    gpu: &mut GpuOptimizer,
) -> Result<Outcome, Error> {
    let numel = spec.numel() as usize;
    let mut cpu = reference::Tensor::with_shape(case.recipe, spec, params(numel))?;
    gpu.write_param(NAME, &cpu.param)?;
    let mut uncertain = vec![false; numel];
    let mut selected = 0;
    for t in 1..=case.steps {
        let grad = grads(numel, t);
        gpu.write_grad(NAME, &grad)?;
        gpu.poison_scratch();
        gpu.step()?;
        let before = cpu.clone();
        let step = cpu.step(&grad);
        mark_uncertain(&before, &grad, &step, &mut uncertain);
        selected = step.selected;
    }
    let param = gpu.read_param(NAME)?;
    let is_matrix = case.recipe.base.newton_schulz().is_some();
    let mut states = Vec::new();
    for name in gpu.state_names(NAME)? {
        states.push((name, gpu.read_state(NAME, name)?));
    }
    let count = gpu.read_selected(NAME)?;
    wait(device)?;
    let (param, count) = (param.await?, count.await?.count as usize);

    let uncertain_count = uncertain.iter().filter(|&&u| u).count();
    let tolerance = if is_matrix { MATRIX_TOLERANCE } else { TOLERANCE };
    let (mut max_error, mut failure) = compare_within(tolerance, &param, &cpu.param, Some(&uncertain));
    for (name, state) in states {
        let (expected, tolerance) = match name {
            // Squares differ in size by far more than moments do.
            "exp_avg_sq" => (&cpu.exp_avg_sq[..], (1e-30, TOLERANCE.1)),
            // A sum over the matrix, in another order.
            "accumulator" => (std::slice::from_ref(&cpu.accumulator), (0.0, 1e-4)),
            _ => (&cpu.exp_avg[..], TOLERANCE),
        };
        let (error, wrong) = compare_within(tolerance, &state.await?, expected, None);
        max_error = if max_error.is_nan() || error.is_nan() { f64::NAN } else { max_error.max(error) };
        failure = failure.or(wrong.map(|f| format!("{name}: {f}")));
    }

    let allowed = 8 + numel * case.steps as usize / 50_000;
    if failure.is_none() && uncertain_count > allowed {
        failure = Some(format!("{uncertain_count} coordinates are uncertain, more than {allowed}"));
    }
    let exact = matches!(case.recipe.policy, Policy::Mgup(m) if m.selection == Selection::Exact);
    if failure.is_none() && count.abs_diff(selected) > if exact { 0 } else { uncertain_count } {
        failure = Some(format!("{count} coordinates were selected instead of {selected}"));
    }
    Ok(Outcome { max_error, uncertain: uncertain_count, failure })
}

/// Until reads are ready; in a browser they get ready by themselves.
#[cfg_attr(target_arch = "wasm32", allow(unused_variables))]
fn wait(device: &wgpu::Device) -> Result<(), Error> {
    #[cfg(not(target_arch = "wasm32"))]
    device
        .poll(wgpu::PollType::wait_indefinitely())
        .map_err(|e| Error::Gpu(format!("waiting for the device: {e}")))?;
    Ok(())
}

/// The largest difference, and what is wrong: NaN first, then the first value outside [`TOLERANCE`].
pub fn compare(actual: &[f32], expected: &[f32], skip: Option<&[bool]>) -> (f64, Option<String>) {
    compare_within(TOLERANCE, actual, expected, skip)
}

/// [`compare`] with another tolerance: absolute, and relative to what is expected.
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
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        if skip.is_some_and(|skip| skip[i]) {
            continue;
        }
        let error = (f64::from(a) - f64::from(e)).abs();
        if error.is_nan() {
            return (f64::NAN, Some(format!("at {i}: {a} instead of {e}")));
        }
        max_error = max_error.max(error);
        let close = e.is_finite() && error <= tolerance.0 + tolerance.1 * f64::from(e).abs();
        if !close && failure.is_none() {
            failure = Some(format!("at {i}: {a} instead of {e}"));
        }
    }
    (max_error, failure)
}

/// Marks the coordinates of a step whose factor or direction hangs on rounding.
fn mark_uncertain(
    before: &reference::Tensor<f32>,
    grad: &[f32],
    step: &reference::Step<f32>,
    uncertain: &mut [bool],
) {
    const EPS: f64 = f32::EPSILON as f64;
    let scalars = before.recipe.base.scalars(before.steps + 1);
    let [beta1, beta2] = scalars.betas;
    // Error of each score: that of the direction, whose moment may have cancelled, times the gradient.
    let mut flipped = Vec::new();
    let error: Vec<f64> = (0..grad.len())
        .map(|i| {
            let (m, g, u) = (f64::from(before.exp_avg[i]), f64::from(grad[i]), f64::from(step.direction[i]));
            let parts = (beta1 * m).abs() + ((1.0 - beta1) * g).abs();
            let direction = match before.recipe.base {
                Base::Adamw(_) => {
                    let v = beta2 * f64::from(before.second_moment(i)) + (1.0 - beta2) * g * g;
                    4.0 * EPS * (parts / (v.sqrt() + scalars.eps) + 2.0 * u.abs())
                }
                Base::Lion(_) => {
                    let sum = beta1 * m + (1.0 - beta1) * g;
                    let flip = parts > 0.0 && sum.abs() <= 4.0 * EPS * parts;
                    uncertain[i] |= flip;
                    flipped.extend(flip.then_some(i));
                    0.0
                }
                Base::Muon(_) | Base::Adago(_) => 4.0 * EPS * (beta2 * parts + (1.0 - beta2) * g.abs()),
            };
            direction * g.abs()
        })
        .collect();
    let Policy::Mgup(mgup) = before.recipe.policy else {
        if before.recipe.base.newton_schulz().is_some() {
            // The orthogonalised direction may be large where the direction is small.
            let near = |i: usize| step.score[i] != 0.0 && f64::from(step.score[i]).abs() <= error[i];
            (0..grad.len()).for_each(|i| uncertain[i] |= near(i));
        }
        // Where the sign of a score is uncertain, the direction is so small that its factor does not matter.
        return;
    };
    let selection = if grad.len() as u64 <= SMALL { Selection::Exact } else { mgup.selection };
    match selection {
        Selection::Exact => {
            let flips = flipped.len();
            // A coordinate may change sides with the nearest one of the other side: the highest that is not selected,
            // or the lowest that is. A flipped direction moves every rank behind it.
            let k = step.selected;
            let mut order: Vec<usize> = (0..grad.len()).filter(|&i| !step.score[i].is_nan()).collect();
            let mut at = |rank: usize| {
                let compare = |a: &usize, b: &usize| step.score[*b].total_cmp(&step.score[*a]).then(a.cmp(b));
                (rank < order.len()).then(|| *order.select_nth_unstable_by(rank, compare).1)
            };
            let (Some(lowest), Some(highest)) = (k.checked_sub(flips + 1).and_then(&mut at), at(k + flips))
            else {
                return;
            };
            for i in 0..grad.len() {
                let other = if step.phi[i] == step.phi[lowest] { highest } else { lowest };
                let distance = (f64::from(step.score[i]) - f64::from(step.score[other])).abs();
                let between = step.score[highest] <= step.score[i] && step.score[i] <= step.score[lowest];
                uncertain[i] |=
                    distance < error[i] + error[other] || (flips > 0 && between && grad[i] != 0.0);
            }
        }
        Selection::Approximate => {
            // The threshold is a sampled score: its neighbours in the sample may take its place. A flipped direction moves
            // every rank behind it.
            let k = mgup.k(grad.len()) as u64;
            let sampling = Sampling::new(grad.len() as u64, k);
            let sampled = sampling.indices(grad.len() as u64, before.steps + 1);
            let reach = sampled.filter(|i| flipped.binary_search(i).is_ok()).count() as isize;
            let ends = [-reach, reach]
                .map(|shift| reference::sampled_cut(&step.score, sampling, before.steps + 1, shift));
            let [Some(highest), Some(lowest)] = ends else { return };
            for i in 0..grad.len() {
                let score = f64::from(step.score[i]);
                uncertain[i] |= score <= f64::from(step.score[highest]) + error[i] + error[highest]
                    && score >= f64::from(step.score[lowest]) - error[i] - error[lowest]
                    && grad[i] != 0.0;
            }
        }
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
