//! A cache is written, read again, and does without what it cannot read.

use std::fs;

use wgpu_optim::{GpuOptimizer, ParamGroups, Recipe, Requirements, TensorSpec, adapter, wgpu};
use wgpu_optim_cache::PipelineCache;

fn device(features: wgpu::Features) -> (wgpu::Device, wgpu::Queue) {
    let (_, adapter) = pollster::block_on(adapter::from_env()).unwrap();
    let required_features = Requirements::optional_features(adapter.features()) & features;
    let required_limits = Requirements::webgpu().device_limits(&adapter.limits()).unwrap();
    let descriptor = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).unwrap()
}

/// A parameter after a step, on a new device, and the cache.
fn step(folder: &std::path::Path) -> (Vec<f32>, Option<PipelineCache>) {
    let (device, queue) = device(wgpu::Features::all());
    let cache = PipelineCache::open(&device, folder);
    let mut groups = ParamGroups::from(Recipe::adamw(1e-2).mgup());
    if let Some(cache) = &cache {
        groups = groups.with_pipeline_cache(cache.handle());
    }
    let specs = [TensorSpec::new("w", [100, 100])];
    let mut optimizer = GpuOptimizer::new_blocking(&device, &queue, &specs, groups).unwrap();
    let grad: Vec<f32> = (0..10_000).map(|i| (i as f32).sin()).collect();
    optimizer.write_grad("w", &grad).unwrap();
    optimizer.step().unwrap();
    (optimizer.read_param_blocking("w").unwrap(), cache)
}

#[test]
fn a_run_reads_what_the_last_one_wrote_and_rewrites_what_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("of/caches");
    let (expected, Some(cache)) = step(&folder) else {
        return eprintln!("skipped: the adapter has no pipeline caches");
    };
    assert!(!cache.was_read() && cache.save().unwrap());
    let written = fs::read(cache.file()).unwrap();
    let (found, cache) = step(&folder);
    assert!(cache.unwrap().was_read() && found == expected);
    // Cut, altered, not a cache, empty.
    let mut altered = written.clone();
    *altered.last_mut().unwrap() ^= 1;
    let wrong = [written[..written.len() - 1].to_vec(), altered, b"not a cache".to_vec(), Vec::new()];
    for bytes in wrong {
        let (_, cache) = step(&folder);
        let file = cache.unwrap().file().to_owned();
        fs::write(&file, bytes).unwrap();
        let (found, cache) = step(&folder);
        let cache = cache.unwrap();
        assert!(!cache.was_read() && found == expected);
        assert!(cache.save().unwrap());
        assert!(step(&folder).1.unwrap().was_read());
    }
    // Nothing else is left in the folder.
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn data_of_another_driver_count_as_empty() {
    let folder = tempfile::tempdir().unwrap();
    let (expected, Some(cache)) = step(folder.path()) else { return };
    cache.save().unwrap();
    let written = fs::read(cache.file()).unwrap();
    // The header of wgpu: magic, two versions, backend, adapter, driver.
    let (backend, adapter, driver) = (20, 21, 36);
    for place in [backend, adapter, driver] {
        let mut bytes = written.clone();
        bytes[4 + place] ^= 0xff;
        let checksum = crc32fast::hash(&bytes[4..]).to_le_bytes();
        bytes[..4].copy_from_slice(&checksum);
        fs::write(cache.file(), &bytes).unwrap();
        let (found, cache) = step(folder.path());
        assert_eq!(found, expected);
        let cache = cache.unwrap();
        assert!(cache.save().unwrap() && !cache.save().unwrap());
        assert_eq!(fs::read(cache.file()).unwrap()[4 + place], written[4 + place]);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// lavapipe keeps nothing, so this shows that pipelines are compiled with the cache: wgpu refuses one of another device.
#[test]
fn a_device_without_the_feature_has_no_cache() {
    let (device, _) = device(wgpu::Features::empty());
    assert!(PipelineCache::open(&device, "nowhere").is_none());
}
