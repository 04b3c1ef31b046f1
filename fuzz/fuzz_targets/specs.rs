//! Any shapes, layouts, components and groups, within any limits: refused, or laid out without overlap and scheduled.
#![no_main]

#[path = "../../tests/common/sound.rs"]
mod sound;

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sound::assert_sound;
use wgpu_optim::plan::layout::{CHUNK, Ownership, Plan, PlanLimits};
use wgpu_optim::{MatrixLayout, ParamGroups, Recipe, Requirements, TensorSpec};

#[derive(Debug, Arbitrary)]
struct Input {
    tensors: Vec<Tensor>,
    recipes: Vec<u8>,
    binding: Size,
    buffer: Size,
    may_lack_matrices: bool,
}

#[derive(Debug, Arbitrary)]
struct Tensor {
    name: u8,
    shape: Vec<Size>,
    components: Size,
    group: u8,
    layout: u8,
}

/// Of any magnitude.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Size {
    Small(u8),
    Medium(u16),
    Large(u32),
    Any(u64),
    Power(u8),
}

impl Size {
    fn get(self) -> u64 {
        match self {
            Self::Small(x) => x.into(),
            Self::Medium(x) => x.into(),
            Self::Large(x) => x.into(),
            Self::Any(x) => x,
            Self::Power(x) => 1 << (x % 64),
        }
    }
}

fn spec(tensor: &Tensor, groups: usize) -> TensorSpec {
    let layouts = [MatrixLayout::OutIn, MatrixLayout::InOut, MatrixLayout::Flattened, MatrixLayout::Fallback];
    let shape: Vec<usize> = tensor.shape.iter().map(|size| size.get() as usize).collect();
    TensorSpec::new(tensor.name.to_string(), shape)
        .with_layout(layouts[tensor.layout as usize % 4])
        .with_components(tensor.components.get() as usize)
        // One that is not there, too.
        .in_group(usize::from(tensor.group) % (groups + 1))
}

static PRESETS: LazyLock<Vec<Recipe>> =
    LazyLock::new(|| Recipe::presets().iter().map(|name| name.parse().unwrap()).collect());

fuzz_target!(|input: Input| {
    let recipes = input.recipes.iter().map(|&i| PRESETS[i as usize % PRESETS.len()]);
    let recipes: Vec<_> = recipes.chain([Recipe::adamw(1e-3).mgup()]).collect();
    let specs: Vec<_> = input.tensors.iter().map(|tensor| spec(tensor, recipes.len())).collect();
    let groups = ParamGroups::from(recipes);
    let groups = if input.may_lack_matrices { groups.allow_no_matrices() } else { groups };
    let given = PlanLimits { binding: input.binding.get(), buffer: input.buffer.get() };
    // What takes seconds and gigabytes to lay out is left out, unless it is refused at once.
    let numel = specs.iter().fold(0u64, |sum, spec| sum.saturating_add(spec.numel()));
    let is_large = |limits: PlanLimits| numel / CHUNK > 1 << 20 || numel / (limits.binding / 4).max(1) > 1 << 14;
    let is_refused = numel > 1 << 36;
    for limits in [given, PlanLimits { binding: 128 << 20, buffer: 256 << 20 }] {
        if is_large(limits) && !is_refused {
            continue;
        }
        for ownership in [Ownership::Arenas, Ownership::Caller, Ownership::Stateless] {
            let Ok(plan) = Plan::new(&specs, &groups, ownership, limits) else { continue };
            assert_eq!(plan.numel(), specs.iter().map(TensorSpec::numel).sum::<u64>());
            assert_eq!(plan.tensors.len(), specs.len());
            for spec in &specs {
                assert_eq!(&plan.tensor(&spec.name).unwrap().spec, spec);
            }
            assert_sound(&plan, limits, 65_535);
            let _ = (plan.memory(), plan.scratch_memory(), plan.flops());
        }
    }
    if !is_large(PlanLimits { binding: u64::MAX, buffer: u64::MAX }) || is_refused {
        let _ = Requirements::new(&specs, groups);
    }
});
