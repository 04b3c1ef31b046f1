//! A run that can be interrupted: saves every few steps, and goes on from the file where there is one.
//!
//! Fits a linear map, with gradients computed here on the CPU. Run it twice with
//! `cargo run --release --example checkpoint`: the second run takes the next 100 steps. `scripts/pytorch_checkpoint.py` opens
//! the file in PyTorch, and writes one that this program goes on from.

use std::path::PathBuf;

use clap::Parser;
use wgpu_optim::base::AdamW;
use wgpu_optim::{Checkpoint, GpuOptimizer, LrSchedule, ParamGroups, TensorSpec, adapter, wgpu};

const OUT: usize = 3;
const IN: usize = 5;

/// Fits a linear map, and goes on where the last run ended.
#[derive(Parser)]
struct Args {
    /// The checkpoint
    #[arg(long, default_value = "linear.safetensors")]
    file: PathBuf,
    /// Steps of this run
    #[arg(long, default_value_t = 100)]
    steps: u64,
    /// Steps between two saves
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

/// Gradients of the mean squared error of W x + b against a map that is to be found, over 64 points.
fn gradients(weight: &[f32], bias: &[f32]) -> (Vec<f32>, Vec<f32>, f32) {
    let (mut to_weight, mut to_bias, mut loss) = (vec![0.0; OUT * IN], vec![0.0; OUT], 0.0);
    for point in 0..64 {
        let x: Vec<f32> = (0..IN).map(|i| ((point * IN + i) as f32 * 0.7).sin()).collect();
        for o in 0..OUT {
            let row = &weight[o * IN..][..IN];
            let found: f32 = bias[o] + row.iter().zip(&x).map(|(w, x)| w * x).sum::<f32>();
            let wanted: f32 = (0..IN).map(|i| ((o * IN + i) as f32).cos() * x[i]).sum::<f32>() - 0.5;
            let error = (found - wanted) / 64.0;
            loss += 64.0 * error * error;
            to_bias[o] += 2.0 * error;
            (0..IN).for_each(|i| to_weight[o * IN + i] += 2.0 * error * x[i]);
        }
    }
    (to_weight, to_bias, loss)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let (_instance, found) = pollster::block_on(adapter::from_env())?;
    let (device, queue) = pollster::block_on(found.request_device(&wgpu::DeviceDescriptor::default()))?;

    let mut optimizer = if args.file.exists() {
        GpuOptimizer::resume(&device, &queue, &args.file)?
    } else {
        let groups =
            ParamGroups::from(AdamW::torch().lr(0.03)).with_schedule(LrSchedule::stable(300, 100, 0.1).with_warmup(5));
        let specs = [TensorSpec::new("weight", [OUT, IN]), TensorSpec::new("bias", [OUT])];
        GpuOptimizer::new_blocking(&device, &queue, &specs, groups)?
    };
    let first = optimizer.recorded_steps();
    println!("{} from step {first}", args.file.display());
    let mut loss = f32::NAN;
    for step in first + 1..=first + args.steps {
        let (weight, bias) = (optimizer.read_param_blocking("weight")?, optimizer.read_param_blocking("bias")?);
        let (to_weight, to_bias, found) = gradients(&weight, &bias);
        loss = found;
        optimizer.write_grad("weight", &to_weight)?;
        optimizer.write_grad("bias", &to_bias)?;
        optimizer.step()?;
        if step.is_multiple_of(args.every) || step == first + args.steps {
            optimizer.save(&args.file)?;
        }
    }
    let steps = Checkpoint::open(&args.file)?.specs().len();
    println!("step {}: loss {loss:.6}, {steps} tensors saved", optimizer.recorded_steps());
    Ok(())
}
