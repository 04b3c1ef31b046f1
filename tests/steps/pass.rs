//! Steps recorded into a compute pass that stays open give the bits of steps recorded into an encoder.

use crate::common::{self, Gpu, gpus, read, shared_gpus};
use wgpu_optim::base::AdaGo;
use wgpu_optim::policy::Mgup;
use wgpu_optim::{
    Average, Error, GpuOptimizer, GradScaler, Miss, ParamGroups, Precision, Recipe, TensorBuffers, TensorSlice,
    TensorSpec, verify, wgpu,
};

const SHAPES: [(&str, &[usize]); 3] = [("a", &[10]), ("b", &[24, 20]), ("c", &[70_000])];

fn specs() -> Vec<TensorSpec> {
    SHAPES.iter().map(|(name, shape)| TensorSpec::new(*name, *shape)).collect()
}

fn grads(optimizer: &GpuOptimizer, t: u64) {
    for spec in specs() {
        optimizer.write_grad(&spec.name, &verify::grads(spec.numel() as usize, t)).unwrap();
    }
}

fn everything(optimizer: &GpuOptimizer) -> Vec<Vec<u32>> {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let of = |(name, _): (&str, _)| {
        let state = |state| bits(optimizer.read_state_blocking(name, state).unwrap());
        let states = optimizer.state_names(name).unwrap().map(state);
        [bits(optimizer.read_param_blocking(name).unwrap())].into_iter().chain(states).collect::<Vec<_>>()
    };
    SHAPES.into_iter().flat_map(of).collect()
}

/// Records into one pass, and submits.
fn in_pass(gpu: &Gpu, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) {
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    record(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
    gpu.queue.submit([encoder.finish()]);
}

fn build(gpu: &Gpu, groups: ParamGroups) -> GpuOptimizer {
    let optimizer = gpu.optimizer(&specs(), groups).unwrap();
    for spec in specs() {
        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
    }
    optimizer
}

#[test]
fn steps_in_a_pass_equal_steps_in_encoders() {
    let mgup = || ParamGroups::from(Recipe::adamw(1e-2).mgup());
    let settings = [
        ("mgup", mgup()),
        ("cautious", Recipe::adamw(1e-2).cautious().into()),
        ("muon", Recipe::muon(1e-2).mgup().into()),
        ("micro-batches", mgup().with_accumulation(2)),
        ("scaled", mgup().with_grad_scaler(GradScaler::default()).with_max_grad_norm(0.5)),
        ("averages", mgup().with_average(Average::moving(0.9))),
        ("two bytes", mgup().with_precision(Precision::Bf16)),
    ];
    // Sums of 280,000 bytes take three bindings to clear.
    let small = wgpu::Limits { max_storage_buffer_binding_size: 128 << 10, ..wgpu::Limits::default() };
    for gpu in gpus().into_iter().chain(common::gpus_with(small).into_iter().take(1)) {
        let binding = gpu.device.limits().max_storage_buffer_binding_size;
        for (name, groups) in settings.iter().filter(|(name, _)| binding > 1 << 20 || *name == "micro-batches") {
            let groups = if binding > 1 << 20 {
                groups.clone()
            } else {
                ParamGroups::from(Recipe::lion(1e-2)).with_accumulation(2)
            };
            let [mut passed, mut encoded] = [(); 2].map(|()| build(&gpu, groups.clone()));
            for t in 1..4 {
                for optimizer in [&passed, &encoded] {
                    grads(optimizer, t);
                    // Both ways through selection, one after the other.
                    if t == 2 && groups.accumulation() == 1 {
                        optimizer.force_miss(Miss::Above);
                    }
                }
                // As many calls as make a whole number of steps.
                in_pass(&gpu, |pass| (0..2).for_each(|_| passed.record_in_pass(pass).unwrap()));
                for _ in 0..2 {
                    encoded.step().unwrap();
                }
                assert_eq!(passed.recorded_steps(), encoded.recorded_steps());
                assert!(everything(&passed) == everything(&encoded), "{}: {name}, {t}", gpu.name);
            }
        }
    }
}

#[test]
fn the_callers_accumulators_are_copied_by_a_kernel() {
    let spec = [TensorSpec::new("m", [24, 20]), TensorSpec::new("n", [12, 30])];
    for gpu in shared_gpus().iter() {
        let recipe = Recipe::new(AdaGo::new(1e-2), Mgup::default());
        let run = |passes: bool| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
            let new = |size| {
                gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let buffers: Vec<_> = spec.iter().map(|spec| [(); 3].map(|()| new(4 * spec.numel()))).collect();
            let sums = new(1024);
            let mut optimizer = GpuOptimizer::stateless_blocking(&gpu.device, &gpu.queue, &spec, recipe).unwrap();
            for t in 1..4 {
                for ([param, grad, _], spec) in buffers.iter().zip(&spec) {
                    let numel = spec.numel() as usize;
                    gpu.queue.write_buffer(grad, 0, bytemuck::cast_slice(&verify::grads(numel, t)));
                    if t == 1 {
                        gpu.queue.write_buffer(param, 0, bytemuck::cast_slice(&verify::params(numel)));
                    }
                }
                let whole = TensorSlice::whole;
                let sum = |i: usize| TensorSlice { buffer: &sums, offset: 512 * i as u64, size: 4 };
                let states: Vec<_> = buffers.iter().enumerate().map(|(i, [.., m])| [whole(m), sum(i)]).collect();
                let given = |([p, g, _], state): (&'_ [wgpu::Buffer; 3], _)| {
                    let (p, g) = (p.clone(), g.clone());
                    (p, g, state)
                };
                let given: Vec<_> = buffers.iter().zip(&states).map(given).collect();
                let given: Vec<_> = given
                    .iter()
                    .map(|(p, g, state)| TensorBuffers::new(whole(p), whole(g)).with_state(&state[..]))
                    .collect();
                match passes {
                    true => in_pass(gpu, |pass| optimizer.record_with_in_pass(pass, &given).unwrap()),
                    false => _ = optimizer.step_with(&given).unwrap(),
                }
            }
            assert!(read(gpu, &sums)[..4].iter().any(|&byte| byte > 0), "sums of squares are there");
            let all = buffers.iter().flatten().chain([&sums]);
            all.map(|buffer| read(gpu, buffer)).collect::<Vec<_>>()
        };
        assert!(run(true) == run(false), "{}", gpu.name);
    }
}

#[test]
fn what_a_pass_cannot_do_is_refused_by_name_and_changes_nothing() {
    let gpu = &gpus()[0];
    let groups = ParamGroups::from(Recipe::adamw(1e-2)).with_telemetry(100);
    let mut optimizer = build(gpu, groups);
    grads(&optimizer, 1);
    let before = everything(&optimizer);
    in_pass(gpu, |pass| {
        let error = optimizer.record_in_pass(pass).unwrap_err();
        assert!(matches!(error, Error::InPass { setting: "`telemetry`" }), "{error}");
        let error = optimizer.record_with_in_pass::<TensorBuffers<'_>>(pass, &[]).unwrap_err();
        assert!(matches!(error, Error::Ownership(_)), "{error}");
    });
    assert!(everything(&optimizer) == before);
    assert_eq!((optimizer.recorded_steps(), optimizer.steps("a").unwrap()), (0, 0));
}

#[test]
fn a_dropped_pass_with_a_micro_batch_is_missed() {
    let gpu = &gpus()[0];
    let mut optimizer = build(gpu, ParamGroups::from(Recipe::adamw(1e-2)).with_accumulation(2));
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    optimizer.record_in_pass(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default())).unwrap();
    drop(encoder);
    in_pass(gpu, |pass| {
        assert!(matches!(optimizer.record_in_pass(pass), Err(Error::MicroBatchDropped)));
    });
}
