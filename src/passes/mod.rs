//! The stages of a step. Each file adds its dispatches to a [`Schedule`], and nothing else.
//!
//! | policy | dispatches |
//! |---|---|
//! | plain, cautious_mgup, grams | stream |
//! | cautious | prepare, score_mask, stream |
//! | mgup, approximate | prepare, score_keys, scan_nearest, stream |
//! | mgup, exact | prepare, score_keys, 3 × scan with 2 × histogram between, ties, locate, stream |
//!
//! Clipping the gradients' norm puts norm and clip_factor before all others.

mod clip;
mod score;
mod select;
mod stream;

use crate::kernel::{Access, Grid, Kernel};
use crate::plan::{BaseKind, Plan, PolicyKind};

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
                PolicyKind::Plain | PolicyKind::CautiousMgup | PolicyKind::Grams => {}
                PolicyKind::Cautious => {
                    select::prepare(&mut writer);
                    score::mask(&mut writer);
                }
                PolicyKind::MgupApproximate => {
                    select::prepare(&mut writer);
                    score::keys(&mut writer);
                    select::nearest(&mut writer);
                }
                PolicyKind::Mgup => {
                    select::prepare(&mut writer);
                    score::keys(&mut writer);
                    select::exact(&mut writer);
                }
            }
            stream::stream(&mut writer);
        }
        schedule
    }

    /// The dispatch over `count` workgroups, in two dimensions of at most `limit`.
    pub(crate) fn workgroups(count: u32, limit: u32) -> [u32; 2] {
        let x = count.min(limit);
        [x, count.div_ceil(x)]
    }

    /// Bytes that a step reads and writes in storage buffers, tables left out, summed over its dispatches. A selection
    /// that is decided early skips some of them.
    pub fn bytes(&self) -> u64 {
        self.dispatches.iter().map(|d| d.bytes).sum()
    }
}

/// What a dispatch has one workgroup for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// A chunk of the page.
    Chunks,
    /// A span of the page.
    Spans,
    /// A tensor that has a chunk in the page.
    PageTensors,
    /// A tensor, or a workgroup of tensors, of the class.
    Tensors,
    /// The step.
    Once,
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

    /// One dispatch a page; `bytes` of a page's coordinates and chunks.
    fn per_page(&mut self, kernel: Kernel, digit: u32, over: Over, bytes: impl Fn(u64, u64) -> u64) {
        for p in self.plan.classes[self.class].pages.clone() {
            let page = &self.plan.pages[p];
            let range = match over {
                Over::Spans => page.spans.clone(),
                Over::PageTensors => page.tensors.start as u32..page.tensors.end as u32,
                _ => page.chunks.clone(),
            };
            let grid = Grid {
                first: range.start,
                count: range.len() as u32,
                digit,
                first_chunk: page.chunks.start,
                chunk_count: page.chunks.len() as u32,
                ..self.grid()
            };
            let bytes = bytes(page.numel, page.chunks.len() as u64);
            self.push(kernel, Some(p), over, grid, grid.count, bytes);
        }
    }

    /// One dispatch for all tensors of the class, with `lanes` tensors a workgroup.
    fn per_tensor(&mut self, kernel: Kernel, digit: u32, lanes: u32, bytes_per_tensor: u64) {
        let tensors = &self.plan.classes[self.class].tensors;
        let (first, count) = (tensors.start as u32, tensors.len() as u32);
        let grid = Grid { first, count, digit, ..self.grid() };
        let bytes = bytes_per_tensor * u64::from(count);
        self.push(kernel, None, Over::Tensors, grid, count.div_ceil(lanes), bytes);
    }

    /// A dispatch of one workgroup over all chunks of all classes.
    fn once(&mut self, kernel: Kernel, bytes_per_chunk: u64) {
        let count = self.plan.tensors[self.plan.tensors.len() - 1].chunks.end;
        let grid = Grid { first: 0, count, ..self.grid() };
        self.push(kernel, None, Over::Once, grid, 1, bytes_per_chunk * u64::from(count));
    }

    /// What is the same for all dispatches.
    fn grid(&self) -> Grid {
        Grid {
            first: 0,
            count: 0,
            digit: 0,
            first_chunk: 0,
            chunk_count: 0,
            ties: self.plan.ties,
            norms: self.plan.norms.unwrap_or(0),
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
