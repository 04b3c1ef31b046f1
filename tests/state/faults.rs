//! What can go wrong around a run: an error says what and where, and the last checkpoint goes on to the bit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

use crate::common::{self, Gpu, gpus};
use wgpu_optim::{
    Checkpoint, Error, GpuOptimizer, LrSchedule, ParamGroups, Recipe, TensorBuffers, TensorSlice, TensorSpec, adapter,
    verify, wgpu,
};

fn specs() -> Vec<TensorSpec> {
    vec![TensorSpec::new("w", [70, 90]), TensorSpec::new("b", [33])]
}

fn recipe() -> Recipe {
    Recipe::adamw(1e-2).mgup()
}

fn run(optimizer: &mut GpuOptimizer, steps: std::ops::Range<u64>) {
    for t in steps {
        for spec in specs() {
            optimizer.write_grad(&spec.name, &verify::grads(spec.numel() as usize, t)).unwrap();
        }
        optimizer.step().unwrap();
    }
}

fn bits(optimizer: &GpuOptimizer) -> Vec<u32> {
    let read = |spec: TensorSpec| optimizer.read_param_blocking(&spec.name).unwrap();
    specs().into_iter().flat_map(read).map(f32::to_bits).collect()
}

/// Another device on the adapter of this one.
fn reopened(gpu: &Gpu) -> Gpu {
    gpus().into_iter().find(|other| other.name == gpu.name).unwrap()
}

#[test]
fn a_lost_device_is_an_error_and_the_last_checkpoint_goes_on_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    for gpu in gpus() {
        let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), recipe()).unwrap();
        let mut other = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs()[1..], recipe()).unwrap();
        run(&mut optimizer, 0..5);
        optimizer.save(&path).unwrap();
        run(&mut optimizer, 5..7);
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 512,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let slice = |offset| TensorSlice { buffer: &buffer, offset, size: 132 };
        other.step_with(&[TensorBuffers::new(slice(0), slice(256))]).unwrap();

        gpu.device.destroy();
        let named = |what: &str, error: Option<Error>| {
            let error = error.unwrap_or_else(|| panic!("{}: {what} on a lost device is no error", gpu.name));
            assert!(matches!(error, Error::DeviceLost { .. }), "{}: {what}: {error}", gpu.name);
            let said = error.to_string();
            assert!(said.contains(&gpu.name) && said.contains("last checkpoint"), "{said}");
        };
        named("step", optimizer.step().err());
        assert_eq!(optimizer.recorded_steps(), 7);
        named("step_with", other.step_with(&[TensorBuffers::new(slice(0), slice(256))]).err());
        named("read_param", optimizer.read_param_blocking("w").err());
        named("read_state", optimizer.read_state_blocking("w", "exp_avg").err());
        named("read_selected", optimizer.read_selected_blocking("w").err());
        named("read_steps", optimizer.read_steps_blocking("w").err());
        named("save", optimizer.save(&path).err());
        named("new", GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), recipe()).err());
        named("sibling", optimizer.sibling_blocking(&specs(), recipe()).err());
        drop(optimizer);

        let gpu = reopened(&gpu);
        let mut resumed = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
        run(&mut resumed, 5..10);
        let mut whole = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), recipe()).unwrap();
        run(&mut whole, 0..10);
        assert_eq!(bits(&resumed), bits(&whole), "{}", gpu.name);
    }
}

/// A buffer of words that kernels and copies may use.
fn words(gpu: &Gpu, values: &[f32]) -> wgpu::Buffer {
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("mine"),
        size: 4 * values.len() as u64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
    buffer
}

fn whole<'a>(param: &'a wgpu::Buffer, grad: &'a wgpu::Buffer) -> [TensorBuffers<'a>; 1] {
    [TensorBuffers::new(TensorSlice::whole(param), TensorSlice::whole(grad))]
}

fn encoder(gpu: &Gpu) -> wgpu::CommandEncoder {
    gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
}

#[test]
fn a_destroyed_buffer_is_an_error_and_nothing_is_counted() {
    for gpu in gpus() {
        let spec = [TensorSpec::new("w", [4])];
        let refused = |what: &str, error: Option<Error>| {
            let error = error.unwrap_or_else(|| panic!("{}: {what} is no error", gpu.name));
            assert!(error.to_string().contains("destroyed"), "{}: {what}: {error}", gpu.name);
        };
        let settings: [fn(ParamGroups) -> ParamGroups; 3] = [
            |groups| groups,
            |groups| groups.with_precision(wgpu_optim::Precision::Bf16),
            |groups| groups.with_accumulation(2),
        ];
        for change in settings {
            let groups = change(ParamGroups::from(Recipe::lion(0.5)));
            let len = if groups.precision() == wgpu_optim::Precision::F32 { 4 } else { 2 };
            let micro_batches = groups.accumulation();
            let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &spec, groups).unwrap();
            let [param, grad, gone] = [(); 3].map(|()| words(&gpu, &vec![1.0; len]));
            gone.destroy();
            for _ in 0..2 {
                refused("a gradient", optimizer.step_with(&whole(&param, &gone)).err());
                // A micro-batch alone does not reach it.
                if micro_batches == 1 {
                    refused("a parameter", optimizer.step_with(&whole(&gone, &grad)).err());
                }
                assert_eq!((optimizer.steps("w").unwrap(), optimizer.micro_batches()), (0, 0));
                assert_eq!(optimizer.recorded_steps(), 0);
            }
            for _ in 0..micro_batches {
                optimizer.step_with(&whole(&param, &grad)).unwrap();
            }
            assert_eq!(optimizer.steps("w").unwrap(), 1);
            let moved: Vec<f32> = bytemuck::pod_collect_to_vec(&common::read(&gpu, &param));
            assert_ne!(moved, vec![1.0; len], "{}", gpu.name);
        }
        // State of the caller's, in a bind group and out of one.
        let spec = [TensorSpec::new("w", [2, 2])];
        let mut optimizer =
            GpuOptimizer::stateless_blocking(&gpu.device, &gpu.queue, &spec, Recipe::adago(0.1)).unwrap();
        let [param, grad, momentum, accumulator] = [4, 4, 4, 1].map(|n| words(&gpu, &vec![1.0; n]));
        let state = [TensorSlice::whole(&momentum), TensorSlice::whole(&accumulator)];
        optimizer.step_with(&whole(&param, &grad).map(|given| given.with_state(&state))).unwrap();
        accumulator.destroy();
        refused("an accumulator", optimizer.step_with(&whole(&param, &grad).map(|g| g.with_state(&state))).err());
        assert_eq!(optimizer.steps("w").unwrap(), 1);

        // The optimizer's own.
        let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, Recipe::lion(0.1)).unwrap();
        optimizer.step().unwrap();
        optimizer.grad("w").unwrap().buffer.destroy();
        refused("a write", optimizer.write_grad("w", &[1.0; 4]).err());
        refused("a step", optimizer.step().err());
        assert_eq!((optimizer.steps("w").unwrap(), optimizer.recorded_steps()), (1, 1));
        optimizer.param("w").unwrap().buffer.destroy();
        refused("a read", optimizer.read_param_blocking("w").err());
    }
}

#[test]
fn masters_hold_their_values_whichever_encoder_is_submitted() {
    for gpu in gpus() {
        let groups = || ParamGroups::from(Recipe::lion(0.01)).with_precision(wgpu_optim::Precision::Bf16);
        let spec = [TensorSpec::new("w", [2])];
        let make = || GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &spec, groups()).unwrap();
        let bf16 = |x: f32| {
            f32::from_bits(u32::from((x.to_bits() >> 16) as u16) << 16 | u32::from((x.to_bits() >> 16) as u16))
        };
        for order in ["dropped", "swapped"] {
            let (param, grad) = (words(&gpu, &[bf16(5.0)]), words(&gpu, &[bf16(1.0)]));
            let mut optimizer = make();
            let [mut a, mut b] = [encoder(&gpu), encoder(&gpu)];
            optimizer.record_with(&mut a, &whole(&param, &grad)).unwrap();
            optimizer.record_with(&mut b, &whole(&param, &grad)).unwrap();
            gpu.queue.submit([b.finish()]);
            let steps = if order == "dropped" {
                drop(a);
                1.0
            } else {
                gpu.queue.submit([a.finish()]);
                2.0
            };
            let found = optimizer.read_state_blocking("w", "master").unwrap();
            assert!(found.iter().all(|x| (x - (5.0 - 0.01 * steps)).abs() < 1e-6), "{}: {order}: {found:?}", gpu.name);
            optimizer.step_with(&whole(&param, &grad)).unwrap();
        }
        // A step that wgpu refuses leaves no master behind.
        let mapped = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: true,
        });
        mapped.get_mapped_range_mut(..).unwrap().copy_from_slice(bytemuck::bytes_of(&bf16(5.0)));
        let grad = words(&gpu, &[bf16(1.0)]);
        let mut optimizer = make();
        assert!(matches!(optimizer.step_with(&whole(&mapped, &grad)), Err(Error::Gpu(_))), "{}", gpu.name);
        mapped.unmap();
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        optimizer.step_with(&whole(&mapped, &grad)).unwrap();
        let found = optimizer.read_state_blocking("w", "master").unwrap();
        assert!(found.iter().all(|x| (x - 4.99).abs() < 1e-6), "{}: {found:?}", gpu.name);

        // From the parameters again, once these were changed.
        let (param, grad) = (words(&gpu, &[bf16(5.0)]), words(&gpu, &[bf16(1.0)]));
        let mut optimizer = make();
        optimizer.step_with(&whole(&param, &grad)).unwrap();
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        gpu.queue.write_buffer(&param, 0, bytemuck::cast_slice(&[bf16(9.0)]));
        optimizer.step_with(&whole(&param, &grad)).unwrap();
        let kept = optimizer.read_state_blocking("w", "master").unwrap();
        assert!((kept[0] - 4.98).abs() < 1e-6, "{}: {kept:?}", gpu.name);
        gpu.queue.write_buffer(&param, 0, bytemuck::cast_slice(&[bf16(9.0)]));
        optimizer.forget_masters();
        optimizer.step_with(&whole(&param, &grad)).unwrap();
        let taken = optimizer.read_state_blocking("w", "master").unwrap();
        assert!((taken[0] - 8.99).abs() < 1e-6, "{}: {taken:?}", gpu.name);
    }
}

#[test]
fn a_dropped_micro_batch_is_an_error_until_the_sum_begins_again() {
    for gpu in gpus() {
        for owns in [true, false] {
            let spec = [TensorSpec::new("w", [4])];
            let groups = ParamGroups::from(Recipe::adamw(0.1)).with_accumulation(2);
            let (param, grad) = (words(&gpu, &[0.0; 4]), words(&gpu, &[0.5; 4]));
            let mut optimizer = match owns {
                true => GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, groups).unwrap(),
                false => GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &spec, groups).unwrap(),
            };
            if owns {
                optimizer.write_grad("w", &[0.5; 4]).unwrap();
            }
            let record = |optimizer: &mut GpuOptimizer, encoder: &mut wgpu::CommandEncoder| match owns {
                true => optimizer.record(encoder),
                false => optimizer.record_with(encoder, &whole(&param, &grad)),
            };
            // The first of two, then the one that ends the step.
            for dropped in 0..2 {
                for part in 0..2 {
                    let mut encoder = encoder(&gpu);
                    record(&mut optimizer, &mut encoder).unwrap();
                    if part == dropped {
                        drop(encoder);
                        break;
                    }
                    gpu.queue.submit([encoder.finish()]);
                }
                for _ in 0..2 {
                    let error = record(&mut optimizer, &mut encoder(&gpu)).unwrap_err();
                    assert!(matches!(error, Error::MicroBatchDropped), "{}: {error}", gpu.name);
                }
                // Neither goes into a file or another optimizer.
                let error = optimizer.save(std::env::temp_dir().join("never-written")).unwrap_err();
                assert!(matches!(error, Error::MicroBatchDropped), "{}: {error}", gpu.name);
                let error = optimizer.resized_blocking(&spec, &[]).unwrap_err();
                assert!(matches!(error, Error::MicroBatchDropped), "{}: {error}", gpu.name);
                // Clearing that is not submitted clears nothing.
                optimizer.forget_micro_batches(&mut self::encoder(&gpu));
                let error = record(&mut optimizer, &mut self::encoder(&gpu)).unwrap_err();
                assert!(matches!(error, Error::MicroBatchDropped), "{}: {error}", gpu.name);
                let mut encoder = encoder(&gpu);
                optimizer.forget_micro_batches(&mut encoder);
                gpu.queue.submit([encoder.finish()]);
                assert_eq!(optimizer.micro_batches(), 0);
                for _ in 0..2 {
                    let mut encoder = self::encoder(&gpu);
                    record(&mut optimizer, &mut encoder).unwrap();
                    gpu.queue.submit([encoder.finish()]);
                }
                let m = optimizer.read_state_blocking("w", "exp_avg").unwrap();
                let expected = if dropped == 0 { 0.05 } else { 0.095 };
                assert!(m.iter().all(|m| (m - expected).abs() < 1e-7), "{}: {owns}: {m:?}", gpu.name);
            }
        }
    }
}

#[test]
fn recording_calls_nothing_back() {
    for gpu in gpus() {
        let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), recipe()).unwrap();
        run(&mut optimizer, 0..1);
        // Finished, and not polled: the next submit or poll calls back.
        let called = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = called.clone();
        let empty = encoder(&gpu).finish();
        gpu.queue.submit([empty]);
        gpu.queue.on_submitted_work_done(move || flag.store(true, std::sync::atomic::Ordering::SeqCst));
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut encoder = encoder(&gpu);
        for _ in 0..8 {
            optimizer.record(&mut encoder).unwrap();
        }
        assert!(!called.load(std::sync::atomic::Ordering::SeqCst), "{}", gpu.name);
        gpu.queue.submit([encoder.finish()]);
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        assert!(called.load(std::sync::atomic::Ordering::SeqCst), "{}", gpu.name);
    }
}

#[test]
fn a_panic_in_a_schedule_leaves_the_optimizer_as_it_was() {
    for gpu in gpus() {
        let schedule = LrSchedule::function(|step| if step == 3 { panic!("mine") } else { 1.0 });
        let groups = ParamGroups::from(recipe()).with_schedule(schedule);
        let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
        run(&mut optimizer, 0..3);
        let before = bits(&optimizer);
        for _ in 0..3 {
            assert!(catch_unwind(AssertUnwindSafe(|| optimizer.step())).is_err());
        }
        assert_eq!((optimizer.recorded_steps(), optimizer.steps("w").unwrap()), (3, 3));
        assert_eq!(bits(&optimizer), before);
        optimizer.set_recorded_steps(4);
        optimizer.step().unwrap();
        assert!(bits(&optimizer) != before);
    }
}

/// What a child process is to do, and where.
const CHILD: &str = "WGPU_OPTIM_TEST_CHILD";

/// Runs a test of this file in a process with limits of its own, and returns what it says it was refused.
#[cfg(unix)]
fn refusal(limits: &str, test: &str, value: &Path) -> String {
    let output = Command::new("bash")
        .args(["-c", &format!("{limits}; exec \"$0\" --exact faults::{test} --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, value)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    let refusal = said.lines().find_map(|line| line.split_once("refused: ").map(|(_, error)| error));
    refusal.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// Not a test of its own: what another one runs where files cannot grow beyond 64 MiB.
#[test]
fn a_child_saves_to_a_full_disk() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let (_instance, adapter) = pollster::block_on(adapter::from_env()).unwrap();
    // The memory of software adapters may be a file, too: little of that, and a checkpoint that is large by what else is in it.
    let descriptor = wgpu::DeviceDescriptor { memory_hints: wgpu::MemoryHints::MemoryUsage, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    let optimizer = GpuOptimizer::new_blocking(&device, &queue, &specs(), recipe()).unwrap();
    let extra = [("large".to_owned(), "x".repeat(80 << 20))];
    println!("refused: {}", optimizer.save_with(&path, extra.into()).unwrap_err());
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_the_old_checkpoint_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let gpu = &gpus()[0];
    let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), recipe()).unwrap();
    run(&mut optimizer, 0..2);
    optimizer.save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    // A file that may not grow cannot be written, as on a full disk, once the signal is ignored.
    let said = refusal("trap '' XFSZ; ulimit -f 65536", "a_child_saves_to_a_full_disk", &path);
    assert!(said.contains("run.safetensors") && said.contains("File too large"), "{said}");
    assert!(std::fs::read(&path).unwrap() == before, "the old checkpoint has changed");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [Path::new("run.safetensors").as_os_str()], "what is left beside it");
    Checkpoint::open(&path).unwrap();
}

/// Not a test of its own: what another one runs where there is little memory.
#[test]
fn a_child_makes_too_large_an_optimizer() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let gpu = &gpus()[0];
    let new = |count: usize, size: usize| {
        let specs: Vec<_> = (0..count).map(|i| TensorSpec::new(format!("w{i}"), [size])).collect();
        GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, Recipe::adamw(1e-3))
    };
    match new(64, 1 << 26) {
        Ok(_) => println!("refused: nothing"),
        Err(error) => println!("refused: {error}"),
    }
    // What there was room for is free again.
    new(1, 1 << 26).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn too_little_memory_is_an_error_that_says_how_much() {
    let gpu = gpus().remove(0);
    if gpu.device.adapter_info().device_type != wgpu::DeviceType::Cpu {
        println!("{} has memory of its own, which no limit reaches", gpu.name);
        return;
    }
    // Threads have address space of their own, the more of them the more cores.
    let little = "export MALLOC_ARENA_MAX=2 LP_NUM_THREADS=2; ulimit -v 8388608";
    let said = refusal(little, "a_child_makes_too_large_an_optimizer", Path::new("memory"));
    println!("{said}");
    // Newer lavapipes keep a device's memory in a file, which only takes room when it is used.
    if said == "nothing" && std::env::var("CI").is_err() {
        println!("{}: no lack of memory could be made", gpu.name);
        return;
    }
    for part in [&gpu.name, "no room for 68719", "smaller model"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
