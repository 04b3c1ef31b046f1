//! A checkpoint goes through the host tensor by tensor. In a process of its own, whose memory is measured.

mod common;

use common::gpus;
use wgpu_optim::{GpuOptimizer, Recipe, TensorSpec};

/// The most memory that was resident since the last reset, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap()
}

fn growth(work: impl FnOnce()) -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    work();
    peak().saturating_sub(before)
}

#[test]
#[cfg(target_os = "linux")]
fn a_checkpoint_takes_little_more_than_its_largest_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let gpu = &gpus()[0];
    // 48 tensors of 4 MiB, with two states each: 576 MiB in the file.
    let specs: Vec<_> = (0..48).map(|i| TensorSpec::new(format!("t{i}"), [1 << 20])).collect();
    let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, Recipe::adamw(1e-3)).unwrap();
    optimizer.step().unwrap();
    optimizer.read_param_blocking("t0").unwrap();
    let saving = growth(|| optimizer.save(&path).unwrap());
    assert!(std::fs::metadata(&path).unwrap().len() > 576 << 20);
    let loading = growth(|| optimizer.load(&path).unwrap());
    println!("saving {} MiB, loading {} MiB", saving >> 20, loading >> 20);
    for (what, grown) in [("saving", saving), ("loading", loading)] {
        assert!(grown < 8 * (4 << 20), "{what} took {} MiB", grown >> 20);
    }
}
