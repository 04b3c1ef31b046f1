//! The structs that the host and the kernels share. Each is declared once, here, and becomes a Rust struct and its WGSL.

use bytemuck::NoUninit;
use encase::ShaderType;

use super::compact::wgsl;
use crate::recipe::base::NS_LIST;

/// Coefficients of Newton–Schulz, with a word of padding each.
pub(crate) type NsTriples = [[f32; 4]; NS_LIST];

/// Declares structs of words, and their WGSL. Comments go along. `as` gives WGSL another name or type, `+` one more member.
macro_rules! shared_structs {
    ($($(#[doc = $about:literal])* struct $name:ident as $wgsl_name:literal $(derive($($derived:path),*))? {
        $($(#[doc = $doc:literal])* $field:ident: $type:ident $(as $wgsl:literal)?,)*
    } $(+ $member:literal)?)*) => {
        $(
            $(#[doc = $about])*
            #[derive(Debug, Clone, Copy, PartialEq, Default, NoUninit, ShaderType)]
            $(#[derive($($derived),*)])?
            #[repr(C)]
            pub struct $name { $($(#[doc = $doc])* pub $field: $type,)* }

            impl $name {
                /// Its name in WGSL.
                pub const NAME: &str = $wgsl_name;
                /// Its fields, and where they begin, in bytes.
                pub const FIELDS: &[(&str, usize)] = &[$((stringify!($field), std::mem::offset_of!($name, $field))),*];
            }
        )*

        /// The structs in WGSL.
        pub(crate) const WGSL: &str = wgsl!(concat!($(
            $("//", $about, "\n",)*
            "struct ", $wgsl_name, " {\n",
            $($("    //", $doc, "\n",)* "    ", stringify!($field), ": ", shared_structs!(@wgsl $type $($wgsl)?), ",\n",)*
            $("    ", $member, ",\n",)?
            "}\n\n",
        )*));
    };
    (@wgsl $type:ident) => { stringify!($type) };
    (@wgsl $type:ident $wgsl:literal) => { $wgsl };
}

shared_structs! {
    /// What a dispatch works on.
    struct Grid as "Grid" derive(Eq, Hash) {
        /// First chunk, piece or tensor.
        first: u32,
        /// How many of them. Workgroups beyond have nothing to do.
        count: u32,
        /// The digit that a dispatch of the search after a miss counts, from 0; 6 in the one that corrects.
        digit: u32,
        /// Cuts that are taken from the sample: 2, or 1 for approximate selection.
        bounds: u32,
        /// Where the chunks' sums of squared gradients, or directions of a matrix base, begin among the counters.
        norms: u32,
        /// Where the sums of squared gradients of a matrix base begin, or of squared parameters under Adafactor. `norms` is of directions
        /// then.
        gradient_norms: u32,
        /// Rows of the matrices, m ≤ n.
        m: u32,
        /// Columns of the matrices.
        n: u32,
        /// Vectors of four from row to row of the left factor of a product.
        left_stride: u32,
        /// Vectors from matrix to matrix of the left factor.
        left_slot: u32,
        /// Vectors from matrix to matrix of the right factor.
        right_slot: u32,
        /// Vectors from matrix to matrix of the result.
        result_slot: u32,
        /// Vectors from row to row of an m × m matrix.
        gram_stride: u32,
        /// Vectors from one m × m matrix to the next.
        gram_slot: u32,
        /// Vectors that a product sums over.
        depth: u32,
        /// Where the records of what was observed begin.
        records: u32,
        /// 1 where these sums of rows or columns lie after a first set of sums.
        second_sums: u32,
        /// The iteration of Newton–Schulz, from 0; those that repeat the last coefficients have the number of the last.
        iteration: u32,
        /// Steps of a tensor before the average of its parameters begins.
        average_start: u32,
        /// Steps from one update of the average to the next.
        average_every: u32,
        /// The least weight of an update, as the bits of an f32: 1 − decay, or 0 for a mean.
        average_rest: u32,
        /// 1 where the weight of update n is at least 1 / n.
        average_warms: u32,
        /// The seed of stochastic rounding.
        seed: u32,
    }

    /// Consecutive coordinates of one tensor: a chunk; a piece, which is all of a tensor that lies in the page; or a matrix, which is all of a
    /// tensor. Places count coordinates and are multiples of 4.
    struct Chunk as "Chunk" derive(Eq, Hash) {
        /// First coordinate's place in the page: in the state and in the scratch.
        offset: u32,
        /// Coordinates.
        len: u32,
        /// First coordinate's index in the tensor.
        index: u32,
        /// The tensor.
        tensor: u32,
        /// Index of its step scalars, relative to the first that the dispatch binds.
        scalars: u32,
        /// First word of its bits in the page.
        mask: u32,
        /// First coordinate's place among the parameters.
        param: u32,
        /// First coordinate's place among the gradients.
        grad: u32,
        /// Which of the workgroups that share the piece; for a matrix, its slot in the workspaces.
        part: u32,
        /// How many workgroups share the piece.
        parts: u32,
        /// Coordinates of a row.
        row_len: u32,
        /// Where the states of the tensor's rows or columns begin.
        lines: u32,
    }

    /// The scalars of one step of one parameter group.
    struct Scalars as "Scalars" {
        /// Factor of φ u.
        step: f32,
        /// Factor of θ.
        decay: f32,
        /// β1, or μ of a matrix base.
        beta1: f32,
        /// 1 − β1.
        one_minus_beta1: f32,
        /// β2, or ν of a matrix base.
        beta2: f32,
        /// 1 − β2.
        one_minus_beta2: f32,
        /// ε.
        eps: f32,
        /// φ of selected coordinates.
        alpha: f32,
        /// φ of the others.
        gamma: f32,
        /// The norm to which gradients are clipped, or 0.
        max_grad_norm: f32,
        /// The step, from 1.
        t: u32,
        /// 1 where `cautious` normalizes by the count.
        count_normalizer: u32,
        /// The learning rate.
        lr: f32,
        /// The largest norm that counts, for AdaGO. Bound c of the rates of inputs, for NAMO-D. Largest RMS(u), for Adafactor.
        clip: f32,
        /// The smallest step, for AdaGO. The smallest RMS(θ), for Adafactor.
        min_step: f32,
        /// a₀, for AdaGO, AdaGrad and AdaGrad-Norm.
        accumulator_init: f32,
        /// Factor of the gradients.
        grad_scale: f32,
        /// Limit of the absolute value of gradients.
        max_grad_value: f32,
        /// ln β1, for bias corrections where steps may be skipped.
        ln_beta1: f32,
        /// ln β2.
        ln_beta2: f32,
        /// Which scalars the bias corrections apply to: step 1, decay 2, ε 4.
        corrects: u32,
        /// 1 where a gradient that is not finite skips the step.
        skips: u32,
        /// Factor of a loss scale that grows.
        growth: f32,
        /// Factor of a loss scale that shrinks.
        backoff: f32,
        /// Steps until the loss scale grows, 0 for one that stays.
        growth_interval: u32,
        /// λ of a weight decay that is a part of the gradient.
        penalty: f32,
        /// 1 where weight decay leaves out parameters that the step moves away from 0.
        cautious_decay: u32,
        /// Exponent of √v + ε. For schedule-free bases, exponent p of the largest learning rate in the weights of the average.
        power: f32,
        /// Share by which the learning rate shrinks per step, for AdaGrad. For schedule-free bases, exponent r of t in these weights.
        lr_decay: f32,
        /// Weight of the first part of a direction: the gradient of NAdam, the momentum of Adan. The bias correction of NAMO and NAMO-D.
        /// The tensor's `inverse_norm` for Adafactor and schedule-free bases.
        weight1: f32,
        /// Weight of the second part: the momentum of NAdam, the change of Adan. 1 if Adafactor scales steps by RMS(θ).
        weight2: f32,
        /// ψ ln 0.96 of NAdam, the exponent `decay_rate` of Adafactor.
        ln_momentum_decay: f32,
        /// 1 where a step of RAdam divides by √v + ε, or the learning rate of Adafactor is at most 1/√t.
        adaptive: u32,
        /// ρ of RAdam at the end.
        rho_end: f32,
        /// ρ at t = 0.
        rho_start: f32,
        /// β3 of Adan, μ₂ of NAMO and NAMO-D, β2 of NorMuon.
        beta3: f32,
        /// 1 − β3.
        one_minus_beta3: f32,
        /// ln β3.
        ln_beta3: f32,
        /// The largest 1 − β of mean and variance of MAdam; the least is `one_minus_beta2`.
        largest_rest: f32,
        /// The largest step, for NAMO.
        max_step: f32,
        /// Coefficients of the iterations of Newton–Schulz: of X, of X Xᵀ X, of its square. Custom bases store their hyper-parameters here instead. The field fills the alignment of a dynamic offset.
        ns: NsTriples as "array<vec4<f32>, 6>",
    }

    /// A place in the order of selection: after the keys above `key`, and those at `key` with an index below `limit`.
    struct Cut as "Cut" derive(Eq) {
        /// Key of a score.
        key: u32,
        /// Index of a coordinate.
        limit: u32,
    }

    /// What is known about one tensor: its top K, and what a matrix base keeps.
    struct Tensor as "Tensor" {
        /// How many coordinates are to be selected.
        k: u32,
        /// Coordinates.
        numel: u32,
        /// A number from its name, which makes its random bits differ from those of others.
        identity: u32,
        /// Its first chunk.
        first_chunk: u32,
        /// Where its bins begin among the counters.
        histogram: u32,
        /// Where the bins of the digits begin among the counters, in a search of many workgroups after a miss. 0 if one workgroup searches.
        search: u32,
        /// Where its sampled keys begin.
        sample: u32,
        /// Sectors in a stratum.
        stride: u32,
        /// Strata.
        strata: u32,
        /// Ranks in the sample between which the K-th largest is looked for: this one,
        rank_high: u32,
        /// and this one.
        rank_low: u32,
        /// Where its candidates begin among the counters.
        candidates: u32,
        /// How many candidates there may be.
        capacity: u32,
        /// Where the list of the candidates of one bin begins.
        list: u32,
        /// How many it may hold.
        list_capacity: u32,
        /// The step that sampled.
        t: u32,
        /// What lies before it is selected.
        high: Cut,
        /// What lies after it is not.
        low: Cut,
        /// The bin of the bracket that holds the K-th largest.
        boundary: i32,
        /// How many are still to be selected in that bin.
        remaining: u32,
        /// 1 if the bracket did not hold the K-th largest, or had too many candidates.
        missed: u32,
        /// The cut that the search after a miss has found, or the key of the last selected candidate.
        found: Cut,
        /// Candidates.
        inside: u32 as "atomic<u32>",
        /// Candidates of the bin at the boundary.
        listed: u32 as "atomic<u32>",
        /// Selected coordinates.
        selected: u32 as "atomic<u32>",
        /// 1 for a matrix of more rows than columns.
        tall: u32,
        /// 1 / (‖d‖ + 1e-7) for matrix bases; negative, of 2⁻⁹⁶ d, where ‖d‖² is beyond f32. 1 / √(mean of the rows' moments) for Adafactor.
        /// The weight of z in the average for schedule-free bases.
        inverse_norm: f32,
        /// Factor of the orthogonalized direction, or of the step.
        rate: f32,
        /// The first state per tensor: Σ n² of AdaGO, Σ ‖g‖² of AdaGrad-Norm, the average of squared norms of NAMO, the average of learning
        /// rates of LaMAdam, the sum of weights over the last of schedule-free bases.
        accumulator: f32,
        /// The second state per tensor: the largest learning rate so far of schedule-free bases.
        largest_lr: f32,
        /// Factor of the rate of a matrix that follows from its shape.
        scale: f32,
        /// Factor of the weight decay, where only the GPU knows it.
        decay: f32,
        /// Where the sums of its rows and columns begin among the counters. Factors of rows or columns replace the sums later.
        lines: u32,
        /// 1 where squares are summed per row, or rows have factors.
        sums_rows: u32,
        /// 1 where squares are summed per column, or columns have factors.
        sums_columns: u32,
        /// Steps that it was to take and did not.
        skipped: u32,
        /// Components that have a factor of the learning rate each.
        components: u32,
        /// Where these factors begin.
        rates: u32,
        /// 1 once its master holds its values, where it is stored in two bytes.
        mastered: u32,
        /// The step that began the average of its parameters; 0 before.
        averaged: u32,
    }

    /// What is known about all tensors, before what is known about each.
    struct Header as "Tensors" {
        /// What the loss is multiplied by; first, so that it can be bound alone.
        loss_scale: f32,
        /// The gradients' norm over all tensors of the step, before it is clipped.
        grad_norm: f32,
        /// What the gradients are multiplied by to clip it.
        norm_factor: f32,
        /// 1 / loss_scale in this step.
        unscale: f32,
        /// 1 if this step changes nothing.
        skip: u32,
        /// Steps that changed nothing.
        skipped: u32,
        /// Steps since the loss scale changed.
        grown: u32,
        /// The first tensor with a gradient that is not finite, or 0xffffffff.
        broken: u32,
        /// What the gradients of a micro-batch are multiplied by as they are added up.
        weight: f32,
    } + "each: array<Tensor>"
}

/// The rows of a tensor that is resized, as `shaders/transfer/gather.wgsl` reads them.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub(crate) struct ResizedRows {
    pub count: u32,
    pub words: u32,
    pub count_before: u32,
    pub is_state: u32,
}

/// Bytes of the header, before the tensors.
pub(crate) const HEADER_BYTES: u64 = size_of::<Header>() as u64;
/// Bytes of a tensor's entry.
pub(crate) const TENSOR_BYTES: u64 = size_of::<Tensor>() as u64;
/// Distance of two scalars, or of two grids: the alignment of dynamic offsets.
pub(crate) const STRIDE: u64 = 256;

/// Bytes of a slice of structs, as a storage buffer holds them.
pub(crate) fn table<T: NoUninit>(rows: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(rows).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_lie_in_wgsl_as_in_rust() {
        let module = naga::front::wgsl::parse_str(WGSL).unwrap();
        let check = |name: &str, fields: &[(&str, usize)], bytes: usize, encased: u64| {
            let (_, ty) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name)).expect(name);
            let naga::TypeInner::Struct { members, .. } = &ty.inner else { panic!("{name} is not a struct") };
            let of = |member: &naga::StructMember| (member.name.clone().unwrap(), member.offset as usize);
            let members: Vec<_> = members.iter().map(of).collect();
            let fields: Vec<_> = fields.iter().map(|&(name, offset)| (name.to_owned(), offset)).collect();
            assert_eq!(members[..fields.len()], fields, "{name}");
            assert!(members.get(fields.len()).is_none_or(|(_, offset)| *offset == bytes), "{name}");
            assert_eq!(encased, bytes as u64, "{name}");
        };
        macro_rules! check {
            ($($type:ident)*) => { $(check($type::NAME, $type::FIELDS, size_of::<$type>(), $type::min_size().get());)* };
        }
        check!(Grid Chunk Scalars Cut Tensor Header);
        let (_, scalars) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Scalars")).unwrap();
        assert_eq!(u64::from(scalars.inner.size(module.to_ctx())), STRIDE);
    }
}
