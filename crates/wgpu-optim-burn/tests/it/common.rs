//! A device, models, gradients that are the same on every machine, and readback.

use std::sync::OnceLock;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdaGradConfig, AdafactorConfig, AdamConfig, AdamWConfig, AdanConfig, GradientsParams, LionConfig, ModuleOptimizer,
    RmsPropConfig, SgdConfig,
};
use burn::tensor::{Device, Int, Tensor, TensorData};
use wgpu_optim::base::{AdaGrad, Adafactor, Adam, AdamW, Adan, BaseKind, CustomBase, Lion, RmsProp, Sgd};
use wgpu_optim::{MatrixLayout, Recipe, TensorSpec, reference, verify};
use wgpu_optim_burn::Gpu;

#[path = "../../../../tests/common/few.rs"]
mod few;

/// One device for all tests: Burn wants a device registered once.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let gpu = open();
        println!("adapter: {}", gpu.adapter);
        gpu
    })
}

/// Burn's SPIR-V compiler wants a device of Burn's own making.
fn open() -> Gpu {
    if cfg!(feature = "vulkan") {
        let (device, setup) = Device::wgpu_options().init_with_setup().unwrap();
        Gpu::from_setup(device, &setup)
    } else {
        Gpu::open().unwrap()
    }
}

pub fn autodiff() -> Device {
    gpu().device.clone().autodiff()
}

/// A parameter of a model: its path, id and values.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    pub path: String,
    pub id: ParamId,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Values {
    /// The parameter on the CPU.
    pub fn twin(self, recipe: Recipe) -> reference::Tensor<f32> {
        let spec = TensorSpec::new(self.path, self.shape).with_layout(MatrixLayout::InOut);
        reference::Tensor::with_shape(recipe, &spec, self.values).unwrap()
    }
}

/// How far a parameter may be from its twin.
pub fn tolerance(twin: &reference::Tensor<f32>) -> (f64, f64) {
    if twin.recipe.base.newton_schulz().is_some() { verify::MATRIX_TOLERANCE } else { verify::TOLERANCE }
}

struct Read {
    path: Vec<String>,
    found: Vec<Values>,
}

impl ModuleVisitor for Read {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().inner().try_into_vec_as().unwrap();
        self.found.push(Values { path: self.path.join("."), id: param.id, shape: param.shape().to_vec(), values });
    }
}

/// All float parameters, in the order of the module.
pub fn read<M: Module>(model: &M) -> Vec<Values> {
    let mut read = Read { path: Vec::new(), found: Vec::new() };
    model.visit(&mut read);
    read.found
}

pub fn bits<M: Module>(model: &M) -> Vec<Vec<u32>> {
    read(model).into_iter().map(|p| p.values.iter().map(|x| x.to_bits()).collect()).collect()
}

/// A base that is written here, of three states.
pub fn custom() -> Recipe {
    let text = "
//@ base burned
//@ state slow
//@ state fast
//@ state v
//@ decay beta1 = 0.9
//@ decay beta2 = 0.99
fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return (state.fast / s.beta1_correction + state.slow) / (sqrt(state.v) + 1e-3);
}
fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    let slow = s.beta2 * old.slow + s.one_minus_beta2 * g;
    let fast = s.beta1 * old.fast + s.one_minus_beta1 * g;
    let state = State(slow, fast, s.beta2 * old.v + s.one_minus_beta2 * (g * g));
    return Update(direction_of(state, g, s), state);
}";
    let base = CustomBase::new(text).unwrap().twin(|state, g, s| {
        state[0] = s["beta2"] * state[0] + s["one_minus_beta2"] * g;
        state[1] = s["beta1"] * state[1] + s["one_minus_beta1"] * g;
        state[2] = s["beta2"] * state[2] + s["one_minus_beta2"] * g * g;
        (state[1] / s["beta1_correction"] + state[0]) / (state[2].sqrt() + 1e-3)
    });
    Recipe::from(base).mgup()
}

/// Gradients by formula, for step `t`; none for the parameters that `without` names.
pub fn gradients<M: Module>(model: &M, t: u64, without: &[&str]) -> GradientsParams {
    struct Fill<'a> {
        t: u64,
        without: &'a [&'a str],
        path: Vec<String>,
        count: usize,
        grads: GradientsParams,
    }
    impl ModuleVisitor for Fill<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.count += 1;
            let path = self.path.join(".");
            if self.without.contains(&path.as_str()) {
                return;
            }
            let shape = param.shape();
            let values = gradient(shape.num_elements(), self.count - 1, self.t);
            let grad = Tensor::<D>::from_data(TensorData::new(values, shape), &param.device().inner());
            self.grads.register(param.id, grad);
        }
    }
    let mut fill = Fill { t, without, path: Vec::new(), count: 0, grads: GradientsParams::new() };
    model.visit(&mut fill);
    fill.grads
}

/// The gradient of the parameter at place `index` of a model, in step `t`.
pub fn gradient(numel: usize, index: usize, t: u64) -> Vec<f32> {
    verify::grads(numel + index, t)[index..].to_vec()
}

/// Layers of sizes that end inside a vector of four.
#[derive(Module, Debug)]
pub struct Mlp {
    pub first: Linear,
    pub second: Linear,
    pub scale: Param<Tensor<1>>,
}

impl Mlp {
    pub fn new(device: &Device) -> Self {
        let param = |shape: &[usize], seed: usize| {
            let numel: usize = shape.iter().product();
            TensorData::new(verify::params(numel + seed)[seed..].to_vec(), shape.to_vec())
        };
        Self {
            first: Linear {
                weight: Param::from_data(param(&[33, 130], 0), device),
                bias: Some(Param::from_data(param(&[130], 1), device)),
            },
            second: Linear {
                weight: Param::from_data(param(&[130, 10], 2), device),
                bias: Some(Param::from_data(param(&[10], 3), device)),
            },
            scale: Param::from_data(param(&[1], 4), device),
        }
    }

    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let hidden = burn::tensor::activation::gelu(self.first.forward(input));
        self.second.forward(hidden) * self.scale.val().unsqueeze()
    }

    pub fn loss(&self, t: u64) -> Tensor<1> {
        let values = TensorData::new(verify::params(8 * 33 + t as usize)[t as usize..].to_vec(), [8, 33]);
        self.forward(Tensor::from_data(values, &autodiff())).powi_scalar(2).mean()
    }

    pub fn backward(&self, t: u64) -> GradientsParams {
        GradientsParams::from_grads(self.loss(t).backward(), self)
    }
}

/// A small transformer that predicts the next token.
#[derive(Module, Debug)]
pub struct Transformer {
    embedding: Embedding,
    encoder: TransformerEncoder,
    head: Linear,
}

const VOCABULARY: usize = 40;
const WINDOW: usize = 12;

impl Transformer {
    pub fn new(device: &Device) -> Self {
        let model = Self {
            embedding: EmbeddingConfig::new(VOCABULARY, 16).init(device),
            encoder: TransformerEncoderConfig::new(16, 32, 2, 2).with_dropout(0.0).init(device),
            head: LinearConfig::new(16, VOCABULARY).init(device),
        };
        seeded(model)
    }

    /// Mean cross-entropy of a batch of counting sequences.
    pub fn loss(&self, t: u64) -> Tensor<1> {
        let token = |row: usize, at: usize| ((row * 7 + at * (1 + row % 3) + t as usize) % VOCABULARY) as i64;
        let tokens: Vec<i64> =
            (0..4).flat_map(|row| (0..=WINDOW).map(move |at| (row, at))).map(|(r, a)| token(r, a)).collect();
        let device = self.head.weight.device();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [4, WINDOW + 1]), &device);
        let input = tokens.clone().slice([0..4, 0..WINDOW]);
        let target = tokens.slice([0..4, 1..WINDOW + 1]).reshape([4 * WINDOW]);
        let hidden = self.encoder.forward(TransformerEncoderInput::new(self.embedding.forward(input)));
        let logits = self.head.forward(hidden).reshape([4 * WINDOW, VOCABULARY]);
        burn::nn::loss::CrossEntropyLossConfig::new().init(&device).forward(logits, target)
    }

    pub fn backward(&self, t: u64) -> GradientsParams {
        GradientsParams::from_grads(self.loss(t).backward(), self)
    }
}

/// The model with small values by formula in place of random ones; norms keep theirs.
fn seeded<M: Module>(model: M) -> M {
    struct Seed(usize);
    impl burn::module::ModuleMapper for Seed {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.0 += 1;
            if D < 2 {
                return param;
            }
            let seed = self.0;
            param.map(|old| {
                let shape = old.shape();
                let numel = shape.num_elements();
                let values: Vec<f32> = verify::params(numel + seed)[seed..].iter().map(|x| 0.1 * x.sin()).collect();
                Tensor::<D>::from_data(TensorData::new(values, shape), &old.device()).require_grad()
            })
        }
    }
    model.map(&mut Seed(0))
}

/// What Burn has too, at the settings of Burn's configurations or with more of them, and Burn's own.
pub fn peers() -> Vec<(&'static str, Recipe, ModuleOptimizer)> {
    let decay = || Some(WeightDecayConfig::new(1e-2));
    let momentum = |dampening, nesterov| Some(MomentumConfig { momentum: 0.9, dampening, nesterov });
    let sgd = Sgd::default().momentum(0.9).weight_decay(1e-2);
    let burn_sgd = || SgdConfig::new().with_weight_decay(decay());
    let adamw = AdamW::torch().eps(1e-5).weight_decay(1e-4);
    let cautious = adamw.weight_decay(1.0).cautious_weight_decay(true);
    let adam = Adam::default().eps(1e-5).weight_decay(1e-2);
    let rmsprop = RmsProp::default().eps(1e-5).momentum(0.9).weight_decay(1e-2);
    let adagrad = AdaGrad::default().eps(1e-5).lr_decay(0.1).weight_decay(1e-2);
    let adafactor = Adafactor::default().weight_decay(1e-2);
    let adan = Adan::default().weight_decay(1e-2);
    vec![
        ("adamw", adamw.into(), AdamWConfig::new().init()),
        (
            "cautious decay",
            cautious.into(),
            AdamWConfig::new().with_weight_decay(1.0).with_cautious_weight_decay(true).init(),
        ),
        ("lion", Lion::default().into(), LionConfig::new().init()),
        ("adam", adam.into(), AdamConfig::new().with_weight_decay(decay()).init()),
        ("amsgrad", adam.amsgrad(true).into(), AdamConfig::new().with_weight_decay(decay()).with_amsgrad(true).init()),
        ("sgd", sgd.dampening(0.1).into(), burn_sgd().with_momentum(momentum(0.1, false)).init()),
        ("nesterov", sgd.nesterov(true).into(), burn_sgd().with_momentum(momentum(0.0, true)).init()),
        ("rmsprop", rmsprop.into(), RmsPropConfig::new().with_weight_decay(decay()).init()),
        ("adagrad", adagrad.into(), AdaGradConfig::new().with_lr_decay(0.1).with_weight_decay(decay()).init()),
        ("adan", adan.into(), AdanConfig::new().with_weight_decay(1e-2).init()),
        ("adafactor", adafactor.into(), AdafactorConfig::new().with_weight_decay(1e-2).init()),
        (
            "adafactor with a rate",
            adafactor.relative_step(false).scale_parameter(false).into(),
            AdafactorConfig::new().with_weight_decay(1e-2).with_relative_step(false).with_scale_parameter(false).init(),
        ),
    ]
}

/// Every policy with AdamW, and one recipe of every other base and variant: each compiles its own pipelines, and the tests of the core have
/// the others.
pub fn recipes() -> Vec<(String, Recipe)> {
    let mut seen = Vec::new();
    let mut recipes = few::few_recipes();
    recipes.retain(|(name, recipe)| {
        let base = BaseKind::of(&recipe.base);
        let is_new = !seen.contains(&base);
        seen.push(base);
        is_new || base.row().name == "adamw" && !name.contains("torch")
    });
    recipes.push(("custom".to_owned(), custom()));
    recipes
}
