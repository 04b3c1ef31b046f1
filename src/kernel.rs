//! WGSL text → pipelines; bind group layouts; the structs that kernels read.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU64;

use encase::ShaderType;

use crate::base::{AdaGo, Base, Corrects};
use crate::error::Error;
use crate::groups::ParamGroups;
use crate::guard::{Gradients, Guarded, NonFinite};
use crate::matrix::Matmul;
use crate::passes::Schedule;
use crate::plan::{BaseKind, Chunk, Ownership, Plan, PolicyKind, ROWS};
use crate::policy::{Normalizer, Policy};
use crate::precision::Precision;
use crate::recipe::Recipe;

/// The scalars of one step of one group, as the kernels read them.
#[derive(Debug, Clone, Copy, PartialEq, ShaderType)]
pub(crate) struct Row {
    pub step: f32,
    pub decay: f32,
    pub beta1: f32,
    pub one_minus_beta1: f32,
    pub beta2: f32,
    pub one_minus_beta2: f32,
    pub eps: f32,
    pub alpha: f32,
    pub gamma: f32,
    pub max_grad_norm: f32,
    pub t: u32,
    pub count_normalizer: u32,
    pub ns_a: f32,
    pub ns_b: f32,
    pub ns_c: f32,
    pub lr: f32,
    pub clip: f32,
    pub min_step: f32,
    pub accumulator_init: f32,
    pub grad_scale: f32,
    pub max_grad_value: f32,
    pub ln_beta1: f32,
    pub ln_beta2: f32,
    pub corrects: u32,
    pub skips: u32,
    pub growth: f32,
    pub backoff: f32,
    // A row is as long as the alignment of a dynamic offset, so that a dispatch can begin at any row.
    #[shader(size(148))]
    pub growth_interval: u32,
}

/// What a dispatch works on, as the kernels read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, ShaderType)]
pub struct Grid {
    /// First chunk, piece or tensor.
    pub first: u32,
    /// How many of them.
    pub count: u32,
    /// 1 in the last dispatch of the selection by full histograms.
    pub correct: u32,
    /// Cuts that are taken from the sample.
    pub bounds: u32,
    /// Where the chunks' sums of squared gradients begin among the counters.
    pub norms: u32,
    /// Which of the launches is for tensors whose bracket missed: the class.
    pub launch: u32,
    /// Its workgroups.
    pub launch_x: u32,
    /// Its workgroups, second dimension.
    pub launch_y: u32,
    /// As `norms`, of the gradients of a matrix base; `norms` is of its directions then.
    pub gradient_norms: u32,
    /// Rows of the matrices, the fewer.
    pub m: u32,
    /// Columns.
    pub n: u32,
    /// Vectors of four from row to row of the left factor of a product.
    pub left_stride: u32,
    /// And from matrix to matrix.
    pub left_slot: u32,
    /// From matrix to matrix of the right factor.
    pub right_slot: u32,
    /// Vectors from matrix to matrix of the result.
    pub result_slot: u32,
    /// Vectors from row to row of what is m × m.
    pub gram_stride: u32,
    /// And from matrix to matrix.
    pub gram_slot: u32,
    /// Vectors that a product sums over.
    pub depth: u32,
    /// 1 where the left factor is X Xᵀ.
    pub polynomial: u32,
    /// Where the records of what was observed begin.
    pub records: u32,
}

/// A place in the order of selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ShaderType)]
pub(crate) struct Cut {
    pub key: u32,
    pub limit: u32,
}

/// What is known about one tensor, as the kernels keep it.
#[derive(Debug, Clone, Copy, PartialEq, Default, ShaderType)]
pub(crate) struct TensorEntry {
    pub k: u32,
    pub numel: u32,
    pub first_chunk: u32,
    pub histogram: u32,
    pub sample: u32,
    pub stride: u32,
    pub strata: u32,
    pub rank_high: u32,
    pub rank_low: u32,
    pub candidates: u32,
    pub capacity: u32,
    pub list: u32,
    pub list_capacity: u32,
    pub t: u32,
    pub high: Cut,
    pub low: Cut,
    pub boundary: i32,
    pub remaining: u32,
    pub missed: u32,
    pub open: u32,
    pub found: Cut,
    pub inside: u32,
    pub listed: u32,
    pub selected: u32,
    pub tall: u32,
    pub inverse_norm: f32,
    pub rate: f32,
    pub accumulator: f32,
    pub skipped: u32,
    pub components: u32,
    pub rates: u32,
    pub mastered: u32,
}

/// Where the accumulator lies in it.
pub(crate) const ACCUMULATOR: u64 = 120;
/// And the count of skipped steps.
pub(crate) const SKIPPED: u64 = 124;
/// Byte offset of `mastered` in a tensor's entry.
pub(crate) const MASTERED: u64 = 136;

/// What the kernels of a step know about all tensors, ahead of the entries in `Tensors`.
#[derive(Debug, Clone, Copy, PartialEq, ShaderType)]
pub(crate) struct Header {
    pub loss_scale: f32,
    pub grad_norm: f32,
    pub norm_factor: f32,
    pub unscale: f32,
    pub skip: u32,
    pub skipped: u32,
    pub grown: u32,
    pub broken: u32,
}

/// Bytes of it.
pub(crate) const TENSORS_HEADER: u64 = 32;
/// Where `skip` lies in it, in words.
pub(crate) const SKIP_WORD: u64 = 4;
/// And `broken`.
pub(crate) const BROKEN_WORD: u64 = 7;

impl From<Header> for Guarded {
    fn from(header: Header) -> Self {
        Self {
            grad_norm: header.grad_norm,
            loss_scale: header.loss_scale,
            skipped: header.skip == 1,
            skipped_steps: header.skipped.into(),
        }
    }
}

impl Header {
    /// That a step was skipped, with the names of the plan's tensors.
    pub(crate) fn error(self, names: &[String]) -> Error {
        let tensor = names.get(self.broken as usize).map_or("of an earlier step", String::as_str);
        Error::NonFinite { tensor: tensor.to_owned(), steps: self.skipped.into() }
    }

    pub(crate) fn new(groups: &ParamGroups) -> Self {
        let loss_scale = groups.grad_scaler().map_or(1.0, |scaler| scaler.init as f32);
        Self {
            loss_scale,
            grad_norm: 0.0,
            norm_factor: 1.0,
            unscale: 1.0 / loss_scale,
            skip: 0,
            skipped: 0,
            grown: 0,
            broken: u32::MAX,
        }
    }
}

/// Distance of two rows, or of two grids: the alignment of dynamic offsets.
pub(crate) const STRIDE: u64 = 256;

impl Row {
    /// The scalars of a step `t` of this recipe, one of the groups' or a fallback, its gradients multiplied by `grad_scale`.
    pub(crate) fn new(recipe: &Recipe, t: u64, groups: &ParamGroups, grad_scale: f64) -> Self {
        // Where steps may be skipped, the GPU knows t, and corrects the scalars itself.
        let skips = groups.gradients().skips;
        let scalars = recipe.base.scalars(if skips { u64::MAX } else { t });
        let Corrects { step, decay, eps } = recipe.base.corrects();
        // 0 has no logarithm; its powers are 0 all the same.
        let ln = |beta: f64| beta.max(1e-300).ln() as f32;
        let scaler = groups.grad_scaler();
        let (alpha, gamma) = recipe.policy.factors();
        let [a, b, c] = recipe.base.newton_schulz().map_or([0.0; 3], |ns| ns.coefficients);
        let adago = if let Base::Adago(adago) = recipe.base { adago } else { AdaGo::default() };
        let count = matches!(recipe.policy, Policy::Cautious(c) if c.normalizer == Normalizer::Count);
        Self {
            step: scalars.step as f32,
            decay: scalars.decay as f32,
            beta1: scalars.betas[0] as f32,
            one_minus_beta1: (1.0 - scalars.betas[0]) as f32,
            beta2: scalars.betas[1] as f32,
            one_minus_beta2: (1.0 - scalars.betas[1]) as f32,
            eps: scalars.eps as f32,
            alpha: alpha as f32,
            gamma: gamma as f32,
            max_grad_norm: groups.max_grad_norm().unwrap_or(0.0) as f32,
            // A sample may repeat from there on, and bias corrections are long 1.
            t: t.min(u32::MAX.into()) as u32,
            count_normalizer: u32::from(count),
            ns_a: a as f32,
            ns_b: b as f32,
            ns_c: c as f32,
            lr: recipe.base.lr() as f32,
            clip: adago.clip as f32,
            min_step: adago.floor() as f32,
            accumulator_init: (adago.accumulator_init as f32).powi(2),
            grad_scale: grad_scale as f32,
            max_grad_value: groups.max_grad_value().unwrap_or(f64::from(f32::MAX)) as f32,
            ln_beta1: ln(scalars.betas[0]),
            ln_beta2: ln(scalars.betas[1]),
            corrects: u32::from(step) | u32::from(decay) << 1 | u32::from(eps) << 2,
            skips: u32::from(groups.non_finite() != NonFinite::Propagate),
            growth: scaler.map_or(1.0, |scaler| scaler.growth) as f32,
            backoff: scaler.map_or(1.0, |scaler| scaler.backoff) as f32,
            growth_interval: scaler.map_or(0, |scaler| scaler.interval),
        }
    }
}

/// How kernels reach parameters and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Access {
    /// Four at a time; one at a time where what lies behind the last coordinate is not ours.
    pub vectorized: bool,
    /// What they do with gradients.
    pub gradients: Gradients,
    /// Whether components have learning rates of their own.
    pub rates: bool,
}

/// What [`Kernel::Norm`] sums the squares of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measured {
    /// Gradients that are to be guarded: the scale of the loss undone, and limited.
    Gradients,
    /// Gradients as the step sees them.
    Clipped,
    /// Directions of a matrix base.
    Directions,
}

/// A kernel: an entry point, put together with the base, the policy and the way to reach tensors that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // each is a file in shaders/ that opens with what it computes
pub enum Kernel {
    Accumulate { access: Access },
    Widen { access: Access },
    Round { access: Access },
    Norm { base: BaseKind, access: Access, of: Measured },
    Guard,
    Prepare,
    ScoreMask { base: BaseKind, access: Access },
    Sample { base: BaseKind, access: Access },
    RankSample,
    Stream { base: BaseKind, policy: PolicyKind, access: Access },
    StreamExact { base: BaseKind, access: Access },
    Prove,
    Repair { base: BaseKind, skips: bool, rates: bool },
    Settle { base: BaseKind, skips: bool, rates: bool },
    Recount { base: BaseKind, access: Access },
    ScanBins,
    Small { base: BaseKind, access: Access },
    Direct { base: BaseKind, policy: PolicyKind, access: Access },
    Measure { base: BaseKind, skips: bool },
    Enter,
    Gram { matmul: Matmul },
    Product { matmul: Matmul },
    Mirror,
    Advance { matmul: Matmul },
    Leave,
    Observe { base: BaseKind, access: Access },
    Moved { base: BaseKind, access: Access },
    Report,
    Gather,
    RowMoments { access: Access },
}

macro_rules! shader {
    ($path:literal) => {
        include_str!(concat!("../shaders/", $path))
    };
}

impl Kernel {
    /// The name of the entry point.
    pub fn entry_point(self) -> &'static str {
        match self {
            Kernel::Accumulate { .. } => "accumulate",
            Kernel::Widen { .. } => "widen_masters",
            Kernel::Round { .. } => "round_masters",
            Kernel::Norm { .. } => "norm",
            Kernel::Guard => "guard",
            Kernel::Prepare => "prepare",
            Kernel::ScoreMask { .. } => "score_mask",
            Kernel::Sample { .. } => "sample",
            Kernel::RankSample => "rank_sample",
            Kernel::Stream { .. } => "stream",
            Kernel::StreamExact { .. } => "stream_exact",
            Kernel::Prove => "prove",
            Kernel::Repair { .. } => "repair",
            Kernel::Settle { .. } => "settle",
            Kernel::Recount { .. } => "recount",
            Kernel::ScanBins => "scan_bins",
            Kernel::Small { .. } => "small",
            Kernel::Direct { .. } => "direct",
            Kernel::Measure { .. } => "measure",
            Kernel::Enter => "enter",
            Kernel::Gram { .. } | Kernel::Product { .. } => "gram",
            Kernel::Mirror => "mirror",
            Kernel::Advance { .. } => "advance",
            Kernel::Leave => "leave",
            Kernel::Observe { .. } => "observe",
            Kernel::Moved { .. } => "moved",
            Kernel::Report => "report",
            Kernel::Gather => "gather",
            Kernel::RowMoments { .. } => "row_moments",
        }
    }

    /// Its WGSL: the files that it is put together from.
    pub fn source(self) -> String {
        let keys = shader!("lib/keys.wgsl");
        let largest = shader!("lib/largest.wgsl");
        let cut = shader!("lib/cut.wgsl");
        let counters = shader!("lib/counters.wgsl");
        let bins = shader!("lib/bins.wgsl");
        let populations = shader!("lib/populations.wgsl");
        let far = shader!("lib/far.wgsl");
        let find_bin = shader!("lib/find_bin.wgsl");
        let bracket = shader!("lib/bracket.wgsl");
        let candidates = shader!("lib/candidates.wgsl");
        let mark = shader!("lib/mark.wgsl");
        let matrices = shader!("lib/matrices.wgsl");
        let notes = shader!("lib/notes.wgsl");
        let own_notes = shader!("lib/notes_own.wgsl");
        let shared_notes = shader!("lib/notes_shared.wgsl");
        let places = shader!("lib/places.wgsl");
        let sampling = shader!("lib/sampling.wgsl");
        let sum = shader!("lib/sum.wgsl");
        let sum_few = shader!("lib/sum_few.wgsl");
        let totals = shader!("lib/totals.wgsl");
        let half = match self.access().map_or(Precision::F32, |access| access.gradients.format) {
            Precision::F32 => "",
            Precision::F16 => shader!("lib/half_f16.wgsl"),
            Precision::Bf16 => shader!("lib/half_bf16.wgsl"),
        };
        // How it reads gradients, and whether it may be skipped.
        let reads = self.access().map_or(String::new(), |access| {
            let skip = skip(access.gradients.skips);
            [half, grad(access), limit(access), clip(access), largest, skip].join("\n")
        });
        let in_f16 = self.matmul() == Some(Matmul::TilesF16);
        let directives = if in_f16 { "enable f16;" } else { "" };
        let staged =
            if in_f16 { shader!("matrix/staged_f16.wgsl") } else { shader!("matrix/staged_f32.wgsl") };
        let across = match self {
            Kernel::Product { .. } => shader!("lib/across_right.wgsl"),
            _ => shader!("lib/across_left.wgsl"),
        };
        let registers = shader!("matrix/registers.wgsl");
        let tiles = shader!("matrix/tiles.wgsl");
        let own: &[&str] = match self {
            Kernel::Accumulate { access } => &[param(access), half, grad(access), shader!("accumulate.wgsl")],
            Kernel::Widen { access } => &[param(access), half, grad(access), shader!("widen.wgsl")],
            Kernel::Round { access } => {
                &[param(access), half, grad(access), skip(access.gradients.skips), shader!("round.wgsl")]
            }
            Kernel::Norm { access, of, .. } => &[
                counters,
                half,
                grad(access),
                if of == Measured::Directions { "" } else { limit(access) },
                match of {
                    Measured::Gradients => shader!("lib/clip_ahead.wgsl"),
                    Measured::Clipped => clip(access),
                    Measured::Directions => shader!("lib/clip_none.wgsl"),
                },
                sum_few,
                far,
                shader!("norm.wgsl"),
            ],
            Kernel::Guard => &[counters, sum, far, shader!("guard.wgsl")],
            Kernel::Prepare => &[shader!("prepare.wgsl")],
            Kernel::ScoreMask { base, .. } => &[keys, &reads, base.source(), shader!("score_mask.wgsl")],
            Kernel::Sample { base, .. } => {
                &[keys, counters, bins, sampling, &reads, base.source(), shader!("sample.wgsl")]
            }
            Kernel::RankSample => {
                &[cut, counters, bins, populations, find_bin, sampling, shader!("rank_sample.wgsl")]
            }
            Kernel::Stream { base, policy, access } if base.is_matrix() => &[
                keys,
                notes,
                if policy == PolicyKind::Mgup { own_notes } else { "" },
                param(access),
                &reads,
                rates(access.rates),
                shader!("base/orthogonal.wgsl"),
                policy.later_source(),
                shader!("stream.wgsl"),
            ],
            Kernel::Stream { base, policy, access } => &[
                keys,
                cut,
                param(access),
                &reads,
                rates(access.rates),
                base.source(),
                policy.source(),
                shader!("stream.wgsl"),
            ],
            Kernel::StreamExact { base, access } => &[
                keys,
                cut,
                counters,
                bracket,
                candidates,
                notes,
                own_notes,
                base.sink(access),
                if base.is_matrix() { shader!("lib/step_later.wgsl") } else { shader!("lib/step.wgsl") },
                &reads,
                rates(access.rates),
                base.source(),
                base.notes(),
                shader!("stream_exact.wgsl"),
            ],
            Kernel::Prove => &[counters, populations, find_bin, shader!("prove.wgsl")],
            Kernel::Repair { base, skips, rates: by_component } => {
                let (skip, rates) = (skip(skips), rates(by_component));
                let [notes, shared_notes, finish] = base.finish();
                &[
                    counters,
                    bracket,
                    candidates,
                    notes,
                    shared_notes,
                    rates,
                    finish,
                    skip,
                    shader!("repair.wgsl"),
                ]
            }
            Kernel::Settle { base, skips, rates: by_component } => {
                let (skip, rates) = (skip(skips), rates(by_component));
                let [notes, shared_notes, finish] = base.finish();
                &[
                    counters,
                    bracket,
                    candidates,
                    notes,
                    shared_notes,
                    rates,
                    finish,
                    skip,
                    totals,
                    shader!("settle.wgsl"),
                ]
            }
            Kernel::Recount { base, access } => &[
                keys,
                cut,
                counters,
                bins,
                notes,
                shared_notes,
                if base.is_matrix() { "" } else { param(access) },
                if base.is_matrix() {
                    shader!("lib/correct_later.wgsl")
                } else {
                    shader!("lib/correct.wgsl")
                },
                &reads,
                rates(access.rates),
                base.source(),
                base.notes(),
                shader!("recount.wgsl"),
            ],
            Kernel::ScanBins => &[counters, populations, find_bin, shader!("scan.wgsl")],
            Kernel::Small { base, access } => &[
                keys,
                cut,
                totals,
                base.sink(access),
                if base.is_matrix() {
                    shader!("lib/step_later_masked.wgsl")
                } else {
                    shader!("lib/step.wgsl")
                },
                &reads,
                rates(access.rates),
                base.source(),
                shader!("small.wgsl"),
            ],
            Kernel::Direct { base, policy, access } => &[
                keys,
                cut,
                base.sink(access),
                &reads,
                base.source(),
                if policy == PolicyKind::Plain { "" } else { mark },
                policy.mark(),
                shader!("direct.wgsl"),
            ],
            Kernel::Measure { base, skips } => {
                &[counters, sum, far, skip(skips), shader!("matrix/measure.wgsl"), base.rate()]
            }
            Kernel::Enter => &[places, far, shader!("matrix/enter.wgsl")],
            Kernel::Gram { matmul } | Kernel::Product { matmul } => match matmul {
                Matmul::Registers => &[matrices, across, registers, shader!("matrix/gram_registers.wgsl")],
                Matmul::Subgroups => &[matrices, across, registers, shader!("matrix/gram_subgroups.wgsl")],
                Matmul::Tiles | Matmul::TilesF16 => {
                    &[matrices, across, staged, tiles, shader!("matrix/gram_tiles.wgsl")]
                }
            },
            Kernel::Mirror => &[matrices, shader!("matrix/mirror.wgsl")],
            Kernel::Advance { matmul } => match matmul {
                Matmul::Registers => &[matrices, registers, shader!("matrix/advance_registers.wgsl")],
                Matmul::Subgroups => &[matrices, registers, shader!("matrix/advance_subgroups.wgsl")],
                Matmul::Tiles | Matmul::TilesF16 => {
                    &[matrices, staged, tiles, shader!("matrix/advance_tiles.wgsl")]
                }
            },
            Kernel::Leave => &[places, shader!("matrix/leave.wgsl")],
            Kernel::Observe { base, access } => {
                &[keys, cut, counters, param(access), &reads, base.source(), sum_few, shader!("observe.wgsl")]
            }
            Kernel::Moved { access, .. } => &[counters, param(access), sum_few, shader!("moved.wgsl")],
            Kernel::Gather => &[shader!("gather.wgsl")],
            Kernel::RowMoments { .. } => &[&reads, shader!("row_moments.wgsl")],
            Kernel::Report => &[cut, counters, bracket, sum, totals, shader!("report.wgsl")],
        };
        let parts = [directives, shader!("lib/tables.wgsl")].into_iter().chain(own.iter().copied());
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }

    /// Which of the bind groups `[tables, tensors, scratch, counters]` it uses.
    pub fn groups(self) -> [bool; 4] {
        match self {
            Kernel::Accumulate { .. } | Kernel::Widen { .. } | Kernel::Round { .. } => {
                [true, true, false, false]
            }
            Kernel::Norm { .. } => [true, true, false, true],
            Kernel::Guard => [true, false, false, true],
            Kernel::Prepare => [true, false, false, false],
            Kernel::ScoreMask { .. } => [true, true, true, false],
            Kernel::Stream { base, policy, .. } | Kernel::Direct { base, policy, .. } => {
                [true, true, policy.bits(base) > 0, false]
            }
            Kernel::Repair { base, .. } | Kernel::Settle { base, .. } => {
                [true, !base.is_matrix(), base.is_matrix(), true]
            }
            Kernel::Small { base, .. } => [true, true, base.is_matrix(), false],
            Kernel::Measure { .. } => [true, false, false, true],
            Kernel::Enter
            | Kernel::Gram { .. }
            | Kernel::Product { .. }
            | Kernel::Mirror
            | Kernel::Advance { .. }
            | Kernel::Leave
            | Kernel::Gather
            | Kernel::RowMoments { .. } => [true, true, false, false],
            Kernel::Sample { .. } | Kernel::StreamExact { .. } | Kernel::Recount { .. } => [true; 4],
            Kernel::Observe { .. } | Kernel::Moved { .. } => [true; 4],
            Kernel::Report => [true, false, false, true],
            Kernel::RankSample | Kernel::Prove => [true, false, true, true],
            Kernel::ScanBins => [true, false, false, true],
        }
    }

    /// Whether it only runs where a bracket missed.
    pub(crate) fn is_indirect(self) -> bool {
        matches!(self, Kernel::Recount { .. } | Kernel::ScanBins)
    }

    /// How many storage buffers its bind groups hold.
    pub(crate) fn storage_buffers(self) -> u32 {
        let [_, tensors, scratch, counters] = self.groups();
        2 + if tensors { self.tensor_buffers() } else { 0 } + u32::from(scratch) + u32::from(counters)
    }

    /// How many storage buffers its second bind group holds.
    fn tensor_buffers(self) -> u32 {
        match (self, self.base()) {
            (Kernel::Accumulate { .. } | Kernel::Widen { .. } | Kernel::Round { .. }, _) => 2,
            (_, Some(base)) => 2 + base.state_names().len() as u32,
            // It works in the workspaces.
            (_, None) => 3,
        }
    }

    /// Whether a class of this base and policy runs it.
    pub(crate) fn serves(self, base: BaseKind, policy: PolicyKind) -> bool {
        let own_base = self.base().is_none_or(|b| b == base);
        let own_policy = match self {
            Kernel::Accumulate { .. }
            | Kernel::Widen { .. }
            | Kernel::Round { .. }
            | Kernel::Norm { .. }
            | Kernel::Guard
            | Kernel::Observe { .. }
            | Kernel::Moved { .. }
            | Kernel::Report
            | Kernel::Gather => true,
            Kernel::RowMoments { .. } => base == BaseKind::AdamwRows,
            Kernel::Prepare => policy == PolicyKind::Cautious,
            Kernel::ScoreMask { .. } => policy == PolicyKind::Cautious && !base.is_matrix(),
            Kernel::Stream { policy: own, .. } => policy == own,
            Kernel::Sample { .. } | Kernel::RankSample => policy.samples(),
            Kernel::Small { .. } => policy == PolicyKind::MgupSmall,
            Kernel::StreamExact { .. }
            | Kernel::Prove
            | Kernel::Repair { .. }
            | Kernel::Settle { .. }
            | Kernel::Recount { .. }
            | Kernel::ScanBins => policy == PolicyKind::Mgup,
            Kernel::Direct { policy: own, .. } => base.is_matrix() && policy == own,
            Kernel::Measure { .. }
            | Kernel::Enter
            | Kernel::Gram { .. }
            | Kernel::Product { .. }
            | Kernel::Mirror
            | Kernel::Advance { .. }
            | Kernel::Leave => base.is_matrix(),
        };
        own_base && own_policy
    }

    /// The same kernel for tensors that are reached four coordinates at a time, or one.
    pub(crate) fn vectorized(mut self, vectorized: bool) -> Self {
        if let Some(access) = self.access_mut() {
            access.vectorized = vectorized;
        }
        self
    }

    fn access(mut self) -> Option<Access> {
        self.access_mut().copied()
    }

    fn access_mut(&mut self) -> Option<&mut Access> {
        match self {
            Kernel::Accumulate { access }
            | Kernel::Widen { access }
            | Kernel::Round { access }
            | Kernel::Norm { access, .. }
            | Kernel::ScoreMask { access, .. }
            | Kernel::Sample { access, .. }
            | Kernel::Stream { access, .. }
            | Kernel::StreamExact { access, .. }
            | Kernel::Recount { access, .. }
            | Kernel::Small { access, .. }
            | Kernel::Direct { access, .. }
            | Kernel::Observe { access, .. }
            | Kernel::Moved { access, .. }
            | Kernel::RowMoments { access } => Some(access),
            _ => None,
        }
    }

    /// How it multiplies, if it does.
    pub fn matmul(self) -> Option<Matmul> {
        match self {
            Kernel::Gram { matmul } | Kernel::Product { matmul } | Kernel::Advance { matmul } => Some(matmul),
            _ => None,
        }
    }

    fn base(self) -> Option<BaseKind> {
        match self {
            Kernel::Norm { base, .. }
            | Kernel::ScoreMask { base, .. }
            | Kernel::Sample { base, .. }
            | Kernel::Stream { base, .. }
            | Kernel::StreamExact { base, .. }
            | Kernel::Repair { base, .. }
            | Kernel::Settle { base, .. }
            | Kernel::Recount { base, .. }
            | Kernel::Small { base, .. }
            | Kernel::Direct { base, .. }
            | Kernel::Measure { base, .. }
            | Kernel::Observe { base, .. }
            | Kernel::Moved { base, .. } => Some(base),
            Kernel::Accumulate { .. }
            | Kernel::Widen { .. }
            | Kernel::Round { .. }
            | Kernel::Guard
            | Kernel::Prepare
            | Kernel::RankSample
            | Kernel::Prove
            | Kernel::ScanBins
            | Kernel::Enter
            | Kernel::Gram { .. }
            | Kernel::Product { .. }
            | Kernel::Mirror
            | Kernel::Advance { .. }
            | Kernel::Leave
            | Kernel::Report
            | Kernel::Gather => None,
            Kernel::RowMoments { .. } => Some(BaseKind::AdamwRows),
        }
    }
}

impl BaseKind {
    fn source(self) -> &'static str {
        match self {
            BaseKind::Adamw => shader!("base/adamw.wgsl"),
            BaseKind::AdamwRows => shader!("base/adamw_rows.wgsl"),
            BaseKind::Lion => shader!("base/lion.wgsl"),
            BaseKind::Muon | BaseKind::Adago => shader!("base/momentum.wgsl"),
        }
    }

    fn notes(self) -> &'static str {
        match self {
            BaseKind::Adamw | BaseKind::AdamwRows => shader!("base/adamw_notes.wgsl"),
            BaseKind::Lion => shader!("base/lion_notes.wgsl"),
            BaseKind::Muon | BaseKind::Adago => shader!("base/momentum_notes.wgsl"),
        }
    }

    /// What a direction changes: the parameters, or what is orthogonalised.
    fn sink(self, access: Access) -> &'static str {
        if self.is_matrix() { shader!("lib/directions.wgsl") } else { param(access) }
    }

    /// How candidates are finished.
    fn finish(self) -> [&'static str; 3] {
        if self.is_matrix() {
            [shader!("lib/notes.wgsl"), shader!("lib/notes_shared.wgsl"), shader!("lib/finish_later.wgsl")]
        } else {
            ["", "", shader!("lib/finish.wgsl")]
        }
    }

    fn rate(self) -> &'static str {
        match self {
            BaseKind::Muon => shader!("base/muon_rate.wgsl"),
            BaseKind::Adago => shader!("base/adago_rate.wgsl"),
            BaseKind::Adamw | BaseKind::AdamwRows | BaseKind::Lion => {
                unreachable!("{self:?} has no matrices")
            }
        }
    }
}

impl PolicyKind {
    fn source(self) -> &'static str {
        match self {
            PolicyKind::Plain => shader!("policy/plain.wgsl"),
            PolicyKind::Cautious => shader!("policy/cautious.wgsl"),
            PolicyKind::MgupApproximate => shader!("policy/mgup_approximate.wgsl"),
            PolicyKind::Mgup | PolicyKind::MgupSmall => unreachable!("{self:?} has a kernel of its own"),
            PolicyKind::CautiousMgup => shader!("policy/cautious_mgup.wgsl"),
            PolicyKind::Grams => shader!("policy/grams.wgsl"),
        }
    }

    /// What it leaves behind before the orthogonalisation.
    fn mark(self) -> &'static str {
        match self {
            PolicyKind::Plain => shader!("policy/mark_none.wgsl"),
            PolicyKind::Cautious | PolicyKind::CautiousMgup => shader!("policy/mark_positive.wgsl"),
            PolicyKind::MgupApproximate => shader!("policy/mark_cut.wgsl"),
            PolicyKind::Mgup | PolicyKind::MgupSmall => unreachable!("{self:?} has a kernel of its own"),
            PolicyKind::Grams => unreachable!("recipes refuse {self:?}"),
        }
    }

    /// Its factor behind the orthogonalisation.
    fn later_source(self) -> &'static str {
        match self {
            PolicyKind::Plain | PolicyKind::Cautious => self.source(),
            PolicyKind::Mgup => shader!("policy/noted.wgsl"),
            PolicyKind::MgupSmall | PolicyKind::MgupApproximate | PolicyKind::CautiousMgup => {
                shader!("policy/masked.wgsl")
            }
            PolicyKind::Grams => unreachable!("recipes refuse {self:?}"),
        }
    }
}

fn param(access: Access) -> &'static str {
    if access.vectorized { shader!("lib/param_vec4.wgsl") } else { shader!("lib/param_scalar.wgsl") }
}

fn grad(access: Access) -> &'static str {
    match (access.gradients.format, access.vectorized) {
        (Precision::F32, true) => shader!("lib/grad_vec4.wgsl"),
        (Precision::F32, false) => shader!("lib/grad_scalar.wgsl"),
        (Precision::F16 | Precision::Bf16, true) => shader!("lib/grad_half_vec4.wgsl"),
        (Precision::F16 | Precision::Bf16, false) => shader!("lib/grad_half_scalar.wgsl"),
    }
}

fn limit(access: Access) -> &'static str {
    if access.gradients.limited { shader!("lib/limit_on.wgsl") } else { shader!("lib/limit_off.wgsl") }
}

fn clip(access: Access) -> &'static str {
    if access.gradients.guarded { shader!("lib/clip_on.wgsl") } else { shader!("lib/clip_off.wgsl") }
}

fn rates(by_component: bool) -> &'static str {
    if by_component { shader!("lib/rates_on.wgsl") } else { shader!("lib/rates_off.wgsl") }
}

fn skip(skips: bool) -> &'static str {
    if skips { shader!("lib/skip_on.wgsl") } else { shader!("lib/skip_off.wgsl") }
}

/// WGSL of `p[i] = g[i]`, the yardstick of the benchmarks: 8 bytes a parameter. Its constant `RUN` is the number of
/// vectors of four per workgroup.
pub const COPY: &str = shader!("copy.wgsl");

/// Every kernel there is.
pub fn all_kernels() -> Vec<Kernel> {
    let mut kernels = vec![
        Kernel::Guard,
        Kernel::Prepare,
        Kernel::RankSample,
        Kernel::Prove,
        Kernel::ScanBins,
        Kernel::Enter,
        Kernel::Mirror,
        Kernel::Leave,
        Kernel::Report,
        Kernel::Gather,
    ];
    for vectorized in [true, false] {
        for format in [Precision::F32, Precision::F16, Precision::Bf16] {
            let access =
                Access { vectorized, gradients: Gradients { format, ..Gradients::default() }, rates: false };
            kernels.push(Kernel::Accumulate { access });
            if format != Precision::F32 {
                let skips = Access { gradients: Gradients { skips: true, ..access.gradients }, ..access };
                kernels.extend([Kernel::Widen { access }, Kernel::Round { access }]);
                kernels.push(Kernel::Round { access: skips });
            }
        }
    }
    for matmul in Matmul::ALL {
        kernels.extend([Kernel::Gram { matmul }, Kernel::Product { matmul }, Kernel::Advance { matmul }]);
    }
    kernels.extend(all_accesses().into_iter().map(|access| Kernel::RowMoments { access }));
    for base in BaseKind::ALL {
        if base.is_matrix() {
            kernels.extend([false, true].map(|skips| Kernel::Measure { base, skips }));
            let access = Access { vectorized: true, gradients: Gradients::default(), rates: false };
            kernels.push(Kernel::Norm { base, access, of: Measured::Directions });
        }
        for (skips, rates) in [(false, false), (true, false), (false, true)] {
            kernels.extend([Kernel::Repair { base, skips, rates }, Kernel::Settle { base, skips, rates }]);
        }
        for access in all_accesses() {
            let gradients = access.gradients;
            if !base.is_matrix() {
                kernels.push(Kernel::ScoreMask { base, access });
            }
            kernels.extend([
                Kernel::Sample { base, access },
                Kernel::StreamExact { base, access },
                Kernel::Recount { base, access },
                Kernel::Small { base, access },
                Kernel::Observe { base, access },
                Kernel::Moved { base, access },
            ]);
            if gradients.guarded {
                kernels.push(Kernel::Norm { base, access, of: Measured::Gradients });
            }
            if base.is_matrix() {
                kernels.push(Kernel::Norm { base, access, of: Measured::Clipped });
            }
            let once = [
                PolicyKind::Plain,
                PolicyKind::Cautious,
                PolicyKind::MgupApproximate,
                PolicyKind::CautiousMgup,
            ];
            kernels.extend(once.map(|policy| Kernel::Stream { base, policy, access }));
            if base.is_matrix() {
                kernels.extend(once.map(|policy| Kernel::Direct { base, policy, access }));
                let selected = [PolicyKind::Mgup, PolicyKind::MgupSmall];
                kernels.extend(selected.map(|policy| Kernel::Stream { base, policy, access }));
            } else {
                kernels.push(Kernel::Stream { base, policy: PolicyKind::Grams, access });
            }
        }
    }
    kernels
}

/// Every file about gradients and rates, with both ways to reach tensors.
fn all_accesses() -> Vec<Access> {
    let off = Gradients::default();
    let guarded = Gradients { guarded: true, ..off };
    let all = Gradients { limited: true, guarded: true, skips: true, ..off };
    let f16 = Gradients { format: Precision::F16, ..all };
    let bf16 = Gradients { format: Precision::Bf16, ..off };
    let both = |(gradients, rates)| [true, false].map(|vectorized| Access { vectorized, gradients, rates });
    [(off, false), (guarded, true), (all, false), (f16, true), (bf16, false)]
        .into_iter()
        .flat_map(both)
        .collect()
}

/// Pipelines, and the layouts of their bind groups. A clone shares them.
#[derive(Clone)]
pub(crate) struct Kernels {
    pipelines: HashMap<Kernel, wgpu::ComputePipeline>,
    pub tables: wgpu::BindGroupLayout,
    pub tensors: HashMap<BaseKind, wgpu::BindGroupLayout>,
    pub pairs: wgpu::BindGroupLayout,
    pub workspaces: wgpu::BindGroupLayout,
    pub scratch: wgpu::BindGroupLayout,
    pub counters: wgpu::BindGroupLayout,
    pub empty: wgpu::BindGroupLayout,
}

impl Kernels {
    /// Compiles what a schedule needs and `compiled` does not have.
    pub(crate) fn new(
        device: &wgpu::Device,
        plan: &Plan,
        schedule: &Schedule,
        compiled: Option<&Self>,
    ) -> Self {
        let mut needed: BTreeSet<_> = schedule.all().map(|d| d.kernel).collect();
        if plan.ownership != Ownership::Arenas && plan.tensors.iter().any(|t| !t.numel.is_multiple_of(4)) {
            needed.extend(schedule.all().map(|d| d.kernel.vectorized(false)));
        }
        let mut kernels = compiled.cloned().unwrap_or_else(|| Self::layouts(device));
        needed.into_iter().for_each(|kernel| kernels.add(device, kernel));
        kernels
    }

    fn layouts(device: &wgpu::Device) -> Self {
        let storage = |binding| entry(binding, wgpu::BufferBindingType::Storage { read_only: false }, None);
        let uniform = |binding, size| entry(binding, wgpu::BufferBindingType::Uniform, Some(size));
        let layout = |name: &str, entries: &[wgpu::BindGroupLayoutEntry]| {
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(&format!("wgpu-optim.layout.{name}")),
                entries,
            })
        };
        let chunk = Chunk::min_size().get();
        let tables = layout(
            "tables",
            &[
                uniform(0, Grid::min_size().get()),
                uniform(1, STRIDE * ROWS as u64),
                entry(2, wgpu::BufferBindingType::Storage { read_only: true }, Some(chunk)),
                storage(3),
                entry(4, wgpu::BufferBindingType::Uniform, None),
            ],
        );
        let tensors = BaseKind::ALL.map(|base| {
            let bindings = 2 + base.state_names().len() as u32;
            (base, layout("tensors", &(0..bindings).map(storage).collect::<Vec<_>>()))
        });
        Self {
            pipelines: HashMap::new(),
            tables,
            tensors: tensors.into(),
            pairs: layout("pairs", &[storage(0), storage(1)]),
            workspaces: layout("workspaces", &[storage(0), storage(1), storage(2)]),
            scratch: layout("scratch", &[storage(0)]),
            counters: layout("counters", &[storage(0)]),
            empty: layout("empty", &[]),
        }
    }

    /// Compiles one more kernel.
    pub(crate) fn add(&mut self, device: &wgpu::Device, kernel: Kernel) {
        if !self.pipelines.contains_key(&kernel) {
            let pipeline = self.compile(device, kernel);
            self.pipelines.insert(kernel, pipeline);
        }
    }

    pub(crate) fn pipeline(&self, kernel: Kernel) -> &wgpu::ComputePipeline {
        &self.pipelines[&kernel]
    }

    fn compile(&self, device: &wgpu::Device, kernel: Kernel) -> wgpu::ComputePipeline {
        let label = format!("wgpu-optim.{}", kernel.entry_point());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(kernel.source().into()),
        });
        let tensors = match (kernel, kernel.base()) {
            (Kernel::Accumulate { .. } | Kernel::Widen { .. } | Kernel::Round { .. }, _) => &self.pairs,
            (_, Some(base)) => &self.tensors[&base],
            (_, None) => &self.workspaces,
        };
        let all = [&self.tables, tensors, &self.scratch, &self.counters];
        let used = kernel.groups();
        let last = used.iter().rposition(|&used| used).expect("every kernel uses the tables");
        let groups: Vec<_> = (0..=last).map(|i| Some(if used[i] { all[i] } else { &self.empty })).collect();
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &groups,
            immediate_size: 0,
        });
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(kernel.entry_point()),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel clears its own: the general way costs seconds on some software adapters.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        })
    }
}

fn entry(binding: u32, ty: wgpu::BufferBindingType, dynamic: Option<u64>) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: dynamic.is_some(),
            min_binding_size: dynamic.and_then(NonZeroU64::new),
        },
        count: None,
    }
}

/// Bytes of a slice of structs, as a storage buffer holds them.
pub(crate) fn table<T>(rows: &[T]) -> Vec<u8>
where
    for<'a> &'a [T]: ShaderType + encase::internal::WriteInto,
{
    let mut buffer = encase::StorageBuffer::new(Vec::new());
    buffer.write(&rows).expect("a vector grows");
    buffer.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BINS, CHUNK, WORKGROUP};
    use crate::sampling::{SECTOR, STRATA};

    /// Byte offsets of a WGSL struct's members, and its size.
    fn wgsl_layout(module: &naga::Module, name: &str) -> (Vec<(String, u32)>, u32) {
        let (_, ty) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name)).expect(name);
        let naga::TypeInner::Struct { members, span } = &ty.inner else { panic!("{name} is no struct") };
        (members.iter().map(|m| (m.name.clone().unwrap(), m.offset)).collect(), *span)
    }

    fn assert_layout<T: ShaderType + encase::internal::WriteInto>(
        module: &naga::Module,
        name: &str,
        rust: &[(&str, u32)],
        value: &T,
    ) {
        let mut buffer = encase::StorageBuffer::new(Vec::<u8>::new());
        buffer.write(value).unwrap();
        let bytes = buffer.into_inner();
        let (members, span) = wgsl_layout(module, name);
        assert_eq!(u64::from(span), T::min_size().get(), "size of {name}");
        let members: Vec<_> = members.into_iter().filter(|(member, _)| member != "unused").collect();
        assert_eq!(members.len(), rust.len(), "members of {name}");
        for ((member, offset), (field, word)) in members.iter().zip(rust) {
            assert_eq!(member, field, "{name}");
            let at = *offset as usize;
            assert_eq!(bytes[at..at + 4], word.to_le_bytes(), "{name}.{member}");
        }
    }

    #[test]
    fn structs_lie_in_wgsl_as_in_rust() {
        let access = Access {
            vectorized: true,
            gradients: Gradients { guarded: true, ..Gradients::default() },
            rates: false,
        };
        let kernel = Kernel::StreamExact { base: BaseKind::Adamw, access };
        let module = naga::front::wgsl::parse_str(&kernel.source()).unwrap();
        let bits = f32::to_bits;
        let row = Row {
            step: 1.0,
            decay: 2.0,
            beta1: 3.0,
            one_minus_beta1: 4.0,
            beta2: 5.0,
            one_minus_beta2: 6.0,
            eps: 7.0,
            alpha: 8.0,
            gamma: 9.0,
            max_grad_norm: 10.0,
            t: 11,
            count_normalizer: 12,
            ns_a: 13.0,
            ns_b: 14.0,
            ns_c: 15.0,
            lr: 16.0,
            clip: 17.0,
            min_step: 18.0,
            accumulator_init: 19.0,
            grad_scale: 20.0,
            max_grad_value: 21.0,
            ln_beta1: 22.0,
            ln_beta2: 23.0,
            corrects: 24,
            skips: 25,
            growth: 26.0,
            backoff: 27.0,
            growth_interval: 28,
        };
        let fields = [
            ("step", bits(1.0)),
            ("decay", bits(2.0)),
            ("beta1", bits(3.0)),
            ("one_minus_beta1", bits(4.0)),
            ("beta2", bits(5.0)),
            ("one_minus_beta2", bits(6.0)),
            ("eps", bits(7.0)),
            ("alpha", bits(8.0)),
            ("gamma", bits(9.0)),
            ("max_grad_norm", bits(10.0)),
            ("t", 11),
            ("count_normalizer", 12),
            ("ns_a", bits(13.0)),
            ("ns_b", bits(14.0)),
            ("ns_c", bits(15.0)),
            ("lr", bits(16.0)),
            ("clip", bits(17.0)),
            ("min_step", bits(18.0)),
            ("accumulator_init", bits(19.0)),
            ("grad_scale", bits(20.0)),
            ("max_grad_value", bits(21.0)),
            ("ln_beta1", bits(22.0)),
            ("ln_beta2", bits(23.0)),
            ("corrects", 24),
            ("skips", 25),
            ("growth", bits(26.0)),
            ("backoff", bits(27.0)),
            ("growth_interval", 28),
        ];
        assert_layout(&module, "Row", &fields, &row);
        assert_eq!(Row::min_size().get(), STRIDE);

        let chunk = Chunk {
            offset: 1,
            len: 2,
            index: 3,
            tensor: 4,
            row: 5,
            mask: 6,
            param: 7,
            grad: 8,
            part: 9,
            parts: 10,
            row_len: 11,
            rows: 12,
        };
        let fields = [
            ("offset", 1),
            ("len", 2),
            ("index", 3),
            ("tensor", 4),
            ("row", 5),
            ("mask", 6),
            ("param", 7),
            ("grad", 8),
            ("part", 9),
            ("parts", 10),
            ("row_len", 11),
            ("rows", 12),
        ];
        assert_layout(&module, "Chunk", &fields, &chunk);

        let grid = Grid {
            first: 1,
            count: 2,
            correct: 3,
            bounds: 4,
            norms: 5,
            launch: 6,
            launch_x: 7,
            launch_y: 8,
            gradient_norms: 9,
            m: 10,
            n: 11,
            left_stride: 12,
            left_slot: 13,
            right_slot: 14,
            result_slot: 15,
            gram_stride: 16,
            gram_slot: 17,
            depth: 18,
            polynomial: 19,
            records: 20,
        };
        let fields = [
            ("first", 1),
            ("count", 2),
            ("correct", 3),
            ("bounds", 4),
            ("norms", 5),
            ("launch", 6),
            ("launch_x", 7),
            ("launch_y", 8),
            ("gradient_norms", 9),
            ("m", 10),
            ("n", 11),
            ("left_stride", 12),
            ("left_slot", 13),
            ("right_slot", 14),
            ("result_slot", 15),
            ("gram_stride", 16),
            ("gram_slot", 17),
            ("depth", 18),
            ("polynomial", 19),
            ("records", 20),
        ];
        assert_layout(&module, "Grid", &fields, &grid);

        let entry = TensorEntry {
            k: 1,
            numel: 2,
            first_chunk: 3,
            histogram: 4,
            sample: 5,
            stride: 6,
            strata: 7,
            rank_high: 8,
            rank_low: 9,
            candidates: 10,
            capacity: 11,
            list: 12,
            list_capacity: 13,
            t: 14,
            high: Cut { key: 15, limit: 0 },
            low: Cut { key: 16, limit: 0 },
            boundary: 17,
            remaining: 18,
            missed: 19,
            open: 20,
            found: Cut { key: 21, limit: 0 },
            inside: 22,
            listed: 23,
            selected: 24,
            tall: 25,
            inverse_norm: 26.0,
            rate: 27.0,
            accumulator: 28.0,
            skipped: 29,
            components: 30,
            rates: 31,
            mastered: 32,
        };
        let fields = [
            ("k", 1),
            ("numel", 2),
            ("first_chunk", 3),
            ("histogram", 4),
            ("sample", 5),
            ("stride", 6),
            ("strata", 7),
            ("rank_high", 8),
            ("rank_low", 9),
            ("candidates", 10),
            ("capacity", 11),
            ("list", 12),
            ("list_capacity", 13),
            ("t", 14),
            ("high", 15),
            ("low", 16),
            ("boundary", 17),
            ("remaining", 18),
            ("missed", 19),
            ("open", 20),
            ("found", 21),
            ("inside", 22),
            ("listed", 23),
            ("selected", 24),
            ("tall", 25),
            ("inverse_norm", bits(26.0)),
            ("rate", bits(27.0)),
            ("accumulator", bits(28.0)),
            ("skipped", 29),
            ("components", 30),
            ("rates", 31),
            ("mastered", 32),
        ];
        assert_layout(&module, "Tensor", &fields, &entry);
        let place = |name: &str| {
            let (members, _) = wgsl_layout(&module, "Tensor");
            u64::from(members.iter().find(|(member, _)| member == name).unwrap().1)
        };
        let places = ["accumulator", "skipped", "mastered"].map(place);
        assert_eq!(places, [ACCUMULATOR, SKIPPED, MASTERED]);
        assert_layout(&module, "Cut", &[("key", 1), ("limit", 2)], &Cut { key: 1, limit: 2 });
        let (members, _) = wgsl_layout(&module, "Tensors");
        let header = [
            "loss_scale",
            "grad_norm",
            "norm_factor",
            "unscale",
            "skip",
            "skipped",
            "grown",
            "broken",
            "each",
        ];
        let expected: Vec<_> =
            header.iter().zip((0..).step_by(4)).map(|(m, at)| (m.to_string(), at)).collect();
        assert_eq!(members, expected);
        assert_eq!(Header::min_size().get(), TENSORS_HEADER);
        assert_eq!([header[SKIP_WORD as usize], header[BROKEN_WORD as usize]], ["skip", "broken"]);
        assert_eq!(u64::from(members.last().unwrap().1), TENSORS_HEADER);
    }

    #[test]
    fn bindings_and_constants_are_the_same_on_both_sides() {
        for kernel in all_kernels() {
            let module = naga::front::wgsl::parse_str(&kernel.source()).unwrap();
            let mut used = [false; 4];
            for (_, variable) in module.global_variables.iter() {
                if let Some(binding) = &variable.binding {
                    used[binding.group as usize] = true;
                    let bindings = match binding.group {
                        0 => 5,
                        1 => kernel.tensor_buffers(),
                        _ => 1,
                    };
                    assert!(binding.binding < bindings, "{kernel:?}: {:?}", variable.name);
                    let space = match (binding.group, binding.binding) {
                        (0, 0 | 1 | 4) => naga::AddressSpace::Uniform,
                        (0, 2) => naga::AddressSpace::Storage { access: naga::StorageAccess::LOAD },
                        _ => naga::AddressSpace::Storage {
                            access: naga::StorageAccess::LOAD | naga::StorageAccess::STORE,
                        },
                    };
                    assert_eq!(variable.space, space, "{kernel:?}: {:?}", variable.name);
                }
            }
            assert_eq!(used, kernel.groups(), "{kernel:?}");
            assert!(kernel.storage_buffers() <= 8, "{kernel:?} exceeds WebGPU's default");
            let text = kernel.source();
            for (constant, value) in [
                ("WORKGROUP", WORKGROUP),
                ("BINS", BINS),
                ("CHUNK", CHUNK),
                ("LANES", CHUNK / 128),
                ("SECTOR", SECTOR),
                ("STRATA", STRATA),
            ] {
                let named = format!("const {constant}: u32 = ");
                if let Some(at) = text.find(&named) {
                    let rest = &text[at + named.len()..];
                    assert!(rest.starts_with(&format!("{value}u;")), "{kernel:?}: {constant}");
                }
            }
            assert!(text.contains(&format!("array<Row, {ROWS}>")), "{kernel:?}");
        }
    }
}
