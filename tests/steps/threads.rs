//! The same run gives the same bits, again and again, and beside others.

use crate::common::{Gpu, gpus};
use wgpu_optim::adapter::Probe;
use wgpu_optim::{
    Checkpoint, Error, GpuOptimizer, LrSchedule, ParamGroups, Recipe, Requirements, TensorSpec, reference, verify,
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

/// And what is awaited may be, by a task of any thread.
#[test]
fn futures_may_be_sent() {
    fn is_sent(_: impl Send) {}
    let gpu = gpus().remove(0);
    is_sent(GpuOptimizer::new(&gpu.device, &gpu.queue, &specs(), Recipe::adamw(1e-3)));
    is_sent(GpuOptimizer::for_buffers(&gpu.device, &gpu.queue, &specs(), Recipe::adamw(1e-3)));
    is_sent(GpuOptimizer::stateless(&gpu.device, &gpu.queue, &specs(), Recipe::adamw(1e-3)));
    let optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), Recipe::adamw(1e-3)).unwrap();
    is_sent(optimizer.sibling(&specs(), Recipe::adamw(1e-3)));
    is_sent(optimizer.resized(&specs(), &[]));
    is_sent(optimizer.read_param("small"));
    is_sent(optimizer.read_state("small", "exp_avg"));
    is_sent(optimizer.read_selected("small"));
    is_sent(optimizer.read_steps("small"));
    is_sent(optimizer.read_grad_norm());
    is_sent(optimizer.read_guarded());
}

fn specs() -> Vec<TensorSpec> {
    vec![TensorSpec::new("large", [90, 700]), TensorSpec::new("small", [33]), TensorSpec::new("matrix", [40, 24])]
}

fn groups(recipe: Recipe) -> ParamGroups {
    ParamGroups::from(recipe).with_max_grad_norm(1.0).with_telemetry(2)
}

/// An optimizer of each recipe, whose pipelines the runs share.
fn compiled(gpu: &Gpu) -> [GpuOptimizer; 4] {
    recipes().map(|recipe| GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), groups(recipe)).unwrap())
}

/// Five steps from the same start.
fn run(compiled: &GpuOptimizer) -> Vec<u32> {
    let mut optimizer = compiled.sibling_blocking(&specs(), compiled.groups().clone()).unwrap();
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
        for (compiled, recipe) in compiled(&gpu).iter().zip(recipes()) {
            let first = run(compiled);
            for again in 1..runs() {
                assert!(run(compiled) == first, "{}: {recipe}, run {again}", gpu.name);
            }
        }
        println!("{}: {} runs of each recipe gave the same bits", gpu.name, runs());
    }
}

#[test]
fn optimizers_of_one_device_do_not_mind_each_others_threads() {
    for gpu in gpus() {
        let compiled = compiled(&gpu);
        let alone = compiled.each_ref().map(run);
        for _ in 0..runs() {
            std::thread::scope(|scope| {
                let threads = compiled.each_ref().map(|compiled| scope.spawn(|| run(compiled)));
                for (thread, alone) in threads.into_iter().zip(&alone) {
                    assert!(thread.join().unwrap() == *alone, "{}", gpu.name);
                }
            });
        }
    }
}

#[test]
fn a_device_a_thread_gives_the_same_bits() {
    let all = || -> Vec<_> { gpus().iter().map(|gpu| compiled(gpu).each_ref().map(run)).collect() };
    let alone = all();
    std::thread::scope(|scope| {
        let threads = [scope.spawn(all), scope.spawn(all)];
        threads.into_iter().for_each(|thread| assert!(thread.join().unwrap() == alone));
    });
}
