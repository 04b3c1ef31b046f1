//! Exactly K coordinates, ties to the lower index: φ of every coordinate, seen from the parameters.
//!
//! Lion makes scores exact. With m = 0.01 and a gradient g > −0.09 the direction is 1 and the score is g itself, so a
//! gradient *is* the list of scores, and a parameter that starts at 0 ends at −lr·φ.

use crate::common::{self, Gpu};
use wgpu_optim::base::{Base, Lion};
use wgpu_optim::policy::{Mgup, Policy, Selection};
use wgpu_optim::{GpuOptimizer, LaunchShape, Miss, ParamGroups, Recipe, Selected, TensorSpec, reference, wgpu};

const LR: f32 = 0.5;

fn recipe(ratio: f64, selection: Selection) -> Recipe {
    let mgup = Mgup::default().ratio(ratio).alpha(4.0).gamma(0.25).selection(selection);
    Recipe::lion(LR.into()).with_policy(mgup)
}

/// What a step did to a tensor.
struct Found {
    phi: Vec<f32>,
    selected: Selected,
}

/// Runs a step whose scores are `scores`, one tensor each.
fn phi(gpu: &Gpu, recipe: Recipe, scores: &[(String, Vec<f32>)]) -> Vec<Found> {
    phi_with(gpu, recipe, scores, |_| {})
}

fn phi_with(
    gpu: &Gpu,
    groups: impl Into<ParamGroups>,
    scores: &[(String, Vec<f32>)],
    prepare: impl Fn(&mut GpuOptimizer),
) -> Vec<Found> {
    let specs: Vec<_> = scores.iter().map(|(name, s)| TensorSpec::new(name, [s.len()])).collect();
    let mut optimizer = gpu.optimizer(&specs, groups).unwrap();
    for (name, scores) in scores {
        optimizer.write_state(name, "exp_avg", &vec![0.01; scores.len()]).unwrap();
        optimizer.write_grad(name, scores).unwrap();
    }
    optimizer.poison_scratch();
    prepare(&mut optimizer);
    optimizer.step().unwrap();
    scores
        .iter()
        .map(|(name, _)| {
            let param = optimizer.read_param_blocking(name).unwrap();
            let selected = optimizer.read_selected_blocking(name).unwrap();
            Found { phi: param.into_iter().map(|x| -x / LR).collect(), selected }
        })
        .collect()
}

/// φ is α for the `k` largest scores, ties to the lower index, and γ for the others.
fn assert_top_k(what: &str, scores: &[f32], k: usize, found: &Found) {
    let selected = reference::top_k(scores, k);
    let count = selected.iter().filter(|&&s| s).count();
    assert_eq!(found.selected.count as usize, count, "{what}, {:?}", found.selected);
    for (i, (&phi, &selected)) in found.phi.iter().zip(&selected).enumerate() {
        // The parameter of a NaN or infinite gradient is unspecified.
        if scores[i].is_finite() {
            let expected = if selected { 4.0 } else { 0.25 };
            assert_eq!(phi, expected, "{what} at {i}, score {}, {:?}", scores[i], found.selected);
        }
    }
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
    for n in [1, 2, 3, 100, 255, 4096, 4097, 4099, 20_000, 150_001] {
        let random = noise(n, n as u32);
        let mut add = |what: &str, scores: Vec<f32>| all.push((format!("{what} {n}"), scores));
        add("random", random.clone());
        add("around zero", random.iter().map(|x| 0.1 * x - 0.05).collect());
        add("all zero", vec![0.0; n]);
        add("signed zeros", random.iter().map(|&x| if x < 0.5 { -0.0 } else { 0.0 }).collect());
        add("all equal", vec![0.125; n]);
        add("all equal and negative", vec![-0.0625; n]);
        add("nine tenths zero", random.iter().map(|&x| if x < 0.9 { 0.0 } else { 0.1 * x - 0.095 }).collect());
        add("few values", random.iter().map(|&x| (x * 8.0).floor() / 8.0).collect());
        add("last bits", random.iter().map(|&x| f32::from_bits(0x3f00_0000 + (x * 4.0) as u32)).collect());
        // The threshold at half of them is tied, and its ties are far from the ends of the bracket.
        add("tie inside", random.iter().enumerate().map(|(i, &x)| if i % 128 == 5 { 0.5 } else { x }).collect());
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

fn assert_selects_exactly(
    gpu: &Gpu,
    ratio: f64,
    shape: LaunchShape,
    prepare: impl Fn(&mut GpuOptimizer),
) -> Vec<(String, Found)> {
    let scores = adversaries();
    let recipe = recipe(ratio, Selection::Exact);
    let Policy::Mgup(mgup) = recipe.policy else { unreachable!() };
    let found = phi_with(gpu, ParamGroups::from(recipe).with_launch_shape(shape), &scores, prepare);
    for ((name, scores), found) in scores.iter().zip(&found) {
        let what = format!("{}: {name}, τ = {ratio}, {shape:?}", gpu.name);
        assert_top_k(&what, scores, mgup.k(scores.len()), found);
    }
    scores.into_iter().map(|(name, _)| name).zip(found).collect()
}

#[test]
fn exact_selection_takes_k_coordinates_ties_to_the_lower_index() {
    for gpu in common::shared_gpus().iter() {
        let wide = [(0.5, LaunchShape::Gpu), (0.999, LaunchShape::Gpu)];
        for (ratio, shape) in [0.5, 0.29, 0.999, 1e-3].map(|ratio| (ratio, LaunchShape::Cpu)).into_iter().chain(wide) {
            for (name, found) in assert_selects_exactly(gpu, ratio, shape, |_| {}) {
                // Scores that differ from place to place may miss the bracket; these must not.
                if ["random", "around zero", "all zero", "all equal", "some NaN", "mostly NaN"]
                    .iter()
                    .any(|what| name.starts_with(what))
                {
                    assert!(!found.selected.missed, "{}: {name}, τ = {ratio}", gpu.name);
                }
            }
        }
    }
}

#[test]
fn another_ratio_selects_its_own_k_in_the_room_of_the_first() {
    for gpu in common::shared_gpus().iter() {
        let scores = adversaries();
        for (first, then) in [(0.5, 0.1), (0.5, 0.9), (0.01, 0.5)] {
            for selection in [Selection::Exact, Selection::Approximate] {
                let (set, fresh) = (recipe(then, selection), phi(gpu, recipe(then, selection), &scores));
                let found =
                    phi_with(gpu, recipe(first, selection), &scores, |optimizer| optimizer.set_recipe(0, set).unwrap());
                for ((name, scores), (found, fresh)) in scores.iter().zip(found.iter().zip(&fresh)) {
                    let what = format!("{}: {name}, τ = {first}, then {then}", gpu.name);
                    let bits = |found: &Found| found.phi.iter().map(|phi| phi.to_bits()).collect::<Vec<_>>();
                    assert!(bits(found) == bits(fresh), "{what}");
                    assert_eq!(
                        (found.selected.k, found.selected.count),
                        (fresh.selected.k, fresh.selected.count),
                        "{what}"
                    );
                    if selection == Selection::Exact {
                        assert_top_k(&what, scores, (then * scores.len() as f64) as usize, found);
                    }
                }
            }
        }
    }
}

#[test]
fn a_ratio_that_comes_back_finds_all_of_its_room() {
    for gpu in common::shared_gpus().iter() {
        let (scores, half) = (adversaries(), recipe(0.5, Selection::Exact));
        let back = phi_with(gpu, half, &scores, |optimizer| {
            optimizer.set_recipe(0, recipe(0.01, Selection::Exact)).unwrap();
            optimizer.set_recipe(0, half).unwrap();
        });
        for ((name, _), (back, stayed)) in scores.iter().zip(back.iter().zip(phi(gpu, half, &scores))) {
            assert_eq!(back.selected, stayed.selected, "{}: {name}", gpu.name);
        }
    }
}

#[test]
fn a_missed_bracket_costs_time_and_nothing_else() {
    for gpu in common::shared_gpus().iter() {
        let [cpu, wide] = LaunchShape::ALL;
        for (miss, shape) in [(Miss::Above, cpu), (Miss::Below, wide), (Miss::Overflow, wide), (Miss::Boundary, cpu)] {
            let mut missed = 0;
            for (_, found) in assert_selects_exactly(gpu, 0.5, shape, |optimizer| optimizer.force_miss(miss)) {
                missed += usize::from(found.selected.missed);
            }
            assert!(missed > 20, "{}: {miss:?} forced {missed} misses", gpu.name);
        }
    }
}

#[test]
fn momentum_that_is_not_finite_is_never_selected_and_spoils_no_neighbour() {
    // Without β1 the direction is the gradient's sign, but for 0·∞: no number, while the momentum stays infinite.
    let n = 20_000;
    let base = Base::from(Lion::new(LR.into()).betas([0.0, 0.99]));
    let recipe = Recipe::new(base, recipe(0.5, Selection::Exact).policy);
    // A gradient that a direction of −1 would give a high score.
    let scores: Vec<f32> = noise(n, 5).into_iter().enumerate().map(|(i, x)| if i % 7 == 0 { -x } else { x }).collect();
    let momentum: Vec<f32> = (0..n).map(|i| if i % 7 == 0 { f32::INFINITY } else { 0.0 }).collect();
    let expected: Vec<f32> =
        scores.iter().zip(&momentum).map(|(&s, m)| if m.is_finite() { s } else { f32::NAN }).collect();
    for gpu in common::shared_gpus().iter() {
        for miss in [None, Some(Miss::Above), Some(Miss::Below), Some(Miss::Overflow)] {
            let found = phi_with(gpu, recipe, &[("w".to_owned(), scores.clone())], |optimizer| {
                optimizer.write_state("w", "exp_avg", &momentum).unwrap();
                miss.into_iter().for_each(|miss| optimizer.force_miss(miss));
            });
            assert_top_k(&format!("{}: {miss:?}", gpu.name), &expected, n / 2, &found[0]);
        }
    }
}

#[test]
fn coordinates_without_a_direction_stay_whether_selected_or_not() {
    // Four fifths have neither momentum nor gradient, and the threshold lies among them.
    let n = 20_000;
    let moves = |i: usize| i.is_multiple_of(5);
    let grad: Vec<f32> = (0..n).map(|i| if moves(i) { 1.0 } else { 0.0 }).collect();
    for gpu in common::shared_gpus().iter() {
        for miss in [None, Some(Miss::Above), Some(Miss::Below), Some(Miss::Overflow)] {
            let scores = [("w".to_owned(), grad.clone())];
            let found = phi_with(gpu, recipe(0.5, Selection::Exact), &scores, |optimizer| {
                optimizer.write_state("w", "exp_avg", &vec![0.0; n]).unwrap();
                miss.into_iter().for_each(|miss| optimizer.force_miss(miss));
            });
            assert_eq!(found[0].selected.count as usize, n / 2, "{}: {miss:?}", gpu.name);
            for (i, &phi) in found[0].phi.iter().enumerate() {
                let expected = if moves(i) { 4.0 } else { 0.0 };
                assert_eq!(phi, expected, "{}: {miss:?} at {i}", gpu.name);
            }
        }
    }
}

#[test]
fn exact_selection_counts_across_pages() {
    // Bindings of 4 MiB and buffers of 16: each tensor spans two pages, all of them two blocks.
    let limits =
        wgpu::Limits { max_storage_buffer_binding_size: 4 << 20, max_buffer_size: 16 << 20, ..wgpu::Limits::default() };
    for gpu in common::gpus_with(limits) {
        let scores: Vec<_> = (0..4u32)
            .map(|i| {
                let random = noise(1_300_001, i + 7);
                // Zeros in the middle of the order, and above them, and none.
                let zeros = [0.9, 0.45, 0.0, 0.55][i as usize];
                let scores = random.iter().map(|&x| if x < zeros { 0.0 } else { 0.09 * (x - 0.93) }).collect();
                (format!("tensor {i}"), scores)
            })
            .collect();
        let recipe = recipe(0.5, Selection::Exact);
        for ((name, scores), found) in scores.iter().zip(phi(&gpu, recipe, &scores)) {
            assert_top_k(&format!("{}: {name}", gpu.name), scores, scores.len() / 2, &found);
        }
    }
}

#[test]
fn a_missed_bracket_costs_nothing_else_across_pages() {
    // Bindings of 1 MiB: each tensor spans three pages, and the threshold lies among ties of the second.
    let limits =
        wgpu::Limits { max_storage_buffer_binding_size: 1 << 20, max_buffer_size: 4 << 20, ..wgpu::Limits::default() };
    let n = 600_001;
    let few = noise(n, 17).iter().map(|&x| (x * 8.0).floor() / 8.0).collect();
    let scores = [("all equal".to_owned(), vec![0.125; n]), ("few values".to_owned(), few)];
    for gpu in common::gpus_with(limits) {
        let mut missed = 0;
        for miss in [Miss::Above, Miss::Below, Miss::Overflow, Miss::Boundary] {
            // A step before, whose histograms must not be left.
            let prepare = |optimizer: &mut GpuOptimizer| {
                optimizer.force_miss(miss);
                optimizer.step().unwrap();
                for (name, scores) in &scores {
                    optimizer.write_state(name, "exp_avg", &vec![0.01; scores.len()]).unwrap();
                    optimizer.write_param(name, &vec![0.0; scores.len()]).unwrap();
                }
            };
            let found = phi_with(&gpu, recipe(0.5, Selection::Exact), &scores, prepare);
            for ((name, scores), found) in scores.iter().zip(&found) {
                let what = format!("{}: {name}, {miss:?}", gpu.name);
                assert_top_k(&what, scores, n / 2, found);
                missed += usize::from(found.selected.missed);
            }
        }
        // A bin that is selected as a whole needs no list.
        assert!(missed >= 7, "{}: {missed} missed", gpu.name);
    }
}

/// The first tensor is the largest that one workgroup searches after a miss.
#[test]
fn large_tensors_that_miss_are_selected_exactly() {
    for (n, missed) in [(1 << 24, Miss::Above), ((1 << 24) + 3, Miss::Below)] {
        let random = noise(n, 29);
        // The threshold lies among ties.
        let values = random.iter().map(|&x| if x < 0.4 { 0.1 * x - 0.05 } else { (x * 4.0).floor() / 8.0 }).collect();
        let scores = [("large".to_owned(), values)];
        for gpu in common::shared_gpus().iter() {
            let groups = ParamGroups::from(recipe(0.5, Selection::Exact)).with_launch_shape(LaunchShape::Gpu);
            let found = &phi_with(gpu, groups, &scores, |o| o.force_miss(missed))[0];
            assert_top_k(&format!("{}: {n}", gpu.name), &scores[0].1, n / 2, found);
            assert!(found.selected.missed, "{}: {n}", gpu.name);
        }
    }
}

#[test]
fn a_bracket_that_ends_at_nan_holds_where_fewer_scores_than_k_are_numbers() {
    // The sample has no K-th largest score, and neither has the tensor: all numbers are selected, in the first pass.
    let (n, k) = (100_000, 50_000);
    let random = noise(n, 23);
    let nan = |i: usize| random[i] < 0.503;
    let scores: Vec<f32> = (0..n).map(|i| if nan(i) { f32::NAN } else { random[i] - 0.55 }).collect();
    let numbers = scores.iter().filter(|score| !score.is_nan()).count();
    assert!((k - 1000..k).contains(&numbers), "{numbers}");
    for gpu in common::shared_gpus().iter() {
        let scores = [("w".to_owned(), scores.clone())];
        let found = &phi(gpu, recipe(0.5, Selection::Exact), &scores)[0];
        assert_top_k(&gpu.name, &scores[0].1, k, found);
        assert_eq!(found.selected.count as usize, numbers, "{}", gpu.name);
        assert!(!found.selected.missed && found.selected.candidates > 0, "{}: {:?}", gpu.name, found.selected);
    }
}

#[test]
fn approximate_selection_takes_what_the_sample_says() {
    for gpu in common::shared_gpus().iter() {
        for ratio in [0.5, 0.29] {
            let scores = adversaries();
            let recipe = recipe(ratio, Selection::Approximate);
            let Policy::Mgup(mgup) = recipe.policy else { unreachable!() };
            for ((name, scores), found) in scores.iter().zip(phi(gpu, recipe, &scores)) {
                let what = format!("{}: {name}, τ = {ratio}", gpu.name);
                let expected = reference::sampled(scores, mgup.k(scores.len()), 1);
                for (i, (&phi, &selected)) in found.phi.iter().zip(&expected).enumerate() {
                    if scores[i].is_finite() {
                        assert_eq!(phi, if selected { 4.0 } else { 0.25 }, "{what} at {i}");
                    }
                }
                let count = expected.iter().filter(|&&s| s).count();
                assert_eq!(found.selected.count as usize, count, "{what}");
                // Six standard errors of the sample; a sector's scores resemble each other in the orders that are no
                // accident.
                let numbers = scores.iter().filter(|s| !s.is_nan()).count();
                let k = mgup.k(scores.len()).min(numbers);
                if scores.len() <= 4096 {
                    assert_eq!(count, k, "{what}");
                } else {
                    assert!(count.abs_diff(k) as f64 <= 0.1 * scores.len() as f64, "{what}: {count} for {k}");
                }
            }
        }
    }
}

#[test]
fn selection_is_exact_on_the_scores_of_adamw() {
    // AdamW's scores carry rounding: the count is K, and coordinates more than 16 keys off the K-th largest are on its
    // right side, by scores that the CPU computes from the state that the kernels stored.
    let n = 300_000;
    for gpu in common::shared_gpus().iter() {
        let recipe = Recipe::adamw(1e-2).mgup();
        let eps = recipe.base.scalars(1).eps as f32;
        let build = |recipe| gpu.optimizer(&[TensorSpec::new("w", [n])], recipe).unwrap();
        for miss in [None, Some(Miss::Overflow), Some(Miss::Above)] {
            let (mut mgup, mut plain) = (build(recipe), build(Recipe::adamw(1e-2)));
            if let Some(miss) = miss {
                mgup.force_miss(miss);
            }
            for t in 1..4 {
                let grad: Vec<f32> = wgpu_optim::verify::grads(n, t).iter().map(|g| g + 1e-3).collect();
                for optimizer in [&mut mgup, &mut plain] {
                    optimizer.write_param("w", &vec![0.0; n]).unwrap();
                    optimizer.write_grad("w", &grad).unwrap();
                    optimizer.step().unwrap();
                }
                let m = mgup.read_state_blocking("w", "exp_avg").unwrap();
                let v = mgup.read_state_blocking("w", "exp_avg_sq").unwrap();
                let keys: Vec<u32> = (0..n).map(|i| reference::key(m[i] / (v[i].sqrt() + eps) * grad[i])).collect();
                let mut sorted = keys.clone();
                let threshold = *sorted.select_nth_unstable_by(n / 2 - 1, |a, b| b.cmp(a)).1;
                let params = [&mgup, &plain].map(|o| o.read_param_blocking("w").unwrap());
                let mut selected = 0;
                for i in 0..n {
                    // A miss corrects with a rounding more.
                    let phi = params[0][i] / params[1][i];
                    let is = phi > 1.0;
                    let expected = if is { 2.0 } else { 0.5 };
                    assert!((phi - expected).abs() < 1e-5, "{} at {i}: φ = {phi}, {miss:?}", gpu.name);
                    selected += usize::from(is);
                    if keys[i].abs_diff(threshold) > 16 {
                        assert_eq!(is, keys[i] > threshold, "{} at {i}, step {t}, {miss:?}", gpu.name);
                    }
                }
                let found = mgup.read_selected_blocking("w").unwrap();
                assert_eq!((selected, found.count), (n / 2, n as u64 / 2), "{}: {found:?}", gpu.name);
                assert_eq!(found.missed, miss.is_some());
                assert!(miss.is_some() || (1..n as u64 / 10).contains(&found.candidates), "{found:?}");
            }
        }
    }
}

#[test]
fn grids_of_two_dimensions_select_exactly() {
    // 2,198 chunks in 64 columns.
    let limits = wgpu::Limits { max_compute_workgroups_per_dimension: 64, ..wgpu::Limits::default() };
    for gpu in common::gpus_with(limits) {
        let random = noise(9_000_001, 3);
        let scores: Vec<f32> = random.iter().map(|&x| if x < 0.6 { 0.0 } else { x - 0.65 }).collect();
        let scores = [("small".to_owned(), vec![0.5; 5]), ("large".to_owned(), scores)];
        let found = phi(&gpu, recipe(0.5, Selection::Exact), &scores);
        for ((name, scores), found) in scores.iter().zip(&found) {
            assert_top_k(&format!("{}: {name}", gpu.name), scores, scores.len() / 2, found);
            assert!(!found.selected.missed);
        }
    }
}

#[test]
#[ignore = "takes minutes and 6 GB: cargo test --test steps -- --ignored"]
fn a_tensor_of_more_than_2_27_coordinates_is_selected_exactly() {
    let n = (1 << 27) + 4099;
    let random = noise(n, 11);
    // A third zeros, and the threshold among them.
    let scores: Vec<f32> = random.iter().map(|&x| if x < 0.33 { 0.0 } else { 0.1 * x - 0.066 }).collect();
    let limits = wgpu::Limits { max_buffer_size: 1 << 30, ..wgpu::Limits::default() };
    for gpu in common::gpus_with(limits) {
        let scores = [("huge".to_owned(), scores.clone())];
        let found = phi(&gpu, recipe(0.5, Selection::Exact), &scores);
        assert_top_k(&gpu.name, &scores[0].1, n / 2, &found[0]);
        println!("{}: {:?}", gpu.name, found[0].selected);
    }
}

/// The gradient of a coordinate of a tensor that is larger than the host would hold twice.
fn spread(i: u64) -> f32 {
    let mut x = (i as u32).wrapping_mul(0x9e37_79b9) ^ (i >> 32) as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    // A third are zeros, and 24 bits have many ties among a billion.
    let value = (x >> 8) as f32 / 16_777_216.0;
    if value < 0.33 { 0.0 } else { value - 0.7 }
}

#[test]
#[ignore = "takes minutes, and 13 bytes of memory per coordinate: COORDINATES=… cargo test --test steps -- --ignored"]
fn a_tensor_as_large_as_memory_allows_is_selected_exactly() {
    // More than had room for their candidates at WebGPU's bindings of 128 MiB before these were fitted.
    let numel: u64 = std::env::var("COORDINATES").map_or(450_000_000, |text| text.parse().unwrap());
    let limits = wgpu::Limits { max_buffer_size: (4 * numel).next_multiple_of(1024), ..wgpu::Limits::default() };
    for gpu in common::gpus_with(limits) {
        let spec = [TensorSpec::new("huge", [numel as usize])];
        let recipe: Recipe = "mgup-lion".parse::<Recipe>().unwrap().with_lr(1.0);
        let mut optimizer = gpu.optimizer(&spec, recipe).unwrap();
        const PART: u64 = 1 << 24;
        let parts = || (0..numel).step_by(PART as usize).map(|first| first..numel.min(first + PART));
        for part in parts() {
            let grad = optimizer.grad("huge").unwrap();
            let values: Vec<f32> = part.clone().map(spread).collect();
            gpu.queue.write_buffer(grad.buffer, grad.offset + 4 * part.start, bytemuck::cast_slice(&values));
            gpu.queue.submit([]);
            gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        }
        let begun = std::time::Instant::now();
        optimizer.step().unwrap();
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        // The lowest selected score, and its last index; the highest other, and its first.
        let (mut count, mut lowest, mut highest) = (0, (f32::INFINITY, 0), (f32::NEG_INFINITY, u64::MAX));
        for part in parts() {
            let param = optimizer.param("huge").unwrap();
            let copy = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * (part.end - part.start),
                usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let from = param.offset + 4 * part.start;
            encoder.copy_buffer_to_buffer(param.buffer, from, &copy, 0, copy.size());
            gpu.queue.submit([encoder.finish()]);
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(&common::read(&gpu, &copy));
            for (i, theta) in part.zip(values) {
                let (score, moved) = (spread(i).abs(), theta.abs());
                // A direction of 0 does not move, selected or not; its score is the lowest.
                if score == 0.0 {
                    assert_eq!(moved, 0.0, "{}: {i}", gpu.name);
                } else if moved == 2.0 {
                    count += 1;
                    if score <= lowest.0 {
                        lowest = (score, if score < lowest.0 { i } else { lowest.1.max(i) });
                    }
                } else {
                    assert_eq!(moved, 0.5, "{}: {i}", gpu.name);
                    if score > highest.0 {
                        highest = (score, i);
                    }
                }
            }
        }
        let found = optimizer.read_selected_blocking("huge").unwrap();
        println!("{}: {numel} coordinates, {found:?}, {seconds:.1} s", gpu.name);
        assert_eq!((found.count, count), (numel / 2, numel / 2), "{}", gpu.name);
        assert!(lowest.0 > highest.0 || (lowest.0 == highest.0 && lowest.1 < highest.1), "{lowest:?} {highest:?}");
    }
}
