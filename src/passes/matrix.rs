//! A step of matrices of one shape, as many as are orthogonalised side by side: their directions, with the mask of the update
//! policy; Newton–Schulz; the step.
//!
//! ```text
//! X ← d / ‖d‖ ;  ns_steps times: A = X Xᵀ ;  B = a I + b A + c A Aᵀ ;  X ← B X
//! ```
//!
//! Three workspaces are enough: X, its successor, where A lies before, and B.

use super::{Operands, Over, Share, Writer, clip, select};
use crate::kernel::{Access, Grid, Kernel};
use crate::matrix::triangle;
use crate::plan::{BaseKind, Matrices, PolicyKind, WORKGROUP};

/// Invocations of the kernels that copy.
const LANES: u64 = 64;

pub(super) fn step(writer: &mut Writer<'_>) {
    directions(writer);
    let result = orthogonalize(writer);
    let (base, access, policy) = (writer.base(), writer.access(), writer.policy());
    let bytes = |share: Share| 12 * share.numel + policy.bits_bytes(base) * share.chunks;
    writer.per_page(Kernel::Stream { base, policy, access }, Over::Chunks, bytes);
    writer.last().operands = Operands::Orthogonal(result);
}

fn directions(writer: &mut Writer<'_>) {
    let (base, access, policy) = (writer.base(), writer.access(), writer.policy());
    if base == BaseKind::Adago {
        writer.per_page(Kernel::Norm { base, access }, Over::Chunks, clip::bytes);
        writer.last_grid().norms = writer.plan.matrix_norms[1];
    }
    match policy {
        PolicyKind::Cautious => writer.per_tensor(Kernel::Prepare, 1.0 / WORKGROUP as f64, 0, 0),
        PolicyKind::Mgup | PolicyKind::MgupApproximate => select::sample(writer),
        _ => {}
    }
    // Reads g and the momentum; writes the momentum, the direction and the mask.
    let bytes = |share: Share| {
        16 * share.numel + policy.bits_bytes(base) * share.chunks + (select::CANDIDATE + 8) * share.candidates
    };
    let kernel = match policy {
        PolicyKind::Mgup => Kernel::StreamExact { base, access },
        PolicyKind::MgupSmall => Kernel::Small { base, access },
        _ => Kernel::Direct { base, policy, access },
    };
    writer.per_page(kernel, Over::Chunks, bytes);
    if policy == PolicyKind::Mgup {
        select::finish(writer);
        select::recount(writer);
    }
}

/// Returns the workspace that the orthogonalised directions lie in, as their tensors do.
fn orthogonalize(writer: &mut Writer<'_>) -> usize {
    let (base, matmul) = (writer.base(), writer.matmul);
    let class = &writer.plan.classes[writer.class];
    let Matrices { shape, steps } = class.matrices.expect("a matrix base has matrices");
    let norm = Kernel::Norm { base, access: Access { vectorized: true, clipped: false } };
    writer.per_page(norm, Over::Chunks, clip::bytes);
    writer.last().operands = Operands::Workspaces([0, 1, 2]);
    writer.last_grid().norms = writer.plan.matrix_norms[0];

    let vectors = (shape.m.next_multiple_of(4)) * shape.n.div_ceil(4);
    let tiles = triangle(shape.m.div_ceil(4));
    let grid = Grid {
        norms: writer.plan.matrix_norms[0],
        gradient_norms: writer.plan.matrix_norms[1],
        m: shape.m as u32,
        n: shape.n as u32,
        left_stride: shape.stride() as u32,
        left_slot: shape.slot() as u32,
        result_slot: shape.slot() as u32,
        gram_stride: shape.gram_stride() as u32,
        gram_slot: shape.gram_slot() as u32,
        depth: shape.n.div_ceil(4) as u32,
        ..writer.grid()
    };
    let polynomial = Grid {
        left_stride: grid.gram_stride,
        result_slot: grid.gram_slot,
        depth: shape.m.div_ceil(4) as u32,
        polynomial: 1,
        ..grid
    };
    let (own, gram) = (16 * vectors, 16 * shape.gram_slot());
    let clipped = writer.plan.norms.is_some();
    writer.per_matrix(Kernel::Measure { base, clipped }, grid, [0, 1, 2], 1, 0);
    writer.per_matrix(Kernel::Enter, grid, [0, 1, 2], vectors.div_ceil(LANES), 2 * own);
    let (mut x, mut next) = (0, 1);
    for _ in 0..steps {
        let products = matmul.gram_workgroups(shape);
        writer.per_matrix(Kernel::Gram { matmul }, grid, [x, next, 2], products, own + gram / 2);
        writer.per_matrix(Kernel::Mirror, grid, [x, next, 2], tiles.div_ceil(LANES), gram);
        writer.per_matrix(Kernel::Gram { matmul }, polynomial, [next, 2, x], products, gram + gram / 2);
        writer.per_matrix(Kernel::Mirror, polynomial, [next, 2, x], tiles.div_ceil(LANES), 2 * gram);
        let products = matmul.advance_workgroups(shape);
        writer.per_matrix(Kernel::Advance { matmul }, grid, [x, next, 2], products, 2 * own + gram);
        (x, next) = (next, x);
    }
    writer.per_matrix(Kernel::Leave, grid, [x, next, 2], vectors.div_ceil(LANES), 2 * own);
    next
}
