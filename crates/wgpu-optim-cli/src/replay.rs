//! `wgpu-optim replay`: recorded parameters and gradients through an optimizer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::builder::{OsStringValueParser, TypedValueParser};
use safetensors::tensor::{Dtype, TensorView};
use wgpu_optim::{Recipe, TensorSpec, reference};

use crate::adapters::{build, open_chosen};
use crate::files;
use crate::recipes;
use crate::recording::{self, Recording};

/// Run an optimizer on recorded parameters and gradients.
///
/// The input holds f32 tensors `param.<name>` and `grad.<k>.<name>` for k = 0, 1, 2, …; other tensors are ignored. The
/// output holds `param.<name>` after the last step. For matrix bases, rank-2 tensors are matrices of (out, in), and
/// others go to the fallback.
#[derive(clap::Args)]
pub struct Arguments {
    /// The recipe: a JSON file, a WGSL file, or the name of a preset, as in mgup-adamw.
    #[arg(
        long,
        value_name = "FILE|NAME",
        value_parser = OsStringValueParser::new().try_map(|text| recipes::named(&text).map(|(_, recipe)| recipe))
    )]
    recipe: Recipe,
    /// Recorded parameters and gradients, as safetensors.
    #[arg(long)]
    input: PathBuf,
    /// Where to write the parameters after the last step. An existing file is replaced, whole, at the end.
    #[arg(long)]
    output: PathBuf,
    /// Compute on the CPU in f64, rounded once at the end; opens no adapter.
    #[arg(long)]
    reference: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let recipe = arguments.recipe;
    let bytes = fs::read(&arguments.input).with_context(|| format!("reading {}", arguments.input.display()))?;
    let recordings = recording::parse(&bytes).with_context(|| arguments.input.display().to_string())?;
    let params = if arguments.reference { on_cpu(recipe, &recordings)? } else { on_gpu(recipe, &recordings)? };
    save(&arguments.output, &recordings, &params).with_context(|| format!("writing {}", arguments.output.display()))
}

fn on_cpu(recipe: Recipe, recordings: &BTreeMap<String, Recording>) -> Result<Vec<Vec<f32>>> {
    let step_all = |(name, recording): (&String, &Recording)| {
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let spec = TensorSpec::new(name, recording.shape.clone());
        let mut tensor = reference::Tensor::with_shape(recipe, &spec, wide(&recording.param))?;
        recording.grads.iter().for_each(|grad| drop(tensor.step(&wide(grad))));
        Ok(tensor.param.into_iter().map(|x| x as f32).collect())
    };
    recordings.iter().map(step_all).collect()
}

fn on_gpu(recipe: Recipe, recordings: &BTreeMap<String, Recording>) -> Result<Vec<Vec<f32>>> {
    let (name, device, queue) = open_chosen()?;
    eprintln!("adapter: {name}");
    let specs: Vec<_> = recordings.iter().map(|(name, r)| TensorSpec::new(name, r.shape.clone())).collect();
    let mut optimizer = build(&device, &queue, &specs, recipe)?;
    for (name, recording) in recordings {
        optimizer.write_param(name, &recording.param)?;
    }
    let steps = recordings.values().next().map_or(0, |r| r.grads.len());
    for k in 0..steps {
        for (name, recording) in recordings {
            optimizer.write_grad(name, &recording.grads[k])?;
        }
        optimizer.step()?;
    }
    recordings.keys().map(|name| Ok(optimizer.read_param_blocking(name)?)).collect()
}

fn save(output: &Path, recordings: &BTreeMap<String, Recording>, params: &[Vec<f32>]) -> Result<()> {
    let views = recordings
        .iter()
        .zip(params)
        .map(|((name, recording), param)| {
            let data = bytemuck::cast_slice(param);
            Ok((format!("param.{name}"), TensorView::new(Dtype::F32, recording.shape.clone(), data)?))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(files::write(output, &safetensors::serialize(views, None)?)?)
}
