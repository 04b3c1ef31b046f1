//! The optimizer of a run, and where its model is: on the same GPU, or on the host.
//!
//! On a GPU, Burn's model and the optimizer share the buffers. Software adapters are CPUs: there, Burn's kernels for GPUs multiply matrices much
//! more slowly than its backend for the host. So the model is on the host, and gradients and parameters are copied in each step.

use std::collections::HashMap;

use anyhow::{Context, Result};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use wgpu_optim::{GpuOptimizer, MatrixLayout, ParamGroups, Telemetry, TensorSpec, wgpu};
use wgpu_optim_burn::{Gpu, GpuModuleOptimizer, Select};

/// Where models learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On the adapter of the optimizer, in the same buffers.
    Adapter,
    /// On Burn's backend for the CPU.
    Host,
}

impl Place {
    /// The faster one: the host for adapters that are CPUs.
    pub fn of(gpu: &Gpu) -> Self {
        let is_software = gpu.wgpu_device.adapter_info().device_type == wgpu::DeviceType::Cpu;
        if is_software { Self::Host } else { Self::Adapter }
    }

    /// Burn's device, with autodiff.
    pub(crate) fn device(self, gpu: &Gpu) -> Device {
        match self {
            Self::Adapter => gpu.device.clone().autodiff(),
            Self::Host => Device::flex().autodiff(),
        }
    }
}

/// Steps the parameters of a model.
pub enum Learner {
    /// In Burn's own buffers.
    Device(Box<GpuModuleOptimizer>),
    /// In buffers of the optimizer, to which they are copied.
    Host(Box<Host>),
}

/// An optimizer of parameters on the host.
pub struct Host {
    optimizer: GpuOptimizer,
    device: wgpu::Device,
    /// The names of parameters by their ids.
    names: HashMap<ParamId, String>,
}

impl Learner {
    /// An optimizer of this model.
    pub fn new<M: Module>(
        (gpu, place): (&Gpu, Place),
        model: &M,
        groups: ParamGroups,
        settings: impl Fn(ParamGroups) -> ParamGroups + Send + Sync + 'static,
        layouts: Vec<(Select, MatrixLayout)>,
    ) -> Result<Self> {
        if place == Place::Host {
            return Ok(Self::Host(Box::new(Host::new(gpu, model, settings(groups), &layouts)?)));
        }
        let optim = GpuModuleOptimizer::new(gpu, groups.recipes()[0]).with_settings(settings);
        let optim = layouts.into_iter().fold(optim, |optim, (select, layout)| optim.with_layout(select, layout));
        Ok(Self::Device(Box::new(optim)))
    }

    /// Takes a step at this learning rate.
    pub fn step<M: Module + Send + Sync + 'static>(
        &mut self,
        rate: f64,
        model: M,
        grads: GradientsParams,
    ) -> Result<M> {
        match self {
            Self::Device(optim) => Ok(optim.try_step(rate, model, grads)?),
            Self::Host(host) => host.step(rate, model, &grads),
        }
    }

    /// The model whose loss counts: at the averages, under schedule-free recipes.
    pub fn evaluate<M: Module + Send + Sync + 'static>(&mut self, model: M) -> Result<M> {
        match self {
            Self::Device(optim) => Ok(optim.evaluate(model)?),
            Self::Host(host) => {
                host.optimizer.evaluate()?;
                host.read(model)
            }
        }
    }

    /// What observed steps have measured since the last call.
    pub fn telemetry(&mut self) -> Result<Vec<Telemetry>> {
        let optimizer = match self {
            Self::Device(optim) => optim.optimizer(),
            Self::Host(host) => Some(&host.optimizer),
        };
        let take = || optimizer.and_then(|optimizer| optimizer.take_telemetry());
        Ok(std::iter::from_fn(take).collect::<Result<_, _>>()?)
    }
}

impl Host {
    fn new<M: Module>(gpu: &Gpu, model: &M, groups: ParamGroups, layouts: &[(Select, MatrixLayout)]) -> Result<Self> {
        let mut found = Parameters::default();
        model.visit(&mut found);
        let layout = |id: ParamId, name: &str, rank: usize| {
            let own = layouts.iter().rev().find(|(select, _)| select.matches(id, name, rank));
            own.map_or(if rank == 2 { MatrixLayout::InOut } else { MatrixLayout::Fallback }, |(_, layout)| *layout)
        };
        let specs: Vec<_> = found
            .all
            .iter()
            .map(|(id, name, tensor)| {
                let shape = tensor.shape().to_vec();
                let layout = layout(*id, name, shape.len());
                TensorSpec::new(name, shape).with_layout(layout)
            })
            .collect();
        let optimizer = GpuOptimizer::new_blocking(&gpu.wgpu_device, &gpu.queue, &specs, groups)?;
        for (_, name, tensor) in &found.all {
            optimizer.write_param(name, &values(tensor.clone())?)?;
        }
        let names = found.all.into_iter().map(|(id, name, _)| (id, name)).collect();
        Ok(Self { optimizer, device: gpu.wgpu_device.clone(), names })
    }

    fn step<M: Module>(&mut self, rate: f64, model: M, grads: &GradientsParams) -> Result<M> {
        let mut written = Gradients { host: self, grads, result: Ok(()) };
        model.visit(&mut written);
        written.result?;
        self.optimizer.set_lr(rate)?;
        self.optimizer.step()?;
        self.read(model)
    }

    /// The model with the optimizer's parameters.
    fn read<M: Module>(&self, model: M) -> Result<M> {
        let reads: Vec<_> =
            self.names.iter().map(|(id, name)| Ok((*id, self.optimizer.read_param(name)?))).collect::<Result<_>>()?;
        self.device.poll(wgpu::PollType::wait_indefinitely()).context("the device is gone")?;
        let read = reads.into_iter().map(|(id, read)| Ok((id, pollster::block_on(read)?))).collect::<Result<_>>()?;
        Ok(model.map(&mut Replace(read)))
    }
}

fn values(data: TensorData) -> Result<Vec<f32>> {
    data.try_into_vec().map_err(|error| anyhow::anyhow!("cannot read a tensor: {error:?}"))
}

/// The id, name and values of each parameter.
#[derive(Default)]
struct Parameters {
    path: Vec<String>,
    all: Vec<(ParamId, String, TensorData)>,
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.all.push((param.id, self.path.join("."), param.val().into_data()));
    }
}

/// Writes the gradients of all parameters.
struct Gradients<'a> {
    host: &'a Host,
    grads: &'a GradientsParams,
    result: Result<()>,
}

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Host { optimizer, names, .. } = self.host;
        let write = || -> Result<()> {
            let name = &names[&param.id];
            let grad = self.grads.get::<D>(param.id).with_context(|| format!("{name} has no gradient"))?;
            Ok(optimizer.write_grad(name, &values(grad.into_data())?)?)
        };
        if self.result.is_ok() {
            self.result = write();
        }
    }
}

/// Replaces the values of all parameters.
struct Replace(HashMap<ParamId, Vec<f32>>);

impl ModuleMapper for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let values = TensorData::new(self.0.remove(&id).unwrap_or_default(), tensor.shape());
        let device = tensor.inner().device();
        let tensor = Tensor::from_inner(Tensor::from_data(values, &device)).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}
