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
//! Clipping the gradients' norm puts norm and clip_factor before all others.

mod clip;
mod score;
mod select;
mod stream;

use crate::kernel::{Access, Grid, Kernel};
use crate::plan::{BaseKind, Page, Plan, PolicyKind};

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
    /// Workgroups in two dimensions.
    pub workgroups: [u32; 2],
    /// Bytes that it reads and writes in storage buffers, tables left out.
    pub bytes: u64,
}

/// What a step does: its dispatches in order.
///
/// With the caller's buffers, a dispatch that touches parameters or gradients is repeated for each pair of buffers that
/// they lie in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The dispatches.
    pub dispatches: Vec<Dispatch>,
    /// What each of them works on.
    pub grids: Vec<Grid>,
}

impl Schedule {
    /// The dispatches of a step over all tensors of a plan, where a dimension of a dispatch has at most `workgroups`.
    pub fn new(plan: &Plan, workgroups: u32) -> Self {
        let mut schedule = Self { dispatches: Vec::new(), grids: Vec::new() };
        if plan.norms.is_some() {
            for class in 0..plan.classes.len() {
                clip::norm(&mut Writer { plan, class, workgroups, schedule: &mut schedule });
            }
            clip::factor(&mut Writer { plan, class: 0, workgroups, schedule: &mut schedule });
        }
        for class in 0..plan.classes.len() {
            let mut writer = Writer { plan, class, workgroups, schedule: &mut schedule };
            match writer.policy() {
                PolicyKind::Cautious => score::mask(&mut writer),
                PolicyKind::Mgup | PolicyKind::MgupApproximate => select::sample(&mut writer),
                _ => {}
            }
            stream::stream(&mut writer);
            if writer.policy() == PolicyKind::Mgup {
                select::finish(&mut writer);
                select::recount(&mut writer);
            }
        }
        schedule
    }

    /// The dispatch over `count` workgroups, in two dimensions of at most `limit`.
    pub(crate) fn workgroups(count: u32, limit: u32) -> [u32; 2] {
        let x = count.min(limit);
        [x, count.div_ceil(x)]
    }

    /// Bytes that a step reads and writes in storage buffers, tables left out, summed over its dispatches: with as many
    /// candidates as are expected, and no bracket missed.
    pub fn bytes(&self) -> u64 {
        self.dispatches.iter().map(|d| d.bytes).sum()
    }
}

/// What a dispatch has one workgroup for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// A chunk of the page.
    Chunks,
    /// A part of a piece of the page.
    Pieces,
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

/// Adds the dispatches of one class.
struct Writer<'a> {
    plan: &'a Plan,
    class: usize,
    workgroups: u32,
    schedule: &'a mut Schedule,
}

impl Writer<'_> {
    fn base(&self) -> BaseKind {
        self.plan.classes[self.class].base
    }

    fn policy(&self) -> PolicyKind {
        self.plan.classes[self.class].policy
    }

    /// How kernels reach the tensors of arenas.
    fn access(&self) -> Access {
        Access { vectorized: true, clipped: self.plan.norms.is_some() }
    }

    /// One dispatch a page; `bytes` of what lies in it.
    fn per_page(&mut self, kernel: Kernel, over: Over, bytes: impl Fn(Share) -> u64) {
        for p in self.plan.classes[self.class].pages.clone() {
            let page = &self.plan.pages[p];
            let range = if over == Over::Pieces { &page.pieces } else { &page.chunks };
            let grid = Grid { first: range.start, count: range.len() as u32, ..self.grid() };
            self.push(kernel, Some(p), over, grid, grid.count, bytes(self.share(page)));
        }
    }

    /// One dispatch for all tensors of the class, with `per_tensor` workgroups each; bytes of each, and of all.
    fn per_tensor(&mut self, kernel: Kernel, per_tensor: f64, each: u64, all: u64) {
        let tensors = &self.plan.classes[self.class].tensors;
        let (first, count) = (tensors.start as u32, tensors.len() as u32);
        let grid = Grid { first, count, ..self.grid() };
        let workgroups = (f64::from(count) * per_tensor).ceil() as u32;
        self.push(kernel, None, Over::Tensors, grid, workgroups, each * u64::from(count) + all);
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
        let tensors = &self.plan.tensors[self.plan.classes[self.class].tensors.clone()];
        tensors.iter().filter_map(|t| t.sampling).map(|sampling| sampling.coordinates()).sum()
    }

    /// A dispatch of one workgroup over all chunks of all classes.
    fn once(&mut self, kernel: Kernel, bytes_per_chunk: u64) {
        let count = self.plan.tensors[self.plan.tensors.len() - 1].chunks.end;
        let grid = Grid { first: 0, count, ..self.grid() };
        self.push(kernel, None, Over::Once, grid, 1, bytes_per_chunk * u64::from(count));
    }

    /// What is the same for all dispatches.
    fn grid(&self) -> Grid {
        let class = &self.plan.classes[self.class];
        let pages = self.plan.pages[class.pages.clone()].iter().map(|page| page.pieces.len());
        let most = pages.chain([class.tensors.len()]).max().unwrap_or(0);
        let [launch_x, launch_y] = Schedule::workgroups(most as u32, self.workgroups);
        Grid {
            first: 0,
            count: 0,
            correct: 0,
            bounds: self.policy().bounds() as u32,
            norms: self.plan.norms.unwrap_or(0),
            launch: self.class as u32,
            launch_x,
            launch_y,
        }
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
            workgroups: Schedule::workgroups(workgroups, self.workgroups),
            bytes,
        });
    }
}
