//! WGSL text → pipelines; bind group layouts; the structs that kernels read.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU64;

use encase::ShaderType;

use crate::passes::Schedule;
use crate::plan::{BaseKind, Chunk, Ownership, Plan, PolicyKind, ROWS};
use crate::policy::{Normalizer, Policy};
use crate::recipe::Recipe;

/// The scalars of one step of one group, as the kernels read them.
#[derive(Debug, Clone, Copy, PartialEq, ShaderType)]
pub(crate) struct Row {
    pub step: f32,
    pub decay: f32,
    pub beta1: f32,
    pub one_minus_beta1: f32,
    pub beta2: f32,
    pub one_minus_beta2: f32,
    pub eps: f32,
    pub alpha: f32,
    pub gamma: f32,
    pub max_grad_norm: f32,
    pub t: u32,
    // A row is as long as the alignment of a dynamic offset, so that a dispatch can begin at any row.
    #[shader(size(212))]
    pub count_normalizer: u32,
}

/// What a dispatch works on, as the kernels read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ShaderType)]
pub struct Grid {
    /// First chunk, piece or tensor.
    pub first: u32,
    /// How many of them.
    pub count: u32,
    /// 1 in the last dispatch of the selection by full histograms.
    pub correct: u32,
    /// Cuts that are taken from the sample.
    pub bounds: u32,
    /// Where the chunks' sums of squared gradients begin among the counters.
    pub norms: u32,
    /// Which of the launches is for tensors whose bracket missed: the class.
    pub launch: u32,
    /// Its workgroups.
    pub launch_x: u32,
    /// Its workgroups, second dimension.
    pub launch_y: u32,
}

/// A place in the order of selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ShaderType)]
pub(crate) struct Cut {
    pub key: u32,
    pub limit: u32,
}

/// Top-K of one tensor, as the kernels keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ShaderType)]
pub(crate) struct Selection {
    pub k: u32,
    pub numel: u32,
    pub first_chunk: u32,
    pub histogram: u32,
    pub sample: u32,
    pub stride: u32,
    pub strata: u32,
    pub rank_high: u32,
    pub rank_low: u32,
    pub candidates: u32,
    pub capacity: u32,
    pub list: u32,
    pub list_capacity: u32,
    pub t: u32,
    pub high: Cut,
    pub low: Cut,
    pub boundary: i32,
    pub remaining: u32,
    pub missed: u32,
    pub open: u32,
    pub found: Cut,
    pub inside: u32,
    pub listed: u32,
    pub selected: u32,
}

/// Bytes before the selections in `Tensors`.
pub(crate) const TENSORS_HEADER: u64 = 8;

/// Distance of two rows, or of two grids: the alignment of dynamic offsets.
pub(crate) const STRIDE: u64 = 256;

impl Row {
    pub(crate) fn new(recipe: &Recipe, t: u64, max_grad_norm: Option<f64>) -> Self {
        let scalars = recipe.base.scalars(t);
        let (alpha, gamma) = recipe.policy.factors();
        let count = matches!(recipe.policy, Policy::Cautious(c) if c.normalizer == Normalizer::Count);
        Self {
            step: scalars.step as f32,
            decay: scalars.decay as f32,
            beta1: scalars.betas[0] as f32,
            one_minus_beta1: (1.0 - scalars.betas[0]) as f32,
            beta2: scalars.betas[1] as f32,
            one_minus_beta2: (1.0 - scalars.betas[1]) as f32,
            eps: scalars.eps as f32,
            alpha: alpha as f32,
            gamma: gamma as f32,
            max_grad_norm: max_grad_norm.unwrap_or(f64::INFINITY) as f32,
            t: t as u32,
            count_normalizer: u32::from(count),
        }
    }
}

/// How kernels reach parameters and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Access {
    /// Four at a time; one at a time where what lies behind the last coordinate is not ours.
    pub vectorized: bool,
    /// Whether gradients are scaled to clip their norm.
    pub clipped: bool,
}

/// A kernel: an entry point, put together with the base, the policy and the way to reach tensors that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // each is a file in shaders/ that opens with what it computes
pub enum Kernel {
    Norm { base: BaseKind, access: Access },
    Clip,
    Prepare,
    ScoreMask { base: BaseKind, access: Access },
    Sample { base: BaseKind, access: Access },
    RankSample,
    Stream { base: BaseKind, policy: PolicyKind, access: Access },
    StreamExact { base: BaseKind, access: Access },
    Prove,
    Repair { base: BaseKind },
    Settle { base: BaseKind },
    Recount { base: BaseKind, access: Access },
    ScanBins,
    Small { base: BaseKind, access: Access },
}

macro_rules! shader {
    ($path:literal) => {
        include_str!(concat!("../shaders/", $path))
    };
}

impl Kernel {
    /// The name of the entry point.
    pub fn entry_point(self) -> &'static str {
        match self {
            Kernel::Norm { .. } => "norm",
            Kernel::Clip => "clip_factor",
            Kernel::Prepare => "prepare",
            Kernel::ScoreMask { .. } => "score_mask",
            Kernel::Sample { .. } => "sample",
            Kernel::RankSample => "rank_sample",
            Kernel::Stream { .. } => "stream",
            Kernel::StreamExact { .. } => "stream_exact",
            Kernel::Prove => "prove",
            Kernel::Repair { .. } => "repair",
            Kernel::Settle { .. } => "settle",
            Kernel::Recount { .. } => "recount",
            Kernel::ScanBins => "scan_bins",
            Kernel::Small { .. } => "small",
        }
    }

    /// Its WGSL: the files that it is put together from.
    pub fn source(self) -> String {
        let keys = shader!("lib/keys.wgsl");
        let cut = shader!("lib/cut.wgsl");
        let counters = shader!("lib/counters.wgsl");
        let bins = shader!("lib/bins.wgsl");
        let populations = shader!("lib/populations.wgsl");
        let find_bin = shader!("lib/find_bin.wgsl");
        let bracket = shader!("lib/bracket.wgsl");
        let candidates = shader!("lib/candidates.wgsl");
        let finish = shader!("lib/finish.wgsl");
        let notes = shader!("lib/notes.wgsl");
        let sampling = shader!("lib/sampling.wgsl");
        let sum = shader!("lib/sum.wgsl");
        let totals = shader!("lib/totals.wgsl");
        let own: &[&str] = match self {
            // It reads the gradients themselves, whatever the access says about scaling.
            Kernel::Norm { access, .. } => &[counters, tensors(access), sum, shader!("norm.wgsl")],
            Kernel::Clip => &[counters, sum, shader!("clip.wgsl")],
            Kernel::Prepare => &[shader!("prepare.wgsl")],
            Kernel::ScoreMask { base, access } => {
                &[keys, tensors(access), clip(access), base.source(), shader!("score_mask.wgsl")]
            }
            Kernel::Sample { base, access } => &[
                keys,
                counters,
                bins,
                sampling,
                tensors(access),
                clip(access),
                base.source(),
                shader!("sample.wgsl"),
            ],
            Kernel::RankSample => {
                &[cut, counters, bins, populations, find_bin, sampling, shader!("rank_sample.wgsl")]
            }
            Kernel::Stream { base, policy, access } => &[
                keys,
                cut,
                tensors(access),
                clip(access),
                base.source(),
                policy.source(),
                shader!("stream.wgsl"),
            ],
            Kernel::StreamExact { base, access } => &[
                keys,
                cut,
                counters,
                bracket,
                candidates,
                notes,
                tensors(access),
                clip(access),
                base.source(),
                base.notes(),
                shader!("stream_exact.wgsl"),
            ],
            Kernel::Prove => &[counters, populations, find_bin, shader!("prove.wgsl")],
            Kernel::Repair { .. } => &[counters, bracket, candidates, finish, shader!("repair.wgsl")],
            Kernel::Settle { .. } => &[counters, bracket, candidates, finish, totals, shader!("settle.wgsl")],
            Kernel::Recount { base, access } => &[
                keys,
                cut,
                counters,
                bins,
                notes,
                tensors(access),
                clip(access),
                base.source(),
                base.notes(),
                shader!("recount.wgsl"),
            ],
            Kernel::ScanBins => &[counters, populations, find_bin, shader!("scan.wgsl")],
            Kernel::Small { base, access } => {
                &[keys, cut, totals, tensors(access), clip(access), base.source(), shader!("small.wgsl")]
            }
        };
        [shader!("lib/tables.wgsl")].iter().chain(own).copied().collect::<Vec<_>>().join("\n")
    }

    /// Which of the bind groups `[tables, tensors, scratch, counters]` it uses.
    pub fn groups(self) -> [bool; 4] {
        match self {
            Kernel::Norm { .. } => [true, true, false, true],
            Kernel::Clip => [true, false, false, true],
            Kernel::Prepare => [true, false, false, false],
            Kernel::ScoreMask { .. } => [true, true, true, false],
            Kernel::Stream { policy, .. } => [true, true, policy == PolicyKind::Cautious, false],
            Kernel::Sample { .. } | Kernel::StreamExact { .. } | Kernel::Recount { .. } => [true; 4],
            Kernel::RankSample | Kernel::Prove => [true, false, true, true],
            Kernel::ScanBins => [true, false, false, true],
            Kernel::Repair { .. } | Kernel::Settle { .. } => [true, true, false, true],
            Kernel::Small { .. } => [true, true, false, false],
        }
    }

    /// Whether it only runs where a bracket missed.
    pub(crate) fn is_indirect(self) -> bool {
        matches!(self, Kernel::Recount { .. } | Kernel::ScanBins)
    }

    /// How many storage buffers its bind groups hold.
    pub(crate) fn storage_buffers(self) -> u32 {
        let tensors = self.base().map_or(0, |base| 2 + base.states() as u32);
        let [_, _, scratch, counters] = self.groups();
        2 + tensors + u32::from(scratch) + u32::from(counters)
    }

    /// Whether a class of this base and policy runs it.
    pub(crate) fn serves(self, base: BaseKind, policy: PolicyKind) -> bool {
        let own_base = self.base().is_none_or(|b| b == base);
        let own_policy = match self {
            Kernel::Norm { .. } | Kernel::Clip => true,
            Kernel::Prepare | Kernel::ScoreMask { .. } => policy == PolicyKind::Cautious,
            Kernel::Stream { policy: own, .. } => policy == own,
            Kernel::Sample { .. } | Kernel::RankSample => policy.samples(),
            Kernel::Small { .. } => policy == PolicyKind::MgupSmall,
            Kernel::StreamExact { .. }
            | Kernel::Prove
            | Kernel::Repair { .. }
            | Kernel::Settle { .. }
            | Kernel::Recount { .. }
            | Kernel::ScanBins => policy == PolicyKind::Mgup,
        };
        own_base && own_policy
    }

    /// Whether it reads or writes parameters, gradients or state.
    pub(crate) fn touches_tensors(self) -> bool {
        self.groups()[1]
    }

    /// The same kernel for tensors that are reached four coordinates at a time, or one.
    pub(crate) fn vectorized(mut self, vectorized: bool) -> Self {
        match &mut self {
            Kernel::Norm { access, .. }
            | Kernel::ScoreMask { access, .. }
            | Kernel::Sample { access, .. }
            | Kernel::Stream { access, .. }
            | Kernel::StreamExact { access, .. }
            | Kernel::Recount { access, .. }
            | Kernel::Small { access, .. } => access.vectorized = vectorized,
            _ => {}
        }
        self
    }

    fn base(self) -> Option<BaseKind> {
        match self {
            Kernel::Norm { base, .. }
            | Kernel::ScoreMask { base, .. }
            | Kernel::Sample { base, .. }
            | Kernel::Stream { base, .. }
            | Kernel::StreamExact { base, .. }
            | Kernel::Repair { base }
            | Kernel::Settle { base }
            | Kernel::Recount { base, .. }
            | Kernel::Small { base, .. } => Some(base),
            Kernel::Clip | Kernel::Prepare | Kernel::RankSample | Kernel::Prove | Kernel::ScanBins => None,
        }
    }
}

impl BaseKind {
    fn source(self) -> &'static str {
        match self {
            BaseKind::Adamw => shader!("base/adamw.wgsl"),
            BaseKind::Lion => shader!("base/lion.wgsl"),
        }
    }

    fn notes(self) -> &'static str {
        match self {
            BaseKind::Adamw => shader!("base/adamw_notes.wgsl"),
            BaseKind::Lion => shader!("base/lion_notes.wgsl"),
        }
    }
}

impl PolicyKind {
    fn source(self) -> &'static str {
        match self {
            PolicyKind::Plain => shader!("policy/plain.wgsl"),
            PolicyKind::Cautious => shader!("policy/cautious.wgsl"),
            PolicyKind::MgupApproximate => shader!("policy/mgup_approximate.wgsl"),
            PolicyKind::Mgup | PolicyKind::MgupSmall => unreachable!("{self:?} has a kernel of its own"),
            PolicyKind::CautiousMgup => shader!("policy/cautious_mgup.wgsl"),
            PolicyKind::Grams => shader!("policy/grams.wgsl"),
        }
    }
}

fn tensors(access: Access) -> &'static str {
    if access.vectorized { shader!("lib/tensors_vec4.wgsl") } else { shader!("lib/tensors_scalar.wgsl") }
}

fn clip(access: Access) -> &'static str {
    if access.clipped { shader!("lib/clip_on.wgsl") } else { shader!("lib/clip_off.wgsl") }
}

/// WGSL of `p[i] = g[i]`, the yardstick of the benchmarks: 8 bytes a parameter. Its constant `RUN` is the number of
/// vectors of four per workgroup.
pub const COPY: &str = shader!("copy.wgsl");

/// Every kernel there is.
pub fn all_kernels() -> Vec<Kernel> {
    let mut kernels =
        vec![Kernel::Clip, Kernel::Prepare, Kernel::RankSample, Kernel::Prove, Kernel::ScanBins];
    for base in BaseKind::ALL {
        kernels.extend([Kernel::Repair { base }, Kernel::Settle { base }]);
        for (vectorized, clipped) in [(true, false), (false, false), (true, true), (false, true)] {
            let access = Access { vectorized, clipped };
            kernels.extend([
                Kernel::ScoreMask { base, access },
                Kernel::Sample { base, access },
                Kernel::StreamExact { base, access },
                Kernel::Recount { base, access },
                Kernel::Small { base, access },
            ]);
            if clipped {
                kernels.push(Kernel::Norm { base, access });
            }
            for policy in [
                PolicyKind::Plain,
                PolicyKind::Cautious,
                PolicyKind::MgupApproximate,
                PolicyKind::CautiousMgup,
                PolicyKind::Grams,
            ] {
                kernels.push(Kernel::Stream { base, policy, access });
            }
        }
    }
    kernels
}

/// Pipelines, and the layouts of their bind groups. A clone shares them.
#[derive(Clone)]
pub(crate) struct Kernels {
    pipelines: HashMap<Kernel, wgpu::ComputePipeline>,
    pub tables: wgpu::BindGroupLayout,
    pub tensors: HashMap<BaseKind, wgpu::BindGroupLayout>,
    pub scratch: wgpu::BindGroupLayout,
    pub counters: wgpu::BindGroupLayout,
    pub empty: wgpu::BindGroupLayout,
}

impl Kernels {
    /// Compiles what a schedule needs and `compiled` does not have.
    pub(crate) fn new(
        device: &wgpu::Device,
        plan: &Plan,
        schedule: &Schedule,
        compiled: Option<&Self>,
    ) -> Self {
        let mut needed: BTreeSet<_> = schedule.dispatches.iter().map(|d| d.kernel).collect();
        if plan.ownership != Ownership::Arenas && plan.tensors.iter().any(|t| !t.numel.is_multiple_of(4)) {
            needed.extend(schedule.dispatches.iter().map(|d| d.kernel.vectorized(false)));
        }
        let mut kernels = compiled.cloned().unwrap_or_else(|| Self::layouts(device));
        for kernel in needed {
            if !kernels.pipelines.contains_key(&kernel) {
                let pipeline = kernels.compile(device, kernel);
                kernels.pipelines.insert(kernel, pipeline);
            }
        }
        kernels
    }

    fn layouts(device: &wgpu::Device) -> Self {
        let storage = |binding| entry(binding, wgpu::BufferBindingType::Storage { read_only: false }, None);
        let uniform = |binding, size| entry(binding, wgpu::BufferBindingType::Uniform, Some(size));
        let layout = |name: &str, entries: &[wgpu::BindGroupLayoutEntry]| {
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(&format!("wgpu-optim.layout.{name}")),
                entries,
            })
        };
        let chunk = Chunk::min_size().get();
        let tables = layout(
            "tables",
            &[
                uniform(0, Grid::min_size().get()),
                uniform(1, STRIDE * ROWS as u64),
                entry(2, wgpu::BufferBindingType::Storage { read_only: true }, Some(chunk)),
                storage(3),
            ],
        );
        let tensors = BaseKind::ALL.map(|base| {
            let bindings = 2 + base.states() as u32;
            (base, layout("tensors", &(0..bindings).map(storage).collect::<Vec<_>>()))
        });
        Self {
            pipelines: HashMap::new(),
            tables,
            tensors: tensors.into(),
            scratch: layout("scratch", &[storage(0)]),
            counters: layout("counters", &[storage(0)]),
            empty: layout("empty", &[]),
        }
    }

    pub(crate) fn pipeline(&self, kernel: Kernel) -> &wgpu::ComputePipeline {
        &self.pipelines[&kernel]
    }

    fn compile(&self, device: &wgpu::Device, kernel: Kernel) -> wgpu::ComputePipeline {
        let label = format!("wgpu-optim.{}", kernel.entry_point());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(kernel.source().into()),
        });
        let tensors = kernel.base().map_or(&self.empty, |base| &self.tensors[&base]);
        let all = [&self.tables, tensors, &self.scratch, &self.counters];
        let used = kernel.groups();
        let last = used.iter().rposition(|&used| used).expect("every kernel uses the tables");
        let groups: Vec<_> = (0..=last).map(|i| Some(if used[i] { all[i] } else { &self.empty })).collect();
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &groups,
            immediate_size: 0,
        });
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(kernel.entry_point()),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel clears its own: the general way costs seconds on some software adapters.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        })
    }
}

fn entry(binding: u32, ty: wgpu::BufferBindingType, dynamic: Option<u64>) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: dynamic.is_some(),
            min_binding_size: dynamic.and_then(NonZeroU64::new),
        },
        count: None,
    }
}

/// Bytes of a slice of structs, as a storage buffer holds them.
pub(crate) fn table<T>(rows: &[T]) -> Vec<u8>
where
    for<'a> &'a [T]: ShaderType + encase::internal::WriteInto,
{
    let mut buffer = encase::StorageBuffer::new(Vec::new());
    buffer.write(&rows).expect("a vector grows");
    buffer.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BINS, CHUNK, WORKGROUP};
    use crate::sampling::{SECTOR, STRATA};

    /// Byte offsets of a WGSL struct's members, and its size.
    fn wgsl_layout(module: &naga::Module, name: &str) -> (Vec<(String, u32)>, u32) {
        let (_, ty) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name)).expect(name);
        let naga::TypeInner::Struct { members, span } = &ty.inner else { panic!("{name} is no struct") };
        (members.iter().map(|m| (m.name.clone().unwrap(), m.offset)).collect(), *span)
    }

    fn assert_layout<T: ShaderType + encase::internal::WriteInto>(
        module: &naga::Module,
        name: &str,
        rust: &[(&str, u32)],
        value: &T,
    ) {
        let mut buffer = encase::StorageBuffer::new(Vec::<u8>::new());
        buffer.write(value).unwrap();
        let bytes = buffer.into_inner();
        let (members, span) = wgsl_layout(module, name);
        assert_eq!(u64::from(span), T::min_size().get(), "size of {name}");
        assert_eq!(members.len(), rust.len(), "members of {name}");
        for ((member, offset), (field, word)) in members.iter().zip(rust) {
            assert_eq!(member, field, "{name}");
            let at = *offset as usize;
            assert_eq!(bytes[at..at + 4], word.to_le_bytes(), "{name}.{member}");
        }
    }

    #[test]
    fn structs_lie_in_wgsl_as_in_rust() {
        let access = Access { vectorized: true, clipped: true };
        let kernel = Kernel::StreamExact { base: BaseKind::Adamw, access };
        let module = naga::front::wgsl::parse_str(&kernel.source()).unwrap();
        let bits = f32::to_bits;
        let row = Row {
            step: 1.0,
            decay: 2.0,
            beta1: 3.0,
            one_minus_beta1: 4.0,
            beta2: 5.0,
            one_minus_beta2: 6.0,
            eps: 7.0,
            alpha: 8.0,
            gamma: 9.0,
            max_grad_norm: 10.0,
            t: 11,
            count_normalizer: 12,
        };
        let fields = [
            ("step", bits(1.0)),
            ("decay", bits(2.0)),
            ("beta1", bits(3.0)),
            ("one_minus_beta1", bits(4.0)),
            ("beta2", bits(5.0)),
            ("one_minus_beta2", bits(6.0)),
            ("eps", bits(7.0)),
            ("alpha", bits(8.0)),
            ("gamma", bits(9.0)),
            ("max_grad_norm", bits(10.0)),
            ("t", 11),
            ("count_normalizer", 12),
        ];
        assert_layout(&module, "Row", &fields, &row);
        assert_eq!(Row::min_size().get(), STRIDE);

        let chunk = Chunk {
            offset: 1,
            len: 2,
            index: 3,
            tensor: 4,
            row: 5,
            mask: 6,
            param: 7,
            grad: 8,
            part: 9,
            parts: 10,
        };
        let fields = [
            ("offset", 1),
            ("len", 2),
            ("index", 3),
            ("tensor", 4),
            ("row", 5),
            ("mask", 6),
            ("param", 7),
            ("grad", 8),
            ("part", 9),
            ("parts", 10),
        ];
        assert_layout(&module, "Chunk", &fields, &chunk);

        let grid =
            Grid { first: 1, count: 2, correct: 3, bounds: 4, norms: 5, launch: 6, launch_x: 7, launch_y: 8 };
        let fields = [
            ("first", 1),
            ("count", 2),
            ("correct", 3),
            ("bounds", 4),
            ("norms", 5),
            ("launch", 6),
            ("launch_x", 7),
            ("launch_y", 8),
        ];
        assert_layout(&module, "Grid", &fields, &grid);

        let selection = Selection {
            k: 1,
            numel: 2,
            first_chunk: 3,
            histogram: 4,
            sample: 5,
            stride: 6,
            strata: 7,
            rank_high: 8,
            rank_low: 9,
            candidates: 10,
            capacity: 11,
            list: 12,
            list_capacity: 13,
            t: 14,
            high: Cut { key: 15, limit: 0 },
            low: Cut { key: 16, limit: 0 },
            boundary: 17,
            remaining: 18,
            missed: 19,
            open: 20,
            found: Cut { key: 21, limit: 0 },
            inside: 22,
            listed: 23,
            selected: 24,
        };
        let fields = [
            ("k", 1),
            ("numel", 2),
            ("first_chunk", 3),
            ("histogram", 4),
            ("sample", 5),
            ("stride", 6),
            ("strata", 7),
            ("rank_high", 8),
            ("rank_low", 9),
            ("candidates", 10),
            ("capacity", 11),
            ("list", 12),
            ("list_capacity", 13),
            ("t", 14),
            ("high", 15),
            ("low", 16),
            ("boundary", 17),
            ("remaining", 18),
            ("missed", 19),
            ("open", 20),
            ("found", 21),
            ("inside", 22),
            ("listed", 23),
            ("selected", 24),
        ];
        assert_layout(&module, "Selection", &fields, &selection);
        assert_layout(&module, "Cut", &[("key", 1), ("limit", 2)], &Cut { key: 1, limit: 2 });
        let (members, _) = wgsl_layout(&module, "Tensors");
        assert_eq!(u64::from(members[2].1), TENSORS_HEADER);
    }

    #[test]
    fn bindings_and_constants_are_the_same_on_both_sides() {
        for kernel in all_kernels() {
            let module = naga::front::wgsl::parse_str(&kernel.source()).unwrap();
            let mut used = [false; 4];
            for (_, variable) in module.global_variables.iter() {
                if let Some(binding) = &variable.binding {
                    used[binding.group as usize] = true;
                    let bindings = match binding.group {
                        0 => 4,
                        1 => 2 + kernel.base().map_or(0, BaseKind::states) as u32,
                        _ => 1,
                    };
                    assert!(binding.binding < bindings, "{kernel:?}: {:?}", variable.name);
                    let space = match (binding.group, binding.binding) {
                        (0, 0 | 1) => naga::AddressSpace::Uniform,
                        (0, 2) => naga::AddressSpace::Storage { access: naga::StorageAccess::LOAD },
                        _ => naga::AddressSpace::Storage {
                            access: naga::StorageAccess::LOAD | naga::StorageAccess::STORE,
                        },
                    };
                    assert_eq!(variable.space, space, "{kernel:?}: {:?}", variable.name);
                }
            }
            assert_eq!(used, kernel.groups(), "{kernel:?}");
            assert!(kernel.storage_buffers() <= 8, "{kernel:?} exceeds WebGPU's default");
            let text = kernel.source();
            for (constant, value) in [
                ("WORKGROUP", WORKGROUP),
                ("BINS", BINS),
                ("CHUNK", CHUNK),
                ("LANES", CHUNK / 128),
                ("SECTOR", SECTOR),
                ("STRATA", STRATA),
            ] {
                let named = format!("const {constant}: u32 = ");
                if let Some(at) = text.find(&named) {
                    let rest = &text[at + named.len()..];
                    assert!(rest.starts_with(&format!("{value}u;")), "{kernel:?}: {constant}");
                }
            }
            assert!(text.contains(&format!("array<Row, {ROWS}>")), "{kernel:?}");
        }
    }
}
