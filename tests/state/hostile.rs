//! Input that nobody meant: whatever is read ends in a value or an [`Error`], and what was refused has changed nothing.

use std::path::Path;

use crate::common::{self, gpus};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value};
use wgpu_optim::plan::layout::{Ownership, Plan, PlanLimits};
use wgpu_optim::{
    Checkpoint, Error, GpuOptimizer, GradScaler, LrSchedule, MatrixLayout, ParamGroups, Recipe, Requirements,
    TensorBuffers, TensorSlice, TensorSpec, reference, wgpu,
};

fn config(cases: u32) -> ProptestConfig {
    // More where there is time: PROPTEST_CASES.
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Numbers at every edge.
fn numbers() -> impl Strategy<Value = f64> {
    let edges = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-320, 1e-46, 1e-38, 3.5e38, 1e300, f64::MAX, f64::MIN, 4_294_967_296.0];
    prop_oneof![proptest::sample::select(edges.to_vec()), any::<f64>(), -2.0..2.0f64]
}

fn json() -> impl Strategy<Value = Value> {
    let words = ["adamw", "mgup", "muon", "type", "base", "row", "exact", "cosine", "steps", ""];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        numbers().prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((".{0,6}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Puts other values in the places of some.
fn mutate(value: &mut Value, edits: &[(usize, Value)]) {
    for (at, other) in edits {
        let mut left = at % count(value);
        replace(value, &mut left, other);
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

fn replace(value: &mut Value, left: &mut usize, other: &Value) -> bool {
    if *left == 0 {
        *value = other.clone();
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, left, other)),
        Value::Object(fields) => fields.values_mut().any(|field| replace(field, left, other)),
        _ => false,
    }
}

fn edits() -> impl Strategy<Value = Vec<(usize, Value)>> {
    proptest::collection::vec((any::<usize>(), json()), 0..3)
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn a_recipe_that_parses_takes_steps(name in proptest::sample::select(Recipe::presets()), edits in edits()) {
        let recipe: Recipe = name.parse().unwrap();
        let mut value: Value = serde_json::from_str(&recipe.to_json()).unwrap();
        mutate(&mut value, &edits);
        match Recipe::from_json(&value.to_string()) {
            Err(error) => prop_assert!(!error.to_string().is_empty()),
            Ok(recipe) => {
                prop_assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
                let spec = TensorSpec::new("w", [2, 3]);
                let mut tensor = reference::Tensor::with_shape(recipe, &spec, vec![1.0f32; 6]).unwrap();
                tensor.step(&[0.5, -0.5, 0.0, 1.0, f32::MIN_POSITIVE, -1.0]);
            }
        }
    }

    #[test]
    fn groups_that_parse_are_planned_or_refused(edits in edits()) {
        let groups = ParamGroups::from(vec![Recipe::adamw(1e-3).mgup(), Recipe::muon(1e-2)])
            .with_schedule(LrSchedule::cosine(100, 0.1).with_warmup(10))
            .with_max_grad_norm(1.0)
            .with_grad_scaler(GradScaler::default());
        let mut value = serde_json::to_value(&groups).unwrap();
        mutate(&mut value, &edits);
        if let Ok(groups) = serde_json::from_value::<ParamGroups>(value) {
            let specs = [TensorSpec::new("a", [5000]), TensorSpec::new("b", [3, 4]).in_group(1)];
            let planned = Requirements::new(&specs, groups.clone());
            prop_assert_eq!(planned.is_ok(), groups.validate().is_ok() && groups.recipes().len() > 1
                && Plan::new(&specs, &groups, Ownership::Arenas, LIMITS).is_ok());
        }
    }

    #[test]
    fn any_specs_are_planned_or_refused(specs in proptest::collection::vec(spec(), 0..6), small in any::<bool>()) {
        let limits = if small { PlanLimits { binding: 1 << 16, buffer: 1 << 20 } } else { LIMITS };
        for recipe in [Recipe::adamw(1e-3).mgup(), Recipe::muon(1e-3).mgup(), Recipe::lion(1e-3)] {
            let groups = ParamGroups::from(recipe).allow_no_matrices();
            for ownership in [Ownership::Arenas, Ownership::Caller] {
                if let Ok(plan) = Plan::new(&specs, &groups, ownership, limits) {
                    prop_assert_eq!(plan.numel(), specs.iter().map(TensorSpec::numel).sum::<u64>());
                    prop_assert!(plan.pages.iter().all(|page| 4 * page.len <= limits.binding));
                }
            }
            let _ = Requirements::new(&specs, groups);
        }
    }
}

const LIMITS: PlanLimits = PlanLimits { binding: 128 << 20, buffer: 256 << 20 };

fn spec() -> impl Strategy<Value = TensorSpec> {
    let size = prop_oneof![
        1..100usize,
        proptest::sample::select(vec![0, 1, 4096, 4097, 65_537, 1 << 24, usize::MAX, 1 << 32]),
    ];
    let layout = proptest::sample::select(vec![
        MatrixLayout::OutIn,
        MatrixLayout::InOut,
        MatrixLayout::Flattened,
        MatrixLayout::Fallback,
    ]);
    let components = prop_oneof![4 => Just(0usize), 1 => 0..9usize, 1 => Just(usize::MAX)];
    let shape = proptest::collection::vec(size, 0..4);
    ("[a-c]{0,2}", shape, layout, components, 0..2usize).prop_map(|(name, shape, layout, components, group)| {
        let group = if group == 1 { usize::MAX } else { 0 };
        TensorSpec::new(name, shape).with_layout(layout).with_components(components).in_group(group)
    })
}

/// Runs a test on values of a strategy, one after the other.
fn each<S: Strategy>(strategy: S, cases: u32, mut test: impl FnMut(S::Value))
where
    S::Value: std::fmt::Debug + Clone,
{
    let mut runner = TestRunner::new(config(cases));
    for _ in 0..runner.config().cases {
        let value = strategy.new_tree(&mut runner).unwrap().current();
        let shown = format!("{value:?}");
        // What it was, before what went wrong with it.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(value)));
        if let Err(panic) = result {
            eprintln!("input: {shown}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// What happens to a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Grow(Vec<u8>),
    /// The header's JSON, with its length put right.
    Header(Vec<(usize, Value)>),
    /// The JSON in the metadata.
    About(Vec<(usize, Value)>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        any::<usize>().prop_map(Damage::Cut),
        proptest::collection::vec(any::<u8>(), 1..20).prop_map(Damage::Grow),
        edits().prop_map(Damage::Header),
        edits().prop_map(Damage::About),
    ]
}

fn apply(bytes: &[u8], damage: &Damage) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match damage {
        Damage::Flip(at, bits) => {
            let at = at % bytes.len();
            bytes[at] ^= bits;
            bytes
        }
        Damage::Cut(at) => {
            bytes.truncate(at % bytes.len());
            bytes
        }
        Damage::Grow(more) => {
            bytes.extend(more);
            bytes
        }
        Damage::Header(edits) => with_header(&bytes, |header| mutate(header, edits)),
        Damage::About(edits) => with_about(&bytes, |about| mutate(about, edits)),
    }
}

/// The file with its header's JSON edited, and the length put right.
fn with_header(bytes: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    edit(&mut header);
    let text = header.to_string().into_bytes();
    [&(text.len() as u64).to_le_bytes(), &text[..], &bytes[data..]].concat()
}

/// The file with the JSON of its metadata edited.
fn with_about(bytes: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    with_header(bytes, |header| {
        let about = &mut header["__metadata__"]["optimizer"];
        let mut value: Value = serde_json::from_str(about.as_str().unwrap()).unwrap();
        edit(&mut value);
        *about = value.to_string().into();
    })
}

/// A checkpoint's bytes, and the optimizer that wrote it.
fn saved(path: &Path) -> (common::Gpu, GpuOptimizer, Vec<u8>) {
    let gpu = gpus().remove(0);
    let optimizer = small_optimizer(&gpu);
    optimizer.save(path).unwrap();
    (gpu, optimizer, std::fs::read(path).unwrap())
}

fn small_specs() -> Vec<TensorSpec> {
    vec![TensorSpec::new("w", [4, 6]), TensorSpec::new("b", [5]).in_group(1)]
}

fn small_optimizer(gpu: &common::Gpu) -> GpuOptimizer {
    let groups = ParamGroups::from(vec![Recipe::muon(1e-2).mgup(), Recipe::adamw(1e-2)]).with_max_grad_norm(1.0);
    let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &small_specs(), groups).unwrap();
    for spec in small_specs() {
        let n = spec.numel() as usize;
        optimizer.write_param(&spec.name, &vec![0.5; n]).unwrap();
        optimizer.write_grad(&spec.name, &(0..n).map(|i| i as f32 - 3.0).collect::<Vec<_>>()).unwrap();
    }
    optimizer.step().unwrap();
    optimizer
}

fn bits(optimizer: &GpuOptimizer) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    for TensorSpec { name, .. } in small_specs() {
        let states = optimizer.state_names(&name).unwrap().map(|s| optimizer.read_state_blocking(&name, s).unwrap());
        all.extend(states.chain([optimizer.read_param_blocking(&name).unwrap()]));
    }
    all.into_iter().map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn a_damaged_checkpoint_is_loaded_or_refused_and_then_nothing_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let (gpu, mut optimizer, whole) = saved(&path);
    let (mut loaded, mut refused) = (0, 0);
    each(damage(), 400, |damage| {
        optimizer.step().unwrap();
        let before = (bits(&optimizer), optimizer.steps("w").unwrap());
        let damaged = apply(&whole, &damage);
        std::fs::write(&path, &damaged).unwrap();
        match optimizer.load(&path) {
            Ok(()) => loaded += 1,
            Err(error) => {
                assert!(matches!(error, Error::Checkpoint { .. }), "{}", error);
                let after = (bits(&optimizer), optimizer.steps("w").unwrap());
                assert_eq!(&after, &before, "{}", error);
                refused += 1;
            }
        }
        if let Ok(mut file) = Checkpoint::open(&path) {
            let names: Vec<_> = file.params().into_iter().map(|(name, _)| name).collect();
            names.iter().for_each(|name| drop(file.read_param(name)));
        }
        // Another program's tensors may be too large for the device, or make no sense.
        if let Ok(resumed) = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path) {
            resumed.destroy();
        }
    });
    println!("{loaded} damaged files were loaded, {refused} refused");
    assert!(loaded > 0 && refused > 0);
    std::fs::write(&path, &whole).unwrap();
    optimizer.load(&path).unwrap();
}

#[test]
fn metadata_out_of_range_is_an_error_of_the_file_and_asks_for_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let (gpu, mut optimizer, whole) = saved(&path);
    let with = |edit: &dyn Fn(&mut Value)| std::fs::write(&path, with_about(&whole, edit)).unwrap();
    let of_file = |error: Error, what: &str| {
        let said = error.to_string();
        assert!(matches!(error, Error::Checkpoint { .. }), "{said}");
        assert!(said.contains("run.safetensors") && said.contains(what), "{what}: {said}");
    };
    for (field, value, what) in [
        ("lrs", serde_json::json!([-5.0, 1e-3]), "`lr` is -5"),
        ("grad_scale", 0.0.into(), "`grad_scale` is 0"),
        ("loss_scale", (-1.0).into(), "`loss_scale` is -1"),
    ] {
        with(&|about| about[field] = value.clone());
        of_file(optimizer.load(&path).unwrap_err(), what);
    }
    // Of 14 GB each, and none of them in the file.
    with(&|about| {
        let spec = about["specs"][0].clone();
        let large = (0..400).map(|i| {
            let mut spec = spec.clone();
            spec["name"] = format!("t{i}").into();
            spec["shape"] = serde_json::json!([60_000, 60_000]);
            spec
        });
        about["specs"] = large.collect::<Vec<_>>().into();
    });
    of_file(GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap_err(), "lacks `params.t0`");
    // A count that cannot grow stays.
    with(&|about| about["recorded_steps"] = u64::MAX.into());
    optimizer.load(&path).unwrap();
    optimizer.step().unwrap();
    assert_eq!(optimizer.recorded_steps(), u64::MAX);
}

#[test]
fn counts_of_steps_are_from_0_to_what_a_checkpoint_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let (_, mut optimizer, whole) = saved(&path);
    let head = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
    let header: Value = serde_json::from_slice(&whole[8..head]).unwrap();
    let at = head + header["state.w.step"]["data_offsets"][0].as_u64().unwrap() as usize;
    let with = |step: i64| [&whole[..at], &step.to_le_bytes(), &whole[at + 8..]].concat();
    for negative in [-1, i64::MIN] {
        std::fs::write(&path, with(negative)).unwrap();
        let said = optimizer.load(&path).unwrap_err().to_string();
        assert!(said.contains(&format!("`state.w.step` is {negative}, expected 0 or more")), "{said}");
        assert_eq!(optimizer.steps("w").unwrap(), 1);
    }
    std::fs::write(&path, with(7)).unwrap();
    optimizer.load(&path).unwrap();
    assert_eq!((optimizer.steps("w").unwrap(), optimizer.steps("b").unwrap()), (7, 1));
    // One that cannot grow in a checkpoint stays there.
    optimizer.set_steps(u64::MAX);
    for _ in 0..2 {
        optimizer.step().unwrap();
        optimizer.save(&path).unwrap();
        optimizer.load(&path).unwrap();
        assert_eq!(optimizer.steps("w").unwrap(), i64::MAX as u64);
    }
}

/// A buffer that several tensors lie in, with words between them that are nobody's.
const GUARD: f32 = 12345.0;

#[test]
fn any_slices_are_stepped_or_refused_and_words_between_them_stay() {
    let gpu = gpus().remove(0);
    let specs = small_specs();
    let size = 4096u64;
    let buffer = |usage| {
        gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: usage | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    };
    let storage = wgpu::BufferUsages::STORAGE;
    let (params, grads) = (buffer(storage), buffer(storage));
    let groups = ParamGroups::from(vec![Recipe::adamw(1e-2).mgup(), Recipe::lion(1e-2)]);
    let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, groups).unwrap();
    let offsets = || prop_oneof![4 => (0..16u64).prop_map(|i| 256 * i), 1 => 0..5000u64, 1 => Just(u64::MAX - 3)];
    // Of each tensor: mostly its own, which rounded up to vectors may be 32 for the second.
    let sizes =
        |own: [u64; 2]| prop_oneof![8 => proptest::sample::select(own.to_vec()), 1 => 0..200u64, 1 => Just(u64::MAX)];
    let slices = [[96, 96], [20, 32]].map(|own| (offsets(), sizes(own), offsets(), sizes(own)));
    let (mut stepped, mut refused) = (0, 0);
    each(slices, 3000, |slices| {
        gpu.queue.write_buffer(&params, 0, bytemuck::cast_slice(&[GUARD; 1024]));
        gpu.queue.write_buffer(&grads, 0, bytemuck::cast_slice(&[1.0f32; 1024]));
        let given = slices.map(|(param, size, grad, grad_size)| {
            TensorBuffers::new(
                TensorSlice { buffer: &params, offset: param, size },
                TensorSlice { buffer: &grads, offset: grad, size: grad_size },
            )
        });
        let before = optimizer.steps("w").unwrap();
        let result = optimizer.step_with(&given);
        let after: Vec<f32> = bytemuck::pod_collect_to_vec(&common::read(&gpu, &params));
        let inside = |i: usize| {
            let at = 4 * i as u64;
            given.iter().any(|g| at >= g.param.offset && at < g.param.offset.saturating_add(g.param.size))
        };
        match result {
            Ok(_) => {
                stepped += 1;
                for (given, spec) in given.iter().zip(&specs) {
                    let first = given.param.offset as usize / 4;
                    let own = &after[first..first + spec.numel() as usize];
                    assert!(own.iter().all(|&word| word < GUARD), "{} was not stepped", spec.name);
                }
                assert!((0..1024).all(|i| inside(i) || after[i] == GUARD));
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(error, Error::Slice { .. }), "{}", error);
                assert_eq!(optimizer.steps("w").unwrap(), before);
                assert!(after.iter().all(|&word| word == GUARD));
            }
        }
    });
    println!("{stepped} sets of slices were stepped, {refused} refused");
    assert!(stepped > 50 && refused > 50);
}
