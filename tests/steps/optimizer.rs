//! The optimizer as its users meet it: encoders, arenas, callers' buffers, resuming, and what it refuses.

use crate::common::{self, Gpu, gpus, read, shared_gpus};
use wgpu_optim::base::{AdamW, BaseKind, SecondMoment};
use wgpu_optim::policy::Mgup;
use wgpu_optim::{
    Error, GpuOptimizer, Recipe, Requirements, StateFormat, TensorBuffers, TensorSlice, TensorSpec, adapter, reference,
    verify, wgpu,
};

/// Sizes that end inside a vector, a chunk and a page's alignment.
const SHAPES: [(&str, &[usize]); 5] = [("a", &[10]), ("b", &[33, 125]), ("c", &[]), ("d", &[128, 96]), ("e", &[4099])];

fn specs() -> Vec<TensorSpec> {
    SHAPES.iter().map(|(name, shape)| TensorSpec::new(*name, *shape)).collect()
}

fn numel(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Every recipe that takes vectors, and some for matrices, whose pipelines take long to compile: matrix.rs has more
/// about these.
fn all_recipes() -> Vec<(String, Recipe)> {
    let matrix = |name: &str| matches!(name, "mgup-muon" | "cautious-adago");
    let all = common::few::few_recipes().into_iter();
    all.filter(|(name, recipe)| recipe.base.newton_schulz().is_none() || matrix(name)).collect()
}

fn elementwise_recipes() -> Vec<(String, Recipe)> {
    all_recipes().into_iter().filter(|(_, recipe)| recipe.base.newton_schulz().is_none()).collect()
}

/// The tensor of this index on the CPU.
fn twin(recipe: Recipe, index: usize, param: &[f32]) -> reference::Tensor<f32> {
    reference::Tensor::with_shape(recipe, &specs()[index], param.to_vec()).unwrap()
}

/// What is wrong with a parameter, if something is.
fn compare(param: &[f32], twin: &reference::Tensor<f32>) -> Option<String> {
    let matrix = twin.recipe.base.newton_schulz().is_some();
    let tolerance = if matrix { verify::MATRIX_TOLERANCE } else { verify::TOLERANCE };
    verify::compare_within(tolerance, param, &twin.param, None).1
}

fn build(gpu: &Gpu, recipe: Recipe) -> GpuOptimizer {
    let optimizer = gpu.optimizer(&specs(), recipe).unwrap();
    for (i, (name, shape)) in SHAPES.iter().enumerate() {
        optimizer.write_param(name, &verify::params(numel(shape) + i)[i..]).unwrap();
    }
    optimizer
}

fn write_grads(optimizer: &GpuOptimizer, t: u64) {
    for (i, (name, shape)) in SHAPES.iter().enumerate() {
        optimizer.write_grad(name, &verify::grads(numel(shape) + i, t)[i..]).unwrap();
    }
}

fn params(optimizer: &GpuOptimizer) -> Vec<Vec<u32>> {
    let bits = |name| optimizer.read_param_blocking(name).unwrap().iter().map(|x| x.to_bits()).collect();
    SHAPES.iter().map(|(name, _)| bits(name)).collect()
}

fn encoder(gpu: &Gpu) -> wgpu::CommandEncoder {
    gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
}

#[test]
fn three_records_in_one_encoder_equal_three_submits() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in all_recipes() {
            let (mut together, mut apart) = (build(gpu, recipe), build(gpu, recipe));
            for optimizer in [&together, &apart] {
                write_grads(optimizer, 1);
            }
            let mut one = encoder(gpu);
            for lr in [1e-2, 5e-3, 2e-2] {
                together.set_lr(lr).unwrap();
                together.record(&mut one).unwrap();
                apart.set_lr(lr).unwrap();
                apart.step().unwrap();
            }
            gpu.queue.submit([one.finish()]);
            assert_eq!(params(&together), params(&apart), "{}: {name}", gpu.name);
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in all_recipes() {
            let run = || {
                let mut optimizer = build(gpu, recipe);
                for t in 1..4 {
                    write_grads(&optimizer, t);
                    optimizer.step().unwrap();
                }
                params(&optimizer)
            };
            assert_eq!(run(), run(), "{}: {name}", gpu.name);
        }
    }
}

#[test]
fn many_tensors_in_one_dispatch_follow_the_cpu() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in all_recipes() {
            let mut optimizer = build(gpu, recipe);
            let mut twins: Vec<_> = SHAPES
                .iter()
                .enumerate()
                .map(|(i, (_, s))| twin(recipe, i, &verify::params(numel(s) + i)[i..]))
                .collect();
            for t in 1..4 {
                write_grads(&optimizer, t);
                optimizer.step().unwrap();
                for (i, twin) in twins.iter_mut().enumerate() {
                    twin.step(&verify::grads(twin.param.len() + i, t)[i..]);
                }
            }
            for ((tensor, _), twin) in SHAPES.iter().zip(&twins) {
                let param = optimizer.read_param_blocking(tensor).unwrap();
                // A coordinate that rounding moves across a threshold shows as one wrong factor: none here.
                assert_eq!(compare(&param, twin), None, "{}: {name}, {tensor}", gpu.name);
            }
        }
    }
}

#[test]
fn a_wrong_gradient_is_noticed() {
    for gpu in shared_gpus().iter() {
        let recipe = Recipe::adamw(1e-2);
        let mut optimizer = build(gpu, recipe);
        let mut twin = reference::Tensor::new(recipe, verify::params(4099 + 4)[4..].to_vec()).unwrap();
        write_grads(&optimizer, 1);
        let mut grad = verify::grads(4099 + 4, 1)[4..].to_vec();
        twin.step(&grad);
        grad[4098] += 1.0;
        grad[4098] = -grad[4098];
        optimizer.write_grad("e", &grad).unwrap();
        optimizer.step().unwrap();
        let param = optimizer.read_param_blocking("e").unwrap();
        let (_, failure) = verify::compare(&param, &twin.param, None);
        assert!(failure.unwrap().starts_with("at 4098"), "{}", gpu.name);
    }
}

#[test]
fn resuming_equals_going_on_to_the_bit() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in all_recipes() {
            let mut straight = build(gpu, recipe);
            for t in 1..4 {
                write_grads(&straight, t);
                straight.step().unwrap();
            }
            let mut resumed = build(gpu, recipe);
            for (tensor, _) in SHAPES {
                resumed.write_param(tensor, &straight.read_param_blocking(tensor).unwrap()).unwrap();
                for state in straight.state_names(tensor).unwrap() {
                    let values = straight.read_state_blocking(tensor, state).unwrap();
                    resumed.write_state(tensor, state, &values).unwrap();
                }
                let unknown = message(straight.state(tensor, "velocity"));
                assert!(unknown.starts_with("no state is named `velocity`"), "{unknown}");
            }
            resumed.set_steps(straight.steps("a").unwrap());
            for t in 4..7 {
                for optimizer in [&mut straight, &mut resumed] {
                    write_grads(optimizer, t);
                    optimizer.step().unwrap();
                }
            }
            assert_eq!(params(&straight), params(&resumed), "{}: {name}", gpu.name);
        }
    }
}

/// How parameters and gradients lie in one buffer.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Parameter, gradient, parameter, gradient: no two tensors can be bound together.
    Alternating,
    /// All parameters, then all gradients: tensors share dispatches.
    Apart,
}

/// A buffer with all parameters and gradients in it, and where they begin.
fn shared_buffer(gpu: &Gpu, layout: Layout) -> (wgpu::Buffer, Vec<[u64; 2]>) {
    let mut at = 256;
    let mut place = |n: usize| {
        let offset = at;
        at += (4 * n as u64).next_multiple_of(256);
        offset
    };
    let offsets: Vec<[u64; 2]> = match layout {
        Layout::Alternating => SHAPES.iter().map(|(_, s)| [place(numel(s)), place(numel(s))]).collect(),
        Layout::Apart => {
            let [params, grads] = [(), ()].map(|()| SHAPES.map(|(_, s)| place(numel(s))));
            params.into_iter().zip(grads).map(|(param, grad)| [param, grad]).collect()
        }
    };
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        // Ends with the last coordinate, which is no multiple of four.
        size: offsets[4][1] + 4 * 4099,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let poison = vec![0xeeu8; buffer.size() as usize];
    gpu.queue.write_buffer(&buffer, 0, &poison);
    (buffer, offsets)
}

fn slices<'a>(
    buffer: &'a wgpu::Buffer,
    offsets: &[[u64; 2]],
    without: Option<usize>,
) -> Vec<Option<TensorBuffers<'a>>> {
    let slice = |offset, i: usize| TensorSlice { buffer, offset, size: 4 * numel(SHAPES[i].1) as u64 };
    let of = |(i, [param, grad]): (usize, &[u64; 2])| {
        (without != Some(i)).then(|| TensorBuffers::new(slice(*param, i), slice(*grad, i)))
    };
    offsets.iter().enumerate().map(of).collect()
}

#[test]
fn callers_buffers_equal_arenas_and_nothing_else_is_touched() {
    for gpu in shared_gpus().iter() {
        let layouts = [Layout::Alternating, Layout::Apart];
        for ((name, recipe), layout) in all_recipes().into_iter().flat_map(|r| layouts.map(|l| (r.clone(), l))) {
            let (buffer, offsets) = shared_buffer(gpu, layout);
            let mut owned = build(gpu, recipe);
            let mut borrowed = gpu.for_buffers(&specs(), recipe).unwrap();
            for (i, (_, shape)) in SHAPES.iter().enumerate() {
                let values = verify::params(numel(shape) + i);
                gpu.queue.write_buffer(&buffer, offsets[i][0], bytemuck::cast_slice(&values[i..]));
            }
            for t in 1..4 {
                write_grads(&owned, t);
                for (i, (_, shape)) in SHAPES.iter().enumerate() {
                    let values = verify::grads(numel(shape) + i, t);
                    gpu.queue.write_buffer(&buffer, offsets[i][1], bytemuck::cast_slice(&values[i..]));
                }
                owned.step().unwrap();
                borrowed.step_with(&slices(&buffer, &offsets, None)).unwrap();
            }
            let bytes = read(gpu, &buffer);
            let mut covered = vec![false; bytes.len()];
            for (i, expected) in params(&owned).into_iter().enumerate() {
                let [param, grad] = offsets[i].map(|offset| offset as usize);
                let size = 4 * expected.len();
                let found: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes[param..param + size]);
                assert_eq!(found, expected, "{}: {name}, {}, {layout:?}", gpu.name, SHAPES[i].0);
                covered[param..param + size].fill(true);
                covered[grad..grad + size].fill(true);
            }
            for (at, byte) in bytes.iter().enumerate().filter(|(at, _)| !covered[*at]) {
                assert_eq!(*byte, 0xee, "{}: {name} wrote at byte {at}", gpu.name);
            }
        }
    }
}

#[test]
fn a_tensor_without_gradient_is_left_alone_and_keeps_its_own_count() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in all_recipes() {
            let (buffer, offsets) = shared_buffer(gpu, Layout::Apart);
            for (i, (_, shape)) in SHAPES.iter().enumerate() {
                let (param, grad) = (verify::params(numel(shape)), verify::grads(numel(shape), 1));
                gpu.queue.write_buffer(&buffer, offsets[i][0], bytemuck::cast_slice(&param));
                gpu.queue.write_buffer(&buffer, offsets[i][1], bytemuck::cast_slice(&grad));
            }
            let mut optimizer = gpu.for_buffers(&specs(), recipe).unwrap();
            // "d" takes steps 1 and 3 only; the first tensor of all is absent once, too.
            for without in [None, Some(3), None, Some(0)] {
                optimizer.step_with(&slices(&buffer, &offsets, without)).unwrap();
            }
            assert_eq!(optimizer.steps("d").unwrap(), 3);
            assert_eq!(optimizer.steps("b").unwrap(), 4);
            let bytes = read(gpu, &buffer);
            for (i, steps) in [(3, 3), (1, 4), (0, 3)] {
                let n = numel(SHAPES[i].1);
                let mut twin = twin(recipe, i, &verify::params(n));
                (0..steps).for_each(|_| drop(twin.step(&verify::grads(n, 1))));
                let at = offsets[i][0] as usize;
                let found: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes[at..at + 4 * n]);
                assert_eq!(compare(&found, &twin), None, "{}: {name}, {}", gpu.name, SHAPES[i].0);
            }
        }
    }
}

#[test]
fn groups_equal_optimizers_of_their_own() {
    for gpu in shared_gpus().iter() {
        let recipes = vec![
            Recipe::adamw(1e-2).mgup(),
            Recipe::lion(1e-3),
            AdamW::torch().weight_decay(0.1).into(),
            Recipe::adamw(3e-3).mgup(),
            "cautious-lion".parse().unwrap(),
        ];
        let grouped: Vec<_> = specs().into_iter().enumerate().map(|(i, s)| s.in_group(i)).collect();
        let mut together = gpu.optimizer(&grouped, recipes.clone()).unwrap();
        for (i, (name, shape)) in SHAPES.iter().enumerate() {
            together.write_param(name, &verify::params(numel(shape) + i)[i..]).unwrap();
        }
        for t in 1..4 {
            write_grads(&together, t);
            together.step().unwrap();
        }
        let found = params(&together);
        for (i, recipe) in recipes.into_iter().enumerate() {
            let mut alone = build(gpu, recipe);
            for t in 1..4 {
                write_grads(&alone, t);
                alone.step().unwrap();
            }
            assert_eq!(found[i], params(&alone)[i], "{}: {recipe} on {}", gpu.name, SHAPES[i].0);
        }
    }
}

#[test]
fn a_group_takes_other_hyper_parameters_from_the_next_step_on() {
    let first = Recipe::new(AdamW::new(1e-2), Mgup::default());
    let adamw = AdamW::new(3e-3).betas([0.8, 0.95]).eps(1e-6).weight_decay(0.1);
    let then = Recipe::new(adamw, Mgup::default().ratio(0.3).alpha(3.0));
    for gpu in shared_gpus().iter() {
        let mut optimizer = build(gpu, first);
        let steps = |optimizer: &mut GpuOptimizer, range: std::ops::Range<u64>| {
            for t in range {
                write_grads(optimizer, t);
                optimizer.step().unwrap();
            }
        };
        steps(&mut optimizer, 1..4);
        // Another optimizer goes on from the same parameters and state.
        let mut other = build(gpu, then);
        for (name, _) in SHAPES {
            other.write_param(name, &optimizer.read_param_blocking(name).unwrap()).unwrap();
            for state in ["exp_avg", "exp_avg_sq"] {
                other.write_state(name, state, &optimizer.read_state_blocking(name, state).unwrap()).unwrap();
            }
        }
        other.set_steps(3);
        optimizer.set_recipe(0, then).unwrap();
        let refused: [Recipe; 4] = [
            Recipe::lion(1e-3).mgup(),
            Recipe::adamw(1e-3),
            "mgup-adamw-approximate".parse().unwrap(),
            AdamW::default().second_moment(SecondMoment::Row).into(),
        ];
        for recipe in refused {
            let error = optimizer.set_recipe(0, recipe).unwrap_err();
            assert!(matches!(error, Error::Group { group: 0, .. }), "{recipe}: {error}");
        }
        assert_eq!(optimizer.set_recipe(0, then.weight_decay(-1.0)).unwrap_err().code(), "recipe");
        assert_eq!(optimizer.set_recipe(1, then).unwrap_err().code(), "unknown_group");
        assert_eq!(optimizer.groups().recipes(), [then]);
        for optimizer in [&mut optimizer, &mut other] {
            steps(optimizer, 4..7);
        }
        assert_eq!(params(&optimizer), params(&other), "{}", gpu.name);
        let names: Vec<_> = optimizer.specs().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, SHAPES.map(|(name, _)| name));
    }
}

#[test]
fn more_groups_than_a_dispatch_has_rows_keep_their_own_rates() {
    for gpu in shared_gpus().iter() {
        let specs: Vec<_> = (0..150).map(|i| TensorSpec::new(format!("t{i}"), [3]).in_group(i)).collect();
        let groups: Vec<_> = (0..150).map(|i| Recipe::lion(f64::from(1 + i as u32))).collect();
        let mut optimizer = gpu.optimizer(&specs, groups).unwrap();
        for i in 0..150 {
            optimizer.write_grad(&format!("t{i}"), &[1.0; 3]).unwrap();
        }
        optimizer.step().unwrap();
        for i in 0..150 {
            let param = optimizer.read_param_blocking(&format!("t{i}")).unwrap();
            assert_eq!(param, [-f32::from(1 + i as u16); 3], "{}", gpu.name);
        }
    }
}

#[test]
fn dispatches_do_not_grow_with_the_number_of_tensors() {
    for (gpu, (name, recipe)) in
        gpus().iter().take(1).flat_map(|g| elementwise_recipes().into_iter().map(move |r| (g, r)))
    {
        let of = |count: usize| {
            let specs: Vec<_> = (0..count).map(|i| TensorSpec::new(format!("t{i}"), [100 + i])).collect();
            let optimizer = gpu.optimizer(&specs, recipe).unwrap();
            optimizer.cost().dispatches
        };
        assert_eq!(of(1), of(200), "{name}");
    }
}

#[test]
fn later_steps_create_no_buffer_and_no_pipeline() {
    for gpu in common::gpus_in(adapter::instance(), wgpu::Limits::default()) {
        for (name, recipe) in all_recipes() {
            let mut optimizer = build(&gpu, recipe);
            let mut census = || {
                optimizer.step().unwrap();
                gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
                let report = gpu.instance.generate_report().expect("wgpu-core keeps a report");
                let hub = report.hub_report();
                (hub.buffers.num_allocated, hub.compute_pipelines.num_allocated, hub.bind_groups.num_allocated)
            };
            census();
            let second = census();
            assert!(second.0 > 0 && second.1 > 0, "the report counts something: {second:?}");
            for _ in 0..20 {
                assert_eq!(census(), second, "{}: {name}", gpu.name);
            }
        }
    }
}

#[test]
fn a_full_ring_is_an_error_and_submitting_empties_it() {
    for gpu in shared_gpus().iter() {
        let mut optimizer = build(gpu, Recipe::adamw(1e-3));
        write_grads(&optimizer, 1);
        let mut one = encoder(gpu);
        let slots = loop {
            if let Err(error) = optimizer.record(&mut one) {
                let Error::RingFull { slots } = error else { panic!("{error}") };
                break slots;
            }
        };
        assert_eq!(optimizer.steps("a").unwrap(), slots as u64, "the refused step does not count");
        gpu.queue.submit([one.finish()]);
        // More steps than slots: waits for the GPU instead of failing.
        for _ in 0..2 * slots {
            optimizer.step().unwrap();
        }
        // Dropped encoders give their slots back.
        for _ in 0..2 * slots {
            optimizer.record(&mut encoder(gpu)).unwrap();
        }
    }
}

#[test]
fn zero_grad_clears_every_gradient() {
    for gpu in shared_gpus().iter() {
        let mut optimizer = build(gpu, Recipe::lion(1e-3));
        let before = params(&optimizer);
        write_grads(&optimizer, 1);
        let mut encoder = encoder(gpu);
        optimizer.zero_grad(&mut encoder).unwrap();
        optimizer.record(&mut encoder).unwrap();
        gpu.queue.submit([encoder.finish()]);
        assert_eq!(params(&optimizer), before, "{}", gpu.name);
    }
}

#[test]
fn non_finite_values_touch_no_other_coordinate() {
    for gpu in shared_gpus().iter() {
        // The others spread what is not finite within their tensor, see `docs/limits.md`.
        let alone = |recipe: &Recipe| BaseKind::of(&recipe.base).row().norms.is_none();
        for (name, recipe) in elementwise_recipes().into_iter().filter(|(_, recipe)| alone(recipe)) {
            let n = 5000;
            let run = |poison: &[(usize, f32)]| {
                let spec = [TensorSpec::new("w", [n])];
                let mut optimizer = gpu.optimizer(&spec, recipe).unwrap();
                optimizer.write_param("w", &verify::params(n)).unwrap();
                let mut grad = verify::grads(n, 1);
                poison.iter().for_each(|&(i, x)| grad[i] = x);
                optimizer.write_grad("w", &grad).unwrap();
                optimizer.step().unwrap();
                optimizer.read_param_blocking("w").unwrap()
            };
            let poison = [(0, f32::NAN), (77, f32::NAN), (4096, f32::NAN)];
            let (clean, dirty) = (run(&[(0, 0.0), (77, 0.0), (4096, 0.0)]), run(&poison));
            let changed = (0..n).filter(|&i| clean[i].to_bits() != dirty[i].to_bits()).count();
            // Three scores fewer move the threshold by at most three ranks, and c of `cautious` not at all.
            let allowed = if name.starts_with("mgup") { 6 } else { 3 };
            assert!(changed <= allowed, "{}: {name} changed {changed} coordinates", gpu.name);
            assert!((0..n).filter(|i| ![0, 77, 4096].contains(i)).all(|i| dirty[i].is_finite()), "{name}");
        }
    }
}

fn message<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("bad input was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_mask_with_few_scores_is_divided_by_no_less_than_a_thousandth() {
    use wgpu_optim::base::Lion;
    use wgpu_optim::policy::{Cautious, Normalizer};
    // Without momentum the score of Lion is |g|: positive where there is a gradient.
    let n = 5000;
    for gpu in shared_gpus().iter() {
        for (normalizer, positive, factor) in [
            (Normalizer::Mean, 1, 1000.0),
            (Normalizer::Mean, 4, 1000.0),
            (Normalizer::Mean, 6, 5000.0 / 6.0),
            (Normalizer::Count, 1, 5000.0 / 2.0),
        ] {
            let recipe = Recipe::new(Lion::new(1e-3), Cautious::default().normalizer(normalizer));
            let specs = [TensorSpec::new("w", [n])];
            let mut optimizer = gpu.optimizer(&specs, recipe).unwrap();
            let mut grad = vec![0.0; n];
            (0..positive).for_each(|i| grad[811 * i] = -1.0);
            optimizer.write_grad("w", &grad).unwrap();
            optimizer.step().unwrap();
            let expected: Vec<f32> = grad.iter().map(|g| -1e-3 * factor * g).collect();
            let found = optimizer.read_param_blocking("w").unwrap();
            let (_, failure) = verify::compare(&found, &expected, None);
            assert_eq!(failure, None, "{}: {normalizer:?}, {positive} of {n}", gpu.name);
            assert_eq!(optimizer.read_selected_blocking("w").unwrap().count, positive as u64);
        }
    }
}

#[test]
fn bad_specs_and_groups_are_refused_by_name() {
    let gpu = &gpus()[0];
    let recipe = Recipe::adamw(1e-3);
    let new = |specs: &[TensorSpec]| message(GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, specs, recipe));
    assert_eq!(new(&[]), "there must be at least one tensor");
    let twice = [TensorSpec::new("w", [2]), TensorSpec::new("v", [2]), TensorSpec::new("w", [3])];
    assert_eq!(new(&twice), "tensor `w`: tensors 0 and 2 have the same name");
    assert_eq!(new(&[TensorSpec::new("", [2])]), "tensor ``: tensor 0 has an empty name");
    assert_eq!(new(&[TensorSpec::new("w", [2, 0])]), "tensor `w`: shape [2, 0] holds nothing; leave the tensor out");
    let no_group = "tensor `w`: parameter group 1 does not exist; there are 1";
    assert_eq!(new(&[TensorSpec::new("w", [2]).in_group(1)]), no_group);
    assert!(new(&[TensorSpec::new("w", [1 << 40, 1 << 40])]).contains("more than 2^32 - 4097 coordinates"));
    let large = new(&[TensorSpec::new("w", [1 << 30])]);
    assert!(large.contains("max_buffer_size needed 4294967296, available 268435456"), "{large}");
    let none: Vec<Recipe> = Vec::new();
    let spec = [TensorSpec::new("w", [2])];
    assert!(message(GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, none)).contains("group"));
    let bad = Recipe::adamw(-1.0);
    let error = message(GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, bad));
    assert_eq!(error, "recipe: `base.lr` is -1, but must be finite in f32 and not negative");
}

#[test]
fn a_device_that_lacks_limits_is_refused_with_all_of_them() {
    let limits = wgpu::Limits {
        max_storage_buffers_per_shader_stage: 4,
        max_compute_workgroup_storage_size: 4096,
        ..wgpu::Limits::default()
    };
    for gpu in common::gpus_with(limits) {
        let spec = [TensorSpec::new("w", [5000])];
        let recipe = Recipe::adamw(1e-3).mgup();
        let error = message(GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, recipe));
        assert!(error.contains("max_storage_buffers_per_shader_stage needed 8, available 4"), "{error}");
        assert!(error.contains("max_compute_workgroup_storage_size needed 9344, available 4096"), "{error}");
        let requirements = Requirements::new(&spec, recipe).unwrap();
        assert!(requirements.check(&wgpu::Limits::default()).is_ok());
    }
}

/// A buffer whose tensors are all padded to whole vectors, with space for four bindings of two states behind each.
fn padded_buffer(gpu: &Gpu) -> (wgpu::Buffer, Vec<[u64; 6]>) {
    let mut at = 0;
    let mut place = |n: usize| {
        let offset = at;
        at += (8 * n.next_multiple_of(128) as u64).next_multiple_of(256);
        offset
    };
    let offsets = SHAPES.iter().map(|(_, s)| [(); 6].map(|()| place(numel(s)))).collect();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let descriptor = wgpu::BufferDescriptor { label: None, size: at, usage, mapped_at_creation: false };
    (gpu.device.create_buffer(&descriptor), offsets)
}

#[test]
fn the_callers_state_equals_arenas() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in all_recipes() {
            let mut owned = build(gpu, recipe);
            let (buffer, offsets) = padded_buffer(gpu);
            let mut stateless = gpu.stateless(&specs(), recipe).unwrap();
            for (i, (_, shape)) in SHAPES.iter().enumerate() {
                let values = verify::params(numel(shape) + i);
                gpu.queue.write_buffer(&buffer, offsets[i][0], bytemuck::cast_slice(&values[i..]));
            }
            let slices: Vec<[TensorSlice<'_>; 6]> = offsets
                .iter()
                .zip(SHAPES)
                .map(|(offsets, (_, s))| {
                    let size = (4 * numel(s) as u64).next_multiple_of(16);
                    offsets.map(|offset| TensorSlice { buffer: &buffer, offset, size })
                })
                .collect();
            let mut states: Vec<Vec<TensorSlice<'_>>> = Vec::new();
            for (slices, (tensor, shape)) in slices.iter().zip(SHAPES) {
                let base = BaseKind::of(&owned.recipe_of(tensor).unwrap().base);
                let spec = TensorSpec::new(tensor, shape);
                let sizes = base.state_bindings(false).iter().map(|binding| match binding.states.len() {
                    1 => 4 * binding.per.shape(&spec).iter().product::<usize>().next_multiple_of(4) as u64,
                    count => 4 * (count * numel(shape).next_multiple_of(128)) as u64,
                });
                let sizes = sizes.map(|size| size * recipe.state.bytes() / 4);
                let sizes = sizes.chain(base.scalar_names().map(|_| 4));
                states
                    .push(slices[2..].iter().zip(sizes).map(|(slice, size)| TensorSlice { size, ..*slice }).collect());
            }
            let buffers: Vec<_> =
                slices.iter().zip(&states).map(|(s, state)| TensorBuffers::new(s[0], s[1]).with_state(state)).collect();
            for t in 1..4 {
                write_grads(&owned, t);
                for (i, (_, shape)) in SHAPES.iter().enumerate() {
                    let values = verify::grads(numel(shape) + i, t);
                    gpu.queue.write_buffer(&buffer, offsets[i][1], bytemuck::cast_slice(&values[i..]));
                }
                owned.step().unwrap();
                // As if each step were the first that this optimizer sees.
                stateless.set_steps(t - 1);
                stateless.step_with(&buffers).unwrap();
            }
            let bytes = read(gpu, &buffer);
            let found = |offset: u64, n: usize| -> Vec<u32> {
                bytemuck::pod_collect_to_vec(&bytes[offset as usize..offset as usize + 4 * n])
            };
            for (i, expected) in params(&owned).into_iter().enumerate() {
                let n = expected.len();
                assert_eq!(found(offsets[i][0], n), expected, "{}: {name}, {}", gpu.name, SHAPES[i].0);
                let states = BaseKind::of(&owned.recipe_of(SHAPES[i].0).unwrap().base).row().states;
                let names: Vec<_> = states.iter().map(|state| state.name).collect();
                // Bytes hold what they decode to, which `eight_bit.rs` compares.
                for (at, state) in names.iter().enumerate().filter(|_| recipe.state == StateFormat::F32) {
                    let state = owned.read_state_blocking(SHAPES[i].0, state).unwrap();
                    let state: Vec<u32> = state.iter().map(|x| x.to_bits()).collect();
                    let base = BaseKind::of(&owned.recipe_of(SHAPES[i].0).unwrap().base);
                    let paired = base.state_bindings(false).iter().map(|binding| binding.states.len()).max() == Some(2);
                    let (binding, place) = if paired { (at / 2, at % 2) } else { (at, 0) };
                    let theirs =
                        found(offsets[i][2 + binding] + 4 * (place * n.next_multiple_of(128)) as u64, state.len());
                    assert_eq!(theirs, state, "{}: {name}, {}", gpu.name, SHAPES[i].0);
                }
            }
        }
    }
}

#[test]
fn a_learning_rate_of_its_own_equals_a_group_of_its_own() {
    for gpu in shared_gpus().iter() {
        let groups = vec![Recipe::adamw(1e-2).mgup(), Recipe::adamw(3e-3).mgup()];
        let grouped: Vec<_> = specs().into_iter().enumerate().map(|(i, s)| s.in_group(i % 2)).collect();
        let runs = [(grouped, None), (specs(), Some(3e-3))].map(|(specs, lr)| {
            let (buffer, offsets) = shared_buffer(gpu, Layout::Apart);
            for (i, (_, shape)) in SHAPES.iter().enumerate() {
                let (param, grad) = (verify::params(numel(shape)), verify::grads(numel(shape), 1));
                gpu.queue.write_buffer(&buffer, offsets[i][0], bytemuck::cast_slice(&param));
                gpu.queue.write_buffer(&buffer, offsets[i][1], bytemuck::cast_slice(&grad));
            }
            let mut optimizer =
                GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, groups.clone()).unwrap();
            let mut buffers = slices(&buffer, &offsets, None);
            for odd in buffers.iter_mut().skip(1).step_by(2) {
                odd.as_mut().unwrap().lr = lr;
            }
            for _ in 0..3 {
                optimizer.step_with(&buffers).unwrap();
            }
            read(gpu, &buffer)
        });
        assert_eq!(runs[0], runs[1], "{}", gpu.name);
    }
}

#[test]
fn a_sibling_serves_other_tensors() {
    let gpu = &gpus()[0];
    let (buffer, offsets) = shared_buffer(gpu, Layout::Apart);
    for (i, (_, shape)) in SHAPES.iter().enumerate() {
        let (param, grad) = (verify::params(numel(shape)), verify::grads(numel(shape), 1));
        gpu.queue.write_buffer(&buffer, offsets[i][0], bytemuck::cast_slice(&param));
        gpu.queue.write_buffer(&buffer, offsets[i][1], bytemuck::cast_slice(&grad));
    }
    let recipe = Recipe::adamw(1e-2).mgup();
    let first = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs()[3..4], recipe).unwrap();
    let mut sibling = first.sibling_blocking(&specs()[1..2], recipe).unwrap();
    drop(first);
    sibling.step_with(&slices(&buffer, &offsets, None)[1..2]).unwrap();
    let bytes = read(gpu, &buffer);
    let n = numel(SHAPES[1].1);
    let mut twin = reference::Tensor::new(recipe, verify::params(n)).unwrap();
    twin.step(&verify::grads(n, 1));
    let at = offsets[1][0] as usize;
    let found: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes[at..at + 4 * n]);
    assert_eq!(verify::compare(&found, &twin.param, None).1, None);
}

#[test]
fn clipping_follows_the_cpu_over_all_tensors_and_groups() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in elementwise_recipes() {
            // Half a norm, so that every step is clipped; then so much that none is.
            for max_norm in [Some(0.5), None] {
                let all = |t| -> Vec<Vec<f32>> { SHAPES.iter().map(|(_, s)| verify::grads(numel(s), t)).collect() };
                let norm_of = |t| reference::grad_norm(all(t).iter().map(|g| &g[..]));
                let max_norm = max_norm.map_or(1e6, |share| share * f64::from(norm_of(1)));
                let groups: Vec<Recipe> = vec![recipe, Recipe::adamw(1e-2)];
                let groups = wgpu_optim::ParamGroups::from(groups).with_max_grad_norm(max_norm);
                let specs: Vec<_> = specs().into_iter().enumerate().map(|(i, s)| s.in_group(i % 2)).collect();
                let mut optimizer = gpu.optimizer(&specs, groups.clone()).unwrap();
                let mut twins: Vec<_> = SHAPES
                    .iter()
                    .enumerate()
                    .map(|(i, (tensor, s))| {
                        optimizer.write_param(tensor, &verify::params(numel(s))).unwrap();
                        twin(groups.recipes()[i % 2], i, &verify::params(numel(s)))
                    })
                    .collect();
                for t in 1..4 {
                    let grads = all(t);
                    for ((tensor, _), grad) in SHAPES.iter().zip(&grads) {
                        optimizer.write_grad(tensor, grad).unwrap();
                    }
                    optimizer.step().unwrap();
                    let norm = optimizer.read_grad_norm_blocking().unwrap();
                    let exact = reference::grad_norm(grads.iter().map(|g| &g[..]));
                    assert!((norm - exact).abs() <= 1e-5 * exact, "{}: {norm}, {exact}", gpu.name);
                    // The norm that the GPU found, so that rounding of the sum moves nothing across a threshold.
                    let factor = reference::clip_factor(norm, max_norm);
                    assert_eq!(factor == 1.0, max_norm == 1e6);
                    for (twin, grad) in twins.iter_mut().zip(&grads) {
                        twin.step(&grad.iter().map(|g| factor * g).collect::<Vec<_>>());
                    }
                }
                for ((tensor, _), twin) in SHAPES.iter().zip(&twins) {
                    let param = optimizer.read_param_blocking(tensor).unwrap();
                    let (_, failure) = verify::compare(&param, &twin.param, None);
                    assert_eq!(failure, None, "{}: {name}, {tensor}, {max_norm}", gpu.name);
                }
            }
        }
    }
}

#[test]
fn the_norm_counts_the_tensors_of_the_step_and_nothing_else() {
    for gpu in shared_gpus().iter() {
        let (buffer, offsets) = shared_buffer(gpu, Layout::Apart);
        let groups = wgpu_optim::ParamGroups::from(Recipe::lion(1e-3)).with_max_grad_norm(1.0);
        let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
        for (i, (_, shape)) in SHAPES.iter().enumerate() {
            let (param, grad) = (verify::params(numel(shape)), verify::grads(numel(shape), 1));
            gpu.queue.write_buffer(&buffer, offsets[i][0], bytemuck::cast_slice(&param));
            gpu.queue.write_buffer(&buffer, offsets[i][1], bytemuck::cast_slice(&grad));
        }
        for without in [None, Some(3), None, Some(0)] {
            optimizer.step_with(&slices(&buffer, &offsets, without)).unwrap();
            let grads: Vec<_> = SHAPES.iter().map(|(_, s)| verify::grads(numel(s), 1)).collect();
            let present = grads.iter().enumerate().filter(|(i, _)| Some(*i) != without);
            let exact = reference::grad_norm(present.map(|(_, g)| &g[..]));
            let norm = optimizer.read_grad_norm_blocking().unwrap();
            assert!((norm - exact).abs() <= 1e-5 * exact, "{}: {norm}, {exact}", gpu.name);
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_spoils_no_other_coordinate_when_clipped() {
    for gpu in shared_gpus().iter() {
        for bad in [f32::INFINITY, f32::NAN, 1e30] {
            let groups = wgpu_optim::ParamGroups::from(Recipe::adamw(1e-2)).with_max_grad_norm(1.0);
            let mut optimizer = gpu.optimizer(&specs(), groups).unwrap();
            for (name, shape) in SHAPES {
                optimizer.write_param(name, &verify::params(numel(shape))).unwrap();
            }
            write_grads(&optimizer, 1);
            let mut grad = verify::grads(4099, 1);
            grad[17] = bad;
            optimizer.write_grad("e", &grad).unwrap();
            optimizer.step().unwrap();
            assert!(!optimizer.read_grad_norm_blocking().unwrap().is_finite());
            let param = optimizer.read_param_blocking("e").unwrap();
            let spoiled: Vec<_> = (0..4099).filter(|&i| i != 17 && !param[i].is_finite()).collect();
            assert!(spoiled.is_empty(), "{}: {bad}: {spoiled:?}", gpu.name);
        }
    }
}

#[test]
fn bad_slices_are_refused_and_nothing_is_recorded() {
    let gpu = &gpus()[0];
    let (buffer, offsets) = shared_buffer(gpu, Layout::Alternating);
    let mut optimizer =
        GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs(), Recipe::adamw(1e-3)).unwrap();
    let before = read(gpu, &buffer);
    let no_storage = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 40,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let state = TensorSlice::whole(&no_storage);
    fn at<'a, 'b>(buffers: &'b mut [Option<TensorBuffers<'a>>], i: usize) -> &'b mut TensorBuffers<'a> {
        buffers[i].as_mut().unwrap()
    }
    type Spoil<'a> = Box<dyn Fn(&mut Vec<Option<TensorBuffers<'a>>>) + 'a>;
    let cases: Vec<(Spoil<'_>, &str)> = vec![
        (Box::new(|b| at(b, 0).param.offset += 4), "parameter of tensor `a`: offset 260 is not a multiple of"),
        (Box::new(|b| at(b, 1).param.size -= 4), "parameter of tensor `b`: 16496 bytes given, 16500 needed"),
        (Box::new(|b| at(b, 1).grad.size += 4), "gradient of tensor `b`: 16504 bytes given"),
        (Box::new(|b| at(b, 4).grad.offset += 256), "reach beyond the buffer's"),
        (Box::new(|b| at(b, 3).grad = at(b, 3).param), "overlaps the parameter of tensor `d`"),
        (
            Box::new(|b| at(b, 0).param.offset = at(b, 1).grad.offset + 256),
            "parameter of tensor `a`: it overlaps the gradient of tensor `b`",
        ),
        (
            // A gradient may lie in another, and ends before it does.
            Box::new(|b| {
                at(b, 0).grad.offset = at(b, 1).grad.offset + 256;
                at(b, 2).param.offset = at(b, 1).grad.offset + 512;
            }),
            "parameter of tensor `c`: it overlaps the gradient of tensor `b`",
        ),
        (Box::new(|b| at(b, 0).param = TensorSlice::whole(&no_storage)), "its buffer lacks STORAGE"),
        (Box::new(|b| at(b, 2).lr = Some(-1.0)), "`lr` is -1"),
        (Box::new(|b| at(b, 2).state = std::slice::from_ref(&state)), "state of tensor `c`: 1 slices given, 0 needed"),
        (Box::new(|b| b.truncate(4)), "4 tensors were given, but 5 are needed"),
    ];
    for (spoil, expected) in cases {
        let mut buffers = slices(&buffer, &offsets, None);
        spoil(&mut buffers);
        let error = message(optimizer.step_with(&buffers));
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(read(gpu, &buffer), before);
    assert_eq!(optimizer.steps("a").unwrap(), 0);
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    let gpu = &gpus()[0];
    let recipe = Recipe::lion(1e-3);
    let mut owned = build(gpu, recipe);
    let mut borrowed = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs(), recipe).unwrap();
    assert_eq!(message(owned.write_param("a", &[1.0; 11])), "parameter of tensor `a`: 11 values given, 10 needed");
    assert_eq!(message(owned.write_grad("x", &[1.0])), "no tensor is named `x`");
    assert_eq!(
        message(owned.read_state_blocking("a", "exp_avg_sq")),
        "no state is named `exp_avg_sq`; this optimizer keeps exp_avg"
    );
    assert!(message(owned.set_lr(f64::NAN)).contains("`lr` is NaN"));
    assert!(message(owned.set_max_grad_norm(1.0)).contains("without `max_grad_norm`"));
    assert!(matches!(owned.read_grad_norm_blocking(), Err(Error::SettingOff { .. })));
    for max_norm in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let groups = wgpu_optim::ParamGroups::from(recipe).with_max_grad_norm(max_norm);
        let error = message(gpu.optimizer(&specs(), groups));
        assert!(error.contains("`max_grad_norm` is"), "{error}");
    }
    assert!(message(owned.set_group_lr(1, 1.0)).contains("parameter group 1 does not exist; there are 1"));
    assert!(matches!(owned.step_with::<TensorBuffers<'_>>(&[]), Err(Error::Ownership(_))));
    assert!(matches!(borrowed.step(), Err(Error::Ownership(_))));
    assert!(matches!(borrowed.param("a"), Err(Error::Ownership(_))));
    assert!(matches!(borrowed.zero_grad(&mut encoder(gpu)), Err(Error::Ownership(_))));
}
