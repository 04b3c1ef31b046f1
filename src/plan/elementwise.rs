//! The stages of a class whose directions move the parameters at once.
//!
//! | policy | dispatches |
//! |---|---|
//! | plain, cautious_mgup, grams; mgup, random | stream |
//! | cautious | prepare, score_mask, stream |
//! | mgup, tensors of at most 4,096 coordinates | small |
//! | mgup, approximate | sample, rank_sample, stream |
//! | mgup, exact | sample, rank_sample, stream_exact, prove, repair, settle; for tensors of more than 16,777,216 coordinates, or in several pages, recount 7 times, which does nothing unless a bracket missed |
//!
//! A base with a moment for each row has row_moments before these; one with moments of rows and columns has line_sums and lines. A base
//! with a rate for each tensor has rate, after norm or update_sums where the rate follows from a norm.
//!
//! Exact selection finds the top K without sorting, in one pass over memory: a sample of the step brackets the K-th largest score, the stream
//! decides every coordinate outside the bracket, counts prove that the bracket was right, and the few candidates inside it are ranked. Where
//! it was wrong, `settle` or `recount` finds the K-th largest digit by digit from histograms of all keys, and corrects what the stream decided.

use super::layout::{BINS, DIGITS, LINE_BLOCK, Tensor, WORKGROUP};
use super::stage::{Over, ROW_MOMENTS, STREAM, Share, Writer};
use crate::kernel::catalog::Config;
use crate::kernel::tables::Grid;
use crate::recipe::base::{LineSums, Norms};
use crate::recipe::launch::LaunchShape;
use crate::recipe::policy::Selects;
use crate::recipe::sampling::STRATA;
use crate::recipe::spec::CHUNK;

/// Bytes of a candidate.
pub(super) const CANDIDATE: u64 = 12;
/// The kernel that sums squares over chunks, and the rounds of its lanes.
pub(super) const NORM: (&str, u64) = ("guard/norm", STREAM);
/// Rows or columns of a workgroup that sums them, and lanes of each.
const LINES: u64 = 32;
const LINE_LANES: u64 = WORKGROUP / LINES;
/// The length from which on a row is summed by 32 lanes; `LONG` in `shaders/step/row_moments.wgsl`.
const LONG_ROW: u64 = 128;
/// Rounds of a lane that visits the candidates of a chunk.
const CANDIDATE_ROUNDS: u64 = 8;

pub(super) fn step(writer: &mut Writer<'_>) {
    let (config, selects) = (writer.config, writer.policy.selects());
    let (grad, states) = (config.format.bytes(), config.state_bytes());
    let theta = writer.plan.stepped_bytes();
    match config.base.row().lines {
        Some(_) => {
            line_sums(writer, config);
            move_lines(writer);
        }
        None if config.base.has_lines() => {
            let rounds = row_rounds(writer);
            sums(writer, "moves the moments of rows on", (ROW_MOMENTS, rounds), config);
        }
        None => {}
    }
    if config.base.has_rate() {
        rate(writer);
    }
    let bits = writer.policy.bits_bytes(config.base);
    before(writer);
    if selects == Selects::PositiveCounted {
        // Reads g and the state.
        let cost = |share: Share| ((grad + states) * share.numel + bits * share.count, STREAM);
        writer.add("marks and counts positive scores", "step/score_mask", config, Over::Chunks, &cost);
    }
    let (purpose, selection) = match selects {
        Selects::Exact => ("steps what the bracket decides; lists candidates", "none"),
        Selects::Small => ("selects and steps small tensors", "none"),
        Selects::Sampled => ("selects by the sampled cut, and steps", "cut"),
        Selects::PositiveCounted => ("steps marked coordinates", "mask"),
        Selects::Positive => ("steps", "positive"),
        Selects::Random => ("steps", "random"),
        Selects::Nothing => ("steps", "none"),
    };
    // Reads θ, g and the state; writes θ and the state.
    stream(writer, purpose, Config { selection, ..config }, 2 * (theta + states) + grad);
    after(writer);
}

/// Rounds of a lane that moves the second moments of rows on: it has a short row, or shares a long one with 31 others.
fn row_rounds(writer: &Writer<'_>) -> u64 {
    let lanes = if writer.config.shape == LaunchShape::Gpu { WORKGROUP } else { LINES };
    let rounds = |tensor: &Tensor| {
        let (len, rows) = (tensor.row_len, CHUNK.div_ceil(tensor.row_len));
        let of_row = if len < LONG_ROW { 1 } else { LINES };
        rows.div_ceil(lanes / of_row) * (len.div_ceil(4) + 1).div_ceil(of_row)
    };
    writer.plan.tensors[writer.tensors.clone()].iter().map(rounds).max().unwrap_or(1)
}

/// Finds the factor of the step of each tensor, perhaps from sums over it.
fn rate(writer: &mut Writer<'_>) {
    let (config, [norms, gradient_norms]) = (writer.config, writer.plan.tensor_norms);
    let mut summed = writer.with(Grid { norms, gradient_norms, ..writer.grid }, [None; 3]);
    match config.base.row().norms {
        Some(Norms::Gradient) => sums(&mut summed, "sums squared gradients", NORM, config),
        Some(Norms::Update) => {
            // Reads θ, g and the state.
            let theta = summed.plan.stepped_bytes();
            let each = theta + config.format.bytes() + config.state_bytes();
            let cost = |share: Share| (each * share.numel + 8 * share.count, STREAM);
            summed.add("sums squared updates", "step/update_sums", config, Over::Chunks, &cost);
        }
        None => {}
    }
    let chunks = summed.plan.tensors[summed.tensors.clone()].iter().map(|tensor| tensor.chunks.len() as u64);
    let rounds = if config.base.row().norms.is_some() { chunks.max().unwrap_or(1).div_ceil(4 * WORKGROUP) } else { 1 };
    summed.add("finds the rate of each tensor", "step/rate", config, Over::Wholes(1), &|_| (0, rounds));
}

/// Sums squares over rows and columns of gradients, or of directions in their place.
pub(super) fn line_sums(writer: &mut Writer<'_>, config: Config) {
    let tensors = &writer.plan.tensors[writer.tensors.clone()];
    let parts = |tensor: &Tensor| {
        let of = |is_summed: u32, lines: u64, len: u64| {
            u64::from(is_summed) * lines.div_ceil(LINES) * len.div_ceil(LINE_BLOCK)
        };
        let (rows, columns) = (tensor.row_count(), tensor.row_len);
        of(tensor.entry.sums_rows, rows, columns) + of(tensor.entry.sums_columns, columns, rows)
    };
    let most = tensors.iter().map(parts).max().unwrap_or(1);
    let longest = tensors.iter().map(|tensor| tensor.row_count().max(tensor.row_len)).max().unwrap_or(1);
    let rounds = longest.min(LINE_BLOCK).div_ceil(LINE_LANES);
    let times = if config.base.row().lines.is_some_and(|lines| lines.sums == LineSums::Gradients) { 2 } else { 1 };
    let each = times * config.format.bytes();
    let cost = |share: Share| (each * share.numel, rounds);
    writer.add("sums squares of rows and columns", "step/line_sums", config, Over::Wholes(most), &cost);
}

/// Moves the states of rows and columns on.
pub(super) fn move_lines(writer: &mut Writer<'_>) {
    let config = writer.config;
    let tensors = &writer.plan.tensors[writer.tensors.clone()];
    let sums = tensors.iter().map(|tensor| tensor.line_sums().iter().sum::<u64>());
    let rounds = sums.max().unwrap_or(1).div_ceil(WORKGROUP);
    writer.add("moves the states of rows and columns on", "step/lines", config, Over::Wholes(1), &|_| (0, rounds));
}

/// A kernel that reads gradients, or directions in their place, and writes sums.
pub(super) fn sums(
    writer: &mut Writer<'_>,
    purpose: &'static str,
    (entry, rounds): (&'static str, u64),
    config: Config,
) {
    let each = config.format.bytes();
    writer.add(purpose, entry, config, Over::Chunks, &|share| (each * share.numel + 4 * share.count, rounds));
}

/// Before the stream: forgets the last count of marks, or finds the ends of the bracket.
pub(super) fn before(writer: &mut Writer<'_>) {
    let (config, bounds) = (writer.config, writer.policy.bounds());
    if writer.policy.selects() == Selects::PositiveCounted {
        writer.add("forgets the last count", "step/prepare", config, Over::Lanes, &|_| (0, 1));
    }
    if bounds == 0 {
        return;
    }
    let each = 4 + config.state_bytes() + config.format.bytes(); // reads g and the state; writes the keys
    let cost = |share: Share| (each * share.sampled, STRATA / WORKGROUP);
    writer.add("samples scores", "select/sample", config, Over::Pieces, &cost);
    let samplings = writer.plan.tensors[writer.tensors.clone()].iter().filter_map(|tensor| tensor.sampling);
    let sampled: Vec<u64> = samplings.map(|sampling| sampling.coordinates()).collect();
    let (all, most) = (sampled.iter().sum::<u64>(), sampled.iter().max().map_or(0, |most| *most));
    // Reads the keys for a second digit, eight vectors at once. Approximate selection wants a third one, and two of the index.
    let passes = if bounds == 1 { 4 } else { 1 };
    let rounds = BINS / WORKGROUP + passes * (most / 4).div_ceil(8 * WORKGROUP);
    let cost = |share: Share| (bounds * (8 * BINS * share.count + passes * 4 * all), rounds);
    writer.add("finds the cuts in the sample", "select/rank_sample", config, Over::Tensors(bounds), &cost);
}

/// The kernel that goes over all coordinates and moves `each` bytes per coordinate. It writes the candidates, and counts them.
pub(super) fn stream(writer: &mut Writer<'_>, purpose: &'static str, config: Config, each: u64) {
    let (entry, rounds) = match writer.policy.selects() {
        Selects::Exact if config.shape == LaunchShape::Gpu => ("step/stream_exact_quarter", 5 * STREAM), // a vector, and its candidates
        Selects::Exact => ("step/stream_exact", STREAM + CANDIDATE_ROUNDS),
        Selects::Small if config.shape == LaunchShape::Gpu => ("step/small_wide", CHUNK / 4 / WORKGROUP),
        Selects::Small => ("step/small", CHUNK / 4 / 64),
        _ => ("step/stream", STREAM),
    };
    let bits = writer.policy.bits_bytes(config.base);
    let cost = |share: Share| (each * share.numel + bits * share.count + (CANDIDATE + 8) * share.candidates, rounds);
    writer.add(purpose, entry, config, Over::Chunks, &cost);
}

/// Workgroups for the candidates of each part of a piece: on GPUs, as many as give each lane one candidate of tensors of equal size.
fn candidate_parts(writer: &Writer<'_>) -> u32 {
    if writer.config.shape == LaunchShape::Cpu {
        return 1;
    }
    let tensors = writer.plan.tensors[writer.tensors.clone()].iter();
    let counts = tensors.filter_map(|tensor| {
        let sampling = tensor.sampling?;
        Some([u64::from(sampling.capacity).div_ceil(WORKGROUP), sampling.parts(0, tensor.numel)])
    });
    let [needed, parts] = counts.fold([0, 0], |[needed, parts], [more, of]| [needed + more, parts + of]);
    needed.div_ceil(parts.max(1)).max(1) as u32
}

/// Rounds of a lane that ranks the candidates of one bin: for each of three digits it reads them through the list, four at once; then again,
/// and finishes them.
fn settle_rounds(writer: &Writer<'_>) -> u64 {
    let tensors = writer.plan.tensors[writer.tensors.clone()].iter();
    // Keys between the cuts fall into 1,024 bins.
    let expected = tensors.filter_map(|tensor| Some(tensor.sampling?.expected(tensor.numel) as u64 / 1024));
    let fours = expected.max().unwrap_or(0).div_ceil(4 * WORKGROUP).max(1);
    fours * (2 * (3 + 1) + 4)
}

/// After the stream of exact selection: the candidates, then the tensors whose bracket missed, if there are any.
pub(super) fn after(writer: &mut Writer<'_>) {
    if writer.policy.selects() != Selects::Exact {
        return;
    }
    let own = writer.config;
    let shared = Config { shared_notes: true, ..own };
    let single = Config { shared_vectors: true, ..shared };
    writer.add("proves the bracket", "select/prove", own, Over::Tensors(1), &|share| (8 * BINS * share.count, 8));
    // Reads the candidates; reads and writes their parameters.
    let each = candidate_parts(writer);
    let rounds = |share: Share| share.capacity.div_ceil(WORKGROUP * u64::from(each));
    let each_candidate = CANDIDATE + 2 * writer.plan.stepped_bytes();
    let cost = |share: Share| (each_candidate * share.candidates, rounds(share));
    writer.add("finishes decided candidates", "select/repair", single, Over::PieceParts(each), &cost);
    let rounds = settle_rounds(writer);
    let purpose = "ranks the last candidates; searches after a miss";
    writer.add(purpose, "select/settle", single, Over::Pieces, &|_| (0, rounds));
    if !writer.plan.tensors[writer.tensors.clone()].iter().any(Tensor::is_searched_by_many) {
        return;
    }
    let (first, cost) = (writer.stages.len(), |share: Share| (0, share.piece_rounds));
    for digit in 0..=DIGITS as u32 {
        let purpose = if u64::from(digit) < DIGITS {
            "counts a digit, after a miss"
        } else {
            "corrects what the stream decided, after a miss"
        };
        let mut search = writer.with(Grid { digit, ..writer.grid }, [None; 3]);
        search.add(purpose, "select/recount", shared, Over::Pieces, &cost);
    }
    writer.stages[first..].iter_mut().for_each(|(stage, _)| stage.after_miss = true);
}
