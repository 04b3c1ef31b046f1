//! Checkpoints of models that are not as usual, and files that do not fit.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Lora, Module, ModuleVisitor, Param, QLora, Quantizer};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::optim::GradientsParams;
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{DType, Device, Tensor, TensorData};
use wgpu_optim::{Checkpoint, ParamGroups, Part, Precision, Recipe, Rounding, verify};
use wgpu_optim_burn::{Error, GpuModuleOptimizer};

use crate::common::{Mlp, autodiff, bits, gpu, gradients};

const FILE: &str = "run.safetensors";

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

/// Names of the parameters in a file.
fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = Checkpoint::open(path).unwrap().params().into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

#[derive(Module, Debug)]
struct Tied {
    embedding: Param<Tensor<2>>,
    head: Param<Tensor<2>>,
}

const SHAPE: [usize; 2] = [12, 7];

fn weights(seed: usize) -> Tensor<2> {
    let values = verify::params(84 + seed)[seed..].to_vec();
    Tensor::from_data(TensorData::new(values, SHAPE), &autodiff())
}

impl Tied {
    fn new(seed: usize) -> Self {
        let embedding = Param::from_tensor(weights(seed));
        Self { head: embedding.clone(), embedding }
    }

    /// Each parameter on its own.
    fn apart(seed: usize) -> Self {
        Self { embedding: Param::from_tensor(weights(seed)), head: Param::from_tensor(weights(seed + 1)) }
    }

    /// Uses both parameters, in different ways.
    fn backward(&self, t: u64) -> GradientsParams {
        let by = |seed: usize| weights(seed).inner();
        let loss = (self.embedding.val() * by(5) + self.head.val() * by(t as usize + 6)).sum();
        GradientsParams::from_grads(loss.backward(), self)
    }

    fn run(mut self, optim: &mut GpuModuleOptimizer, steps: std::ops::Range<u64>) -> Self {
        for t in steps {
            let grads = self.backward(t);
            self = optim.step(1e-2, self, grads);
        }
        self
    }
}

fn adamw() -> GpuModuleOptimizer {
    GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2).mgup())
}

#[test]
fn tied_parameters_are_saved_once_and_tied_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut optim = adamw();
    let model = Tied::new(0).run(&mut optim, 1..3);
    optim.save_checkpoint(&path, &model, none()).unwrap();
    assert_eq!(names(&path), ["embedding"]);

    // One with ids of its own, and one that has two copies of one id.
    let fresh = Tied::new(3);
    let mut copies = Tied::apart(3);
    copies.head = Param::initialized(copies.embedding.id, weights(9).require_grad());
    let expected = model.clone().run(&mut optim, 3..6);
    for mut fresh in [fresh, copies] {
        let ids = [fresh.embedding.id, fresh.head.id];
        let mut again = adamw();
        assert_eq!(again.load_checkpoint(&path, &mut fresh).unwrap(), none());
        assert_eq!([fresh.embedding.id, fresh.head.id], ids);
        assert_eq!(bits(&fresh), bits(&model));
        let fresh = fresh.run(&mut again, 3..6);
        assert_eq!(bits(&fresh), bits(&expected));
        assert_eq!(bits(&fresh)[0], bits(&fresh)[1]);
    }
}

#[test]
fn ties_that_differ_are_refused_with_both_paths() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let (tied, apart) = (|| Tied::new(0), || Tied::apart(0));
    let frozen = || {
        let model = Tied::new(0);
        Tied { head: model.head.set_require_grad(false), ..model }
    };
    let refusal = |saved: Tied, mut model: Tied| {
        let mut optim = adamw();
        let saved = saved.run(&mut optim, 1..2);
        optim.save_checkpoint(&path, &saved, none()).unwrap();
        let before = bits(&model);
        let result = optim.load_checkpoint(&path, &mut model);
        let model_is_new = bits(&model) != before;
        match result {
            Ok(_) => None,
            Err(error) => {
                assert!(!model_is_new);
                Some(error.to_string())
            }
        }
    };
    let error = refusal(tied(), apart()).unwrap();
    assert!(
        error.starts_with("parameter `head`: the checkpoint ties it to `embedding`, and the model does not"),
        "{error}"
    );
    let error = refusal(apart(), tied()).unwrap();
    assert!(
        error.starts_with("parameter `head`: the model ties it to `embedding`, and the checkpoint does not"),
        "{error}"
    );
    // A frozen copy is not tied.
    assert!(refusal(tied(), frozen()).is_some());
    assert_eq!(refusal(frozen(), frozen()), None);
    assert_eq!(refusal(apart(), apart()), None);
    // One id cannot have the state of two parameters.
    let mut one = apart();
    one.head = Param::initialized(one.embedding.id, weights(4).require_grad());
    let error = refusal(apart(), one).unwrap();
    assert!(error.contains("`head`: it has the id of `embedding`"), "{error}");
}

/// Values with their dtype, the device, and whether they require gradients, by path.
fn contents<M: Module>(model: &M) -> Vec<(String, TensorData, Device, bool)> {
    struct Contents(Vec<String>, Vec<(String, TensorData, Device, bool)>);
    impl ModuleVisitor for Contents {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.base();
            let (device, require_grad) = (tensor.device(), tensor.is_require_grad());
            self.1.push((self.0.join("."), tensor.inner().into_data(), device, require_grad));
        }
    }
    let mut contents = Contents(Vec::new(), Vec::new());
    model.visit(&mut contents);
    contents.1
}

fn values(numel: usize, seed: usize) -> TensorData {
    TensorData::new(verify::params(numel + seed)[seed..].to_vec(), [numel])
}

/// One parameter that steps, and others that do not.
#[derive(Module, Debug)]
struct Mixed {
    stepped: Param<Tensor<1>>,
    half: Param<Tensor<1>>,
    tied: Param<Tensor<1>>,
    single: Param<Tensor<1>>,
    double: Param<Tensor<1>>,
    norm: BatchNorm,
    empty: Param<Tensor<1>>,
}

impl Mixed {
    fn new(seed: usize, stepped: DType) -> Self {
        let (here, far) = (&gpu().device, &Device::flex());
        let param = |data: TensorData, device: &Device, dtype: DType| {
            let tensor = Tensor::<1>::from_data(data.convert_dtype(dtype), (device, dtype));
            Param::from_tensor(tensor.autodiff())
        };
        let frozen =
            |data: TensorData, device: &Device, dtype: DType| param(data, device, dtype).set_require_grad(false);
        let half = frozen(values(5, seed), here, DType::F16);
        let third = TensorData::new(vec![1.0 / (3.0 + seed as f64), f64::MIN_POSITIVE, -0.0], [3]);
        Self {
            stepped: param(values(9, seed), here, stepped),
            tied: half.clone(),
            half,
            single: frozen(values(7, seed), far, DType::F32),
            double: frozen(third, far, DType::F64),
            norm: BatchNormConfig::new(3).init(&autodiff()),
            empty: frozen(values(0, 0), far, DType::F64),
        }
    }

    fn step(self, optim: &mut GpuModuleOptimizer, t: usize) -> Self {
        let mut grads = GradientsParams::new();
        let dtype = self.stepped.base().dtype();
        let grad = Tensor::<1>::from_data(values(9, t).convert_dtype(dtype), (&gpu().device, dtype));
        grads.register(self.stepped.id, grad);
        optim.step(1e-2, self, grads)
    }

    /// With an update of a running statistic that waits, as after a forward pass.
    fn with_statistics(self, seed: usize) -> Self {
        self.norm.running_mean.update(Tensor::from_data(values(3, seed), &autodiff()));
        self
    }
}

#[cfg_attr(feature = "vulkan", ignore = "SwiftShader, on which SPIR-V is tested, has no f16")]
#[test]
fn parameters_that_do_not_step_are_saved_with_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let kept = [Precision::F32, Precision::F16, Precision::Bf16].map(|precision| (precision, None));
    let rounded = (Precision::Bf16, Some(Rounding::Stochastic { seed: 1 }));
    for (precision, rounding) in kept.into_iter().chain([rounded]) {
        let dtype = match precision {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::Bf16 => DType::BF16,
        };
        let settings = move |groups: ParamGroups| {
            let groups = groups.with_precision(precision);
            rounding.map_or(groups.clone(), |rounding| groups.without_masters(rounding))
        };
        let optimizer = || adamw().with_settings(settings);
        let mut optim = optimizer();
        let mut model = Mixed::new(1, dtype).with_statistics(11);
        model = model.step(&mut optim, 1);
        model = model.step(&mut optim, 2);
        optim.save_checkpoint(&path, &model, none()).unwrap();
        let saved = names(&path);
        assert!(saved.contains(&"stepped".to_owned()) && saved.contains(&"double#bytes".to_owned()), "{saved:?}");
        // Values are values wherever they can be.
        assert_eq!(saved.contains(&"single".to_owned()), precision == Precision::F32, "{saved:?}");
        assert_eq!(saved.contains(&"half".to_owned()), precision != Precision::Bf16, "{saved:?}");
        assert!(!saved.iter().any(|name| name.starts_with("tied")), "{saved:?}");

        let mut fresh = Mixed::new(2, dtype).with_statistics(12);
        let mut again = optimizer();
        assert_eq!(again.load_checkpoint(&path, &mut fresh).unwrap(), none());
        let mean = |model: &Mixed| model.norm.running_mean.value_sync().into_data();
        assert_eq!(mean(&model), values(3, 11));
        assert_eq!(mean(&fresh), mean(&model));
        let (model, fresh) = (model.step(&mut optim, 3), fresh.step(&mut again, 3));
        assert_eq!(contents(&fresh), contents(&model), "{precision:?}, {rounding:?}");
    }
}

#[cfg_attr(feature = "vulkan", ignore = "SwiftShader, on which SPIR-V is tested, has no f16")]
#[test]
fn a_dtype_that_differs_is_converted_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut optim = adamw();
    let model = Mixed::new(1, DType::F32).step(&mut optim, 1);
    optim.save_checkpoint(&path, &model, none()).unwrap();
    let cast = |param: &Param<Tensor<1>>, dtype: DType| {
        let data = param.base().inner().into_data().convert_dtype(dtype);
        let tensor = Tensor::<1>::from_data(data, (&Device::flex(), dtype));
        Param::from_tensor(tensor.autodiff()).set_require_grad(false)
    };
    let mut other = Mixed::new(2, DType::F32);
    other.single = cast(&other.single, DType::F16);
    optim.load_checkpoint(&path, &mut other).unwrap();
    let expected = model.single.base().inner().into_data().convert_dtype(DType::F16);
    assert_eq!(other.single.base().inner().into_data(), expected);
    other.double = cast(&other.double, DType::F32);
    let error = optim.load_checkpoint(&path, &mut other).unwrap_err().to_string();
    assert_eq!(
        error,
        "parameter `double`: it is F32 of shape [3], and the checkpoint has the bytes of F64 of shape [3]"
    );
}

#[cfg_attr(feature = "vulkan", ignore = "quantization is not tested on SPIR-V")]
#[test]
fn adapters_beside_a_quantized_base_are_saved_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    for device in [autodiff(), Device::flex().autodiff()] {
        let new = |seed: usize| {
            let scheme = device.settings().quantization.scheme.with_value(QuantValue::Q8S);
            let quantizer = Quantizer::new(Calibration::MinMax, scheme);
            let data = TensorData::new(verify::params(256 + seed)[seed..].to_vec(), [16, 16]);
            let base = Param::from_tensor(Tensor::<2>::from_data(data, &device));
            let stepped = Param::from_tensor(weights(seed));
            (stepped, base.apply_qlora(QLora::new(Lora::new(2, 4.0), quantizer)))
        };
        let model = new(1);
        assert!(matches!(model.1.base().dtype(), DType::QFloat(_)));
        let mut optim = adamw();
        let mut grads = GradientsParams::new();
        grads.register(model.0.id, weights(7).inner());
        let model = optim.step(1e-2, model, grads);
        optim.save_checkpoint(&path, &model, none()).unwrap();
        let mut fresh = new(2);
        adamw().load_checkpoint(&path, &mut fresh).unwrap();
        assert_eq!(contents(&fresh), contents(&model));
        let mut dense = new(3);
        dense.1 = dense.1.materialize();
        let error = adamw().load_checkpoint(&path, &mut dense).unwrap_err().to_string();
        assert!(error.contains("and the checkpoint has the bytes of QFloat"), "{error}");
    }
}

/// A file with `from` replaced in its header by `to`, which is as long.
fn patched(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = file.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    [&file[..at], to.as_bytes(), &file[at + from.len()..]].concat()
}

#[test]
fn a_load_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let model = || {
        let norm = BatchNormConfig::new(3).init(&autodiff());
        (Mlp::new(&autodiff()), norm, Param::from_tensor(weights(0)))
    };
    type Model = (Mlp, BatchNorm, Param<Tensor<2>>);
    let step = |model: Model, optim: &mut GpuModuleOptimizer, t: u64| {
        let grads = gradients(&model, t, &["1.running_mean", "1.running_var"]);
        optim.step(1e-2, model, grads)
    };
    let mut other = adamw();
    let saved = step(model(), &mut other, 9);
    other.save_checkpoint(&path, &saved, none()).unwrap();
    let file = std::fs::read(&path).unwrap();

    let mut optim = adamw();
    let mut at = step(model(), &mut optim, 1);
    let (before, state) = (bits(&at), optim.into_bytes().unwrap());
    // Refused by what reads the header, the names, the state, and the last of the parameters.
    let faults = [
        (file[..file.len() / 2].to_vec(), "cut short"),
        (patched(&file, "\"params.0.first.bias\"", "\"params.0.first.bios\""), "does not have it"),
        (patched(&file, "\"state.2.step\":{\"dtype\":\"I64\"", "\"state.2.step\":{\"dtype\":\"U64\""), "instead of"),
        (patched(&file, "\"params.2\":{\"dtype\":\"F32\"", "\"params.2\":{\"dtype\":\"I32\""), "in F32"),
    ];
    let untouched = |optim: &GpuModuleOptimizer, model: &Model| {
        assert_eq!(bits(model), before);
        assert_eq!(optim.into_bytes().unwrap(), state);
    };
    for (bytes, expected) in faults {
        std::fs::write(&path, bytes).unwrap();
        let error = optim.load_checkpoint(&path, &mut at).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        untouched(&optim, &at);
    }
    std::fs::write(&path, &file).unwrap();
    let mut plain = GpuModuleOptimizer::new(gpu(), Recipe::lion(1e-2));
    let error = plain.load_checkpoint(&path, &mut at).unwrap_err().to_string();
    assert!(error.contains("which this optimizer does not"), "{error}");
    assert!(plain.optimizer().is_none());
    untouched(&optim, &at);

    // It goes on, and the next file is loaded.
    optim.load_checkpoint(&path, &mut at).unwrap();
    assert_eq!(bits(&at), bits(&saved));
    assert_eq!(bits(&step(at, &mut optim, 2)), bits(&step(saved, &mut other, 2)));
}

#[test]
fn the_reserved_key_is_refused_when_saving_and_when_it_is_not_understood() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut optim = adamw();
    let model = Tied::new(0).run(&mut optim, 1..2);
    let extra = BTreeMap::from([("wgpu-optim-burn".to_owned(), "mine".to_owned())]);
    let error = optim.save_checkpoint(&path, &model, extra).unwrap_err().to_string();
    assert!(error.contains("`wgpu-optim-burn` of `extra` is reserved"), "{error}");
    assert!(!path.exists());
    let extra = BTreeMap::from([("epoch".to_owned(), "7".to_owned())]);
    optim.save_checkpoint(&path, &model, extra.clone()).unwrap();
    let file = std::fs::read(&path).unwrap();
    let mut fresh = Tied::new(1);
    assert_eq!(optim.load_checkpoint(&path, &mut fresh).unwrap(), extra);
    // A later version may say more.
    std::fs::write(&path, patched(&file, "names", "named")).unwrap();
    let error = optim.load_checkpoint(&path, &mut fresh).unwrap_err();
    assert!(matches!(error, Error::Optimizer(wgpu_optim::Error::Checkpoint { .. })), "{error}");
}

#[test]
fn a_parameter_that_was_replaced_leaves_no_state_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let step = |model: Mlp, optim: &mut GpuModuleOptimizer, t: u64| {
        let grads = gradients(&model, t, &[]);
        optim.step(1e-2, model, grads)
    };
    let mut optim = adamw();
    let mut model = step(Mlp::new(&autodiff()), &mut optim, 1);
    model.second.weight = Mlp::new(&autodiff()).second.weight;
    model = step(model, &mut optim, 2);
    optim.save_checkpoint(&path, &model, none()).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().specs().len(), 5);
    let (mut fresh, mut again) = (Mlp::new(&autodiff()), adamw());
    again.load_checkpoint(&path, &mut fresh).unwrap();
    assert_eq!(bits(&fresh), bits(&model));
    let (mut model, mut fresh) = (step(model, &mut optim, 3), step(fresh, &mut again, 3));
    assert_eq!(bits(&fresh), bits(&model));
    // Again, where the name in the file is not the path.
    for (model, optim) in [(&mut model, &mut optim), (&mut fresh, &mut again)] {
        model.second.weight = Mlp::new(&autodiff()).second.weight;
        *model = step(model.clone(), optim, 4);
    }
    assert_eq!(bits(&fresh), bits(&model));
    let other = Tied::new(0);
    let error = optim.save_checkpoint(&path, &other, none()).unwrap_err().to_string();
    assert!(error.contains("no step was taken yet with a parameter of this module"), "{error}");
}

#[test]
fn state_of_a_record_that_waits_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let step = |model: Mlp, optim: &mut GpuModuleOptimizer, t: u64, without: &[&str]| {
        let grads = gradients(&model, t, without);
        optim.step(1e-2, model, grads)
    };
    let mut straight = adamw();
    let mut model = step(Mlp::new(&autodiff()), &mut straight, 1, &[]);
    let record = straight.into_bytes().unwrap();
    let mut optim = adamw().from_bytes(record.clone()).unwrap();
    // Before the first step, and after one that leaves a parameter out.
    for t in [2, 3] {
        optim.save_checkpoint(&path, &model, none()).unwrap();
        let (mut fresh, mut again) = (Mlp::new(&autodiff()), adamw());
        again.load_checkpoint(&path, &mut fresh).unwrap();
        let mut other = adamw().from_bytes(straight.into_bytes().unwrap()).unwrap();
        let expected = bits(&step(model.clone(), &mut other, t, &[]));
        assert_eq!(bits(&step(fresh, &mut again, t, &[])), expected, "step {t}");
        let same = step(model.clone(), &mut optim, t, &["first.bias"]);
        model = step(model, &mut straight, t, &["first.bias"]);
        assert_eq!(bits(&same), bits(&model));
    }
}

#[test]
fn a_parameter_of_another_shape_than_its_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut optim = adamw();
    let mut model = Mlp::new(&autodiff());
    let grads = gradients(&model, 1, &[]);
    model = optim.step(1e-2, model, grads);
    model.scale = Param::initialized(model.scale.id, Tensor::<1>::ones([3], &autodiff()).require_grad());
    let error = optim.save_checkpoint(&path, &model, none()).unwrap_err().to_string();
    assert_eq!(error, "parameter `scale`: its shape was [1] and is [3]");
}

/// A body, and a head of a size of its own.
#[derive(Module, Debug)]
struct Tuned {
    body: Param<Tensor<2>>,
    head: Param<Tensor<2>>,
}

impl Tuned {
    fn new(seed: usize, classes: usize) -> Self {
        let values = verify::params(12 * classes);
        let head = Tensor::from_data(TensorData::new(values, [12, classes]), &autodiff());
        Self { body: Param::from_tensor(weights(seed)), head: Param::from_tensor(head) }
    }

    fn run(mut self, optim: &mut GpuModuleOptimizer, steps: std::ops::Range<u64>) -> Self {
        for t in steps {
            let loss = (self.body.val() * weights(t as usize).inner()).sum() + self.head.val().powi_scalar(2).sum();
            let grads = GradientsParams::from_grads(loss.backward(), &self);
            self = optim.step(1e-2, self, grads);
        }
        self
    }
}

#[test]
fn a_new_head_stays_while_the_body_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut optim = adamw();
    let model = Tuned::new(0, 7).run(&mut optim, 1..4);
    optim.save_checkpoint(&path, &model, none()).unwrap();
    let expected = model.clone().run(&mut optim, 4..7);

    // Into an optimizer that has not stepped, and into one that has state of its own.
    for steps in [1..1, 1..3] {
        let mut again = adamw();
        let mut fresh = Tuned::new(3, 2).run(&mut again, steps.clone());
        let head = bits(&fresh)[1].clone();
        assert_eq!(again.load_matching(&path, &mut fresh, Part::All).unwrap(), ["head"]);
        assert_eq!(bits(&fresh)[0], bits(&model)[0]);
        assert_eq!(bits(&fresh)[1], head);
        let fresh = fresh.run(&mut again, 4..7);
        assert_eq!(bits(&fresh)[0], bits(&expected)[0], "the body goes on with its state");
        assert_eq!(again.optimizer().unwrap().steps("body").unwrap(), 6);
        assert_eq!(again.optimizer().unwrap().steps("head").unwrap(), 3 + steps.count() as u64);
    }

    // Parameters alone: a first step for the optimizer.
    let (mut again, mut fresh) = (adamw(), Tuned::new(3, 2));
    assert_eq!(again.load_matching(&path, &mut fresh, Part::Params).unwrap(), ["head"]);
    assert_eq!(bits(&fresh)[0], bits(&model)[0]);
    assert!(again.optimizer().is_none());
    drop(fresh.run(&mut again, 1..2));
    assert_eq!(again.optimizer().unwrap().steps("body").unwrap(), 1);

    // The parameter has its values, and not the state of another recipe.
    let mut adago = GpuModuleOptimizer::new(gpu(), Recipe::adago(1e-2));
    let mut fresh = Tuned::new(3, 2).run(&mut adago, 1..2);
    assert_eq!(adago.load_matching(&path, &mut fresh, Part::All).unwrap(), ["body", "head"]);
    assert_eq!(bits(&fresh)[0], bits(&model)[0]);
}

#[test]
fn a_file_of_other_parameters_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut optim = adamw();
    let other = Mlp::new(&autodiff());
    let grads = gradients(&other, 1, &[]);
    let other = optim.step(1e-2, other, grads);
    optim.save_checkpoint(&path, &other, none()).unwrap();
    for part in [Part::Params, Part::All] {
        let mut optim = adamw();
        let mut model = Tuned::new(0, 7).run(&mut optim, 1..2);
        let before = bits(&model);
        let error = optim.load_matching(&path, &mut model, part).unwrap_err();
        assert_eq!(error.code(), "checkpoint");
        assert!(error.to_string().contains("no parameter of this model"), "{error}");
        assert_eq!(bits(&model), before);
        assert_eq!(optim.optimizer().unwrap().steps("body").unwrap(), 1);
        assert_eq!(optim.load_matching("nowhere", &mut model, part).unwrap_err().code(), "checkpoint");
    }
}
