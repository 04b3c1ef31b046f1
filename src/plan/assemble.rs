//! The stages of a whole step, in order: micro-batches, masters, the guard, the observation, each class's own, and rounding.

use std::collections::HashMap;
use std::sync::Arc;

use super::elementwise;
use super::layout::{Class, OF_CHUNK, OF_TENSOR, Ownership, Plan, WORKGROUP};
use super::orthogonal;
use super::program::When;
use super::stage::{Bindings, Over, Pair, STREAM, Share, Source, Stage, Stages, Writer};
use super::storage::Storage;
use crate::kernel::catalog::{Config, Constants, Kernel};
use crate::kernel::tables::Grid;
use crate::recipe::launch::LaunchShape;
use crate::recipe::matrix::Matmul;
use crate::recipe::policy::Selects;
use crate::recipe::precision::{Precision, Rounding};

/// A part of a step: whether there is one, when it runs, what it binds, and how its stages are added for a class.
type Part = (bool, When, Pair, fn(&mut Writer<'_>));

/// The stages of a step over all tensors of a plan, where a dimension of a dispatch has at most `limit` workgroups.
pub(crate) fn assemble(plan: &Plan, storage: &Storage, limit: u32, adapter: (Matmul, LaunchShape)) -> Stages {
    let (has_masters, guards) = (plan.has_masters(), plan.norms.is_some());
    let (averages, free) = (plan.averages(), plan.is_schedule_free());
    let tracks = plan.average.is_some();
    let parts: [Part; 15] = [
        (plan.accumulates, When::MicroBatch, Pair::Sums, accumulate),
        (has_masters, When::Masters, Pair::Masters, widen),
        (guards, When::Step, Pair::Step, norm),
        (guards, When::Step, Pair::Step, guard),
        (plan.observes, When::Observed, Pair::Step, observe),
        (true, When::Step, Pair::Step, step),
        (plan.observes, When::Observed, Pair::Step, report),
        (tracks, When::Average, Pair::Step, track),
        (has_masters, When::Round, Pair::Masters, |writer| round(writer, writer.plan.gradients.skips)),
        (free, When::Evaluate, Pair::Step, |writer| average(writer, false)),
        (tracks, When::Evaluate, Pair::Step, |writer| exchange(writer, false)),
        (averages && has_masters, When::Evaluate, Pair::Masters, |writer| round(writer, false)),
        (free, When::Train, Pair::Step, |writer| average(writer, true)),
        (tracks, When::Train, Pair::Step, |writer| exchange(writer, true)),
        (averages && has_masters, When::Train, Pair::Masters, |writer| round(writer, false)),
    ];
    // Only the caller's buffers may lack what pads a tensor to vectors of four.
    let single = plan.ownership != Ownership::Arenas && plan.tensors.iter().any(|t| !t.numel.is_multiple_of(4));
    let mut stages = Vec::new();
    for (_, when, pair, add) in parts.into_iter().filter(|(is_there, ..)| *is_there) {
        for (class, own) in plan.classes.iter().enumerate() {
            add(&mut Writer {
                plan,
                storage,
                class,
                policy: own.policy,
                pages: own.pages.clone(),
                tensors: own.tensors.clone(),
                grid: grid(plan, class),
                config: config(plan, class, adapter),
                workspaces: [None; 3],
                single,
                limit,
                when,
                pair,
                stages: &mut stages,
            });
        }
    }
    register(stages)
}

/// What is the same for all dispatches of a class.
fn grid(plan: &Plan, class: usize) -> Grid {
    let average = plan.average.unwrap_or_default();
    Grid {
        bounds: plan.classes[class].policy.bounds() as u32,
        norms: plan.norms.unwrap_or(0),
        seed: plan.rounding.map_or(0, Rounding::seed),
        average_start: average.start,
        average_every: average.every,
        average_rest: (average.least_weight() as f32).to_bits(),
        average_warms: u32::from(average.begins_as_mean()),
        ..Grid::default()
    }
}

/// What fills the slots of a class's kernels.
fn config(plan: &Plan, class: usize, (matmul, shape): (Matmul, LaunchShape)) -> Config {
    let (Class { base, policy, state, .. }, gradients) = (&plan.classes[class], plan.gradients);
    let constants = Constants::default()
        .with("LIMITED", gradients.limited)
        .with("GUARDED", gradients.guarded)
        .with("SKIPS", gradients.skips)
        .with("RATED", plan.rates > 0)
        .with("STOCHASTIC", matches!(plan.rounding, Some(Rounding::Stochastic { .. })))
        .with("COUNTS", policy.selects() == Selects::PositiveCounted);
    let (custom_policy, policy) = (policy.row().text, policy.row().shader);
    Config {
        base: *base,
        state: *state,
        policy,
        custom_policy,
        rounded: plan.rounding.is_some(),
        split: plan.splits,
        half_averages: plan.average_format() == Precision::Bf16,
        format: gradients.format,
        matmul,
        shape,
        constants,
        ..Config::default()
    }
}

fn step(writer: &mut Writer<'_>) {
    match writer.config.base.is_matrix() {
        // Its pages share what they are orthogonalized in.
        true => writer.by_page(orthogonal::step),
        false => elementwise::step(writer),
    }
}

fn norm(writer: &mut Writer<'_>) {
    let config = Config { constants: writer.config.constants.with("AHEAD", true), ..writer.config };
    elementwise::sums(writer, "sums squared gradients", elementwise::NORM, config);
}

/// One for all classes: it decides about the step.
fn guard(writer: &mut Writer<'_>) {
    if writer.class == 0 {
        let purpose = "decides whether and how far to step";
        let cost = |share: Share| (8 * share.count, share.count.div_ceil(4 * WORKGROUP));
        writer.add(purpose, "guard/guard", writer.config, Over::Once, &cost);
    }
}

/// Adds a micro-batch to the sums.
fn accumulate(writer: &mut Writer<'_>) {
    let constants = Constants::default().with("ADDS", true);
    let each = 8 + writer.plan.precision.bytes();
    transfer(writer, "adds a micro-batch to the sums", "transfer/widen", constants, each);
}

fn widen(writer: &mut Writer<'_>) {
    transfer(writer, "takes parameters as masters", "transfer/widen", Constants::default(), 6);
}

/// Moves parameters to their averages, or back.
fn average(writer: &mut Writer<'_>, back: bool) {
    let config = writer.config;
    if config.base.row().averages {
        let purpose = if back { "takes averages back to parameters" } else { "moves parameters to their averages" };
        let config = Config { constants: Constants::default().with("BACK", back), ..config };
        writer.add(purpose, "transfer/average", config, Over::Chunks, &|share| (12 * share.numel, STREAM));
    }
}

/// Adds parameters to their averages over the steps.
fn track(writer: &mut Writer<'_>) {
    let constants = Constants::default().with("SKIPS", writer.plan.gradients.skips);
    over_averages(
        writer,
        "adds parameters to their averages",
        "transfer/track",
        constants,
        2 * writer.plan.average_format().bytes() + writer.plan.stepped_bytes(),
    );
}

/// Lets parameters and their averages change places.
fn exchange(writer: &mut Writer<'_>, back: bool) {
    let constants = Constants::default().with("BACK", back);
    let each = 2 * (writer.plan.average_format().bytes() + writer.plan.stepped_bytes());
    over_averages(writer, "exchanges parameters and their averages", "transfer/exchange", constants, each);
}

/// Reaches parameters and their averages, and moves `each` bytes per coordinate.
fn over_averages(writer: &mut Writer<'_>, purpose: &'static str, entry: &'static str, constants: Constants, each: u64) {
    let config = Config { constants, ..writer.config };
    writer.add(purpose, entry, config, Over::Chunks, &|share| (each * share.numel, STREAM));
}

fn round(writer: &mut Writer<'_>, skips: bool) {
    let constants = Constants::default().with("SKIPS", skips);
    transfer(writer, "rounds masters into parameters", "transfer/round", constants, 6);
}

/// Reaches tensors in the format of the caller, and moves `each` bytes per coordinate.
fn transfer(writer: &mut Writer<'_>, purpose: &'static str, entry: &'static str, constants: Constants, each: u64) {
    let config = Config { format: writer.plan.precision, rounded: false, split: false, constants, ..writer.config };
    writer.add(purpose, entry, config, Over::Chunks, &|share| (each * share.numel, STREAM));
}

fn observe(writer: &mut Writer<'_>) {
    // Reads θ, g and the state; writes the copy.
    let each = 4 + writer.config.state_bytes() + writer.plan.stepped_bytes() + writer.config.format.bytes();
    let cost = |share: Share| (each * share.numel + 24 * share.count, STREAM);
    let purpose = "observes gradients, scores and parameters";
    writer.add(purpose, "telemetry/observe", measuring(writer), Over::Chunks, &cost);
}

/// For kernels that measure steps, where the direction of a coordinate decides its step.
fn measuring(writer: &Writer<'_>) -> Config {
    let base = writer.config.base;
    let constants = writer.config.constants.with("LENGTHS", base.has_plain_steps());
    Config { constants, ..writer.config }
}

fn report(writer: &mut Writer<'_>) {
    let config = measuring(writer);
    let grad = if config.base.has_plain_steps() { config.format.bytes() } else { 0 };
    let each = 4 + writer.plan.stepped_bytes() + grad;
    let cost = |share: Share| (each * share.numel + 16 * share.count, STREAM);
    writer.add("measures how far parameters moved", "telemetry/moved", config, Over::Chunks, &cost);
    let tensors = &writer.plan.tensors[writer.tensors.clone()];
    let most = tensors.iter().map(|tensor| tensor.chunks.len() as u64).max().unwrap_or(0);
    // After those of the chunks.
    let grid = Grid { records: OF_CHUNK as u32 * writer.plan.chunk_count(), ..writer.grid };
    let cost = |share: Share| (4 * OF_TENSOR * share.count, 9 * most.div_ceil(WORKGROUP));
    writer.with(grid, [None; 3]).add("reports each tensor", "telemetry/report", config, Over::Tensors(1), &cost);
}

/// Numbers the kernels. Stages of a page that bind parts of the same tensors bind all of them, so that they share a bind group.
fn register(written: Vec<(Stage, [Arc<Kernel>; 2])>) -> Stages {
    let within = |part: &[(u32, Source)], whole: &[(u32, Source)]| part.iter().all(|bound| whole.contains(bound));
    let mut widest: HashMap<(Option<usize>, Pair), Vec<Bindings>> = HashMap::new();
    for (Stage { page, pair, groups: [own, ..], .. }, _) in &written {
        let known = widest.entry((*page, *pair)).or_default();
        if !known.iter().any(|other| within(own, other)) {
            known.retain(|other| !within(other, own));
            known.push(own.clone());
        }
    }
    let mut stages = Stages::default();
    for (mut stage, kernels) in written {
        let own = &mut stage.groups[0];
        if !own.is_empty() {
            let mut all = widest[&(stage.page, stage.pair)].iter();
            *own = all.find(|other| within(own, other)).expect("it is there").clone();
        }
        let layout = stage.groups.each_ref().map(|group| group.iter().map(|(binding, _)| *binding).collect());
        stage.kernels = kernels.map(|kernel| stages.number((kernel, layout.clone())));
        stages.all.push(stage);
    }
    stages
}

impl Stages {
    /// The index of a kernel with its layout.
    fn number(&mut self, kernel: (Arc<Kernel>, [Vec<u32>; 3])) -> usize {
        self.kernels.iter().position(|known| *known == kernel).unwrap_or_else(|| {
            self.kernels.push(kernel);
            self.kernels.len() - 1
        })
    }

    /// Most storage buffers that the bind groups of a kernel hold.
    pub(crate) fn storage_buffers(&self) -> usize {
        let count = |(kernel, layout): &(Arc<Kernel>, [Vec<u32>; 3])| {
            let tables = kernel.bindings.iter().any(|binding| binding.group == 0);
            layout.iter().map(Vec::len).sum::<usize>() + if tables { 2 } else { 0 }
        };
        self.kernels.iter().map(count).max().unwrap_or(0)
    }

    /// Bytes of each dispatch of a step whose micro-batches are added up already.
    pub(crate) fn traffic(&self) -> Vec<u64> {
        let of_step = self.all.iter().filter(|stage| matches!(stage.when, When::Step | When::Average | When::Round));
        of_step.map(|stage| stage.bytes).collect()
    }
}
