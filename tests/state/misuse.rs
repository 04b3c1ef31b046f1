//! Wrong calls: each is an error of its kind, and leaves parameters, gradients, state and counts as they were.

use crate::common::{Gpu, gpus};
use wgpu_optim::base::SecondMoment;
use wgpu_optim::policy::Mgup;
use wgpu_optim::{
    Checkpoint, Error, GpuOptimizer, ParamGroups, Part, Precision, Recipe, Rows, TensorBuffers, TensorSlice,
    TensorSpec, base::AdamW, verify, wgpu,
};

fn specs() -> [TensorSpec; 3] {
    [
        TensorSpec::new("a", [33, 10]),
        TensorSpec::new("b", [5000]).in_group(1),
        TensorSpec::new("c", [6]).with_components(3),
    ]
}

fn groups() -> ParamGroups {
    ParamGroups::from([Recipe::adamw(1e-2).mgup(), Recipe::lion(1e-3)]).with_accumulation(2)
}

/// In the middle of a step.
fn build(gpu: &Gpu) -> GpuOptimizer {
    let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), groups()).unwrap();
    for spec in specs() {
        let numel = spec.numel() as usize;
        optimizer.write_param(&spec.name, &verify::params(numel)).unwrap();
        optimizer.write_grad(&spec.name, &verify::grads(numel, 1)).unwrap();
    }
    run(&mut optimizer);
    optimizer
}

fn run(optimizer: &mut GpuOptimizer) {
    for _ in 0..3 {
        optimizer.step().unwrap();
    }
}

/// What a call may change, but for the sums of micro-batches.
fn everything(optimizer: &GpuOptimizer) -> (Vec<Vec<u32>>, String) {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let mut all = Vec::new();
    for spec in optimizer.specs() {
        let name = &spec.name;
        all.push(bits(optimizer.read_param_blocking(name).unwrap()));
        for state in optimizer.state_names(name).unwrap() {
            all.push(bits(optimizer.read_state_blocking(name, state).unwrap()));
        }
        let selected = optimizer.read_selected_blocking(name).unwrap();
        all.push(vec![selected.k as u32, selected.count as u32, optimizer.read_steps_blocking(name).unwrap() as u32]);
    }
    let counts =
        (optimizer.recorded_steps(), optimizer.micro_batches(), optimizer.grad_scale(), optimizer.lr(1).unwrap());
    (all, format!("{counts:?} {:?}", optimizer.groups()))
}

type Call<'a> = Box<dyn Fn(&mut GpuOptimizer) -> Result<(), Error> + 'a>;

/// A checkpoint of another model.
fn foreign_file(optimizer: &GpuOptimizer) -> Result<Checkpoint, Error> {
    let mut bytes = Vec::new();
    let other = optimizer.sibling_blocking(&[TensorSpec::new("z", [4])], Recipe::lion(1.0))?;
    other.save_to(&mut bytes, &[], Default::default())?;
    Checkpoint::from_bytes(bytes)
}

/// Calls that this optimizer refuses, each with the code of its error.
fn wrong<'a>(gpu: &'a Gpu, foreign: &'a wgpu::Buffer) -> Vec<(&'static str, &'static str, Call<'a>)> {
    fn call<'a, T>(call: impl Fn(&mut GpuOptimizer) -> Result<T, Error> + 'a) -> Call<'a> {
        Box::new(move |optimizer| call(optimizer).map(drop))
    }
    let whole = || TensorSlice::whole(foreign);
    let encoder = || gpu.device.create_command_encoder(&Default::default());
    let wide = [TensorSpec::new("a", [33, 11])];
    vec![
        ("param", "unknown_tensor", call(|o| o.param("x").map(drop))),
        ("grad", "unknown_tensor", call(|o| o.grad("x").map(drop))),
        ("state of no tensor", "unknown_tensor", call(|o| o.state("x", "exp_avg").map(drop))),
        ("state", "unknown_state", call(|o| o.state("b", "exp_avg_sq").map(drop))),
        ("state_names", "unknown_tensor", call(|o| o.state_names("x").map(drop))),
        ("rates", "tensor", call(|o| o.rates("a").map(drop))),
        ("write_param", "slice", call(|o| o.write_param("a", &[0.0; 329]))),
        ("write_grad", "slice", call(|o| o.write_grad("a", &[0.0; 331]))),
        ("write_state", "slice", call(|o| o.write_state("a", "exp_avg", &[0.0]))),
        ("write_rates, too many", "slice", call(|o| o.write_rates("c", &[1.0; 4]))),
        ("write_rates, negative", "recipe", call(|o| o.write_rates("c", &[1.0, -1.0, 1.0]))),
        ("read_param", "unknown_tensor", call(|o| o.read_param_blocking("x"))),
        ("read_state", "unknown_state", call(|o| o.read_state_blocking("a", "momentum_buffer"))),
        ("read_selected", "unknown_tensor", call(|o| o.read_selected_blocking("x"))),
        ("read_steps", "unknown_tensor", call(|o| o.read_steps_blocking("x"))),
        ("steps", "unknown_tensor", call(|o| o.steps("x"))),
        ("recipe_of", "unknown_tensor", call(|o| o.recipe_of("x"))),
        ("read_guarded", "setting_off", call(|o| o.read_guarded_blocking())),
        ("read_grad_norm", "setting_off", call(|o| o.read_grad_norm_blocking())),
        ("set_tensor_steps", "ownership", call(|o| o.set_tensor_steps("a", 7))),
        ("lr", "unknown_group", call(|o| o.lr(2))),
        ("set_lr", "recipe", call(|o| o.set_lr(-1.0))),
        ("set_group_lr", "unknown_group", call(|o| o.set_group_lr(2, 1.0))),
        ("set_group_lr, NaN", "recipe", call(|o| o.set_group_lr(1, f64::NAN))),
        ("set_recipe of no group", "unknown_group", call(|o| o.set_recipe(2, Recipe::lion(1.0)))),
        ("set_recipe, another base", "group", call(|o| o.set_recipe(1, Recipe::adamw(1.0)))),
        ("set_recipe, another policy", "group", call(|o| o.set_recipe(0, Recipe::adamw(1.0)))),
        (
            "set_recipe, other state",
            "group",
            call(|o| o.set_recipe(0, Recipe::new(AdamW::new(1.0).second_moment(SecondMoment::Row), Mgup::default()))),
        ),
        (
            "set_recipe, a ratio of 1",
            "recipe",
            call(|o| o.set_recipe(0, Recipe::adamw(1.0).with_policy(Mgup::default().ratio(1.0)))),
        ),
        ("set_max_grad_norm", "setting_off", call(|o| o.set_max_grad_norm(1.0))),
        ("set_max_grad_norm, negative", "recipe", call(|o| o.set_max_grad_norm(-1.0))),
        ("set_grad_scale", "recipe", call(|o| o.set_grad_scale(0.0))),
        ("set_micro_batch_weight", "recipe", call(|o| o.set_micro_batch_weight(f64::INFINITY))),
        ("set_loss_scale", "setting_off", call(|o| o.set_loss_scale(2.0))),
        (
            "record_with",
            "ownership",
            call(move |o| o.record_with(&mut encoder(), &[TensorBuffers::new(whole(), whole())])),
        ),
        ("step_with", "ownership", call(move |o| o.step_with(&[TensorBuffers::new(whole(), whole())]))),
        ("resized, another row", "tensor", call(move |o| o.resized_blocking(&wide, &[]))),
        ("resized, no such rows", "unknown_tensor", call(|o| o.resized_blocking(&specs(), &[("x", Rows::Keep)]))),
        (
            "resized, a short index",
            "slice",
            call(move |o| o.resized_blocking(&specs(), &[("a", Rows::Gather(whole()))])),
        ),
        ("sibling of no tensors", "empty", call(|o| o.sibling_blocking(&[], groups()))),
        (
            "sibling, one name twice",
            "tensor",
            call(|o| o.sibling_blocking(&[TensorSpec::new("a", [1]), TensorSpec::new("a", [1])], Recipe::lion(1.0))),
        ),
        ("save", "checkpoint", call(|o| o.save("/nowhere/at/all.safetensors"))),
        ("save_params", "ownership", call(move |o| o.save_params("x", &[("x", &[1], whole())], Default::default()))),
        ("load", "checkpoint", call(|o| o.load("/nowhere/at/all.safetensors"))),
        ("load_from, other tensors", "checkpoint", call(|o| o.load_from(&mut foreign_file(o)?))),
        ("load_matching, nothing fits", "checkpoint", call(|o| o.load_matching(&mut foreign_file(o)?, Part::All))),
    ]
}

#[test]
fn every_wrong_call_is_an_error_of_its_kind_and_changes_nothing() {
    for gpu in gpus() {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false };
        let foreign = gpu.device.create_buffer(&descriptor);
        let mut optimizer = build(&gpu);
        let before = everything(&optimizer);
        for (what, code, call) in wrong(&gpu, &foreign) {
            let error = call(&mut optimizer).expect_err(what);
            assert_eq!(error.code(), code, "{}: {what}: {error}", gpu.name);
            assert!(everything(&optimizer) == before, "{}: {what} changed something", gpu.name);
        }
        // It goes on as one that nothing was asked of.
        let mut other = build(&gpu);
        run(&mut optimizer);
        run(&mut other);
        assert!(everything(&optimizer) == everything(&other), "{}", gpu.name);
    }
}

#[test]
fn what_cannot_be_built_is_refused_by_its_kind() {
    let gpu = &gpus()[0];
    let new = |specs: &[TensorSpec], groups: ParamGroups| {
        let error = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, specs, groups).unwrap_err();
        (error.code(), error.to_string())
    };
    let one = || [TensorSpec::new("w", [8])];
    let adamw = || ParamGroups::from(Recipe::adamw(1e-3));
    for ((code, message), (expected, words)) in [
        (new(&[], adamw()), ("empty", "at least one tensor")),
        (new(&one(), ParamGroups::default()), ("empty", "at least one parameter group")),
        (new(&[TensorSpec::new("", [8])], adamw()), ("tensor", "empty name")),
        (new(&[TensorSpec::new("w", [8, 0])], adamw()), ("tensor", "holds nothing")),
        (new(&[TensorSpec::new("w", [8]).in_group(1)], adamw()), ("tensor", "group 1 does not exist")),
        (new(&[TensorSpec::new("w", [8]).with_components(3)], adamw()), ("tensor", "3 components")),
        (new(&[TensorSpec::new("w", [1 << 20, 1 << 13])], adamw()), ("tensor", "2^32")),
        (new(&one(), Recipe::muon(1e-3).into()), ("group", "none of its tensors is one")),
        (new(&one(), adamw().with_accumulation(0)), ("recipe", "`accumulation` is 0")),
        (new(&one(), adamw().with_max_grad_norm(f64::NAN)), ("recipe", "`max_grad_norm` is NaN")),
        (new(&one(), Recipe::adamw(f64::INFINITY).into()), ("recipe", "`base.lr` is inf")),
        (new(&one(), Recipe::adago(1e-3).grams().into()), ("recipe", "policy.type")),
        (new(&[TensorSpec::new("w", [8]).with_components(8000)], adamw()), ("tensor", "8000 components")),
        (new(&[TensorSpec::new("w", [8000]).with_components(8000)], adamw()), ("too_many", "at most 4096")),
    ] {
        assert_eq!(code, expected, "{message}");
        assert!(message.contains(words), "{message}");
    }
    let half = || adamw().with_precision(Precision::F16);
    let error = GpuOptimizer::stateless_blocking(&gpu.device, &gpu.queue, &one(), half()).unwrap_err();
    assert_eq!(error.code(), "ownership", "{error}");
}
