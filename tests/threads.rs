//! The same run gives the same bits, again and again, and beside others.

mod common;

use common::{Gpu, gpus};
use wgpu_optim::adapter::Probe;
use wgpu_optim::{
    Checkpoint, Error, GpuOptimizer, LrSchedule, ParamGroups, Recipe, Requirements, TensorSpec, reference,
    verify,
};

/// What the documentation says of threads: everything may be sent and shared.
#[test]
fn everything_may_be_sent_and_shared() {
    fn is_sent_and_shared<T: Send + Sync>() {}
    is_sent_and_shared::<GpuOptimizer>();
    is_sent_and_shared::<Checkpoint>();
    is_sent_and_shared::<Error>();
    is_sent_and_shared::<LrSchedule>();
    is_sent_and_shared::<ParamGroups>();
    is_sent_and_shared::<Probe>();
    is_sent_and_shared::<Recipe>();
    is_sent_and_shared::<Requirements>();
    is_sent_and_shared::<reference::Tensor<f32>>();
    is_sent_and_shared::<verify::Runner>();
}

fn specs() -> Vec<TensorSpec> {
    vec![
        TensorSpec::new("large", [90, 700]),
        TensorSpec::new("small", [33]),
        TensorSpec::new("matrix", [40, 24]),
    ]
}

/// Five steps from the same start.
fn run(gpu: &Gpu, recipe: Recipe) -> Vec<u32> {
    let groups = ParamGroups::from(recipe).with_max_grad_norm(1.0).with_telemetry(2);
    let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
    for spec in specs() {
        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
    }
    for t in 0..5 {
        for spec in specs() {
            optimizer.write_grad(&spec.name, &verify::grads(spec.numel() as usize, t)).unwrap();
        }
        optimizer.step().unwrap();
    }
    let mut bits = Vec::new();
    for spec in specs() {
        let state = optimizer.state_names(&spec.name).unwrap().next().unwrap();
        bits.extend(optimizer.read_param_blocking(&spec.name).unwrap());
        bits.extend(optimizer.read_state_blocking(&spec.name, state).unwrap());
    }
    bits.into_iter().map(f32::to_bits).collect()
}

fn recipes() -> [Recipe; 4] {
    ["mgup-adamw", "mgup-lion-approximate", "mgup-muon", "cautious-adago"].map(|name| name.parse().unwrap())
}

/// More where there is time: RUNS.
fn runs() -> usize {
    std::env::var("RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[test]
fn a_run_gives_the_same_bits_every_time() {
    for gpu in gpus() {
        for recipe in recipes() {
            let first = run(&gpu, recipe);
            for again in 1..runs() {
                assert!(run(&gpu, recipe) == first, "{}: {recipe}, run {again}", gpu.name);
            }
        }
        println!("{}: {} runs of each recipe gave the same bits", gpu.name, runs());
    }
}

#[test]
fn optimizers_of_one_device_do_not_mind_each_others_threads() {
    for gpu in gpus() {
        let alone = recipes().map(|recipe| run(&gpu, recipe));
        for _ in 0..runs() {
            std::thread::scope(|scope| {
                let gpu = &gpu;
                let threads = recipes().map(|recipe| scope.spawn(move || run(gpu, recipe)));
                for (thread, alone) in threads.into_iter().zip(&alone) {
                    assert!(thread.join().unwrap() == *alone, "{}", gpu.name);
                }
            });
        }
    }
}

#[test]
fn a_device_a_thread_gives_the_same_bits() {
    let alone: Vec<_> = gpus().iter().map(|gpu| recipes().map(|recipe| run(gpu, recipe))).collect();
    let all = || -> Vec<_> { gpus().iter().map(|gpu| recipes().map(|recipe| run(gpu, recipe))).collect() };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(all), scope.spawn(all)];
        threads.into_iter().for_each(|thread| assert!(thread.join().unwrap() == alone));
    });
}
