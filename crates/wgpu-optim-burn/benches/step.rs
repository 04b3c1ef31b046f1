//! Our step against Burn's, in one process, on one device: `cargo bench -p wgpu-optim-burn`.
//!
//! Samples alternate, and the ratios are medians over neighboring samples. Burn has its kernel fusion and autotune. On Mesa, disable the
//! shader cache (`MESA_SHADER_CACHE_DISABLE=true`). Otherwise, the first steps of a second run do not compile shaders.

use std::time::{Duration, Instant};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, MuonConfig};
use burn::tensor::{Device, Distribution, Tensor};
use clap::Parser;
use wgpu_optim::base::AdamW;
use wgpu_optim::{Base, Recipe};
use wgpu_optim_burn::{Gpu, GpuModuleOptimizer};

/// Measures optimizer steps of wgpu-optim and of Burn.
#[derive(Parser)]
struct Arguments {
    /// Steps of each optimizer, after two first steps that are reported separately.
    #[arg(long, default_value_t = 25)]
    samples: usize,
    /// Parameters of the large tensor.
    #[arg(long, default_value_t = 1 << 24)]
    large: usize,
    /// Parameters of the tensor that MGUP is measured on.
    #[arg(long, default_value_t = 1 << 20)]
    mgup: usize,
    /// What to measure, separated by commas. Burn tunes its Muon for minutes.
    #[arg(long, value_delimiter = ',', value_enum, default_value = "adamw,mgup,muon")]
    only: Vec<Subject>,
    /// What `cargo bench` says.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// AdamW over a model and over one large tensor.
    Adamw,
    /// MGUP-AdamW, and MGUP in Burn's operations.
    Mgup,
    /// Muon over matrices of three shapes.
    Muon,
}

#[derive(Module, Debug)]
struct Tensors {
    vectors: Vec<Param<Tensor<1>>>,
    matrices: Vec<Param<Tensor<2>>>,
}

impl Tensors {
    fn new(shapes: &[Vec<usize>], device: &Device) -> Self {
        let uniform = Distribution::Uniform(-0.1, 0.1);
        let mut model = Self { vectors: Vec::new(), matrices: Vec::new() };
        for shape in shapes {
            match shape[..] {
                [n] => model.vectors.push(Param::from_tensor(Tensor::random([n], uniform, device))),
                [m, n] => model.matrices.push(Param::from_tensor(Tensor::random([m, n], uniform, device))),
                _ => unreachable!("vectors and matrices"),
            }
        }
        model
    }

    /// A GPT of 12 layers of 288, with a vocabulary of 2,048: 148 tensors.
    fn gpt(device: &Device) -> Self {
        let width = 288;
        let mut shapes = vec![vec![2048, width], vec![64, width], vec![width], vec![width]];
        for _ in 0..12 {
            for [inputs, outputs] in [[width, 3 * width], [width, width], [width, 4 * width], [4 * width, width]] {
                shapes.extend([vec![inputs, outputs], vec![outputs]]);
            }
            shapes.extend([(); 4].map(|()| vec![width]));
        }
        Self::new(&shapes, device)
    }

    fn flat(numel: usize, device: &Device) -> Self {
        Self::new(&[vec![numel]], device)
    }
}

/// New gradients that nothing else holds, computed before they are handed out.
fn gradients(model: &Tensors, device: &Device) -> GradientsParams {
    struct Fill(GradientsParams);
    impl ModuleVisitor for Fill {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            let grad = Tensor::<D>::random(value.shape(), Distribution::Uniform(-1.0, 1.0), &value.device().inner());
            self.0.register(param.id, grad);
        }
    }
    let mut fill = Fill(GradientsParams::new());
    model.visit(&mut fill);
    device.sync().expect("the device answers");
    fill.0
}

/// Steps a model: what is measured.
trait Contestant {
    fn step(&mut self, model: Tensors, grads: GradientsParams) -> Tensors;
}

impl Contestant for GpuModuleOptimizer {
    fn step(&mut self, model: Tensors, grads: GradientsParams) -> Tensors {
        GpuModuleOptimizer::step(self, 1e-3, model, grads)
    }
}

impl Contestant for ModuleOptimizer {
    fn step(&mut self, model: Tensors, grads: GradientsParams) -> Tensors {
        ModuleOptimizer::step(self, 1e-3, model, grads)
    }
}

/// MGUP on AdamW in Burn's own operations: the score is sorted to find its K-th largest.
#[derive(Default)]
struct BurnMgup {
    moments: Option<[Tensor<1>; 2]>,
    steps: i32,
}

impl Contestant for BurnMgup {
    fn step(&mut self, mut model: Tensors, mut grads: GradientsParams) -> Tensors {
        let param = model.vectors.pop().expect("one vector");
        let (id, theta, mapper) = param.consume();
        let theta = theta.inner();
        let grad = grads.remove::<1>(id).expect("a gradient");
        let (numel, device) = (theta.dims()[0], theta.device());
        let [m, v] = self.moments.take().unwrap_or_else(|| [(); 2].map(|()| Tensor::zeros([numel], &device)));
        self.steps += 1;
        let m = m * 0.9 + grad.clone() * 0.1;
        let v = v * 0.999 + grad.clone().square() * 0.001;
        let direction = m.clone() / (v.clone().sqrt() + 1e-8);
        let score = direction.clone() * grad;
        let threshold = score.clone().sort_descending(0).narrow(0, numel / 2 - 1, 1);
        let factor = score.greater_equal(threshold.expand([numel])).float() * 1.5 + 0.5;
        let rate = 1e-3 * (1.0 - 0.999_f64.powi(self.steps)).sqrt() / (1.0 - 0.9_f64.powi(self.steps));
        self.moments = Some([m, v]);
        let theta = theta - factor * direction * rate;
        model.vectors.push(Param::from_mapped_value(id, Tensor::from_inner(theta), mapper));
        model
    }
}

/// One contestant in a comparison.
struct Entry {
    name: &'static str,
    build: Box<dyn FnOnce() -> Box<dyn Contestant>>,
}

struct Outcome {
    /// Making it, and its first two steps.
    begin: Duration,
    /// Until the GPU has finished, and until the call returns.
    steps: Vec<Duration>,
    hosts: Vec<Duration>,
}

fn compare(device: &Device, model: &Tensors, entries: [Entry; 2], samples: usize) -> [Outcome; 2] {
    struct Running {
        optim: Box<dyn Contestant>,
        model: Option<Tensors>,
        begin: Duration,
        steps: Vec<Duration>,
        hosts: Vec<Duration>,
    }
    let mut running = entries.map(|entry| {
        let mut model = copy(model, device);
        let first = [gradients(&model, device), gradients(&model, device)];
        let start = Instant::now();
        let mut optim = (entry.build)();
        for grads in first {
            model = optim.step(model, grads);
            device.sync().expect("the device answers");
        }
        let begin = start.elapsed();
        eprintln!("  {}: made, and two steps taken", entry.name);
        Running { optim, model: Some(model), begin, steps: Vec::new(), hosts: Vec::new() }
    });
    for _ in 0..samples {
        for running in &mut running {
            let model = running.model.take().expect("put back below");
            let grads = gradients(&model, device);
            let start = Instant::now();
            running.model = Some(running.optim.step(model, grads));
            running.hosts.push(start.elapsed());
            device.sync().expect("the device answers");
            running.steps.push(start.elapsed());
        }
    }
    running.map(|r| Outcome { begin: r.begin, steps: r.steps, hosts: r.hosts })
}

fn again<const D: usize>(param: &Param<Tensor<D>>) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_inner(param.val().inner() * 1.0))
}

/// The same values in storage of its own.
fn copy(model: &Tensors, device: &Device) -> Tensors {
    let copied = Tensors {
        vectors: model.vectors.iter().map(again).collect(),
        matrices: model.matrices.iter().map(again).collect(),
    };
    device.sync().expect("the device answers");
    copied
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

fn report(title: &str, model: &Tensors, [ours, theirs]: &[Outcome; 2], names: [&str; 2]) {
    let tensors = model.vectors.len() + model.matrices.len();
    let ms = |d: &Duration| d.as_secs_f64() * 1e3;
    println!("\n{title}: {tensors} tensors, {} parameters", model.num_params());
    println!("  {:32} {:>10} {:>10} {:>16} {:>14}", "", "ms/step", "ns/param", "host µs/tensor", "first two, ms");
    for (name, outcome) in names.iter().zip([ours, theirs]) {
        let step = median(outcome.steps.iter().map(ms).collect());
        println!(
            "  {name:32} {step:10.2} {:10.2} {:16.1} {:14.0}",
            step * 1e6 / model.num_params() as f64,
            median(outcome.hosts.iter().map(ms).collect()) * 1e3 / tensors as f64,
            ms(&outcome.begin)
        );
    }
    // Neighbours in time, because a machine is faster and slower by turns.
    let ratios = ours.steps.iter().zip(&theirs.steps).map(|(ours, theirs)| ms(theirs) / ms(ours)).collect();
    println!(
        "  ours is {:.2} times as fast, and {:.2} times with its first two steps",
        median(ratios),
        ms(&theirs.begin) / ms(&ours.begin)
    );
}

fn main() {
    let arguments = Arguments::parse();
    env_logger::init();
    let gpu = Gpu::open().expect("a GPU");
    println!("{}, medians of {} alternating steps", gpu.adapter, arguments.samples);
    println!("Burn with kernel fusion and autotune: {}", cfg!(all(feature = "fusion", feature = "autotune")));
    // Burn's own optimizers want parameters on the tape.
    let device = gpu.device.clone().autodiff();
    let ours = |recipe: Recipe| {
        let gpu = gpu.clone();
        Entry {
            name: "wgpu-optim",
            build: Box::new(move || Box::new(GpuModuleOptimizer::new(&gpu, recipe)) as Box<dyn Contestant>),
        }
    };
    let measures = |subject| arguments.only.contains(&subject);
    if measures(Subject::Adamw) {
        bench_adamw(&arguments, &device, &ours);
    }
    if measures(Subject::Mgup) {
        bench_mgup(&arguments, &device, &ours);
    }
    if measures(Subject::Muon) {
        bench_muon(&arguments, &device, &ours);
    }
}

type Ours<'a> = &'a dyn Fn(Recipe) -> Entry;

fn bench_adamw(arguments: &Arguments, device: &Device, ours: Ours<'_>) {
    let adamw = AdamW::torch().eps(1e-5).weight_decay(1e-4);
    let burn_adamw = || Entry { name: "Burn", build: Box::new(|| Box::new(AdamWConfig::new().init())) };
    let gpt = Tensors::gpt(device);
    let names = ["wgpu-optim AdamW", "Burn AdamW"];
    let plain = Recipe::from(Base::Adamw(adamw));
    let outcome = compare(device, &gpt, [ours(plain), burn_adamw()], arguments.samples);
    report("a GPT of 12 layers of 288", &gpt, &outcome, names);

    let large = Tensors::flat(arguments.large, device);
    let outcome = compare(device, &large, [ours(plain), burn_adamw()], arguments.samples);
    report("one large tensor", &large, &outcome, names);
}

fn bench_mgup(arguments: &Arguments, device: &Device, ours: Ours<'_>) {
    let one = Tensors::flat(arguments.mgup, device);
    let sorted = Entry { name: "Burn, sort_descending", build: Box::new(|| Box::new(BurnMgup::default())) };
    let outcome = compare(device, &one, [ours(Recipe::adamw(1e-3).mgup()), sorted], arguments.samples.min(9));
    report("MGUP", &one, &outcome, ["wgpu-optim MGUP-AdamW", "Burn's operations, sorting"]);
}

fn bench_muon(arguments: &Arguments, device: &Device, ours: Ours<'_>) {
    for (count, shape) in [(1, [1024, 1024]), (24, [256, 1024]), (1, [512, 2048])] {
        let model = Tensors::new(&vec![shape.to_vec(); count], device);
        let burn = Entry { name: "Burn", build: Box::new(|| Box::new(MuonConfig::new().init())) };
        let outcome = compare(device, &model, [ours(Recipe::muon(1e-3)), burn], arguments.samples.min(7));
        let title = format!("{count} of {} x {}", shape[0], shape[1]);
        report(&title, &model, &outcome, ["wgpu-optim Muon", "Burn Muon"]);
        // Of five steps of Newton–Schulz, the products counted in full.
        let [m, n] = shape.map(|size| size as f64);
        let flops = count as f64 * 5.0 * (4.0 * m * m * n + 2.0 * m * m * m);
        let rate = |outcome: &Outcome| flops / median(outcome.steps.iter().map(Duration::as_secs_f64).collect()) / 1e9;
        println!("  {:.0} GFLOP/s, Burn {:.0}", rate(&outcome[0]), rate(&outcome[1]));
    }
}
