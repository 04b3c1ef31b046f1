//! A step of matrices of one shape, as many as are orthogonalised side by side: their directions, with the mask of the update
//! policy; Newton–Schulz; the step.
//!
//! ```text
//! X ← d / ‖d‖ ;  ns_steps times: A = X Xᵀ ;  B = a I + b A + c A Aᵀ ;  X ← B X
//! ```
//!
//! Three workspaces are enough: X, its successor, where A lies before, and B. Of wide matrices the polynomials of up to three
//! steps are multiplied first, Q ← B Q and A ← B A B, all of them symmetric, which takes two more of the size of A:
//! `X ← Q X` is the only product with X besides X Xᵀ then (Gram Newton–Schulz).

use super::{Operands, Over, Share, Writer, guard, select};
use crate::guard::Gradients;
use crate::kernel::{Access, Grid, Kernel, Measured};
use crate::matrix::{Matmul, Shape, triangle};
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
    let grad = writer.grad_bytes();
    if base == BaseKind::Adago {
        writer.per_page(Kernel::Norm { base, access, of: Measured::Clipped }, Over::Chunks, |share| {
            guard::bytes(grad, share)
        });
        writer.last_grid().norms = writer.plan.matrix_norms[1];
    }
    match policy {
        PolicyKind::Cautious => writer.per_tensor(Kernel::Prepare, 1.0 / WORKGROUP as f64, 0, 0),
        PolicyKind::Mgup | PolicyKind::MgupApproximate => select::sample(writer),
        _ => {}
    }
    // Reads g and the momentum; writes the momentum, the direction and the mask.
    let bytes = |share: Share| {
        (12 + grad) * share.numel
            + policy.bits_bytes(base) * share.chunks
            + (select::CANDIDATE + 8) * share.candidates
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
    let access = Access { vectorized: true, gradients: Gradients::default(), rates: false };
    let norm = Kernel::Norm { base, access, of: Measured::Directions };
    writer.per_page(norm, Over::Chunks, |share| guard::bytes(4, share));
    writer.last().operands = Operands::Workspaces([0, 1, 2]);
    writer.last_grid().norms = writer.plan.matrix_norms[0];

    let vectors = (shape.m.next_multiple_of(4)) * shape.n.div_ceil(4);
    let grid = Grid {
        norms: writer.plan.matrix_norms[0],
        gradient_norms: writer.plan.matrix_norms[1],
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
    let skips = writer.plan.gradients.skips;
    writer.per_matrix(Kernel::Measure { base, skips }, grid, [0, 1, 2], 1, 0);
    writer.per_matrix(Kernel::Enter, grid, [0, 1, 2], vectors.div_ceil(LANES), 2 * own);
    let mut products = Products { writer: &mut *writer, matmul, shape, grid, own, gram };
    let (mut x, mut next) = (0, 1);
    // Wide matrices are left alone until their polynomial is known. Rounding would grow if it were put off for long.
    let at_once = if shape.is_wide() { 3 } else { 1 };
    let mut left = steps;
    while left > 0 {
        let polynomial = products.polynomial(x, next, left.min(at_once));
        products.advance([x, next, polynomial]);
        (x, next) = (next, x);
        left -= left.min(at_once);
    }
    writer.per_matrix(Kernel::Leave, grid, [x, next, 2], vectors.div_ceil(LANES), 2 * own);
    next
}

/// Adds the products of Newton–Schulz.
struct Products<'w, 'p> {
    writer: &'w mut Writer<'p>,
    matmul: Matmul,
    shape: Shape,
    /// Of X Xᵀ.
    grid: Grid,
    /// Bytes of an X, and of an X Xᵀ.
    own: u64,
    gram: u64,
}

impl Products<'_, '_> {
    /// X Xᵀ, where the successor of X will be, and then the product of the polynomials of so many steps; returns its
    /// workspace.
    fn polynomial(&mut self, x: usize, a: usize, steps: u32) -> usize {
        let products = self.matmul.gram_workgroups(self.shape);
        let kernel = Kernel::Gram { matmul: self.matmul };
        self.writer.per_matrix(kernel, self.grid, [x, a, 2], products, self.own + self.gram / 2);
        self.mirror(self.grid, [x, a, 2]);
        let (mut all, mut free) = if steps == 1 { (2, 3) } else { (3, 4) };
        for step in 0..steps {
            // The first is the product so far.
            let p = if step == 0 { all } else { 2 };
            let polynomial = Grid {
                left_stride: self.grid.gram_stride,
                result_slot: self.grid.gram_slot,
                depth: self.shape.m.div_ceil(4) as u32,
                polynomial: 1,
                ..self.grid
            };
            self.writer.per_matrix(kernel, polynomial, [a, p, x], products, self.gram + self.gram / 2);
            self.mirror(polynomial, [a, p, x]);
            if step > 0 {
                self.product(p, all, free, a);
                (all, free) = (free, all);
            }
            if step + 1 < steps {
                // X Xᵀ of the next step is P X Xᵀ P.
                self.product(p, a, free, a);
                self.product(free, p, a, a);
            }
        }
        all
    }

    /// The product of two m × m matrices that commute; `a` lies in the slots of an X.
    fn product(&mut self, left: usize, right: usize, result: usize, a: usize) {
        let slot = |workspace: usize| {
            if workspace == a { self.grid.right_slot } else { self.grid.gram_slot }
        };
        let grid = Grid {
            left_stride: self.grid.gram_stride,
            left_slot: slot(left),
            right_slot: slot(right),
            result_slot: slot(result),
            depth: self.shape.m.div_ceil(4) as u32,
            ..self.grid
        };
        let (kernel, order) = (Kernel::Product { matmul: self.matmul }, [left, result, right]);
        let products = self.matmul.gram_workgroups(self.shape);
        self.writer.per_matrix(kernel, grid, order, products, 2 * self.gram + self.gram / 2);
        self.mirror(grid, order);
    }

    fn mirror(&mut self, grid: Grid, order: [usize; 3]) {
        let tiles = triangle(self.shape.m.div_ceil(4));
        let bytes = if grid.polynomial == 1 { 2 * self.gram } else { self.gram };
        self.writer.per_matrix(Kernel::Mirror, grid, order, tiles.div_ceil(LANES), bytes);
    }

    fn advance(&mut self, order: [usize; 3]) {
        let products = self.matmul.advance_workgroups(self.shape);
        let kernel = Kernel::Advance { matmul: self.matmul };
        self.writer.per_matrix(kernel, self.grid, order, products, 2 * self.own + self.gram);
    }
}
