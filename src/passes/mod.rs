//! The stages of a step. Each file adds its dispatches to a [`Schedule`], and nothing else.
//!
//! | policy | dispatches |
//! |---|---|
//! | plain, cautious_mgup, grams | stream |
//! | cautious | prepare, score_mask, stream |
//! | mgup, tensors of at most 4,096 coordinates | small |
//! | mgup, approximate | sample, rank_sample, stream |
//! | mgup, exact | sample, rank_sample, stream_exact, prove, repair, settle; then recount and scan_bins by turns, 13 in all, launched only where a bracket missed |
//!
//! AdamW with a second moment for each row has row_moments before these.
//!
//! A matrix base goes through the same stages to its direction, `direct` in place of stream, then orthogonalises it, and ends
//! with stream: see `matrix.rs`.
//!
//! Clipping the gradients' norm, and skipping where one is not finite, put norm and guard before all others.

mod guard;
mod matrix;
mod observe;
mod pairs;
mod score;
mod select;
mod stream;

use std::collections::HashSet;
use std::ops::Range;

use crate::kernel::{Access, Grid, Kernel};
use crate::matrix::Matmul;
use crate::plan::{BaseKind, Class, Page, Plan, PolicyKind};
use crate::precision::Precision;

/// One dispatch of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatch {
    /// What runs.
    pub kernel: Kernel,
    /// The page that it works on; `None` for work on all tensors of a class.
    pub page: Option<usize>,
    /// The class.
    pub class: usize,
    /// Index of its [`Grid`].
    pub grid: usize,
    /// What it has one workgroup for.
    pub(crate) over: Over,
    /// What its second bind group holds.
    pub(crate) operands: Operands,
    /// Workgroups in three dimensions.
    pub workgroups: [u32; 3],
    /// Bytes that it reads and writes in storage buffers, tables left out.
    pub bytes: u64,
}

/// What a step does: its dispatches in order.
///
/// With the caller's buffers, a dispatch that touches parameters or gradients is repeated for each pair of buffers that
/// they lie in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    /// The dispatches.
    pub dispatches: Vec<Dispatch>,
    /// Those that add a micro-batch to the gradients of a step, where it has several; the last one's are before the step's own.
    pub accumulate: Vec<Dispatch>,
    /// Those that take parameters of two bytes as masters, once.
    pub widen: Vec<Dispatch>,
    /// Those that round the masters, at the end of a step.
    pub round: Vec<Dispatch>,
    /// How many of the step's own, the first ones, guard the step.
    pub guarding: usize,
    /// Those that observe a step, where it is: behind its guard, and at its end.
    pub observe: Vec<Dispatch>,
    /// See `observe`.
    pub report: Vec<Dispatch>,
    /// What each of them works on.
    pub grids: Vec<Grid>,
}

impl Schedule {
    /// The dispatches of a step over all tensors of a plan, where a dimension of a dispatch has at most `workgroups`.
    pub fn new(plan: &Plan, workgroups: u32, matmul: Matmul) -> Self {
        let mut schedule = Self::default();
        let grids: Vec<_> = (0..plan.classes.len()).map(|class| grid(plan, class, workgroups)).collect();
        let write = |schedule: &mut Self, class: usize, stage: &dyn Fn(&mut Writer<'_>)| {
            let Class { pages, tensors, .. } = plan.classes[class].clone();
            let grid = grids[class];
            stage(&mut Writer { plan, class, pages, tensors, grid, workgroups, matmul, schedule });
        };
        if plan.accumulates {
            (0..plan.classes.len()).for_each(|class| write(&mut schedule, class, &pairs::accumulate));
            schedule.accumulate = std::mem::take(&mut schedule.dispatches);
        }
        if plan.precision != Precision::F32 {
            (0..plan.classes.len()).for_each(|class| write(&mut schedule, class, &pairs::widen));
            schedule.widen = std::mem::take(&mut schedule.dispatches);
            (0..plan.classes.len()).for_each(|class| write(&mut schedule, class, &pairs::round));
            schedule.round = std::mem::take(&mut schedule.dispatches);
        }
        if plan.observes {
            (0..plan.classes.len()).for_each(|class| write(&mut schedule, class, &observe::before));
            schedule.observe = std::mem::take(&mut schedule.dispatches);
            (0..plan.classes.len()).for_each(|class| write(&mut schedule, class, &observe::after));
            schedule.report = std::mem::take(&mut schedule.dispatches);
        }
        if plan.norms.is_some() {
            for class in 0..plan.classes.len() {
                write(&mut schedule, class, &guard::norm);
            }
            write(&mut schedule, 0, &guard::guard);
        }
        schedule.guarding = schedule.dispatches.len();
        for class in 0..plan.classes.len() {
            write(&mut schedule, class, &step);
        }
        schedule
    }

    /// The dispatches of a step that is observed.
    pub fn observed(&self) -> Vec<Dispatch> {
        let (guarding, rest) = self.dispatches.split_at(self.guarding);
        [guarding, &self.observe, rest, &self.report].concat()
    }

    /// The dispatches of steps, those that observe included.
    fn steps(&self) -> impl Iterator<Item = &Dispatch> {
        self.dispatches.iter().chain(&self.observe).chain(&self.report)
    }

    /// Every dispatch.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Dispatch> {
        self.accumulate.iter().chain(&self.widen).chain(&self.round).chain(self.steps())
    }

    /// The kinds of operands that dispatches over tensors of a class have.
    pub(crate) fn operands(&self, class: usize) -> Vec<Operands> {
        let mut all = Vec::new();
        for dispatch in self.steps().filter(|d| d.class == class && d.page.is_some()) {
            if !matches!(dispatch.operands, Operands::Workspaces(_)) && !all.contains(&dispatch.operands) {
                all.push(dispatch.operands);
            }
        }
        all
    }

    /// The orders in which dispatches use the workspaces.
    pub(crate) fn orders(&self) -> HashSet<[usize; 3]> {
        let order = |dispatch: &Dispatch| match dispatch.operands {
            Operands::Workspaces(order) => Some(order),
            _ => None,
        };
        self.dispatches.iter().filter_map(order).collect()
    }

    /// The dispatch over `count` workgroups, in two dimensions of at most `limit`.
    pub(crate) fn workgroups(count: u32, limit: u32) -> [u32; 3] {
        let x = count.min(limit);
        [x, count.div_ceil(x), 1]
    }

    /// Bytes that a step of one batch reads and writes in storage buffers, tables left out, summed over its dispatches: with as many
    /// candidates as are expected, and no bracket missed.
    pub fn bytes(&self) -> u64 {
        self.dispatches.iter().chain(&self.round).map(|d| d.bytes).sum()
    }
}

/// The stages of a class.
fn step(writer: &mut Writer<'_>) {
    if writer.base().is_matrix() {
        // Its pages share what they are orthogonalised in.
        return writer.by_page(&matrix::step);
    }
    if writer.base() == BaseKind::AdamwRows {
        let kernel = Kernel::RowMoments { access: writer.access() };
        let grad = writer.grad_bytes();
        writer.per_page(kernel, Over::Chunks, |share| guard::bytes(grad, share));
    }
    match writer.policy() {
        PolicyKind::Cautious => score::mask(writer),
        PolicyKind::Mgup | PolicyKind::MgupApproximate => select::sample(writer),
        _ => {}
    }
    stream::stream(writer);
    if writer.policy() == PolicyKind::Mgup {
        select::finish(writer);
        select::recount(writer);
    }
}

/// The workspace that directions are written to.
pub(crate) const DIRECTIONS: usize = 1;

/// What the second bind group of a dispatch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operands {
    /// Parameters, gradients and state.
    Tensors,
    /// Directions, gradients and state of a matrix base.
    Directions,
    /// The workspaces of this order: X, its successor and the polynomial are 0, 1 and 2.
    Workspaces([usize; 3]),
    /// Parameters, gradients and orthogonalised directions, which lie in this workspace.
    Orthogonal(usize),
    /// The sums of gradients, and gradients.
    Sums,
    /// Masters, and parameters.
    Masters,
}

/// What a dispatch has one workgroup for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// A chunk of the page.
    Chunks,
    /// A part of a piece of the page.
    Pieces,
    /// A part of a matrix of the page.
    Matrices,
    /// A tensor, or a workgroup of tensors, of the class.
    Tensors,
    /// The step.
    Once,
}

/// What lies in a page.
#[derive(Clone, Copy)]
struct Share {
    numel: u64,
    chunks: u64,
    /// Sampled coordinates.
    sampled: u64,
    /// Candidates, as many as are expected.
    candidates: u64,
}

/// What is the same for all dispatches of a class.
fn grid(plan: &Plan, class: usize, workgroups: u32) -> Grid {
    let Class { policy, ref pages, ref tensors, .. } = plan.classes[class];
    let pieces = plan.pages[pages.clone()].iter().map(|page| page.pieces.len());
    let most = pieces.chain([tensors.len()]).max().unwrap_or(0);
    let [launch_x, launch_y, _] = Schedule::workgroups(most as u32, workgroups);
    Grid {
        bounds: policy.bounds() as u32,
        norms: plan.norms.unwrap_or(0),
        launch: class as u32,
        launch_x,
        launch_y,
        ..Grid::default()
    }
}

/// Adds the dispatches of one class, or of one page of it.
struct Writer<'a> {
    plan: &'a Plan,
    class: usize,
    pages: Range<usize>,
    tensors: Range<usize>,
    /// What is the same for all dispatches of the class.
    grid: Grid,
    workgroups: u32,
    matmul: Matmul,
    schedule: &'a mut Schedule,
}

impl Writer<'_> {
    /// Page after page; no tensor is in two of them.
    fn by_page(&mut self, stage: &dyn Fn(&mut Writer<'_>)) {
        for page in self.pages.clone() {
            stage(&mut Writer {
                pages: page..page + 1,
                tensors: self.plan.pages[page].tensors.clone(),
                schedule: self.schedule,
                ..*self
            });
        }
    }

    fn base(&self) -> BaseKind {
        self.plan.classes[self.class].base
    }

    fn policy(&self) -> PolicyKind {
        self.plan.classes[self.class].policy
    }

    /// How kernels reach the tensors of arenas.
    fn access(&self) -> Access {
        Access { vectorized: true, gradients: self.plan.gradients, rates: self.plan.rates > 0 }
    }

    /// One dispatch a page; `bytes` of what lies in it.
    fn per_page(&mut self, kernel: Kernel, over: Over, bytes: impl Fn(Share) -> u64) {
        for p in self.pages.clone() {
            let page = &self.plan.pages[p];
            let range = if over == Over::Pieces { &page.pieces } else { &page.chunks };
            let grid = Grid { first: range.start, count: range.len() as u32, ..self.grid };
            self.push(kernel, Some(p), over, grid, grid.count, bytes(self.share(page)));
        }
    }

    /// One dispatch for all tensors of the class, with `per_tensor` workgroups each; bytes of each, and of all.
    fn per_tensor(&mut self, kernel: Kernel, per_tensor: f64, each: u64, all: u64) {
        let (first, count) = (self.tensors.start as u32, self.tensors.len() as u32);
        let grid = Grid { first, count, ..self.grid };
        let workgroups = (f64::from(count) * per_tensor).ceil() as u32;
        self.push(kernel, None, Over::Tensors, grid, workgroups, each * u64::from(count) + all);
    }

    /// A dispatch over the matrices of the page, `workgroups` for each, and their bytes.
    fn per_matrix(
        &mut self,
        kernel: Kernel,
        grid: Grid,
        workspaces: [usize; 3],
        workgroups: u64,
        bytes: u64,
    ) {
        let page = self.pages.start;
        let matrices = self.plan.pages[page].matrices.clone();
        let count = matrices.len() as u32;
        let grid = Grid { first: matrices.start, count, ..grid };
        self.push(kernel, Some(page), Over::Matrices, grid, 1, bytes * u64::from(count));
        let [x, z, _] = Schedule::workgroups(workgroups as u32, self.workgroups);
        let last = self.last();
        (last.operands, last.workgroups) = (Operands::Workspaces(workspaces), [x, count, z]);
    }

    /// Bytes of a gradient, as steps read it.
    fn grad_bytes(&self) -> u64 {
        self.plan.gradients.format.bytes()
    }

    fn last(&mut self) -> &mut Dispatch {
        self.schedule.dispatches.last_mut().expect("a dispatch was added")
    }

    fn last_grid(&mut self) -> &mut Grid {
        self.schedule.grids.last_mut().expect("a dispatch was added")
    }

    fn share(&self, page: &Page) -> Share {
        let mut share =
            Share { numel: page.numel, chunks: page.chunks.len() as u64, sampled: 0, candidates: 0 };
        for piece in &self.plan.chunks[page.pieces.start as usize..page.pieces.end as usize] {
            let tensor = &self.plan.tensors[piece.tensor as usize];
            if let (Some(sampling), 0) = (tensor.sampling, piece.part) {
                let part = f64::from(piece.len) / tensor.numel as f64;
                share.sampled += (part * sampling.coordinates() as f64) as u64;
                if self.policy() == PolicyKind::Mgup {
                    share.candidates += (part * sampling.expected(tensor.numel)) as u64;
                }
            }
        }
        share
    }

    /// Sampled coordinates of the class.
    fn sampled(&self) -> u64 {
        let tensors = &self.plan.tensors[self.tensors.clone()];
        tensors.iter().filter_map(|t| t.sampling).map(|sampling| sampling.coordinates()).sum()
    }

    /// A dispatch of one workgroup over all chunks of all classes.
    fn once(&mut self, kernel: Kernel, bytes_per_chunk: u64) {
        let count = self.plan.chunk_count();
        let grid = Grid { first: 0, count, ..self.grid };
        self.push(kernel, None, Over::Once, grid, 1, bytes_per_chunk * u64::from(count));
    }

    fn push(
        &mut self,
        kernel: Kernel,
        page: Option<usize>,
        over: Over,
        grid: Grid,
        workgroups: u32,
        bytes: u64,
    ) {
        self.schedule.grids.push(grid);
        self.schedule.dispatches.push(Dispatch {
            kernel,
            page,
            class: self.class,
            grid: self.schedule.grids.len() - 1,
            over,
            operands: if self.base().is_matrix() { Operands::Directions } else { Operands::Tensors },
            workgroups: Schedule::workgroups(workgroups, self.workgroups),
            bytes,
        });
    }
}
