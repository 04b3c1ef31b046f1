//! Exactly K coordinates, ties to the lower index: φ of every coordinate, seen from the parameters.
//!
//! Lion makes scores exact. With m = 0.01 and a gradient g > −0.09 the direction is 1 and the score is g itself, so a
//! gradient *is* the list of scores, and a parameter that starts at 0 ends at −lr·φ.

mod common;

use common::Gpu;
use wgpu_optim::base::{Base, Lion};
use wgpu_optim::policy::{Mgup, Policy, Selection};
use wgpu_optim::{GpuOptimizer, Recipe, TensorSpec, reference, wgpu};

const LR: f32 = 0.5;

fn recipe(ratio: f64, selection: Selection) -> Recipe {
    Recipe {
        base: Base::Lion(Lion { lr: f64::from(LR), ..Lion::default() }),
        policy: Policy::Mgup(Mgup { ratio, alpha: Some(4.0), gamma: Some(0.25), selection }),
    }
}

/// Runs a step whose scores are `scores`, one tensor each, and returns φ, and the reported count.
fn phi(gpu: &Gpu, recipe: Recipe, scores: &[(String, Vec<f32>)]) -> Vec<(Vec<f32>, u64)> {
    let specs: Vec<_> = scores.iter().map(|(name, s)| TensorSpec::new(name, [s.len()])).collect();
    let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, recipe).unwrap();
    for (name, scores) in scores {
        optimizer.write_state(name, "exp_avg", &vec![0.01; scores.len()]).unwrap();
        optimizer.write_grad(name, scores).unwrap();
    }
    optimizer.poison_scratch();
    optimizer.step().unwrap();
    scores
        .iter()
        .map(|(name, _)| {
            let param = optimizer.read_param_blocking(name).unwrap();
            let count = optimizer.read_selected_blocking(name).unwrap().count;
            (param.into_iter().map(|x| -x / LR).collect(), count)
        })
        .collect()
}

/// Reproducible values in [0, 1).
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 24) as f32
    };
    std::iter::repeat_with(next).take(n).collect()
}

fn adversaries() -> Vec<(String, Vec<f32>)> {
    let mut all: Vec<(String, Vec<f32>)> = Vec::new();
    for n in [1, 2, 3, 100, 255, 4096, 4097, 20_000, 150_001] {
        let random = noise(n, n as u32);
        let mut add = |what: &str, scores: Vec<f32>| all.push((format!("{what} {n}"), scores));
        add("random", random.clone());
        add("around zero", random.iter().map(|x| 0.1 * x - 0.05).collect());
        add("all zero", vec![0.0; n]);
        add("signed zeros", random.iter().map(|&x| if x < 0.5 { -0.0 } else { 0.0 }).collect());
        add("all equal", vec![0.125; n]);
        add("all equal and negative", vec![-0.0625; n]);
        add(
            "nine tenths zero",
            random.iter().map(|&x| if x < 0.9 { 0.0 } else { 0.1 * x - 0.095 }).collect(),
        );
        add("few values", random.iter().map(|&x| (x * 8.0).floor() / 8.0).collect());
        add("last bits", random.iter().map(|&x| f32::from_bits(0x3f00_0000 + (x * 4.0) as u32)).collect());
        add("ascending", (0..n).map(|i| i as f32).collect());
        add("descending", (0..n).map(|i| (n - i) as f32).collect());
        add("periodic", (0..n).map(|i| (i % 8) as f32).collect());
        add("subnormal", random.iter().map(|&x| (x - 0.5) * 1e-38).collect());
        add("huge", random.iter().map(|&x| x * f32::MAX).collect());
        add("infinite", random.iter().map(|&x| if x < 0.6 { f32::INFINITY } else { x }).collect());
        add("some NaN", random.iter().map(|&x| if x < 0.2 { f32::NAN } else { x }).collect());
        add("mostly NaN", random.iter().map(|&x| if x < 0.8 { -f32::NAN } else { x - 0.85 }).collect());
        let start = n / 3;
        let outliers = |i: usize| i >= start && i < start + n / 10;
        add("one sector", (0..n).map(|i| if outliers(i) { 1e20 + i as f32 } else { 1e-10 }).collect());
    }
    all
}

fn assert_selects_exactly(gpu: &Gpu, ratio: f64) {
    let scores = adversaries();
    let recipe = recipe(ratio, Selection::Exact);
    let Policy::Mgup(mgup) = recipe.policy else { unreachable!() };
    for ((name, scores), (phi, count)) in scores.iter().zip(phi(gpu, recipe, &scores)) {
        let what = format!("{}: {name}, τ = {ratio}", gpu.name);
        let selected = reference::top_k(scores, mgup.k(scores.len()));
        assert_eq!(count as usize, selected.iter().filter(|&&s| s).count(), "{what}");
        for (i, (&phi, &selected)) in phi.iter().zip(&selected).enumerate() {
            // The parameter of a NaN or infinite gradient is unspecified.
            if scores[i].is_finite() {
                assert_eq!(phi, if selected { 4.0 } else { 0.25 }, "{what} at {i}, score {}", scores[i]);
            }
        }
    }
}

#[test]
fn exact_selection_takes_k_coordinates_ties_to_the_lower_index() {
    for gpu in common::gpus() {
        for ratio in [0.5, 0.29, 0.999, 1e-3] {
            assert_selects_exactly(&gpu, ratio);
        }
    }
}

#[test]
fn exact_selection_counts_across_pages() {
    // Bindings of 1 MiB and buffers of 4: each tensor spans two pages, all of them two blocks.
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: 1 << 20,
        max_buffer_size: 4 << 20,
        ..wgpu::Limits::default()
    };
    for gpu in common::gpus_with(limits) {
        let scores: Vec<_> = (0..4u32)
            .map(|i| {
                let random = noise(300_001, i + 7);
                let scores = random.iter().map(|&x| if x < 0.9 { 0.0 } else { x - 0.93 }).collect();
                (format!("tensor {i}"), scores)
            })
            .collect();
        let recipe = recipe(0.5, Selection::Exact);
        for ((name, scores), (phi, count)) in scores.iter().zip(phi(&gpu, recipe, &scores)) {
            let scores: &Vec<f32> = scores;
            let selected = reference::top_k(scores, scores.len() / 2);
            assert_eq!(count as usize, scores.len() / 2, "{}: {name}", gpu.name);
            for (i, (&phi, &selected)) in phi.iter().zip(&selected).enumerate() {
                assert_eq!(phi, if selected { 4.0 } else { 0.25 }, "{}: {name} at {i}", gpu.name);
            }
        }
    }
}

#[test]
fn approximate_selection_misses_k_by_at_most_half_a_bin() {
    for gpu in common::gpus() {
        for ratio in [0.5, 0.29] {
            let scores = adversaries();
            let recipe = recipe(ratio, Selection::Approximate);
            let Policy::Mgup(mgup) = recipe.policy else { unreachable!() };
            for ((name, scores), (phi, count)) in scores.iter().zip(phi(&gpu, recipe, &scores)) {
                let what = format!("{}: {name}, τ = {ratio}", gpu.name);
                let numbers = scores.iter().filter(|s| !s.is_nan()).count();
                let k = mgup.k(scores.len()).min(numbers);
                // The population of the bin that holds the K-th largest.
                let mut keys: Vec<u32> =
                    scores.iter().map(|&s| reference::key(s)).filter(|&k| k != reference::NAN_KEY).collect();
                keys.sort_unstable_by(|a, b| b.cmp(a));
                let bin = k.checked_sub(1).map(|i| keys[i] >> 21);
                let population = keys.iter().filter(|&&key| Some(key >> 21) == bin).count();
                assert!(
                    2 * (count as usize).abs_diff(k) <= population,
                    "{what}: {count} for {k}, bin {population}"
                );
                let expected = reference::nearest_bin(scores, mgup.k(scores.len()));
                for (i, (&phi, &selected)) in phi.iter().zip(&expected).enumerate() {
                    if scores[i].is_finite() {
                        assert_eq!(phi, if selected { 4.0 } else { 0.25 }, "{what} at {i}");
                    }
                }
                assert_eq!(count as usize, expected.iter().filter(|&&s| s).count(), "{what}");
            }
        }
    }
}

#[test]
fn selection_is_exact_on_the_stored_scores_of_adamw() {
    // AdamW's scores carry rounding, so K is checked on the keys that the kernels stored.
    let n = 300_000;
    for gpu in common::gpus() {
        let recipe = Recipe::mgup_adamw(1e-2);
        let build = |recipe| {
            GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &[TensorSpec::new("w", [n])], recipe).unwrap()
        };
        let (mut mgup, mut plain) = (build(recipe), build(Recipe::adamw(1e-2)));
        for t in 1..4 {
            let grad = wgpu_optim::verify::grads(n, t);
            for optimizer in [&mut mgup, &mut plain] {
                optimizer.write_param("w", &vec![0.0; n]).unwrap();
                optimizer.write_grad("w", &grad).unwrap();
                optimizer.step().unwrap();
            }
            let keys = mgup.read_keys_blocking("w").unwrap();
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&a, &b| keys[b].cmp(&keys[a]).then(a.cmp(&b)));
            let mut selected = vec![false; n];
            order[..n / 2].iter().for_each(|&i| selected[i] = true);
            let (a, b) = (mgup.read_param_blocking("w").unwrap(), plain.read_param_blocking("w").unwrap());
            let mut seen = 0;
            for i in (0..n).filter(|&i| b[i] != 0.0) {
                // Multiplying by 2 or ½ rounds nothing.
                assert_eq!(a[i], b[i] * if selected[i] { 2.0 } else { 0.5 }, "{} at {i}, step {t}", gpu.name);
                seen += 1;
            }
            assert!(seen > n / 2, "the check saw {seen} coordinates");
            assert_eq!(mgup.read_selected_blocking("w").unwrap().count, n as u64 / 2);
        }
    }
}

#[test]
fn spans_of_many_chunks_and_grids_of_two_dimensions_select_exactly() {
    // 2,198 chunks in 64 columns; a span has several chunks from 8 million coordinates on.
    let limits = wgpu::Limits { max_compute_workgroups_per_dimension: 64, ..wgpu::Limits::default() };
    for gpu in common::gpus_with(limits) {
        let random = noise(9_000_001, 3);
        let scores: Vec<f32> = random.iter().map(|&x| if x < 0.6 { 0.0 } else { x - 0.65 }).collect();
        let selected = reference::top_k(&scores, scores.len() / 2);
        let scores = [("small".to_owned(), vec![0.5; 5]), ("large".to_owned(), scores)];
        let found = phi(&gpu, recipe(0.5, Selection::Exact), &scores);
        assert_eq!((found[0].1, found[1].1), (2, 4_500_000), "{}", gpu.name);
        for (i, (&phi, &selected)) in found[1].0.iter().zip(&selected).enumerate() {
            assert_eq!(phi, if selected { 4.0 } else { 0.25 }, "{} at {i}", gpu.name);
        }
    }
}
