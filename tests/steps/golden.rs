//! The recorded runs in `tests/golden`: the f64 reference, the f32 twin, and every adapter.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common;
use safetensors::SafeTensors;
use wgpu_optim::{Recipe, TensorSpec, reference};

/// The tolerances that the recordings ask of an f32 implementation: absolute, relative.
const TOLERANCE: (f32, f32) = (2e-6, 1e-5);
const MATRIX_TOLERANCE: (f32, f32) = (2e-4, 2e-3);

struct Case {
    name: String,
    recipe: Recipe,
    tensors: BTreeMap<String, Recording>,
}

impl Case {
    fn tolerance(&self) -> (f32, f32) {
        if self.recipe.base.newton_schulz().is_some() { MATRIX_TOLERANCE } else { TOLERANCE }
    }
}

struct Recording {
    shape: Vec<usize>,
    param: Vec<f32>,
    grads: Vec<Vec<f32>>,
    /// The parameter after each gradient.
    expected: Vec<Vec<f32>>,
    /// The parameter for evaluation, after the last step.
    evaluated: Option<Vec<f32>>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut recipes: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    recipes.sort();
    assert_eq!(recipes.len(), 58, "a recording is missing or new");
    recipes.iter().map(|path| load(path)).collect()
}

fn load(path: &Path) -> Case {
    let bytes = fs::read(path.with_extension("safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |key: &str| bytemuck::pod_collect_to_vec::<u8, f32>(file.tensor(key).unwrap().data());
    let mut tensors = BTreeMap::new();
    for key in file.names() {
        let Some(name) = key.strip_prefix("param.") else { continue };
        let of = |what: &str| {
            let keys = (0..).map(|k| format!("{what}.{k}.{name}"));
            keys.take_while(|key| file.tensor(key).is_ok()).map(|key| values(&key)).collect::<Vec<_>>()
        };
        let (grads, expected) = (of("grad"), of("expected"));
        assert!(!grads.is_empty() && grads.len() == expected.len());
        let shape = file.tensor(key).unwrap().shape().to_vec();
        let key_of_average = format!("evaluated.{name}");
        let evaluated = file.tensor(&key_of_average).is_ok().then(|| values(&key_of_average));
        tensors.insert(name.to_owned(), Recording { shape, param: values(key), grads, expected, evaluated });
    }
    Case {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        recipe: Recipe::from_json(&fs::read_to_string(path).unwrap()).unwrap(),
        tensors,
    }
}

fn assert_close(what: &str, actual: &[f32], expected: &[f32], tolerance: (f32, f32)) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= tolerance.0 + tolerance.1 * e.abs(), "{what} at {i}: {a} instead of {e}");
    }
}

#[test]
fn the_reference_follows_the_recordings() {
    for case in cases() {
        for (name, Recording { shape, param, grads, expected, evaluated }) in &case.tensors {
            let spec = TensorSpec::new(name, shape.clone());
            let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let mut double = reference::Tensor::with_shape(case.recipe, &spec, wide(param)).unwrap();
            let mut single = reference::Tensor::with_shape(case.recipe, &spec, param.clone()).unwrap();
            for (k, (grad, expected)) in grads.iter().zip(expected).enumerate() {
                double.step(&wide(grad));
                single.step(grad);
                let what = format!("{} {name} step {k}", case.name);
                let rounded: Vec<f32> = double.param.iter().map(|&x| x as f32).collect();
                // One rounding each side may differ by an ulp.
                assert_close(&format!("f64 {what}"), &rounded, expected, (1e-9, 1.3e-7));
                assert_close(&format!("f32 {what}"), &single.param, expected, case.tolerance());
            }
            let average = double.evaluated();
            let rounded: Vec<f32> = average.iter().map(|&x| x as f32).collect();
            let what = format!("{} {name} evaluated", case.name);
            assert_close(&what, &rounded, evaluated.as_ref().unwrap_or(&expected[expected.len() - 1]), (1e-9, 1.3e-7));
        }
    }
}

#[test]
fn the_preset_grams_is_that_of_its_article() {
    let mut case = cases().into_iter().find(|case| case.name == "grams_article").unwrap();
    assert_eq!(case.recipe.with_lr(1e-3), "grams".parse().unwrap());
    let Recording { param, grads, expected, .. } = case.tensors.pop_first().unwrap().1;
    let before = "grams-adamw".parse::<Recipe>().unwrap().with_lr(case.recipe.lr());
    let mut tensor = reference::Tensor::new(before, param).unwrap();
    tensor.step(&grads[0]);
    let differs = |(a, e): (&f32, &f32)| (a - e).abs() > TOLERANCE.0 + TOLERANCE.1 * e.abs();
    assert!(tensor.param.iter().zip(&expected[0]).any(differs), "the recording tells the two apart");
}

#[test]
fn every_adapter_follows_the_recordings() {
    for gpu in common::shared_gpus().iter() {
        for case in cases() {
            let specs: Vec<_> = case.tensors.iter().map(|(name, t)| TensorSpec::new(name, t.shape.clone())).collect();
            let mut optimizer = gpu.optimizer(&specs, case.recipe).unwrap();
            for (name, tensor) in &case.tensors {
                optimizer.write_param(name, &tensor.param).unwrap();
            }
            let steps = case.tensors.values().next().unwrap().grads.len();
            for k in 0..steps {
                for (name, tensor) in &case.tensors {
                    optimizer.write_grad(name, &tensor.grads[k]).unwrap();
                }
                optimizer.step().unwrap();
                for (name, tensor) in &case.tensors {
                    let what = format!("{}: {} {name} step {k}", gpu.name, case.name);
                    let param = optimizer.read_param_blocking(name).unwrap();
                    assert_close(&what, &param, &tensor.expected[k], case.tolerance());
                }
            }
            optimizer.evaluate().unwrap();
            for (name, tensor) in &case.tensors {
                let what = format!("{}: {} {name} evaluated", gpu.name, case.name);
                let expected = tensor.evaluated.as_ref().unwrap_or(&tensor.expected[steps - 1]);
                assert_close(&what, &optimizer.read_param_blocking(name).unwrap(), expected, case.tolerance());
            }
        }
    }
}

#[test]
#[should_panic(expected = "control at 1")]
fn a_corrupt_value_is_noticed() {
    assert_close("control", &[1.0, 1.0001], &[1.0, 1.0], TOLERANCE);
}

#[test]
#[should_panic(expected = "control at 0")]
fn nan_is_noticed() {
    assert_close("control", &[f32::NAN], &[1.0], TOLERANCE);
}
