//! Recorded parameters and gradients, as `wgpu-optim replay` reads them from safetensors.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A tensor's recording.
pub struct Recording {
    pub shape: Vec<usize>,
    pub param: Vec<f32>,
    /// One a step.
    pub grads: Vec<Vec<f32>>,
}

/// Shape and values of each step's gradient.
type Steps = BTreeMap<usize, (Vec<usize>, Vec<f32>)>;

/// Recordings by name: each with its shape, and all with gradients of as many steps.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Recording>> {
    let file = SafeTensors::deserialize(bytes).context("this is no safetensors file")?;
    let mut recordings = BTreeMap::new();
    let mut grads: BTreeMap<String, Steps> = BTreeMap::new();
    for (key, view) in file.iter() {
        if let Some(name) = key.strip_prefix("param.") {
            ensure!(!name.is_empty(), "tensor `{key}` has no name");
            let param = values(key, &view)?;
            let recording = Recording { shape: view.shape().to_vec(), param, grads: Vec::new() };
            recordings.insert(name.to_owned(), recording);
        } else if let Some((k, name)) = key.strip_prefix("grad.").and_then(|rest| rest.split_once('.')) {
            let k = k.parse().with_context(|| format!("tensor `{key}`: `{k}` is no step number"))?;
            let of_name = grads.entry(name.to_owned()).or_default();
            let previous = of_name.insert(k, (view.shape().to_vec(), values(key, &view)?));
            ensure!(previous.is_none(), "tensor `{key}`: step {k} is there twice");
        }
    }
    ensure!(!recordings.is_empty(), "there is no tensor `param.<name>`");
    for (name, steps) in grads {
        let Some(recording) = recordings.get_mut(&name) else {
            bail!("gradients of `{name}` have no parameter `param.{name}`");
        };
        for (expected, (k, (shape, grad))) in steps.into_iter().enumerate() {
            ensure!(k == expected, "gradients of `{name}`: step {expected} is missing before step {k}");
            ensure!(
                shape == recording.shape,
                "tensor `grad.{k}.{name}` has shape {shape:?}, its parameter {:?}",
                recording.shape
            );
            recording.grads.push(grad);
        }
    }
    let mut steps: Option<(&str, usize)> = None;
    for (name, recording) in &recordings {
        ensure!(!recording.grads.is_empty(), "parameter `{name}` has no gradients `grad.0.{name}`, …");
        let (first, count) = *steps.get_or_insert((name, recording.grads.len()));
        ensure!(
            recording.grads.len() == count,
            "`{name}` has gradients of {} steps, but `{first}` of {count}",
            recording.grads.len()
        );
    }
    Ok(recordings)
}

fn values(key: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
    ensure!(view.dtype() == Dtype::F32, "tensor `{key}` has dtype {:?}, but must be F32", view.dtype());
    ensure!(!view.data().is_empty(), "tensor `{key}` of shape {:?} holds nothing", view.shape());
    Ok(bytemuck::pod_collect_to_vec(view.data()))
}
