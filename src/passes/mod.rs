//! The stages of a step. Each file adds its dispatches to a [`Schedule`], and nothing else.
//!
//! | policy | dispatches |
//! |---|---|
//! | plain, cautious_mgup, grams | stream |
//! | cautious | prepare, score_mask, stream |
//! | mgup, approximate | prepare, score_keys, scan_nearest, stream |
//! | mgup, exact | prepare, score_keys, 3 × scan with 2 × histogram between, ties, locate, stream |

mod score;
mod select;
mod stream;

use crate::kernel::{Grid, Kernel};
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
    /// Workgroups in two dimensions.
    pub workgroups: [u32; 2],
    /// Bytes that it reads and writes in storage buffers, tables left out.
    pub bytes: u64,
}

/// What a step does: its dispatches in order.
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

    /// Bytes that a step reads and writes in storage buffers, tables left out, summed over its dispatches. A selection
    /// that is decided early skips some of them.
    pub fn bytes(&self) -> u64 {
        self.dispatches.iter().map(|d| d.bytes).sum()
    }
}

/// What a dispatch has one workgroup for.
#[derive(Clone, Copy)]
enum Over {
    /// A chunk of the page.
    Chunks,
    /// A span of the page.
    Spans,
    /// A tensor that has a chunk in the page.
    PageTensors,
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

    /// One dispatch a page, of a kernel that may depend on whether the page is vectorized; `bytes` of a page's
    /// coordinates and chunks.
    fn per_page(
        &mut self,
        kernel: impl Fn(bool) -> Kernel,
        digit: u32,
        over: Over,
        bytes: impl Fn(u64, u64) -> u64,
    ) {
        for p in self.plan.classes[self.class].pages.clone() {
            let page = &self.plan.pages[p];
            let range = match over {
                Over::Chunks => page.chunks.clone(),
                Over::Spans => page.spans.clone(),
                Over::PageTensors => page.tensors.start as u32..page.tensors.end as u32,
            };
            let grid = Grid {
                first: range.start,
                count: range.len() as u32,
                digit,
                first_chunk: page.chunks.start,
                chunk_count: page.chunks.len() as u32,
                ties: self.plan.ties(),
            };
            let (kernel, bytes) = (kernel(page.vectorized), bytes(page.numel, page.chunks.len() as u64));
            self.push(kernel, Some(p), grid, grid.count, bytes);
        }
    }

    /// One dispatch for all tensors of the class, with `lanes` tensors a workgroup.
    fn per_tensor(&mut self, kernel: Kernel, digit: u32, lanes: u32, bytes_per_tensor: u64) {
        let tensors = &self.plan.classes[self.class].tensors;
        let (first, count) = (tensors.start as u32, tensors.len() as u32);
        let grid = Grid { first, count, digit, first_chunk: 0, chunk_count: 0, ties: self.plan.ties() };
        self.push(kernel, None, grid, count.div_ceil(lanes), bytes_per_tensor * u64::from(count));
    }

    fn push(&mut self, kernel: Kernel, page: Option<usize>, grid: Grid, workgroups: u32, bytes: u64) {
        self.schedule.grids.push(grid);
        let x = workgroups.min(self.workgroups);
        self.schedule.dispatches.push(Dispatch {
            kernel,
            page,
            class: self.class,
            grid: self.schedule.grids.len() - 1,
            workgroups: [x, workgroups.div_ceil(x)],
            bytes,
        });
    }
}
