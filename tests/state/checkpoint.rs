//! Checkpoints: to the bit, whole at every moment, and refused where they do not fit.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{self, Gpu, gpus};
use wgpu_optim::base::ScheduleFreeAdamW;
use wgpu_optim::{
    Average, Checkpoint, Error, GpuOptimizer, GradScaler, LrSchedule, MatrixLayout, NonFinite, ParamGroups, Part,
    Precision, Recipe, TensorBuffers, TensorSlice, TensorSpec, verify, wgpu,
};

fn specs() -> Vec<TensorSpec> {
    vec![
        TensorSpec::new("layer.0.weight", [24, 20]).in_group(1),
        TensorSpec::new("layer.0.bias", [20]),
        TensorSpec::new("scalar", []).in_group(2),
        TensorSpec::new("embedding", [50, 97]).with_layout(MatrixLayout::Fallback).in_group(1),
    ]
}

/// Everything that a checkpoint must keep.
fn groups() -> ParamGroups {
    let recipes = ["mgup-adamw", "mgup-adago", "cautious-lion"].map(|name| name.parse::<Recipe>().unwrap());
    ParamGroups::from(recipes.to_vec())
        .with_schedule(LrSchedule::cosine(40, 0.1).with_warmup(3))
        .with_max_grad_norm(3.0)
        .with_grad_scaler(GradScaler::default().init(64.0).interval(3))
        .with_accumulation(2)
        .with_average(Average::moving(0.9).start(3).every(2))
}

fn grads(spec: &TensorSpec, t: u64) -> Vec<f32> {
    let mut grad = verify::grads(spec.numel() as usize, t);
    // Some steps are skipped.
    if t.is_multiple_of(5) {
        grad[0] = f32::NAN;
    }
    grad
}

fn build(gpu: &Gpu, groups: impl Into<ParamGroups>) -> GpuOptimizer {
    let optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
    for spec in specs() {
        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
    }
    optimizer
}

fn run(optimizer: &mut GpuOptimizer, range: std::ops::Range<u64>) {
    for t in range {
        for spec in specs() {
            optimizer.write_grad(&spec.name, &grads(&spec, t)).unwrap();
        }
        if optimizer.groups().accumulation() > 1 {
            optimizer.set_micro_batch_weight((1 + t % 3) as f64).unwrap();
        }
        optimizer.step().unwrap();
    }
}

fn everything(optimizer: &GpuOptimizer) -> Vec<Vec<u32>> {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let mut all = Vec::new();
    for TensorSpec { name, .. } in specs() {
        all.push(bits(optimizer.read_param_blocking(&name).unwrap()));
        for state in optimizer.state_names(&name).unwrap() {
            all.push(bits(optimizer.read_state_blocking(&name, state).unwrap()));
        }
        all.push(vec![optimizer.read_steps_blocking(&name).unwrap() as u32]);
    }
    let guarded = optimizer.read_guarded_blocking().unwrap();
    all.push(vec![guarded.loss_scale.to_bits(), guarded.skipped_steps as u32]);
    all
}

#[test]
fn going_on_from_a_file_equals_going_on_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    for gpu in gpus() {
        // At the end of a step, and between two micro-batches.
        for at in [24, 27] {
            let mut optimizer = build(&gpu, groups());
            run(&mut optimizer, 1..11);
            optimizer.set_group_lr(0, 3e-3).unwrap();
            optimizer.set_grad_scale(0.5).unwrap();
            run(&mut optimizer, 11..at);
            let extra = BTreeMap::from([("epoch".to_owned(), "3".to_owned())]);
            optimizer.save_with(&path, extra.clone()).unwrap();
            let saved = everything(&optimizer);
            assert!(optimizer.read_guarded_blocking().unwrap().skipped_steps > 1);
            run(&mut optimizer, at..40);
            let expected = everything(&optimizer);
            assert!(saved != expected);

            let file = Checkpoint::open(&path).unwrap();
            assert_eq!((file.specs(), file.extra()), (&specs()[..], &extra));
            assert_eq!(file.groups().unwrap(), groups());
            let resumed = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
            let mut bytes = Vec::new();
            resumed.save_to(&mut bytes, &[], extra.clone()).unwrap();
            assert_eq!(bytes.len() as u64, std::fs::metadata(&path).unwrap().len());
            let refused = Checkpoint::from_bytes(&bytes[..bytes.len() - 1]).unwrap_err().to_string();
            assert!(refused.starts_with("checkpoint (bytes): it has"), "{refused}");
            let mut loaded = build(&gpu, groups());
            run(&mut loaded, 3..4);
            loaded.load(&path).unwrap();
            let mut from_memory = build(&gpu, groups());
            from_memory.load_from(&mut Checkpoint::from_bytes(bytes).unwrap()).unwrap();
            for mut again in [resumed, loaded, from_memory] {
                assert_eq!(again.lr(0).unwrap(), again.groups().schedules()[0].factor(again.recorded_steps()) * 3e-3);
                assert!(everything(&again) == saved, "{}", gpu.name);
                run(&mut again, at..40);
                assert!(everything(&again) == expected, "{}: from {at}", gpu.name);
            }
        }
    }
}

#[test]
fn resuming_takes_other_settings_and_says_how_a_file_differs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let gpu = &gpus()[0];
    let schedule = |step: u64| 1.0 / (step + 1) as f64;
    let groups = || groups().with_group_schedule(0, LrSchedule::function(schedule));
    let mut optimizer = build(gpu, groups());
    run(&mut optimizer, 1..9);
    let extra = BTreeMap::from([("epoch".to_owned(), "3".to_owned())]);
    optimizer.save_with(&path, extra.clone()).unwrap();
    assert!(GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).is_err(), "the function is missing");
    let again = |groups: ParamGroups| groups.with_group_schedule(0, LrSchedule::function(schedule));
    let (mut resumed, found) = GpuOptimizer::resume_with(&gpu.device, &gpu.queue, &path, again).unwrap();
    assert_eq!(found, extra);
    for optimizer in [&mut optimizer, &mut resumed] {
        run(optimizer, 9..20);
    }
    assert!(everything(&optimizer) == everything(&resumed));

    let file = Checkpoint::open(&path).unwrap();
    assert_eq!(resumed.differences(&file), Vec::<String>::new());
    let recipe = resumed.groups().recipes()[0];
    resumed.set_lr(0.5).unwrap();
    assert_eq!(
        resumed.differences(&file),
        Vec::<String>::new(),
        "a learning rate that was set is in the file beside the recipes"
    );
    resumed.set_recipe(0, recipe.weight_decay(0.25)).unwrap();
    resumed.set_max_grad_norm(7.0).unwrap();
    let expected = [
        "`max_grad_norm` is 3.0 in the file and 7.0 here",
        "`recipes[0].base.weight_decay` is 0.0 in the file and 0.25 here",
    ];
    assert_eq!(resumed.differences(&file), expected);
    // A changed recipe is saved.
    resumed.save(&path).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().specs(), specs());
    let (changed, _) = GpuOptimizer::resume_with(&gpu.device, &gpu.queue, &path, again).unwrap();
    assert_eq!(changed.groups().recipes()[0], resumed.groups().recipes()[0]);
}

#[test]
fn tensors_that_fit_are_loaded_and_others_stay() {
    for gpu in gpus() {
        let mut optimizer = build(&gpu, groups());
        run(&mut optimizer, 1..9);
        let mut bytes = Vec::new();
        optimizer.save_to(&mut bytes, &[], BTreeMap::new()).unwrap();
        let mut file = Checkpoint::from_bytes(bytes).unwrap();
        // A new head, and a layer that the file does not have.
        let mut specs = specs();
        specs[3].shape = vec![50, 96];
        specs.push(TensorSpec::new("new", [7]));
        let fresh = || {
            let mut other = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, groups()).unwrap();
            for spec in &specs {
                other.write_param(&spec.name, &vec![0.5; spec.numel() as usize]).unwrap();
            }
            other.set_lr(0.125).unwrap();
            other
        };
        for part in [Part::Params, Part::All] {
            let mut other = fresh();
            assert!(matches!(other.load_from(&mut file), Err(Error::Checkpoint { .. })));
            assert_eq!(other.mismatches(&file, part).unwrap(), ["embedding", "new"]);
            assert_eq!(other.load_matching(&mut file, part).unwrap(), ["embedding", "new"]);
            for (i, TensorSpec { name, .. }) in specs.iter().enumerate() {
                let param = other.read_param_blocking(name).unwrap();
                let states: Vec<_> = other.state_names(name).unwrap().collect();
                let state = |from: &GpuOptimizer| {
                    states.iter().map(|state| from.read_state_blocking(name, state).unwrap()).collect::<Vec<_>>()
                };
                let steps = |from: &GpuOptimizer| from.read_steps_blocking(name).unwrap();
                let is_loaded = i < 3;
                match is_loaded {
                    true => assert_eq!(param, optimizer.read_param_blocking(name).unwrap(), "{name}"),
                    false => assert!(param.iter().all(|&x| x == 0.5), "{name}"),
                }
                match is_loaded && part == Part::All {
                    true => {
                        assert_eq!((state(&other), steps(&other)), (state(&optimizer), steps(&optimizer)), "{name}")
                    }
                    false => assert!(state(&other).concat().iter().all(|&x| x == 0.0) && steps(&other) == 0, "{name}"),
                }
            }
            assert_eq!((other.groups().recipes()[2].lr(), other.recorded_steps()), (0.125, 0));
            // It can go on.
            for spec in &specs {
                other.write_grad(&spec.name, &verify::grads(spec.numel() as usize, 1)).unwrap();
            }
            for _ in 0..2 {
                other.step().unwrap();
            }
            let before = if part == Part::All { optimizer.read_steps_blocking("scalar").unwrap() } else { 0 };
            assert_eq!(
                (other.read_steps_blocking("scalar").unwrap(), other.read_steps_blocking("new").unwrap()),
                (before + 1, 1)
            );
        }
        let strangers = [TensorSpec::new("a", [3])];
        let mut other = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &strangers, Recipe::adamw(1e-3)).unwrap();
        assert_eq!(other.load_matching(&mut file, Part::All).unwrap_err().code(), "checkpoint");
        let mut other = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &self::specs(), groups()).unwrap();
        assert_eq!(other.load_matching(&mut file, Part::Params).unwrap_err().code(), "ownership");
        assert_eq!(other.load_matching(&mut file, Part::All).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn averages_are_in_the_file_and_known_as_such() {
    for gpu in gpus() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("averages.safetensors");
        let recipe = Recipe::from(ScheduleFreeAdamW::new(1e-2)).mgup();
        let new = || GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs()[1..2], recipe).unwrap();
        let mut optimizer = new();
        let run = |optimizer: &mut GpuOptimizer, t| {
            optimizer.write_grad("layer.0.bias", &verify::grads(20, t)).unwrap();
            optimizer.step().unwrap();
        };
        (1..4).for_each(|t| run(&mut optimizer, t));
        optimizer.evaluate().unwrap();
        optimizer.save(&path).unwrap();
        let mut resumed = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
        assert!(resumed.is_evaluating());
        assert!(matches!(resumed.step(), Err(Error::Evaluating)));
        let mut loaded = new();
        let mut file = Checkpoint::open(&path).unwrap();
        assert!(reason(loaded.load_matching(&mut file, Part::All)).contains("averages"));
        loaded.evaluate().unwrap();
        loaded.load_matching(&mut file, Part::All).unwrap();
        for other in [&mut resumed, &mut loaded] {
            other.train().unwrap();
            run(other, 4);
        }
        optimizer.train().unwrap();
        run(&mut optimizer, 4);
        let expected = optimizer.read_param_blocking("layer.0.bias").unwrap();
        for other in [&resumed, &loaded] {
            assert_eq!(other.read_param_blocking("layer.0.bias").unwrap(), expected, "{}", gpu.name);
        }
    }
}

#[test]
fn parameters_in_two_bytes_are_rounded_after_a_skipped_step_too() {
    for gpu in gpus() {
        let specs = [TensorSpec::new("w", [8])];
        let groups =
            || ParamGroups::from(Recipe::adamw(1e-3)).with_precision(Precision::F16).with_non_finite(NonFinite::Skip);
        let new = || GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, groups()).unwrap();
        let saved = new();
        saved.write_param("w", &[1.5; 8]).unwrap();
        let mut bytes = Vec::new();
        saved.save_to(&mut bytes, &[], BTreeMap::new()).unwrap();
        let mut optimizer = new();
        optimizer.write_grad("w", &[f32::NAN; 8]).unwrap();
        optimizer.step().unwrap();
        assert!(optimizer.read_guarded_blocking().unwrap().skipped);
        optimizer.load_matching(&mut Checkpoint::from_bytes(bytes).unwrap(), Part::Params).unwrap();
        let TensorSlice { buffer, offset, .. } = optimizer.param("w").unwrap();
        let stored = &common::read(&gpu, buffer)[offset as usize..][..16];
        assert_eq!(stored, [0x00, 0x3e].repeat(8), "{}: 1.5 in f16", gpu.name);
    }
}

#[test]
fn the_scaler_goes_on_counting_and_skipped_steps_are_those_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    for gpu in gpus() {
        let recipes = ["mgup-adamw", "adamw-torch", "cautious-lion"].map(|name| name.parse().unwrap());
        let scaler = GradScaler::default().init(64.0).interval(3);
        let groups = || ParamGroups::from(recipes.to_vec()).with_grad_scaler(scaler);
        let mut optimizer = build(&gpu, groups());
        // Two of the three steps after which the scale grows.
        run(&mut optimizer, 1..3);
        optimizer.save(&path).unwrap();
        let saved = everything(&optimizer);
        let resumed = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
        let mut loaded = build(&gpu, groups());
        // One step is skipped.
        run(&mut loaded, 5..7);
        assert_eq!(loaded.read_steps_blocking("scalar").unwrap(), 1);
        loaded.load(&path).unwrap();
        for mut again in [resumed, loaded] {
            assert!(everything(&again) == saved, "{}", gpu.name);
            assert_eq!(again.read_guarded_blocking().unwrap().loss_scale, 64.0, "{}", gpu.name);
            run(&mut again, 3..4);
            assert_eq!(again.read_guarded_blocking().unwrap().loss_scale, 128.0, "{}", gpu.name);
        }
    }
}

/// An optimizer that has skipped so many steps, and for which a skipped step is an error.
fn failing(gpu: &Gpu, skipped: u64) -> GpuOptimizer {
    let groups = ParamGroups::from(vec![Recipe::adamw(1e-2); 3]).with_non_finite(NonFinite::Error);
    let mut optimizer = build(gpu, groups);
    for _ in 0..skipped {
        run(&mut optimizer, 5..6);
    }
    optimizer
}

fn skipped(error: Error) -> u64 {
    match error {
        Error::NonFinite { steps, .. } => steps,
        other => panic!("another error: {other}"),
    }
}

#[test]
fn a_read_that_began_before_loading_does_not_hide_what_is_skipped_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    for gpu in gpus() {
        failing(&gpu, 2).save(&path).unwrap();
        let mut optimizer = failing(&gpu, 5);
        let before = optimizer.read_guarded().unwrap();
        optimizer.load(&path).unwrap();
        assert_eq!(skipped(pollster::block_on(before).unwrap_err()), 5, "{}", gpu.name);
        run(&mut optimizer, 10..11);
        assert_eq!(skipped(optimizer.read_guarded_blocking().expect_err(&gpu.name)), 3);
    }
}

#[test]
fn a_step_that_is_skipped_after_loading_is_an_error_whatever_was_reported_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    for gpu in gpus() {
        failing(&gpu, 2).save(&path).unwrap();
        // Fewer, as many, and more than the file has; reported, or not yet.
        for before in [0, 2, 5] {
            for reports in [false, true] {
                let mut optimizer = failing(&gpu, before);
                if reports && before > 0 {
                    assert_eq!(skipped(optimizer.read_guarded_blocking().unwrap_err()), before);
                }
                optimizer.load(&path).unwrap();
                assert_eq!(optimizer.read_guarded_blocking().unwrap().skipped_steps, 2);
                run(&mut optimizer, 6..7);
                assert_eq!(optimizer.read_guarded_blocking().unwrap().skipped_steps, 2);
                run(&mut optimizer, 10..11);
                let found = optimizer.read_guarded_blocking();
                let what = format!("{}: {before} before, reported: {reports}", gpu.name);
                assert_eq!(skipped(found.expect_err(&what)), 3, "{what}");
                assert_eq!(optimizer.read_guarded_blocking().unwrap().skipped_steps, 3, "{what}");
            }
        }
    }
}

#[test]
fn names_shapes_and_types_are_those_that_pytorch_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let gpu = &gpus()[0];
    let specs = [TensorSpec::new("fc.weight", [3, 5]), TensorSpec::new("fc.bias", [3])];
    let recipe: Recipe = "adamw-torch".parse().unwrap();
    let optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, recipe).unwrap();
    optimizer.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<_> =
        file.iter().map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec())).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let f32 = safetensors::Dtype::F32;
    let expected = [
        ("params.fc.bias", f32, vec![3]),
        ("params.fc.weight", f32, vec![3, 5]),
        ("state.fc.bias.exp_avg", f32, vec![3]),
        ("state.fc.bias.exp_avg_sq", f32, vec![3]),
        ("state.fc.bias.step", safetensors::Dtype::I64, vec![]),
        ("state.fc.weight.exp_avg", f32, vec![3, 5]),
        ("state.fc.weight.exp_avg_sq", f32, vec![3, 5]),
        ("state.fc.weight.step", safetensors::Dtype::I64, vec![]),
    ];
    assert_eq!(found, expected.map(|(name, dtype, shape)| (name.to_owned(), dtype, shape)));
    assert_eq!(names(dir.path()), ["run.safetensors"]);
}

/// The files of a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_pytorch_saves_goes_on_as_in_pytorch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch");
    let bytes = std::fs::read(folder.join("continued.safetensors")).unwrap();
    let recorded = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |key: String| -> Vec<f32> { bytemuck::pod_collect_to_vec(recorded.tensor(&key).unwrap().data()) };
    for gpu in gpus() {
        let file = folder.join("checkpoint.safetensors");
        let mut optimizer = GpuOptimizer::resume(&gpu.device, &gpu.queue, file).unwrap();
        assert_eq!(optimizer.steps("weight").unwrap(), 153);
        for step in 0..5 {
            for name in ["weight", "bias"] {
                optimizer.write_grad(name, &values(format!("grad.{step}.{name}"))).unwrap();
            }
            optimizer.step().unwrap();
            for name in ["weight", "bias"] {
                let found = optimizer.read_param_blocking(name).unwrap();
                let (_, failure) = verify::compare(&found, &values(format!("expected.{step}.{name}")), None);
                assert_eq!(failure, None, "{}: {name}, {step}", gpu.name);
            }
        }
    }
}

fn reason<T>(result: Result<T, Error>) -> String {
    match result.err() {
        Some(error @ Error::Checkpoint { .. }) => error.to_string(),
        Some(other) => panic!("another error: {other}"),
        None => panic!("it is refused"),
    }
}

#[test]
fn files_that_do_not_fit_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let bad = dir.path().join("bad.safetensors");
    let gpu = &gpus()[0];
    let mut optimizer = build(gpu, groups());
    run(&mut optimizer, 1..5);
    optimizer.save(&path).unwrap();
    run(&mut optimizer, 6..9);
    let before = everything(&optimizer);
    let good = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    // The header with a word replaced by one of the same length.
    let with = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let text = std::str::from_utf8(&good[8..header]).unwrap();
        assert!(text.contains(from), "{from}");
        [&good[..8], text.replacen(from, to, 1).as_bytes(), &good[header..]].concat()
    };
    let cases = [
        (good[..good.len() - 1].to_vec(), "cut short"),
        (good[..header + 10].to_vec(), "cut short"),
        (good[..header / 2].to_vec(), "is not a safetensors file"),
        (good[..4].to_vec(), "less than 8 bytes"),
        (Vec::new(), "less than 8 bytes"),
        ([&good[..], b"more"].concat(), "grew"),
        (vec![0xff; 4096], "is not a safetensors file"),
        (b"{\"a\": 1}".repeat(100), "is not a safetensors file"),
        (with(r#""format":"wgpu-optim""#, r#""format":"wgpu_optim""#), "not a checkpoint of wgpu-optim"),
        (with(r#""format_version":"1""#, r#""format_version":"2""#), "format version is 2"),
        (with(r#""dtype":"F32","shape":[20]"#, r#""dtype":"I32","shape":[20]"#), "I32 of shape [20]"),
        (with(r#""shape":[24,20]"#, r#""shape":[20,24]"#), "[20, 24] instead of F32 of shape [24, 20]"),
        (with("\"params.scalar\"", "\"params.scalax\""), "`params.scala"),
        (with(r#"recorded_steps"#, r#"recorded_stepz"#), "its metadata"),
        (with(r#"max_grad_value"#, r#"max_grad_walue"#), "unknown field `max_grad_walue`"),
        (with(r#"\"grown\""#, r#"\"groan\""#), "unknown field `groan`"),
        (with(r#"\"momentum\":"#, r#"\"min_step\":"#), "the key `min_step` is there twice"),
        (
            with(r#""state.embedding.step""#, r#""state.scalar.exp_avg""#),
            "the key `state.scalar.exp_avg` is there twice",
        ),
    ];
    for (bytes, words) in cases {
        std::fs::write(&bad, bytes).unwrap();
        let message = reason(optimizer.load(&bad));
        assert!(message.contains(words) && message.contains("bad.safetensors"), "{message}");
        assert!(everything(&optimizer) == before, "{words}");
    }
    assert!(reason(optimizer.load(dir.path().join("none"))).contains("none"));

    // Of another optimizer.
    let other = |specs: &[TensorSpec], groups: ParamGroups| {
        GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, specs, groups).unwrap()
    };
    let lion: Recipe = "lion".parse().unwrap();
    let fewer: Vec<_> = specs().into_iter().take(3).collect();
    for (mut other, words) in [
        (other(&specs(), vec![lion; 3].into()), "which this optimizer does not"),
        (other(&fewer, groups()), "`params.embedding`"),
        (other(&specs(), vec![Recipe::adamw(1e-3), Recipe::adago(1e-3), lion, lion].into()), "3 parameter groups"),
    ] {
        let message = reason(other.load(&path));
        assert!(message.contains(words), "{message}");
    }
    // In the middle of a step with more micro-batches than the other has.
    let mut half = build(gpu, groups());
    run(&mut half, 1..2);
    half.save(&bad).unwrap();
    let message = reason(build(gpu, groups().with_accumulation(1)).load(&bad));
    assert!(message.contains("1 micro-batches"), "{message}");

    // More than a file is opened with.
    let extra = BTreeMap::from([("notes".to_owned(), "x".repeat(105 << 20))]);
    let message = reason(optimizer.save_with(&path, extra));
    assert!(message.contains("extra data"), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), good);

    // A function cannot be written.
    let function = ParamGroups::from(lion).with_schedule(LrSchedule::function(|_| 0.5));
    let specs = [TensorSpec::new("w", [5])];
    let mut by_function = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, function).unwrap();
    by_function.step().unwrap();
    by_function.save(&bad).unwrap();
    assert!(reason(GpuOptimizer::resume(&gpu.device, &gpu.queue, &bad)).contains("function"));
    by_function.load(&bad).unwrap();
    assert_eq!(by_function.recorded_steps(), 1);

    // Where nothing can be written.
    let message = reason(optimizer.save(dir.path().join("nowhere").join("run.safetensors")));
    assert!(message.contains("nowhere"), "{message}");
    assert!(reason(optimizer.save("..")).contains("no file name"));
}

#[test]
fn values_that_no_optimizer_writes_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let gpu = &gpus()[0];
    let specs = [TensorSpec::new("w", [2, 3]).with_components(3), TensorSpec::new("v", [4]).in_group(1)];
    let groups = || ParamGroups::from(vec![Recipe::adago(0.1), Recipe::adamw(0.1)]);
    let make = || GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, groups()).unwrap();
    let optimizer = make();
    optimizer.write_rates("w", &[1.0, 2.0, 0.0]).unwrap();
    optimizer.write_state("w", "accumulator", &[3.0]).unwrap();
    optimizer.write_state("v", "exp_avg_sq", &[4.0; 4]).unwrap();
    optimizer.save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let (_, tensors) = safetensors::SafeTensors::read_metadata(&good).unwrap();
    for (key, at, value) in [
        ("state.w.rates", 2, -1.0),
        ("state.w.rates", 0, f32::INFINITY),
        ("state.v.exp_avg_sq", 3, f32::NAN),
        ("state.v.exp_avg_sq", 1, -1e-9),
        ("state.w.accumulator", 0, -2.0),
        ("state.w.accumulator", 0, f32::NAN),
    ] {
        let mut bad = good.clone();
        let first = header + tensors.info(key).unwrap().data_offsets.0 + 4 * at;
        bad[first..first + 4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, bad).unwrap();
        let mut other = make();
        let message = reason(other.load(&path));
        assert!(message.contains(&format!("`{key}` is {value:?}")), "{message}");
        assert!(message.contains(&format!("at {at}")), "{message}");
        assert_eq!(other.read_state_blocking("v", "exp_avg_sq").unwrap(), [0.0; 4], "{key}");
    }
    std::fs::write(&path, &good).unwrap();
    make().load(&path).unwrap();
    // Nor is such a file written over a good one.
    optimizer.write_state("v", "exp_avg_sq", &[4.0, f32::NAN, 4.0, 4.0]).unwrap();
    let message = optimizer.save(&path).unwrap_err().to_string();
    assert!(message.contains("`state.v.exp_avg_sq` is NaN at 1"), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), good);
}

#[test]
fn sums_are_in_a_file_only_where_there_are_any() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    let gpu = &gpus()[0];
    let specs = [TensorSpec::new("a", [4])];
    let make = |accumulation| {
        let groups = ParamGroups::from(Recipe::lion(0.5)).with_accumulation(accumulation);
        GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, groups).unwrap()
    };
    let own = |values: [f32; 4]| {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 16,
            usage,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&values));
        buffer
    };
    let (param, grad) = (own([0.0; 4]), own([1.0; 4]));
    let given = [TensorBuffers::new(TensorSlice::whole(&param), TensorSlice::whole(&grad))];
    let mut optimizer = make(2);
    for _ in 0..2 {
        optimizer.step_with(&given).unwrap();
    }
    optimizer.save(&path).unwrap();
    // Between steps, others may go on.
    for accumulation in [1, 3] {
        make(accumulation).load(&path).unwrap();
    }
    optimizer.step_with(&given).unwrap();
    optimizer.save(&path).unwrap();
    let message = reason(make(1).load(&path));
    assert!(message.contains("1 micro-batches of a step, and this optimizer takes 1 per step"), "{message}");
    let mut again = make(2);
    again.load(&path).unwrap();
    assert_eq!(again.micro_batches(), 1);
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let sum: Vec<f32> = bytemuck::pod_collect_to_vec(file.tensor("state.a.grad_sum").unwrap().data());
    assert_eq!(sum, [1.0; 4]);

    // In arenas, too, once the step has ended.
    let arenas = |accumulation| {
        let groups = ParamGroups::from(Recipe::lion(0.5)).with_accumulation(accumulation);
        GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, groups).unwrap()
    };
    let mut optimizer = arenas(2);
    optimizer.step().unwrap();
    optimizer.save(&path).unwrap();
    let mut again = arenas(2);
    again.load(&path).unwrap();
    again.step().unwrap();
    again.save(&path).unwrap();
    arenas(1).load(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_save_follows_links_keeps_permissions_and_overwrites_nothing_else() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let gpu = &gpus()[0];
    let specs = [TensorSpec::new("w", [5])];
    let optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, Recipe::lion(0.1)).unwrap();
    // Where a fixed name for the unfinished file would lead.
    std::fs::write(path("precious"), "mine").unwrap();
    for trap in ["run.safetensors.partial", ".run.safetensors.partial"] {
        symlink(path("precious"), path(trap)).unwrap();
    }
    optimizer.save(path("run.safetensors")).unwrap();
    assert_eq!(std::fs::read_to_string(path("precious")).unwrap(), "mine");
    let mode = |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
    std::fs::write(path("by_hand"), "").unwrap();
    assert_eq!(mode("run.safetensors"), mode("by_hand"), "as any new file");

    std::fs::set_permissions(path("run.safetensors"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink("run.safetensors", path("latest")).unwrap();
    symlink(path("latest"), path("newest")).unwrap();
    symlink("next.safetensors", path("next")).unwrap();
    let before = std::fs::read(path("run.safetensors")).unwrap();
    let mut optimizer = optimizer;
    optimizer.set_steps(3);
    optimizer.save(path("newest")).unwrap();
    optimizer.save(path("next")).unwrap();
    for link in ["latest", "newest", "next"] {
        assert!(std::fs::symlink_metadata(path(link)).unwrap().is_symlink(), "{link}");
        assert_ne!(std::fs::read(path(link)).unwrap(), before);
    }
    assert_eq!(mode("run.safetensors"), 0o600);
    symlink("around", path("around")).unwrap();
    assert!(reason(optimizer.save(path("around"))).contains("link"));
}

#[test]
fn savers_and_readers_of_one_path_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let gpu = &gpus()[0];
    let specs = [TensorSpec::new("w", [30_000])];
    let make = |value: f32| {
        let optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, Recipe::lion(0.1));
        let optimizer = optimizer.unwrap();
        optimizer.write_param("w", &[value; 30_000]).unwrap();
        optimizer.write_state("w", "exp_avg", &[-value; 30_000]).unwrap();
        optimizer.save(&path).unwrap();
        optimizer
    };
    let savers = [make(1.0), make(2.0)];
    let done = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for optimizer in &savers {
            let (path, done) = (&path, &done);
            scope.spawn(move || {
                (0..40).for_each(|_| optimizer.save(path).unwrap());
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        let mut reads = 0;
        while done.load(std::sync::atomic::Ordering::Relaxed) < savers.len() || reads < 20 {
            let mut file = Checkpoint::open(&path).unwrap();
            let param = file.read_param("w").unwrap();
            assert!(param.iter().all(|&x| x == param[0]), "of one run");
            reads += 1;
        }
    });
    assert_eq!(names(dir.path()), ["run.safetensors"]);
}

#[test]
fn the_callers_parameters_stay_the_callers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    let gpu = &gpus()[0];
    let specs = [TensorSpec::new("w", [5])];
    let make = || GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, Recipe::lion(0.1)).unwrap();
    let mut optimizer = make();
    optimizer.write_state("w", "exp_avg", &[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    optimizer.set_steps(7);
    optimizer.save(&path).unwrap();
    let mut again = make();
    again.load(&path).unwrap();
    assert_eq!(again.read_state_blocking("w", "exp_avg").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(again.steps("w").unwrap(), 7);
    let mut arenas = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, Recipe::lion(0.1)).unwrap();
    assert!(reason(arenas.load(&path)).contains("it lacks `params.w`"));
    arenas.save(&path).unwrap();
    again.load(&path).unwrap();
    assert_eq!(again.steps("w").unwrap(), 0);
}

#[test]
fn the_sum_of_a_tensor_that_was_left_out_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    let gpu = &gpus()[0];
    let specs = [TensorSpec::new("a", [4]), TensorSpec::new("b", [4])];
    let groups = || ParamGroups::from(Recipe::lion(0.5)).with_accumulation(2);
    let make = || GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, groups()).unwrap();
    let own = |values: [f32; 4]| {
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 16,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&values));
        buffer
    };
    let buffers = [own([0.0; 4]), own([0.0; 4]), own([3.0, -1.0, 2.0, -2.0]), own([-1.0, 1.0, -3.0, 1.0])];
    let [a, b, first, second] = buffers.each_ref().map(TensorSlice::whole);
    let mut optimizer = make();
    let both = |grad| [Some(TensorBuffers::new(a, grad)), Some(TensorBuffers::new(b, grad))];
    optimizer.step_with(&both(first)).unwrap();
    optimizer.step_with(&[Some(TensorBuffers::new(a, second)), None]).unwrap();
    assert_eq!((optimizer.micro_batches(), optimizer.steps("b").unwrap()), (0, 0));
    optimizer.save(&path).unwrap();
    let mut again = make();
    again.load(&path).unwrap();
    for _ in 0..2 {
        again.step_with(&[None, Some(TensorBuffers::new(b, second))]).unwrap();
    }
    // The sign of 3 − 1 − 1, −1 + 1 + 1, 2 − 3 − 3 and −2 + 1 + 1.
    let found: Vec<f32> = bytemuck::pod_collect_to_vec(&common::read(gpu, b.buffer));
    assert_eq!(found, [-0.5, -0.5, 0.5, 0.0]);
}

const CHILD: &str = "WGPU_OPTIM_TEST_SAVES_TO";

/// Large enough that a save takes a while.
fn child_spec() -> TensorSpec {
    TensorSpec::new("w", [300_000])
}

/// Not a test of its own: what the next one kills.
#[test]
fn a_child_saves_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let gpu = &gpus()[0];
    let mut optimizer =
        GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &[child_spec()], Recipe::lion(0.1)).unwrap();
    for i in 1u64.. {
        optimizer.write_param("w", &vec![i as f32; 300_000]).unwrap();
        optimizer.write_state("w", "exp_avg", &vec![-(i as f32); 300_000]).unwrap();
        optimizer.set_steps(i);
        optimizer.save(&path).unwrap();
        if i == 1 {
            println!("saved once");
        }
    }
}

/// Which save a file holds; it must hold one of them.
fn saved(path: &Path) -> f32 {
    Checkpoint::open(path).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |name: &str| -> Vec<f32> { bytemuck::pod_collect_to_vec(file.tensor(name).unwrap().data()) };
    let i = values("params.w")[0];
    assert!(values("params.w").iter().all(|&x| x == i));
    assert!(values("state.w.exp_avg").iter().all(|&x| x == -i));
    assert_eq!(file.tensor("state.w.step").unwrap().data(), (i as i64).to_le_bytes());
    i
}

#[test]
fn a_save_that_is_killed_leaves_a_whole_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let mut interrupted = 0;
    for kill in 0..50 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "checkpoint::a_child_saves_until_it_is_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let once = lines.map_while(Result::ok).find(|line| line.contains("saved once"));
        assert!(once.is_some(), "the child ended by itself");
        // Anywhere within a few saves.
        std::thread::sleep(Duration::from_micros(577 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(saved(&path) >= 1.0);
        let left: Vec<_> = names(dir.path()).into_iter().filter(|name| name.ends_with(".partial")).collect();
        assert!(left.iter().all(|name| name.starts_with(".wgpu-optim-")), "{left:?}");
        interrupted = left.len();
    }
    println!("{interrupted} of 50 in the middle of a save");
    assert!(interrupted > 0, "no save was interrupted");
}

/// Host work that grew with the square of the number of tensors would take minutes. COUNT: how many.
#[test]
fn thousands_of_small_tensors_take_seconds() {
    let count: u64 = std::env::var("COUNT").map_or(20_000, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let gpu = &gpus()[0];
    let specs: Vec<_> = (0..count).map(|i| TensorSpec::new(format!("layer.{i}"), [10])).collect();
    let stride = 256;
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 2 * stride * count,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let slice = |i: u64| TensorSlice { buffer: &buffer, offset: stride * i, size: 40 };
    let given: Vec<_> = (0..count).map(|i| Some(TensorBuffers::new(slice(i), slice(count + i)).with_lr(0.1))).collect();
    let begun = std::time::Instant::now();
    let lap = |what: &str| println!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
    let groups = || ParamGroups::from(Recipe::lion(0.1)).with_accumulation(2);
    let make = || GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, groups()).unwrap();
    let mut optimizer = make();
    lap("built");
    for _ in 0..2 {
        optimizer.step_with(&given).unwrap();
    }
    gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    lap("stepped");
    let params: Vec<_> = specs.iter().zip(0..).map(|(s, i)| (s.name.as_str(), &s.shape[..], slice(i))).collect();
    optimizer.save_params(&path, &params, BTreeMap::new()).unwrap();
    lap("saved");
    let mut again = make();
    again.load(&path).unwrap();
    lap("loaded");
    let resized = again.resized_blocking(&specs[1..], &[("layer.7", wgpu_optim::Rows::Reset)]).unwrap();
    assert_eq!((resized.steps("layer.8").unwrap(), resized.steps("layer.7").unwrap()), (1, 0));
    lap("resized");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
