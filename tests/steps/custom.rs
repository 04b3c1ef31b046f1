//! Bases and policies written as WGSL of a program.

use crate::common::{Gpu, read, shared_gpus};
use wgpu_optim::base::{AdamW, Base, CustomBase, Lion, RmsProp};
use wgpu_optim::policy::{CustomPolicy, Grams, Mgup, Policy, Selection};
use wgpu_optim::{
    Checkpoint, Cost, GpuOptimizer, GradScaler, LrSchedule, Miss, NonFinite, ParamGroups, Part, Precision, Recipe,
    TensorBuffers, TensorSlice, TensorSpec, reference, verify, wgpu,
};

const ADAMW: &str = include_str!("../custom/adamw.wgsl");
const LION: &str = include_str!("../custom/lion.wgsl");
const RMSPROP: &str = include_str!("../custom/rmsprop.wgsl");
const GRAMS: &str = include_str!("../custom/grams.wgsl");

/// Each custom base with what it is built in as.
fn twins() -> [(Base, Base); 3] {
    let own = |text: &str, lr: f64| CustomBase::new(text).unwrap().lr(lr).weight_decay(0.1);
    [
        (own(ADAMW, 0.01).into(), AdamW::new(0.01).weight_decay(0.1).into()),
        (own(LION, 0.01).into(), Lion::new(0.01).weight_decay(0.1).into()),
        (own(RMSPROP, 0.01).into(), RmsProp::new(0.01).weight_decay(0.1).decoupled_weight_decay(true).into()),
    ]
}

fn policies() -> Vec<Policy> {
    let approximate = Mgup::default().selection(Selection::Approximate).into();
    let names = ["adamw", "cautious-adamw", "mgup-adamw", "cautious-mgup-adamw", "grams-adamw"];
    names.iter().map(|name| name.parse::<Recipe>().unwrap().policy).chain([approximate]).collect()
}

const SIZES: [usize; 3] = [1, 257, 20_001];

/// Parameters and states after some steps, as bits.
fn run(gpu: &Gpu, groups: &ParamGroups, misses: bool) -> (Vec<Vec<u32>>, Cost) {
    let specs = SIZES.map(|numel| TensorSpec::new(format!("w{numel}"), [numel]));
    let mut optimizer = gpu.optimizer(&specs, groups.clone()).unwrap();
    for spec in &specs {
        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
    }
    for t in 1..=4 {
        for spec in &specs {
            let mut grads = verify::grads(spec.numel() as usize, t);
            if t == 3 && groups.grad_scaler().is_some() {
                grads[0] = f32::INFINITY;
            }
            optimizer.write_grad(&spec.name, &grads).unwrap();
        }
        optimizer.poison_scratch();
        if misses && t > 1 {
            optimizer.force_miss([Miss::Above, Miss::Overflow][t as usize % 2]);
        }
        optimizer.step().unwrap();
    }
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let of = |spec: &TensorSpec| {
        let states = optimizer.state_names(&spec.name).unwrap();
        let states = states.map(|state| bits(optimizer.read_state_blocking(&spec.name, state).unwrap()));
        [bits(optimizer.read_param_blocking(&spec.name).unwrap())].into_iter().chain(states).collect::<Vec<_>>()
    };
    (specs.iter().flat_map(of).collect(), optimizer.cost())
}

#[test]
fn a_base_written_as_a_text_has_the_bits_of_the_built_in_one() {
    for gpu in shared_gpus().iter() {
        for (own, built_in) in twins() {
            for policy in policies() {
                let what = format!("{}: {} under {policy:?}", gpu.name, Recipe::new(own, policy));
                let misses = matches!(policy, Policy::Mgup(_));
                let [found, expected] = [own, built_in].map(|base| run(gpu, &Recipe::new(base, policy).into(), misses));
                assert_eq!(found.1, expected.1, "{what}");
                assert!(found.0 == expected.0, "{what}");
            }
        }
    }
}

#[test]
fn settings_apply_to_a_custom_base_as_to_the_built_in_one() {
    let settings: [fn(ParamGroups) -> ParamGroups; 4] = [
        |groups| groups.with_grad_scaler(GradScaler::default()).with_max_grad_norm(0.5),
        |groups| groups.with_accumulation(2).with_max_grad_value(0.05),
        |groups| groups.with_precision(Precision::Bf16).with_telemetry(2),
        |groups| groups.with_schedule(LrSchedule::linear(5, 0.1)),
    ];
    for gpu in shared_gpus().iter() {
        for (own, built_in) in twins() {
            // Further adapters take one.
            let few = std::env::var_os("WGPU_OPTIM_FEW_RECIPES").is_some();
            for (i, with) in settings.iter().enumerate().take(if few { 1 } else { settings.len() }) {
                let of = |base: Base| run(gpu, &with(Recipe::from(base).mgup().into()), false);
                assert!(of(own) == of(built_in), "{}: {own:?} with settings {i}", gpu.name);
            }
        }
    }
}

#[test]
fn a_policy_written_as_a_text_has_the_bits_of_the_built_in_one() {
    let own = CustomPolicy::new(GRAMS).unwrap();
    for gpu in shared_gpus().iter() {
        for base in [AdamW::torch().into(), Lion::new(0.01).into(), twins()[0].0] {
            let of = |policy: Policy| run(gpu, &Recipe::new(base, policy).into(), false);
            assert!(of(own.into()) == of(Grams::default().into()), "{}: {base:?}", gpu.name);
        }
    }
}

/// The base of `tests/custom/adamw.wgsl` with another line.
fn adamw_with(from: &str, to: &str) -> CustomBase {
    assert!(ADAMW.contains(from));
    CustomBase::new(&ADAMW.replace(from, to)).unwrap().lr(0.01)
}

#[test]
fn states_begin_at_their_initial_values_and_scalars_follow_their_schedules() {
    let numel = 300;
    let base = adamw_with("state exp_avg_sq", "state exp_avg_sq = 0.25").twin(|state, g, s| {
        state[0] = s["beta1"] * state[0] + s["one_minus_beta1"] * g;
        state[1] = s["beta2"] * state[1] + s["one_minus_beta2"] * g * g;
        state[0] / (state[1].sqrt() + s["eps"])
    });
    let halved = LrSchedule::linear(2, 0.5);
    for gpu in shared_gpus().iter() {
        for skips in [false, true] {
            let mut groups = ParamGroups::from(base).with_scalar_schedule(0, "beta1", halved.clone());
            if skips {
                groups = groups.with_non_finite(NonFinite::Skip);
            }
            let specs = [TensorSpec::new("w", [numel])];
            let mut optimizer = gpu.optimizer(&specs, groups).unwrap();
            optimizer.write_param("w", &verify::params(numel)).unwrap();
            let mut cpu = reference::Tensor::new(base.into(), verify::params(numel)).unwrap();
            if skips {
                // A first step that is not taken leaves the states as they were.
                optimizer.write_grad("w", &vec![f32::NAN; numel]).unwrap();
                optimizer.step().unwrap();
            }
            for t in 1..=3 {
                let grad = verify::grads(numel, t);
                optimizer.write_grad("w", &grad).unwrap();
                optimizer.step().unwrap();
                // Schedules count recorded steps.
                let factor = halved.factor(t - 1 + u64::from(skips));
                cpu.recipe = base.scalar("beta1", 0.9 * factor).unwrap().into();
                cpu.step(&grad);
            }
            for (i, state) in ["exp_avg", "exp_avg_sq"].into_iter().enumerate() {
                let found = optimizer.read_state_blocking("w", state).unwrap();
                assert_eq!(verify::compare(&found, &cpu.states[i], None).1, None, "{}: {state}, {skips}", gpu.name);
            }
            let found = optimizer.read_param_blocking("w").unwrap();
            assert_eq!(verify::compare(&found, &cpu.param, None).1, None, "{}, {skips}", gpu.name);
        }
    }
}

#[test]
fn verify_compares_with_a_twin_and_otherwise_says_that_it_does_not() {
    let text = LION.replace("own_lion", "verified");
    let lion = CustomBase::new(&text).unwrap().lr(0.01);
    let right = lion.twin(|state, g, s| {
        let direction = s["beta1"] * state[0] + s["one_minus_beta1"] * g;
        state[0] = s["beta2"] * state[0] + s["one_minus_beta2"] * g;
        direction
    });
    let wrong = lion.twin(|state, g, s| {
        state[0] = s["beta2"] * state[0] + s["one_minus_beta2"] * g;
        state[0]
    });
    let infinite = CustomBase::new(
        &text.replace("Update(interpolated,", "Update(vec4<f32>(1.0) / (g - g),").replace("//@ signs\n", ""),
    );
    for gpu in shared_gpus().iter() {
        let mut runner = gpu.runner();
        let mut run = |recipe: Recipe| {
            let case = verify::Case::new("custom", recipe, [4099], 3);
            pollster::block_on(runner.run(&case, recipe)).unwrap()
        };
        let outcome = run(Recipe::from(right).mgup());
        assert!(outcome.compared && outcome.failure.is_none(), "{}: {outcome:?}", gpu.name);
        assert!(run(wrong.into()).failure.is_some(), "{}", gpu.name);
        let outcome = run(Recipe::from(lion).mgup());
        assert!(!outcome.compared && outcome.failure.is_none(), "{}: {outcome:?}", gpu.name);
        let outcome = run(infinite.as_ref().copied().unwrap().into());
        assert!(outcome.failure.is_some_and(|failure| failure.starts_with("the parameter at 0")), "{}", gpu.name);
    }
}

#[test]
fn a_policy_has_hyper_parameters_and_a_twin() {
    let text = "//@ policy bent\n//@ scalar low = 0.25\n//@ scalar high = 2\n\
                fn phi(score: vec4<f32>, s: Scalars) -> vec4<f32> {\n    \
                return select(vec4<f32>(s.low), vec4<f32>(s.high), score > vec4<f32>(0.0));\n}\n";
    let bent = CustomPolicy::new(text).unwrap().scalar("low", 0.5).unwrap();
    let bent = bent.twin(|score, s| if score > 0.0 { s["high"] } else { s["low"] });
    for gpu in shared_gpus().iter() {
        let recipe = Recipe::adamw(0.01).with_policy(bent);
        let case = verify::Case::new("bent", recipe, [4099], 3);
        let outcome = pollster::block_on(gpu.runner().run(&case, recipe)).unwrap();
        assert!(outcome.compared && outcome.failure.is_none(), "{}: {outcome:?}", gpu.name);
    }
}

#[test]
fn schedules_of_hyper_parameters_apply_where_a_step_is_given_its_learning_rate() {
    for gpu in shared_gpus().iter() {
        let specs = [TensorSpec::new("w", [300])];
        let groups = || {
            ParamGroups::from(adamw_with("s.eps);", "s.eps);")).with_scalar_schedule(
                0,
                "beta1",
                LrSchedule::linear(4, 0.5),
            )
        };
        let mut own = gpu.optimizer(&specs, groups()).unwrap();
        let mut given = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, groups()).unwrap();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = || {
            let descriptor = wgpu::BufferDescriptor { label: None, size: 1200, usage, mapped_at_creation: false };
            gpu.device.create_buffer(&descriptor)
        };
        let [param, grad] = [buffer(), buffer()];
        for t in 1..=3 {
            let values = verify::grads(300, t);
            own.write_grad("w", &values).unwrap();
            own.step().unwrap();
            gpu.queue.write_buffer(&grad, 0, bytemuck::cast_slice(&values));
            let both = TensorBuffers::new(TensorSlice::whole(&param), TensorSlice::whole(&grad)).with_lr(0.01);
            given.step_with(&[both]).unwrap();
        }
        let found: Vec<f32> = bytemuck::pod_collect_to_vec(&read(gpu, &param));
        assert_eq!(found, own.read_param_blocking("w").unwrap(), "{}", gpu.name);
    }
}

#[test]
fn a_checkpoint_refuses_the_state_of_another_text() {
    for gpu in shared_gpus().iter() {
        let build = |base: CustomBase| {
            let specs = [TensorSpec::new("w", [10])];
            gpu.optimizer(&specs, Recipe::from(base).mgup()).unwrap()
        };
        let mut saved = build(adamw_with("s.eps);", "s.eps);"));
        saved.write_grad("w", &[1.0; 10]).unwrap();
        saved.step().unwrap();
        let mut bytes = Vec::new();
        saved.save_to(&mut bytes, &[], Default::default()).unwrap();
        let open = || Checkpoint::from_bytes(bytes.clone()).unwrap();
        // Comments and spaces make no other optimizer.
        let mut same = build(adamw_with("s.eps);", "s.eps ) ; // the same"));
        assert_eq!(same.differences(&open()), ["`recipes[0].base.wgsl` is a different text in the file"]);
        same.load_from(&mut open()).unwrap();
        assert_eq!(same.read_param_blocking("w").unwrap(), saved.read_param_blocking("w").unwrap());
        let mut other = build(adamw_with("s.eps);", "s.eps * 2.0);"));
        let refused = other.load_from(&mut open()).unwrap_err().to_string();
        let names: Vec<_> = refused
            .match_indices("`own_adamw` with hash ")
            .map(|(at, found)| &refused[at + found.len()..][..16])
            .collect();
        assert!(names.len() == 2 && names[0] != names[1] && refused.contains("`load_matching`"), "{refused}");
        assert_eq!(other.load_matching(&mut open(), Part::All).unwrap(), [""; 0]);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        let resumed = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
        assert_eq!(resumed.groups(), saved.groups());
    }
}
