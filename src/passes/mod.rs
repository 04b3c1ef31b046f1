//! The stages of a step. Each file adds its dispatches to a plan, and nothing else.
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

use crate::plan::{BaseKind, Dispatch, Grid, Kernel, Plan, PlanLimits, PolicyKind};

/// Adds the dispatches of a class.
pub(crate) fn schedule(plan: &mut Plan, class: usize, limits: PlanLimits) {
    let mut schedule = Schedule { plan, class, limits };
    match schedule.policy() {
        PolicyKind::Plain | PolicyKind::CautiousMgup | PolicyKind::Grams => {}
        PolicyKind::Cautious => {
            select::prepare(&mut schedule);
            score::mask(&mut schedule);
        }
        PolicyKind::MgupApproximate => {
            select::prepare(&mut schedule);
            score::keys(&mut schedule);
            select::nearest(&mut schedule);
        }
        PolicyKind::Mgup => {
            select::prepare(&mut schedule);
            score::keys(&mut schedule);
            select::exact(&mut schedule);
        }
    }
    stream::stream(&mut schedule);
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

/// Writes dispatches of one class into its plan.
struct Schedule<'a> {
    plan: &'a mut Plan,
    class: usize,
    limits: PlanLimits,
}

impl Schedule<'_> {
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
        self.plan.grids.push(grid);
        let x = workgroups.min(self.limits.workgroups);
        self.plan.dispatches.push(Dispatch {
            kernel,
            page,
            class: self.class,
            grid: self.plan.grids.len() - 1,
            workgroups: [x, workgroups.div_ceil(x)],
            bytes,
        });
    }
}
