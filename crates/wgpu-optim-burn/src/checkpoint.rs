//! A model and everything that its optimizer needs, in one file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use wgpu_optim::Checkpoint;

use crate::context::Context;
use crate::error::Error;
use crate::gpu::Gpu;
use crate::module::GpuModuleOptimizer;
use crate::tensor::{self, Range};

impl GpuModuleOptimizer {
    /// Writes the module's parameters and the optimizer's state, counts and scaler to one safetensors file
    /// ([`Checkpoint`]), which is whole at every moment: the old file or the new one. `extra` is anything of the caller's, such as the place
    /// in the data. Waits for the GPU.
    ///
    /// # Errors
    /// Before the first step, if a parameter cannot be read, or the file cannot be written.
    pub fn save_checkpoint<M: Module>(
        &self,
        path: impl AsRef<Path>,
        module: &M,
        extra: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let Some(core) = &self.core else {
            return Err(wgpu_optim::Error::Plan("no step was taken yet".to_owned()).into());
        };
        let mut survey =
            Survey { gpu: &self.gpu, dtype: self.dtype(), path: Vec::new(), found: Ok(Vec::new()) };
        module.visit(&mut survey);
        let found = survey.found?;
        let tensors: Vec<_> = found.iter().map(|found| &found.tensor).collect();
        let places =
            Range::all(&tensors).map_err(|(at, reason)| Error::parameter(&found[at].path, reason))?;
        let mut params = Vec::new();
        for (found, place) in found.iter().zip(&places) {
            let name = core.index.get(&found.id).map_or(&found.path, |&at| &core.params[at].name);
            params.push((name.as_str(), &found.shape[..], place.slice()));
        }
        Ok(core.optimizer.save_params(path, &params, extra)?)
    }

    /// Goes on from a checkpoint: the module with its parameters, and what was saved besides. It may be a new module, with other ids:
    /// parameters are known by their paths. The optimizer must have the same groups and settings.
    ///
    /// # Errors
    /// If the file is no checkpoint, truncated, or of another model or optimizer. The optimizer is as it was then.
    pub fn load_checkpoint<M: Module>(
        &mut self,
        path: impl AsRef<Path>,
        module: M,
    ) -> Result<(M, BTreeMap<String, String>), Error> {
        let mut file = Checkpoint::open(path)?;
        let mut survey =
            Survey { gpu: &self.gpu, dtype: self.dtype(), path: Vec::new(), found: Ok(Vec::new()) };
        module.visit(&mut survey);
        let found = survey.found?;
        let saved: HashMap<_, _> = file.params().into_iter().collect();
        for Found { path, shape, .. } in &found {
            match saved.get(path) {
                Some(known) if known == shape => {}
                Some(known) => {
                    let reason = format!("its shape is {shape:?}, and the checkpoint's {known:?}");
                    return Err(Error::parameter(path, reason));
                }
                None => return Err(Error::parameter(path, "the checkpoint does not have it")),
            }
        }
        let of_path: HashMap<_, _> = found.iter().map(|found| (&found.path, found)).collect();
        let mut params = Vec::new();
        for spec in file.specs() {
            let Some(own) = of_path.get(&spec.name) else {
                return Err(Error::parameter(&spec.name, "the checkpoint has it, and the model does not"));
            };
            let known = self.known(own.id, &own.path, &own.shape, spec.name.clone());
            if (known.group, known.layout) != (spec.group, spec.layout) {
                return Err(Error::parameter(
                    &own.path,
                    format!(
                        "it is in group {} as {:?}, and in the checkpoint in group {} as {:?}",
                        known.group, known.layout, spec.group, spec.layout
                    ),
                ));
            }
            params.push(known);
        }
        let (core, loaded) = (self.core.take(), std::mem::take(&mut self.loaded));
        let made = self.build(None, &[], params).and_then(|(mut core, _)| {
            core.optimizer.load_from(&mut file)?;
            Ok(core)
        });
        match made {
            Ok(core) => self.core = Some(core),
            Err(error) => {
                (self.core, self.loaded) = (core, loaded);
                return Err(error);
            }
        }
        let mut fill = Fill { gpu: &self.gpu, file: &mut file, path: Vec::new(), result: Ok(()) };
        let module = module.map(&mut fill);
        fill.result?;
        Ok((module, file.extra().clone()))
    }
}

/// A parameter, with its storage.
struct Found {
    id: ParamId,
    path: String,
    shape: Vec<usize>,
    tensor: burn::backend::wgpu::CubeTensor,
}

/// Finds all parameters of a module that have coordinates.
struct Survey<'a> {
    gpu: &'a Gpu,
    dtype: DType,
    path: Vec<String>,
    found: Result<Vec<Found>, Error>,
}

impl ModuleVisitor for Survey<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Ok(found) = &mut self.found else { return };
        let (path, shape) = (self.path.join("."), param.lazy_shape().to_vec());
        if shape.contains(&0) {
            return;
        }
        match tensor::resolve(param.val().inner(), &self.gpu.device, self.dtype) {
            Ok(tensor) => found.push(Found { id: param.id, path, shape, tensor: tensor::dense(tensor) }),
            Err(reason) => self.found = Err(Error::parameter(&path, reason)),
        }
    }
}

/// Gives every parameter the values of a file.
struct Fill<'a> {
    gpu: &'a Gpu,
    file: &'a mut Checkpoint,
    path: Vec<String>,
    result: Result<(), Error>,
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.result.is_err() || param.lazy_shape().num_elements() == 0 {
            return param;
        }
        match self.file.read_param(&self.path.join(".")) {
            Ok(values) => {
                let (id, tensor, mapper) = param.consume();
                let (shape, dtype) = (tensor.shape(), tensor.dtype());
                let context = Context::capture(&tensor);
                let data = TensorData::new(values, shape).convert_dtype(dtype);
                let tensor = Tensor::from_data(data, (&self.gpu.device, dtype));
                Param::from_mapped_value(id, context.restore(tensor, id), mapper)
            }
            Err(error) => {
                self.result = Err(error.into());
                param
            }
        }
    }
}
