//! NaN, infinities, and the largest and smallest numbers in gradients, parameters and state: every recipe ends its steps, and
//! what is documented to be touched is, nothing else.

use crate::common::{self, Gpu, gpus};
use wgpu_optim::base::{BaseKind, Norms};
use wgpu_optim::{
    GpuOptimizer, GradScaler, NonFinite, ParamGroups, Recipe, StateFormat, TensorBuffers, TensorSlice, TensorSpec,
    reference, verify, wgpu,
};

const POISON: [f32; 9] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-40, -1e-40, 0.0, -0.0];

/// Where it lies in the tensor in the middle, whose other coordinates and whose neighbours are looked at.
fn places(numel: usize) -> impl Iterator<Item = (usize, f32)> {
    POISON.into_iter().enumerate().map(move |(i, value)| ((i * 997 + 3) % numel, value))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Into {
    Gradient,
    Parameter,
    State,
}

fn specs() -> Vec<TensorSpec> {
    // Of every way of selection: one workgroup, or a sample.
    vec![
        TensorSpec::new("before", [90, 60]),
        TensorSpec::new("middle", [80, 70]),
        TensorSpec::new("small", [20, 9]),
        TensorSpec::new("after", [90, 60]),
    ]
}

fn numel(name: &str) -> usize {
    specs().iter().find(|spec| spec.name == name).unwrap().numel() as usize
}

/// Parameters after three steps of an optimizer that owns everything.
fn run(compiled: &GpuOptimizer, recipe: Recipe, into: Into, is_clean: bool) -> Vec<Vec<f32>> {
    let mut optimizer = compiled.sibling_blocking(&specs(), recipe).unwrap();
    let poisoned = |name: &str, mut values: Vec<f32>| {
        if !is_clean && matches!(name, "middle" | "small") {
            places(values.len()).for_each(|(i, value)| values[i] = value);
        }
        values
    };
    for t in 0..3 {
        for TensorSpec { name, .. } in specs() {
            if t == 0 {
                let values = verify::params(numel(&name));
                let values = if into == Into::Parameter { poisoned(&name, values) } else { values };
                optimizer.write_param(&name, &values).unwrap();
                for state in optimizer.state_names(&name).unwrap().filter(|_| into == Into::State) {
                    let len = optimizer.read_state_blocking(&name, state).unwrap().len();
                    optimizer.write_state(&name, state, &poisoned(&name, vec![0.01; len])).unwrap();
                }
            }
            let values = verify::grads(numel(&name), t);
            let values = if into == Into::Gradient { poisoned(&name, values) } else { values };
            optimizer.write_grad(&name, &values).unwrap();
        }
        optimizer.step().unwrap();
    }
    let params = specs().iter().map(|spec| optimizer.read_param_blocking(&spec.name).unwrap()).collect();
    optimizer.destroy();
    params
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn poison_stays_where_it_is() {
    for gpu in gpus() {
        let mut compiled: Option<GpuOptimizer> = None;
        for (name, recipe) in common::few::few_recipes() {
            let made = match &compiled {
                Some(compiled) => compiled.sibling_blocking(&specs(), recipe),
                None => GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), recipe),
            };
            let made = compiled.insert(made.unwrap());
            // Rows and columns share moments.
            let base = BaseKind::of(&recipe.base);
            let has_state = !base.row().states.is_empty() && !base.has_lines();
            for into in
                [Into::Gradient, Into::Parameter, Into::State].into_iter().filter(|i| *i != Into::State || has_state)
            {
                let [clean, found] = [true, false].map(|is_clean| run(made, recipe, into, is_clean));
                let what = format!("{}: {name}, poison in {into:?}", gpu.name);
                for (i, spec) in specs().iter().enumerate() {
                    let touched = matches!(spec.name.as_str(), "middle" | "small");
                    let same = bits(&found[i]) == bits(&clean[i]);
                    assert!(
                        same != touched,
                        "{what}: `{}` is {}",
                        spec.name,
                        if same { "as clean" } else { "changed" }
                    );
                    // A matrix is orthogonalized as a whole, and steps of Adafactor follow norms: all of a tensor may be spoilt.
                    let is_matrix = base.is_matrix() && into != Into::Parameter;
                    if touched && !is_matrix && base.row().norms != Some(Norms::Update) {
                        let places: Vec<usize> = places(found[i].len()).map(|(place, _)| place).collect();
                        let spoilt = (0..found[i].len()).find(|at| !found[i][*at].is_finite() && !places.contains(at));
                        assert_eq!(spoilt, None, "{what}: coordinate of `{}`", spec.name);
                    }
                    assert!(touched || found[i].iter().all(|value| value.is_finite()), "{what}: `{}`", spec.name);
                }
            }
        }
    }
}

const GUARD: u32 = 0x1234_5678;

/// A buffer of three tensors of 5,600 coordinates, 256 bytes apart, with words between them that are nobody's.
fn guarded(gpu: &Gpu, values: [&[f32]; 3]) -> (wgpu::Buffer, [u64; 3]) {
    let stride = (4 * values[0].len() as u64).next_multiple_of(256) + 256;
    let mut words = vec![GUARD; 3 * stride as usize / 4];
    let offsets = [0, stride, 2 * stride];
    for (offset, values) in offsets.iter().zip(values) {
        let first = *offset as usize / 4;
        words[first..first + values.len()].copy_from_slice(&bits(values));
    }
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4 * words.len() as u64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&words));
    (buffer, offsets)
}

#[test]
fn words_between_the_callers_tensors_stay() {
    let n = 5_599; // The last vector of four has a word that is nobody's.
    let specs = ["a", "b", "c"].map(|name| TensorSpec::new(name, [n]));
    for gpu in gpus() {
        let mut compiled: Option<GpuOptimizer> = None;
        for (name, recipe) in
            common::few::few_recipes().into_iter().filter(|(_, recipe)| recipe.base.newton_schulz().is_none())
        {
            let made = match &compiled {
                Some(compiled) => compiled.sibling_blocking(&specs, recipe),
                None => GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, recipe),
            };
            let optimizer = compiled.insert(made.unwrap());
            let clean = verify::grads(n, 1);
            let mut poisoned = clean.clone();
            places(n).for_each(|(i, value)| poisoned[i] = value);
            let param = verify::params(n);
            let (params, offsets) = guarded(&gpu, [&param; 3]);
            let (grads, _) = guarded(&gpu, [&clean, &poisoned, &clean]);
            let slice = |buffer, offset| TensorSlice { buffer, offset, size: 4 * n as u64 };
            let given = offsets.map(|offset| TensorBuffers::new(slice(&params, offset), slice(&grads, offset)));
            for _ in 0..3 {
                optimizer.step_with(&given).unwrap();
            }
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(&common::read(&gpu, &params));
            let own = |i: usize| offsets.iter().any(|&at| (at as usize / 4..at as usize / 4 + n).contains(&i));
            let changed = (0..words.len()).find(|&i| !own(i) && words[i] != GUARD);
            assert_eq!(changed, None, "{}: {name}: a word of nobody's", gpu.name);
            let of = |tensor: usize| &words[offsets[tensor] as usize / 4..][..n];
            // 8-bit states are rounded otherwise in each tensor.
            let alike = of(0) == of(2) || recipe.state != StateFormat::F32;
            assert!(alike, "{}: {name}: neighbours with the same gradients differ", gpu.name);
            assert!(of(0) != bits(&param), "{}: {name}: nothing was stepped", gpu.name);
        }
    }
}

/// The first coordinate and another have these gradients, the rest ones of 1; returns the first after each step, and the last.
fn follow(gpu: &Gpu, recipe: Recipe, shape: &[usize], other: usize, grads: &[f32]) -> (Vec<f32>, f32) {
    let spec = TensorSpec::new("w", shape);
    let numel = spec.numel() as usize;
    let mut optimizer =
        GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, std::slice::from_ref(&spec), recipe).unwrap();
    let mut twin = reference::Tensor::with_shape(recipe, &spec, vec![1.0f32; numel]).unwrap();
    optimizer.write_param("w", &twin.param).unwrap();
    let mut found = Vec::new();
    for &g in grads {
        let mut grad = vec![1.0; numel];
        (grad[0], grad[other]) = (g, g);
        optimizer.write_grad("w", &grad).unwrap();
        optimizer.step().unwrap();
        twin.step(&grad);
        let param = optimizer.read_param_blocking("w").unwrap();
        for (i, (found, twin)) in param.iter().zip(&twin.param).enumerate() {
            assert!((found - twin).abs() <= 2e-5, "{}: {shape:?} at {i}: {found} instead of {twin}", gpu.name);
        }
        found.push(param[0]);
    }
    (found, twin.param[numel - 1])
}

#[test]
fn a_gradient_whose_square_overflows_does_not_freeze_its_coordinate() {
    for gpu in gpus() {
        let adamw = |rows: bool| {
            let row = if rows { r#", "second_moment": "row""# } else { "" };
            Recipe::from_json(&format!(r#"{{"base": {{"type": "adamw", "lr": 0.1{row}}}}}"#)).unwrap()
        };
        // As f64 has it, which no square overflows.
        let mut truth = reference::Tensor::new(adamw(false), vec![1.0f64]).unwrap();
        for g in [1.85e19, 1.0, 1.0, 1.0] {
            truth.step(&[g]);
        }
        let (found, _) = follow(&gpu, adamw(false), &[5], 0, &[1.85e19, 1.0, 1.0, 1.0]);
        assert!((f64::from(found[3]) - truth.param[0]).abs() < 2e-3, "{}: {found:?}", gpu.name);
        for g in [f32::MAX, -1e30, 1.8e19] {
            let (found, _) = follow(&gpu, adamw(false), &[5], 0, &[g, 1.0, 1.0]);
            assert!(found.iter().all(|x| (x - 1.0).abs() < 0.5), "{}: {g:e}: {found:?}", gpu.name);
            assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "{}: {g:e}: {found:?}", gpu.name);
        }
        // A short row in a lane, a long one in all of them; with one such gradient, or with two, in one lane or in two.
        for (shape, other) in [([3, 7], 0), ([3, 7], 6), ([3, 301], 0), ([3, 301], 1), ([3, 301], 300)] {
            for g in [f32::MAX, 2e19, 1e19] {
                let (found, neighbour) = follow(&gpu, adamw(true), &shape, other, &[g, 1.0, 1.0]);
                // A mean over the row is smaller than the square.
                let most = 0.5 * (shape[1] as f32).sqrt();
                assert!(found.iter().all(|x| (x - 1.0).abs() < most), "{}: {g:e}: {found:?}", gpu.name);
                assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "{}: {g:e}: {found:?}", gpu.name);
                assert!(neighbour < 0.8, "another row is not held up");
            }
        }
    }
}

#[test]
fn a_gradient_that_overflows_when_the_loss_scale_is_undone_skips_the_step() {
    for gpu in gpus() {
        let spec = [TensorSpec::new("w", [5])];
        for (init, grad_scale) in [(1e-20, 1.0), (1.0, 1e20), (1e-10, 1e10)] {
            let scaler = GradScaler::default().init(init).backoff(1.0);
            let groups = ParamGroups::from(Recipe::adamw(0.1)).with_grad_scaler(scaler);
            let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, groups).unwrap();
            optimizer.set_grad_scale(grad_scale).unwrap();
            for (g, skips) in [(1e19, true), (1e18, false), (-3.41e18, true)] {
                let before = optimizer.read_param_blocking("w").unwrap();
                optimizer.write_grad("w", &[0.0, 0.0, g, 0.0, 0.0]).unwrap();
                optimizer.step().unwrap();
                let what = format!("{}: {g:e} by {init:e}, times {grad_scale:e}", gpu.name);
                assert_eq!(optimizer.read_guarded_blocking().unwrap().skipped, skips, "{what}");
                let after = optimizer.read_param_blocking("w").unwrap();
                assert!(after.iter().all(|x| x.is_finite()) && (before == after) == skips, "{what}: {after:?}");
            }
        }
    }
}

#[test]
fn a_norm_that_overflows_counts_gradients_as_zero_and_the_momentum_goes_on() {
    for gpu in gpus() {
        let spec = [TensorSpec::new("w", [2])];
        for policy in [NonFinite::Propagate, NonFinite::Skip] {
            let groups = ParamGroups::from(Recipe::adamw(0.1)).with_max_grad_norm(1.0).with_non_finite(policy);
            let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, groups).unwrap();
            let mut twin = reference::Tensor::new(Recipe::adamw(0.1), vec![0.0f32; 2]).unwrap();
            for (grad, clipped) in [([0.6, 0.8], [0.6, 0.8]), ([1e30, 1e30], [0.0, 0.0])] {
                optimizer.write_grad("w", &grad).unwrap();
                optimizer.step().unwrap();
                twin.step(&clipped);
            }
            let guarded = optimizer.read_guarded_blocking().unwrap();
            assert!(!guarded.skipped && guarded.grad_norm.is_infinite(), "{}: {guarded:?}", gpu.name);
            let found = optimizer.read_param_blocking("w").unwrap();
            for (found, twin) in found.iter().zip(&twin.param) {
                assert!((found - twin).abs() < 1e-5 && *twin < -0.1, "{}: {found} {twin}", gpu.name);
            }
        }
    }
}

#[test]
fn the_largest_counts_of_steps_correct_no_bias() {
    for gpu in gpus() {
        let spec = [TensorSpec::new("w", [3])];
        for steps in [u64::from(u32::MAX) - 1, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, 1 << 40, u64::MAX] {
            let groups = ParamGroups::from("adamw-torch".parse::<Recipe>().unwrap());
            let [plain, skipping] = [groups.clone(), groups.with_non_finite(NonFinite::Skip)].map(|groups| {
                let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, groups).unwrap();
                optimizer.set_steps(steps);
                for _ in 0..2 {
                    optimizer.write_grad("w", &[f32::INFINITY, 1.0, 1.0]).unwrap();
                    if optimizer.groups().non_finite() == NonFinite::Skip {
                        optimizer.step().unwrap();
                    }
                    optimizer.write_grad("w", &[1.0, -2.0, 0.5]).unwrap();
                    optimizer.step().unwrap();
                }
                optimizer.read_param_blocking("w").unwrap()
            });
            for (plain, skipping) in plain.iter().zip(&skipping) {
                let same = (plain - skipping).abs() <= 1e-6 * plain.abs();
                assert!(same && *plain != 0.0, "{}: {steps}: {skipping} instead of {plain}", gpu.name);
            }
        }
    }
}
