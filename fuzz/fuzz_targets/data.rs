//! Any bytes as one of a data set's files, packed or not: refused by name, or read whole.
#![no_main]

use std::fs;
use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

#[allow(dead_code)]
#[path = "../../crates/wgpu-optim-train/src/data.rs"]
mod data;

/// Names, and what each holds where it is not fuzzed: one picture of one pixel, or one of CIFAR-10's.
fn files() -> [(&'static str, Vec<u8>); 10] {
    let images = [&[0, 0, 8, 3][..], &[0, 0, 0, 1].repeat(3), &[7]].concat();
    let labels = [&[0, 0, 8, 1][..], &[0, 0, 0, 1], &[7]].concat();
    let batch = [&[7][..], &[1; 3072]].concat();
    [
        ("train-images-idx3-ubyte", images.clone()),
        ("train-labels-idx1-ubyte", labels.clone()),
        ("t10k-images-idx3-ubyte", images.clone()),
        ("t10k-labels-idx1-ubyte", labels.clone()),
        ("emnist-letters-train-images-idx3-ubyte", images.clone()),
        ("emnist-letters-train-labels-idx1-ubyte", labels.clone()),
        ("emnist-letters-test-images-idx3-ubyte", images),
        ("emnist-letters-test-labels-idx1-ubyte", labels),
        ("data_batch_1.bin", batch.clone()),
        ("test_batch.bin", batch),
    ]
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn seeds() -> Vec<Vec<u8>> {
    let files = files().into_iter().enumerate();
    let seeds = files.flat_map(|(i, (_, bytes))| {
        let i = i as u8;
        [[&[i], &bytes[..]].concat(), [&[i + 10], &gz(&bytes)[..]].concat(), [&[i + 20], &bytes[..]].concat()]
    });
    seeds.collect()
}

thread_local! {
    static DIR: TempDir = tempfile::tempdir().unwrap();
}

fuzz_target!(init: wgpu_optim_fuzz::seed(seeds()), |input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    DIR.with(|dir| {
        let fuzzed = usize::from(kind % 10);
        // Four files of MNIST's, four of EMNIST's, two of CIFAR-10's.
        let of_set = |i: usize| i / 4 == fuzzed / 4;
        for (i, (name, whole)) in files().into_iter().enumerate().filter(|(i, _)| of_set(*i)) {
            let path = dir.path().join(name);
            // CIFAR-10's batches have no names for packed files.
            match if fuzzed < 8 { kind / 10 % 3 } else { 0 } {
                _ if i != fuzzed => fs::write(path, whole),
                0 => fs::write(path, bytes),
                // Packed bytes that may not be, and bytes that are packed well.
                1 => fs::write(path.with_extension("gz"), bytes),
                _ => fs::write(path.with_extension("gz"), gz(bytes)),
            }
            .unwrap();
        }
        match data::Dataset::from_dir(dir.path(), None) {
            Ok(data) => {
                for part in [&data.train, &data.test] {
                    assert!(part.len() > 0 && part.labels.iter().all(|&label| usize::from(label) < data.classes));
                    assert_eq!(part.pixels.len(), part.len() * data.features);
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                assert!(error.contains(&*dir.path().to_string_lossy()), "{error}");
            }
        }
        for entry in fs::read_dir(dir.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    });
});
