//! The stages of matrices of one shape, as many as are orthogonalized side by side: their directions, with the mask of the update policy;
//! Newton–Schulz; the step.
//!
//! ```text
//! X ← d / ‖d‖ ;  ns_steps times: A = X Xᵀ ;  B = a I + b A + c A Aᵀ ;  X ← B X
//! ```
//!
//! Three workspaces are enough: X, its successor, where A lies before, and B. For wide matrices the polynomials of up to three steps are
//! multiplied first, Q ← B Q and A ← B A B, all of them symmetric, which takes two more of the size of A: `X ← Q X` is then the only product
//! with X next to X Xᵀ (Gram Newton–Schulz).

use std::ops::Range;

use super::elementwise;
use super::layout::{Matrices, WORKGROUP};
use super::stage::{Over, STREAM, Share, Writer};
use crate::kernel::catalog::{Config, Constants};
use crate::kernel::tables::Grid;
use crate::recipe::base::{LineSums, NS_LIST};
use crate::recipe::launch::LaunchShape;
use crate::recipe::matrix::{Matmul, Shape};
use crate::recipe::policy::Selects;
use crate::recipe::precision::Precision;
use crate::recipe::spec::CHUNK;

/// Invocations of the kernels that copy.
const LANES: u64 = 64;
/// The workspace that directions are written to.
const DIRECTIONS: usize = 1;

pub(super) fn step(writer: &mut Writer<'_>) {
    let sums = writer.config.base.row().lines.map(|lines| lines.sums);
    directions(writer);
    if sums == Some(LineSums::Directions) {
        let config = writer.config;
        elementwise::line_sums(writer, config);
        line_sums(writer, DIRECTIONS, 1);
        elementwise::move_lines(writer);
    }
    let result = orthogonalize(writer);
    if sums == Some(LineSums::Orthogonal) {
        line_sums(writer, result, 0);
        elementwise::move_lines(writer);
    }
    let selection = match writer.policy.selects() {
        Selects::Nothing => "none",
        Selects::Exact => "notes",
        Selects::Random => "random",
        _ => "mask",
    };
    let config = Config { orthogonal: true, selection, ..writer.config };
    let bits = writer.policy.bits_bytes(config.base);
    let each = 4 + 2 * writer.plan.stepped_bytes();
    let cost = |share: Share| (each * share.numel + bits * share.count, STREAM);
    let purpose = "steps by orthogonalized directions";
    let mut of_result = writer.with(writer.grid, [None, None, Some(result)]);
    of_result.add(purpose, "step/stream", config, Over::Chunks, &cost);
}

/// Sums squares over rows and columns of what lies in a workspace. `second_sums` is 1 if these sums follow the first ones.
fn line_sums(writer: &mut Writer<'_>, workspace: usize, second_sums: u32) {
    let (grid, config) = (Grid { second_sums, ..writer.grid }, as_is(writer.config));
    elementwise::line_sums(&mut writer.with(grid, [None, Some(workspace), None]), config);
}

/// For kernels that read directions in the place of gradients.
fn as_is(config: Config) -> Config {
    let constants = Constants::default().with("AS_IS", true);
    Config { format: Precision::F32, constants, ..config }
}

fn directions(writer: &mut Writer<'_>) {
    let config = writer.config;
    let [of_directions, of_gradients] = writer.plan.tensor_norms.map(|norms| Grid { norms, ..writer.grid });
    if config.base.scalar_names().next().is_some() {
        let mut gradients = writer.with(of_gradients, [None; 3]);
        elementwise::sums(&mut gradients, "sums squared gradients", elementwise::NORM, config);
    }
    elementwise::before(writer);
    let (policy, selection, sink) = match writer.policy.selects() {
        Selects::Exact => (config.policy, "none", "direction"),
        Selects::Small => (config.policy, "none", "direction_and_mask_small"),
        // Factors follow after the orthogonalization.
        Selects::Nothing | Selects::Random => ("plain", "none", "direction"),
        Selects::Positive | Selects::PositiveCounted => ("plain", "positive", "direction_and_mask"),
        Selects::Sampled => ("plain", "cut", "direction_and_mask"),
    };
    // Reads g and the momentum; writes the momentum and the direction.
    let mut written = writer.with(writer.grid, [Some(DIRECTIONS), None, None]);
    let purpose = "moves the momentum on; writes directions";
    let each = 12 + config.format.bytes();
    elementwise::stream(&mut written, purpose, Config { policy, selection, sink, ..config }, each);
    elementwise::after(writer);
    let mut read = writer.with(of_directions, [None, Some(DIRECTIONS), None]);
    elementwise::sums(&mut read, "sums squared directions", elementwise::NORM, as_is(config));
}

/// Returns the workspace that the orthogonalized directions lie in, as their tensors do.
fn orthogonalize(writer: &mut Writer<'_>) -> usize {
    let Some(Matrices { shape, steps }) = writer.plan.classes[writer.class].matrices else { return DIRECTIONS };
    let vectors = (shape.m.next_multiple_of(4)) * shape.n.div_ceil(4);
    let [norms, gradient_norms] = writer.plan.tensor_norms;
    let grid = Grid {
        norms,
        gradient_norms,
        m: shape.m as u32,
        n: shape.n as u32,
        left_stride: shape.stride() as u32,
        left_slot: shape.slot() as u32,
        right_slot: shape.slot() as u32,
        result_slot: shape.slot() as u32,
        gram_stride: shape.gram_stride() as u32,
        gram_slot: shape.gram_slot() as u32,
        depth: shape.n.div_ceil(4) as u32,
        ..writer.grid
    };
    let (own, gram) = (16 * vectors, 16 * shape.gram_slot());
    let (config, copies) = (writer.config, Over::Wholes(vectors.div_ceil(LANES)));
    let copy = |share: Share| (2 * own * share.count, 4);
    let measure = |_: Share| (0, (shape.m * shape.n).div_ceil(CHUNK).div_ceil(4 * WORKGROUP));
    writer.with(grid, [None; 3]).add("finds norms and rates", "matrix/measure", config, Over::Wholes(1), &measure);
    let (mut x, mut next) = (0, DIRECTIONS);
    writer.with(grid, [x, next, 2].map(Some)).add("scales directions to norm 1", "matrix/enter", config, copies, &copy);
    let mut products = Products { writer: &mut *writer, shape, grid, own, gram };
    // Wide matrices are left alone until their polynomial is known. Rounding would grow if it were put off for long.
    let at_once: usize = if shape.is_wide() { 3 } else { 1 };
    for first in (0..steps).step_by(at_once) {
        let polynomial = products.polynomial(x, next, first..steps.min(first + at_once as u32));
        let (grid, bytes) = (Grid { depth: shape.m.div_ceil(4) as u32, ..grid }, 2 * own + gram);
        products.add("multiplies B X", grid, [x, next, polynomial], &[], bytes);
        (x, next) = (next, x);
    }
    writer.with(grid, [x, next, 2].map(Some)).add("gives directions back", "matrix/leave", config, copies, &copy);
    next
}

/// Adds the products of Newton–Schulz.
struct Products<'w, 'p> {
    writer: &'w mut Writer<'p>,
    shape: Shape,
    /// The grid of X Xᵀ.
    grid: Grid,
    /// Bytes of an X, and of an X Xᵀ.
    own: u64,
    gram: u64,
}

impl Products<'_, '_> {
    /// X Xᵀ, where the successor of X will be, and then the product of the polynomials of these steps. Returns its workspace.
    fn polynomial(&mut self, x: usize, a: usize, steps: Range<u32>) -> usize {
        self.add("multiplies X Xᵀ", self.grid, [x, a, 2], &["SYMMETRIC"], self.own + self.gram);
        let (mut all, mut free) = if steps.len() == 1 { (2, 3) } else { (3, 4) };
        for step in steps.clone() {
            // The first is the product so far.
            let is_first = step == steps.start;
            let p = if is_first { all } else { 2 };
            let iteration = step.min(NS_LIST as u32 - 1);
            let square = Grid { iteration, ..self.square([a, p, a], a) };
            self.add("makes polynomials of A", square, [a, p, x], &["SYMMETRIC", "POLYNOMIAL"], 2 * self.gram);
            if !is_first {
                self.product(p, all, free, a);
                (all, free) = (free, all);
            }
            if step + 1 < steps.end {
                // X Xᵀ of the next step is P X Xᵀ P.
                self.product(p, a, free, a);
                self.product(free, p, a, a);
            }
        }
        all
    }

    /// The product of two m × m matrices that commute.
    fn product(&mut self, left: usize, right: usize, result: usize, a: usize) {
        let (order, constants) = ([left, result, right], ["SYMMETRIC", "TWO_FACTORS"]);
        self.add("multiplies polynomials", self.square(order, a), order, &constants, 3 * self.gram);
    }

    /// The grid of a product of m × m matrices. `a` lies in the slots of an X.
    fn square(&self, order: [usize; 3], a: usize) -> Grid {
        let slots = order.map(|workspace| if workspace == a { self.grid.right_slot } else { self.grid.gram_slot });
        let [left_slot, result_slot, right_slot] = slots;
        let (left_stride, depth) = (self.grid.gram_stride, self.shape.m.div_ceil(4) as u32);
        Grid { left_stride, left_slot, result_slot, right_slot, depth, ..self.grid }
    }

    /// L Rᵀ, which is symmetric, the polynomial that it is a part of, or B X: as these constants say.
    fn add(&mut self, purpose: &'static str, grid: Grid, order: [usize; 3], constants: &[&str], bytes: u64) {
        let (own, shape, is_gram, depth) = (self.writer.config, self.shape, !constants.is_empty(), grid.depth.into());
        let matrices = self.writer.pages.clone().map(|page| self.writer.plan.pages[page].wholes.len() as u64).sum();
        let matmul = own.matmul.chosen(shape, is_gram, matrices);
        let constants = constants.iter().fold(own.constants, |all, name| all.with(name, true));
        let config = Config { constants, matmul, ..own };
        // A vector of both factors in each, or a stage of them.
        let stages = u64::div_ceil(depth, 512 / matmul.block()) + 1;
        let rounds = if LaunchShape::of(matmul) == LaunchShape::Cpu { depth } else { stages };
        let mut writer = self.writer.with(grid, order.map(Some));
        let blocks = Over::Wholes(matmul.workgroups(shape, is_gram));
        writer.add(purpose, kernels(matmul)[usize::from(is_gram)], config, blocks, &|share| {
            (bytes * share.count, rounds)
        });
    }
}

/// The kernels of B X and of L Rᵀ.
fn kernels(matmul: Matmul) -> [&'static str; 2] {
    match matmul {
        Matmul::Registers => ["matrix/advance_registers", "matrix/gram_registers"],
        Matmul::Subgroups => ["matrix/advance_subgroups", "matrix/gram_subgroups"],
        Matmul::Tiles | Matmul::SmallTiles => ["matrix/advance_tiles_64", "matrix/gram_tiles_64"],
        Matmul::LargeTiles | Matmul::TilesF16 => ["matrix/advance_tiles_128", "matrix/gram_tiles_128"],
    }
}
