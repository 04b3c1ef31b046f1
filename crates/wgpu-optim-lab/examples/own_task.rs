//! A task of one's own in a study: a small network tells two spirals apart.
//!
//! ```sh
//! cargo run --profile try -p wgpu-optim-lab --example own_task
//! ```

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::{log_softmax, tanh};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use wgpu_optim_lab::config::Config;
use wgpu_optim_lab::results::Results;
use wgpu_optim_lab::{Held, Rng, Sources, Study, Task, normal, report, zeros};

#[derive(Module, Debug)]
struct Network {
    hidden: Vec<Linear>,
    head: Linear,
}

struct Spirals;

/// Points, and which spiral they lie on.
type Points = (Tensor<2>, Tensor<2, Int>);

fn points(rng: &mut Rng, count: usize, device: &Device) -> Points {
    let (mut places, mut sides) = (Vec::new(), Vec::new());
    for at in 0..count {
        let (side, turn) = ((at % 2) as i32, rng.random_range(0.3..1.0f32));
        let angle = 9.0 * turn + side as f32 * std::f32::consts::PI;
        places.extend([angle.cos() * turn, angle.sin() * turn].map(|x| x + rng.random_range(-0.05..0.05)));
        sides.push(side);
    }
    let places = Tensor::from_data(TensorData::new(places, [count, 2]), device);
    (places, Tensor::from_data(TensorData::new(sides, [count, 1]), device))
}

impl Task for Spirals {
    type Model = Network;
    type Batch = Points;

    fn data(&self) -> String {
        "two spirals".into()
    }

    fn model(&self, rng: &mut Rng, device: &Device) -> Network {
        let mut layer = |inputs: usize, outputs: usize| Linear {
            weight: normal(rng, [inputs, outputs], (inputs as f64).powf(-0.5), device),
            bias: Some(zeros([outputs], device)),
        };
        Network { hidden: vec![layer(2, 32), layer(32, 32)], head: layer(32, 2) }
    }

    fn batch(&self, rng: &mut Rng, device: &Device) -> Points {
        points(rng, 64, device)
    }

    fn loss(&self, model: &Network, (places, sides): &Points) -> Tensor<1> {
        let x = model.hidden.iter().fold(places.clone(), |x, layer| tanh(layer.forward(x)));
        log_softmax(model.head.forward(x), 1).gather(1, sides.clone()).mean().neg()
    }

    fn held_out(&self, held: Held, device: &Device) -> Vec<Points> {
        let seed = if held == Held::Tuning { 1 } else { 2 };
        vec![points(&mut Rng::seed_from_u64(seed), 512, device)]
    }
}

const STUDY: &str = r#"
name = "spirals"
tuning = { rates = 3 }
tasks = [{ kind = "own", name = "spirals", steps = 300 }]
optimizers = [{ recipe = "adamw", rate = 1e-2 }, { recipe = "mgup-adamw", rate = 1e-2 }]
"#;

fn main() -> anyhow::Result<()> {
    let (config, out, stop) = (Config::parse(STUDY)?, PathBuf::from("lab/spirals"), AtomicBool::new(false));
    let study =
        Study { config, sources: Sources::default(), place: None, out, budget: None, resume: true, stop: &stop };
    study.run(vec![("spirals", Box::new(Spirals))])?;
    print!("{}", report::text(&Results::read(&study.out)?));
    Ok(())
}
