//! The layout: every coordinate in exactly one chunk, every page within a binding, whatever the limits.

use crate::sound::assert_sound;
use proptest::prelude::*;
use wgpu_optim::base::{Base, BaseKind, SecondMoment};
use wgpu_optim::matrix::Matmul;
use wgpu_optim::plan::layout::{CHUNK, Ownership, Plan, PlanLimits, ROWS};
use wgpu_optim::policy::{Plain, SMALL};
use wgpu_optim::{
    Average, Error, ParamGroups, Precision, Program, Recipe, Requirements, Rounding, StateFormat, TensorSpec, verify,
};

const WEBGPU: PlanLimits = PlanLimits::WEBGPU;

fn plan(specs: &[TensorSpec], groups: impl Into<ParamGroups>, limits: PlanLimits) -> Result<Plan, Error> {
    Plan::new(specs, &groups.into(), Ownership::Arenas, limits)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_layout_is_sound(
        sizes in prop::collection::vec((1usize..60_000, 0usize..7), 1..40),
        binding in 5u64..80,
        blocks in 1u64..5,
        workgroups in 64u32..200,
    ) {
        // From a little more than a chunk upwards; the counters need 8 KiB for each tensor of approximate selection.
        let binding = 4096 * binding + 40 * 8192;
        let limits = PlanLimits { binding, buffer: binding * blocks };
        let groups: Vec<Recipe> = ["mgup-adamw-approximate", "cautious-lion", "adamw", "mgup-lion-approximate", "mgup-adan-approximate", "mgup-adafactor-approximate", "lamadam"]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        let specs: Vec<_> = sizes
            .iter()
            .enumerate()
            // Two states of Adan or LaMAdam share a binding.
            .map(|(i, &(n, group))| (i, if [4, 6].contains(&group) { n.div_ceil(2) } else { n }, group))
            .map(|(i, n, group)| {
                let shape = if group == 5 { vec![n.div_ceil(77), 77] } else { vec![n] };
                TensorSpec::new(format!("t{i}"), shape).in_group(group)
            })
            .collect();
        for ownership in [Ownership::Arenas, Ownership::Caller] {
            let plan = Plan::new(&specs, &groups.clone().into(), ownership, limits).unwrap();
            assert_sound(&plan, limits, workgroups);
            for (spec, &at) in specs.iter().zip(&plan.order) {
                prop_assert_eq!(&plan.tensors[at].spec, spec);
            }
        }
    }
}

#[test]
fn a_page_has_room_for_a_chunk_or_is_refused() {
    let specs = [TensorSpec::new("w", [5])];
    let at = |binding| plan(&specs, Recipe::adamw(1e-3), PlanLimits { binding, ..WEBGPU });
    assert!(at(4 * CHUNK).is_ok());
    assert!(matches!(at(4 * CHUNK - 4), Err(Error::Unsupported(_))));
}

#[test]
fn places_in_a_page_fit_into_32_bits_whatever_can_be_bound() {
    let specs = [TensorSpec::new("a", [1 << 31]), TensorSpec::new("b", [1 << 31]), TensorSpec::new("c", [5000])];
    let endless = PlanLimits { binding: u64::MAX, buffer: u64::MAX };
    let plan = plan(&specs, Recipe::adamw(1e-3), endless).unwrap();
    assert_eq!(plan.blocks.len(), 1);
    assert_sound(&plan, endless, 65_535);
}

#[test]
fn a_model_of_more_than_any_device_holds_is_refused_before_it_is_laid_out() {
    let specs: Vec<_> = (0..400).map(|i| TensorSpec::new(format!("t{i}"), [u32::MAX as usize - 4096])).collect();
    for recipe in [Recipe::adamw(1e-3), Recipe::adamw(1e-3).mgup()] {
        let refused = Requirements::new(&specs, recipe).unwrap_err();
        assert!(refused.to_string().contains("at most 68719476736"), "{refused}");
    }
}

#[test]
fn large_tensors_span_pages_and_large_models_blocks() {
    // 200 MiB each, at WebGPU's limits: two pages a tensor, a block each.
    let specs = [TensorSpec::new("a", [50 << 20]), TensorSpec::new("b", [50 << 20])];
    let plan = plan(&specs, Recipe::adamw(1e-3).mgup(), WEBGPU).unwrap();
    assert_sound(&plan, WEBGPU, 65_535);
    assert_eq!((plan.blocks.len(), plan.pages.len()), (2, 4));
    assert_eq!(plan.tensors[0].pages, 0..2);
    // Every page reaches every candidate of its tensors, so the parts of a page's piece share all of them.
    let parts: Vec<_> = plan.pages.iter().map(|p| p.pieces.len()).collect();
    assert!(parts.iter().all(|&parts| parts > 10), "{parts:?}");
}

#[test]
fn exact_selection_has_whole_tensors_in_a_page_where_they_fit() {
    let specs = ["a", "b", "c"].map(|name| TensorSpec::new(name, [200_001]));
    // Room for two and a half; for almost one, with what pads it; for one.
    for (binding, pages) in
        [(2_000_000, [0..1, 0..1, 1..2]), (800_100, [0..2, 1..3, 2..4]), (800_256, [0..1, 1..2, 2..3])]
    {
        let limits = PlanLimits { binding, buffer: 1 << 22 };
        let exact = plan(&specs, Recipe::adamw(1e-3).mgup(), PlanLimits { binding: 1 << 22, ..limits }).unwrap();
        assert_eq!(exact.pages.len(), 1);
        let exact = plan(&specs, Recipe::adamw(1e-3).mgup(), limits).unwrap();
        assert_sound(&exact, limits, 65_535);
        let found: Vec<_> = exact.tensors.iter().map(|tensor| tensor.pages.clone()).collect();
        assert_eq!(found, pages, "{binding}");
    }
}

#[test]
fn a_step_costs_the_bytes_that_its_kernels_touch() {
    let specs = [TensorSpec::new("w", [1 << 24])];
    let of = |name: &str| {
        let plan = plan(&specs, name.parse::<Recipe>().unwrap(), WEBGPU).unwrap();
        let program = Program::of(&plan, WEBGPU.binding, 65_535, Matmul::Tiles);
        (program.step().count(), program.cost.traffic as f64 / f64::from(1 << 24))
    };
    assert_eq!(of("adamw"), (1, 28.0));
    assert_eq!(of("grams"), (1, 28.0));
    assert_eq!(of("cautious-mgup-adamw"), (1, 28.0));
    assert_eq!(of("lion"), (1, 20.0));
    assert_eq!(of("cautious-adamw"), (3, 40.25));
    let (dispatches, bytes) = of("mgup-adamw");
    assert_eq!(dispatches, 6);
    assert!((29.0..29.6).contains(&bytes), "{bytes}");
    let (dispatches, bytes) = of("mgup-adamw-approximate");
    assert_eq!(dispatches, 3);
    assert!((28.0..28.2).contains(&bytes), "{bytes}");
}

#[test]
fn the_plan_chooses_blocks_by_how_many_there_are() {
    let kernels = |count: usize, [rows, cols]: [usize; 2]| {
        let specs: Vec<_> = (0..count).map(|i| TensorSpec::new(i.to_string(), [rows, cols])).collect();
        let program = Program::new(&specs, Recipe::muon(1e-2), PlanLimits::LARGE, Matmul::Tiles).unwrap();
        let names = program.step().map(|dispatch| &program.kernels[dispatch.kernel].name);
        let tiles = names.filter_map(|name| name.strip_prefix("matrix/").filter(|name| name.contains("_tiles")));
        tiles.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    // Blocks of 128 are chosen from 256 of them: 64 of a product of 1024 × 1024, 36 on and below the diagonal.
    let of = |gram: u32, advance: u32| [format!("advance_tiles_{advance}"), format!("gram_tiles_{gram}")].into();
    assert_eq!(kernels(3, [1024, 1024]), of(64, 64));
    assert_eq!(kernels(4, [1024, 1024]), of(64, 128));
    assert_eq!(kernels(8, [1024, 1024]), of(128, 128));
    assert_eq!(kernels(1, [2048, 2048]), of(64, 128));
    assert_eq!(kernels(1, [4096, 4096]), of(128, 128));
    // In these, much of a block of 128 would lie outside.
    assert_eq!(kernels(1000, [64, 64]), of(64, 64));
    assert_eq!(kernels(400, [130, 130]), of(64, 64));
    assert_eq!(kernels(300, [100, 100]), of(64, 128));
    assert_eq!(kernels(1, [128, 32_640]), of(64, 64));
    assert_eq!(kernels(1, [128, 32_768]), of(64, 128));
}

#[test]
fn a_plain_step_reads_and_writes_each_state_once() {
    let specs = [TensorSpec::new("w", [1 << 20])];
    let mut seen = Vec::new();
    for (name, recipe) in verify::recipes() {
        let (base, recipe) = (BaseKind::of(&recipe.base), recipe.with_policy(Plain::default()));
        let kind = (base, recipe.state);
        if base.row().rate.is_some() || base.has_lines() || seen.contains(&kind) {
            continue;
        }
        seen.push(kind);
        let plan = plan(&specs, recipe, WEBGPU).unwrap();
        let program = Program::of(&plan, WEBGPU.binding, 65_535, Matmul::Tiles);
        // The parameter twice, the gradient once.
        let states = base.state_bytes(recipe.state);
        let bytes = 12 + 2 * states;
        assert_eq!((program.step().count(), program.cost.traffic >> 20), (1, bytes), "{name}");
        let bound = program.dispatches[0].bindings.iter().filter(|bound| bound.group == 1).map(|bound| bound.size);
        assert_eq!(bound.sum::<u64>(), (8 + states) << 20, "{name}");
    }
    let bytes = |(name, format)| {
        let is_kind = |(base, state): &&(BaseKind, StateFormat)| (base.row().name, *state) == (name, format);
        let (base, state) = seen.iter().find(is_kind).expect(name);
        12 + 2 * base.state_bytes(*state)
    };
    let all = ["sgd", "sgd (momentum)", "rmsprop", "adagrad", "adam", "adamw (amsgrad)", "madam", "adan"];
    assert_eq!(all.map(|name| bytes((name, StateFormat::F32))), [12, 20, 20, 20, 28, 36, 44, 44]);
    let all = ["lion", "adagrad", "adamw"];
    assert_eq!(all.map(|name| bytes((name, StateFormat::EightBit))), [14, 14, 16]);
}

#[test]
fn arenas_lie_as_planned_whatever_the_order_of_the_groups() {
    for name in ["lamadam", "adafactor", "muon", "schedule-free-sgd"] {
        let recipe: Recipe = name.parse().unwrap();
        let specs: Vec<_> = [0, 1, 0, 1, 0]
            .into_iter()
            .enumerate()
            .map(|(i, group)| TensorSpec::new(format!("t{i}"), [20, 30]).in_group(group))
            .collect();
        let program = Program::new(&specs, vec![recipe, recipe.with_lr(1e-4)], WEBGPU, Matmul::Tiles).unwrap();
        assert_eq!(
            program.step().count(),
            Program::new(&specs[..1], recipe, WEBGPU, Matmul::Tiles).unwrap().step().count()
        );
    }
}

#[test]
fn a_rate_of_a_tensor_takes_few_dispatches_and_bytes() {
    let of = |name: &str, shape: &[usize]| {
        let recipe: Recipe = name.parse().unwrap();
        let plan = plan(&[TensorSpec::new("w", shape)], recipe, WEBGPU).unwrap();
        let program = Program::of(&plan, WEBGPU.binding, 65_535, Matmul::Tiles);
        (program.step().count(), (program.cost.traffic as f64 / f64::from(1 << 20) * 8.0).round() / 8.0)
    };
    // The gradient once more, for its norm.
    assert_eq!(of("adagrad-norm", &[1 << 20]), (3, 16.0));
    assert_eq!(of("lamadam", &[1 << 20]), (2, 44.0));
    // The gradient for rows, columns and the norm of the update; the parameter for its own norm.
    assert_eq!(of("adafactor", &[1 << 10, 1 << 10]), (5, 28.0));
    assert_eq!(of("adafactor", &[1 << 20]), (3, 32.0));
}

#[test]
fn selection_needs_little_memory_and_small_tensors_none() {
    let extra = |name: &str, numel: usize| {
        let plan = plan(&[TensorSpec::new("w", [numel])], name.parse::<Recipe>().unwrap(), WEBGPU).unwrap();
        let base = name.rsplit('-').find(|part| ["adamw", "lion"].contains(part)).unwrap();
        let words = if base == "adamw" { 4 } else { 3 };
        (plan.memory() - 4 * words * plan.blocks[0].len) as f64 / numel as f64
    };
    for name in ["mgup-adamw", "mgup-lion"] {
        for (numel, expected) in [(1 << 24, 0.63), (1_000_000, 0.95), (10_000, 5.8)] {
            let bytes = extra(name, numel);
            assert!((bytes / expected - 1.0).abs() < 0.03, "{name}, {numel}: {bytes}");
        }
        assert_eq!(extra(name, SMALL as usize), 0.0, "{name}");
    }
    assert!(extra("mgup-adamw-approximate", 1 << 24) < 0.02);
}

#[test]
fn a_step_has_as_many_dispatches_for_many_tensors_as_for_two() {
    for (name, expected) in [("adamw", 1), ("cautious-lion", 3), ("mgup-adamw", 7), ("mgup-lion-approximate", 4)] {
        for count in [1, 100] {
            let specs: Vec<_> = (0..count)
                .flat_map(|i| [TensorSpec::new(format!("w{i}"), [70, 80]), TensorSpec::new(format!("b{i}"), [80])])
                .collect();
            let plan = plan(&specs, name.parse::<Recipe>().unwrap(), WEBGPU).unwrap();
            assert_eq!(
                Program::of(&plan, WEBGPU.binding, 65_535, Matmul::Tiles).step().count(),
                expected,
                "{name}, {count}"
            );
        }
    }
}

#[test]
fn clipping_costs_one_pass_over_the_gradients_and_two_dispatches() {
    let specs = [TensorSpec::new("w", [1 << 24]), TensorSpec::new("b", [1 << 10])];
    for name in ["adamw", "mgup-lion", "cautious-adamw"] {
        let groups = ParamGroups::from(name.parse::<Recipe>().unwrap());
        let [off, on] = [groups.clone(), groups.with_max_grad_norm(1.0)].map(|groups| {
            let plan = plan(&specs, groups, WEBGPU).unwrap();
            let program = Program::of(&plan, WEBGPU.binding, 65_535, Matmul::Tiles);
            (program.step().count(), program.cost.traffic as f64 / plan.numel() as f64, plan.memory())
        });
        // One for each kind of recipe, and one more.
        assert_eq!(on.0 - off.0, if name == "mgup-lion" { 3 } else { 2 });
        assert!((4.0..4.01).contains(&(on.1 - off.1)));
        assert!((on.2 - off.2) as f64 / f64::from(1 << 24) < 0.001);
    }
}

#[test]
fn too_large_a_tensor_is_refused_with_the_numbers() {
    let error = plan(&[TensorSpec::new("w", [(64 << 20) + 1])], Recipe::adamw(1e-3), WEBGPU).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("max_buffer_size needed 268435968, available 268435456"), "{message}");
}

#[test]
fn a_short_tensor_behind_a_large_one_of_another_kind_is_not_sampled() {
    let specs = [TensorSpec::new("large", [10_000_000]), TensorSpec::new("small", [100]).in_group(1)];
    let groups = vec![Recipe::adamw(1e-3), Recipe::adamw(1e-3).mgup()];
    let plan = plan(&specs, groups, WEBGPU).unwrap();
    assert_sound(&plan, WEBGPU, 65_535);
    assert!(plan.pages.iter().all(|page| page.pieces.is_empty()));
}

#[test]
fn models_of_the_documented_sizes_fit_webgpus_defaults() {
    let fits = |count: usize, numel: usize| {
        let specs: Vec<_> = (0..count).map(|i| TensorSpec::new(format!("w{i}"), [numel])).collect();
        let recipe: Recipe = "mgup-adamw".parse().unwrap();
        Requirements::new(&specs, recipe).unwrap().check(&wgpu_optim::wgpu::Limits::default()).is_ok()
    };
    assert!(fits(8, 50_000_000) && fits(200, 50_000_000));
    assert!(fits(4_000, 5_000) && !fits(5_000, 5_000));
}

#[test]
fn candidates_of_tensors_of_any_size_share_a_binding() {
    let limits = PlanLimits { buffer: 1 << 36, ..WEBGPU };
    let device = wgpu_optim::wgpu::Limits { max_buffer_size: limits.buffer, ..Default::default() };
    let (most, recipe) = ((1usize << 32) - 4097, Recipe::adamw(1e-3).mgup());
    for (count, numel) in [(1, 424_000_000), (1, 1_000_000_000), (1, most), (9, 50_000_000), (2, most)] {
        let specs: Vec<_> = (0..count).map(|i| TensorSpec::new(format!("w{i}"), [numel])).collect();
        let plan = plan(&specs, recipe, limits).unwrap();
        assert_sound(&plan, limits, 65_535);
        assert!(4 * plan.counters <= limits.binding, "{count} of {numel}: {} words", plan.counters);
        for tensor in &plan.tensors {
            // Narrower than the sample's errors would have it where there is no room, and never so narrow that it holds nothing.
            let s = tensor.sampling.unwrap();
            assert!(s.high < s.low && s.capacity >= 4096, "{count} of {numel}: {s:?}");
            let ranks = f64::from(s.low - s.high) / s.coordinates() as f64;
            assert!(ranks * numel as f64 <= f64::from(s.capacity), "{count} of {numel}: {s:?}");
        }
        Requirements::new(&specs, recipe).unwrap().check(&device).unwrap();
    }
    let too_many = TensorSpec::new("w", [most + 1]);
    assert!(plan(&[too_many], recipe, limits).unwrap_err().to_string().contains("more than 2^32"));
}

#[test]
fn what_a_plan_says_of_itself_follows_from_its_shapes() {
    // Padded to 128 coordinates each: two chunks, one, one.
    let specs = [TensorSpec::new("a", [64, 128]), TensorSpec::new("b", [128, 32]), TensorSpec::new("c", [33])];
    let muon: Recipe = "mgup-muon".parse().unwrap();
    let plan = |groups: ParamGroups| plan(&specs, groups, WEBGPU).unwrap();
    let plain = plan(muon.into());
    let rows: Vec<_> = ["a", "b", "c"].map(|name| plain.tensor(name).unwrap().row_count()).into();
    assert_eq!(rows, [64, 128, 33]);
    // Five iterations of 4 m² n + 2 m³.
    let of = |m: f64, n: f64| 5.0 * (4.0 * m * m * n + 2.0 * m * m * m);
    assert_eq!(plain.flops(), of(64.0, 128.0) + of(32.0, 128.0));
    // A copy of the parameters, ten words for each chunk and sixteen for each tensor.
    let observed = plan(ParamGroups::from(muon).with_telemetry(10));
    let coordinates = 64 * 128 + 128 * 32 + 128;
    assert_eq!(observed.memory() - plain.memory(), 4 * coordinates + 40 * 4 + 64 * 3);
}

/// AdamW with a second moment for each row.
fn by_row() -> ParamGroups {
    let mut recipe = Recipe::adamw(1e-3);
    let Base::Adamw(base) = &mut recipe.base else { unreachable!() };
    base.second_moment = SecondMoment::Row;
    recipe.into()
}

#[test]
fn tensors_with_a_moment_for_each_row_lie_in_one_page_or_are_refused() {
    let limits = PlanLimits { binding: 1 << 20, ..WEBGPU };
    // Two fill most of a page, and the third does not begin in what is left of it.
    let specs = ["a", "b", "c"].map(|name| TensorSpec::new(name, [100, 1000]));
    let found = plan(&specs, by_row(), limits).unwrap();
    assert_sound(&found, limits, 65_535);
    assert_eq!(found.pages.iter().map(|page| page.tensors.clone()).collect::<Vec<_>>(), [0..2, 2..3]);
    for (shape, needed) in [([263, 1000], 4 * 263_040), ([262_400, 1], 4 * 262_400)] {
        let error = plan(&[TensorSpec::new("w", shape)], by_row(), limits).unwrap_err().to_string();
        let expected = format!("max_storage_buffer_binding_size needed {needed}, available 1048576");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_matrix_lies_in_one_page_whatever_its_size() {
    let specs = [TensorSpec::new("w", [1 << 24, 100])];
    let endless = PlanLimits { binding: u64::MAX, buffer: u64::MAX };
    for recipe in [Recipe::muon(1e-2), Recipe::muon(1e-2).mgup()] {
        assert_eq!(plan(&specs, recipe, endless).unwrap().pages.len(), 1);
        assert!(matches!(plan(&specs, recipe, PlanLimits::LARGE), Err(Error::Unsupported(_))));
    }
}

#[test]
fn memory_is_counted_by_owner_precision_and_state() {
    // Padded by 16 coordinates. Kernels of plain AdamW hand nothing to each other.
    let specs = [TensorSpec::new("w", [127, 2064])];
    let coordinates = 127 * 2064 + 16;
    let bytes = |groups: ParamGroups, ownership| Plan::new(&specs, &groups, ownership, WEBGPU).unwrap().memory();
    let adamw = || ParamGroups::from(Recipe::adamw(1e-3));
    let half = || adamw().with_precision(Precision::Bf16);
    for (groups, ownership, expected) in [
        (adamw(), Ownership::Arenas, 16 * coordinates),
        (adamw(), Ownership::Caller, 8 * coordinates),
        (adamw(), Ownership::Stateless, 0),
        // A master in f32, and two bytes each for the parameter and its gradient.
        (half(), Ownership::Arenas, 16 * coordinates),
        (half(), Ownership::Caller, 12 * coordinates),
        (adamw().with_accumulation(2), Ownership::Arenas, 20 * coordinates),
        (half().with_average(Average::default()), Ownership::Caller, 16 * coordinates),
        (half().without_masters(Rounding::Nearest), Ownership::Arenas, 12 * coordinates),
        (half().without_masters(Rounding::Nearest), Ownership::Caller, 8 * coordinates),
        (
            half().without_masters(Rounding::Nearest).with_state(StateFormat::EightBit),
            Ownership::Arenas,
            6 * coordinates,
        ),
        // Rows are padded like coordinates.
        (by_row(), Ownership::Arenas, 12 * coordinates + 4 * 128),
        (by_row(), Ownership::Caller, 4 * coordinates + 4 * 128),
    ] {
        let what = format!("{ownership:?} {:?}", groups.precision());
        assert_eq!(bytes(groups, ownership), expected, "{what}");
    }
}

#[test]
fn groups_beyond_the_rows_of_a_dispatch_are_a_class_of_their_own() {
    let specs: Vec<_> = (0..ROWS + 2).map(|group| TensorSpec::new(format!("t{group}"), [5]).in_group(group)).collect();
    let plan = plan(&specs, vec![Recipe::adamw(1e-3); ROWS + 2], WEBGPU).unwrap();
    assert_sound(&plan, WEBGPU, 65_535);
    let classes: Vec<_> = plan.classes.iter().map(|class| class.tensors.len()).collect();
    assert_eq!(classes, [ROWS, 2]);
    assert!(plan.chunks.iter().all(|chunk| (chunk.scalars as usize) < ROWS));
}
