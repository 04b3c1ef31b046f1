//! A model and everything that its optimizer needs, in one file.

use std::any::Any;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use burn::backend::wgpu::CubeTensor;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use wgpu_optim::{Checkpoint, Part, Precision, TensorSlice, wgpu};

use crate::context::Context;
use crate::error::Error;
use crate::gpu::Gpu;
use crate::module::{Core, GpuModuleOptimizer};
use crate::state::{Known, Names, Places};
use crate::survey::{Survey, Visit};
use crate::tensor::{self, Range};

/// The key of `extra` that holds the [`Notes`].
const NOTES: &str = "wgpu-optim-burn";

/// Facts about parameters that their names in a file do not hold. A file without notes has the values of each parameter under its
/// path.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Notes {
    /// The name of each parameter whose name is not its path, by path. Tied parameters have one name.
    names: BTreeMap<String, String>,
    /// Dtype and shape of each parameter whose bytes are in the file instead of its values, by name.
    bytes: BTreeMap<String, String>,
}

/// The name under which a file has a parameter's bytes, one number for each.
fn bytes_of(name: &str) -> String {
    format!("{name}#bytes")
}

impl GpuModuleOptimizer {
    /// Writes the module's parameters and the optimizer's state, counts and scaler to one safetensors file ([`Checkpoint`]).
    /// The file is whole at every moment: the old one or the new one. `extra` holds anything else, such as the place in the
    /// data. Waits for the GPU.
    ///
    /// - Tied parameters are written once, under the path of the first.
    /// - Parameters that the optimizer does not step are written too: frozen ones, running statistics, those of another dtype or
    ///   device. The file has their values in f32 where that is exact. Otherwise it has their bytes, one number per byte, under
    ///   the path with `#bytes` appended: f64 and quantized parameters, and those that do not fit into the [`Precision`] of the
    ///   optimizer, such as f32 in a model of f16. Those of another dtype or device are in host memory as well until the file is written.
    /// - Integer and boolean parameters are not written.
    /// - State from a record that waits for its parameter's first step is written. State of parameters that `module` does not have
    ///   is not.
    ///
    /// # Errors
    /// If no step was taken yet; if a parameter cannot be read, or has another shape than when it was stepped; if the file
    /// cannot be written; if `extra` has the reserved key `wgpu-optim-burn`.
    pub fn save_checkpoint<M: Module>(
        &self,
        path: impl AsRef<Path>,
        module: &M,
        mut extra: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let path = path.as_ref();
        self.gpu.check()?;
        if extra.contains_key(NOTES) {
            return Err(refusal(path, format!("the key `{NOTES}` of `extra` is reserved; use another")));
        }
        settle(module);
        let found = self.survey(module, true)?;
        let other;
        let core = match self.params_of(&found)? {
            // Those that it has already.
            None => self.core.as_ref().expect("it has parameters"),
            Some(params) => {
                other = self.build(self.core.as_ref(), &self.loaded, params)?.0;
                &other
            }
        };
        let mut notes = Notes::default();
        let names = names_of(&found, &core.params);
        for (found, name) in found.iter().zip(&names).filter(|(found, name)| found.path != **name) {
            notes.names.insert(found.path.clone(), name.clone());
        }

        let own: Vec<_> = (0..found.len()).filter(|&i| found[i].tied.is_none()).collect();
        let dense: Vec<_> = own.iter().map(|&i| found[i].stepped_storage().map(tensor::dense)).collect();
        let tensors: Vec<_> = dense.iter().flatten().collect();
        let mut places = Range::all(&tensors)
            .map_err(|(at, reason)| {
                let of = own.iter().zip(&dense).filter(|(_, dense)| dense.is_some()).nth(at);
                Error::parameter(of.map_or("", |(&i, _)| &found[i].path), reason)
            })?
            .into_iter();
        let places: Vec<_> = dense.iter().map(|dense| dense.as_ref().and_then(|_| places.next())).collect();
        let mut params = Vec::new();
        for (&i, place) in own.iter().zip(&places) {
            let (found, name) = (&found[i], &names[i]);
            params.push(match (place, &found.copy) {
                (Some(place), _) => (name.clone(), found.shape.clone(), place.slice()),
                (None, Some(Copied { buffer, of_bytes: None })) => {
                    (name.clone(), found.shape.clone(), TensorSlice::whole(buffer))
                }
                (None, Some(Copied { buffer, of_bytes: Some(count) })) => {
                    notes.bytes.insert(name.clone(), found.form());
                    (bytes_of(name), vec![*count], TensorSlice::whole(buffer))
                }
                (None, None) => unreachable!("what cannot be stepped is copied"),
            });
        }
        let params: Vec<_> = params.iter().map(|(name, shape, slice)| (&name[..], &shape[..], *slice)).collect();
        if notes != Notes::default() {
            let notes = serde_json::to_string(&notes).expect("nothing that JSON cannot hold");
            extra.insert(NOTES.to_owned(), notes);
        }
        Ok(core.optimizer.save_params(path, &params, extra)?)
    }

    /// Resumes from a checkpoint: fills the module's parameters, and returns the `extra` that was saved with them.
    ///
    /// The module may be a new one with other ids, because the file identifies parameters by their paths. Each keeps its id,
    /// dtype and device, and still requires gradients or not. The optimizer must have the same groups and settings. Parameters
    /// are in memory twice until all are read.
    ///
    /// Parameters that the file ties must be tied in the module: of one id, dtype and device. They share their storage and their
    /// gradient afterwards. Parameters that the module ties must be tied in the file.
    ///
    /// ```no_run
    /// # use burn::module::Module;
    /// # use wgpu_optim_burn::{GpuModuleOptimizer, Error};
    /// # fn resume<M: Module>(optim: &mut GpuModuleOptimizer, model: &mut M) -> Result<(), Error> {
    /// let extra = optim.load_checkpoint("run.safetensors", model)?;
    /// println!("epoch {:?}", extra.get("epoch"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the file is not a checkpoint, cannot be read to its end, or belongs to another model or optimizer. Then the module and
    /// the optimizer do not change.
    pub fn load_checkpoint<M: Module>(
        &mut self,
        path: impl AsRef<Path>,
        module: &mut M,
    ) -> Result<BTreeMap<String, String>, Error> {
        let (mut file, notes, extra) = self.open(path.as_ref())?;
        let found = self.survey(module, false)?;
        let sources = sources_of(&found, &notes)?;
        let saved = file.params().into_iter().collect();
        for (found, source) in found.iter().zip(&sources) {
            let misfit = misfit(found, source, &saved, &notes);
            misfit.map_or(Ok(()), |reason| Err(Error::parameter(&found.path, reason)))?;
        }
        let params = self.params_in(&found, &sources, &file)?;

        // The file is read to its end before anything changes.
        let (mut core, _) = self.build(None, &[], params)?;
        core.optimizer.load_from(&mut file)?;
        let fill = Fill::read(module, &mut file, &notes, &found, &sources, &HashSet::new())?;
        fill.into(module);
        self.core = Some(core);
        self.loaded.clear();
        Ok(extra)
    }

    /// Loads the parameters that a checkpoint has under the same path and with the same shape. Others, such as a new head, do not
    /// change. [`Part::All`] also loads their state and counts if this optimizer has the same state. Returns the paths, in the order
    /// of the module, of the parameters that were not loaded, or whose state was not.
    ///
    /// Learning rates, groups and settings do not change. Tied parameters of the module take the values of the first. With
    /// parameters in f16 or bf16, the optimizer may read all its f32 masters from the parameters again.
    ///
    /// ```no_run
    /// # use burn::module::Module;
    /// # use wgpu_optim_burn::{GpuModuleOptimizer, Error};
    /// use wgpu_optim::Part;
    /// # fn fine_tune<M: Module>(optim: &mut GpuModuleOptimizer, model: &mut M) -> Result<(), Error> {
    /// let left = optim.load_matching("pretrained.safetensors", model, Part::Params)?;
    /// println!("left as they are: {}", left.join(", "));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the file is not a checkpoint, cannot be read to its end, or has none of the parameters. Then the module and the optimizer
    /// do not change.
    pub fn load_matching<M: Module>(
        &mut self,
        path: impl AsRef<Path>,
        module: &mut M,
        part: Part,
    ) -> Result<Vec<String>, Error> {
        let path = path.as_ref();
        let (mut file, notes, _) = self.open(path)?;
        let found = self.survey(module, false)?;
        let name = |own: &Found| notes.names.get(&own.path).unwrap_or(&own.path).clone();
        let sources: Vec<_> = found.iter().map(|own| Source { name: name(own), tied: own.tied }).collect();
        let saved = file.params().into_iter().collect();
        let mut left = HashSet::new();
        for (i, (own, source)) in found.iter().zip(&sources).enumerate() {
            let leave =
                own.tied.map_or_else(|| misfit(own, source, &saved, &notes).is_some(), |first| left.contains(&first));
            if leave {
                left.insert(i);
            }
        }
        if left.len() == found.len() {
            return Err(refusal(path, "it has no parameter of this model in the same shape".to_owned()));
        }

        // The file is read to its end before anything changes.
        let fill = Fill::read(module, &mut file, &notes, &found, &sources, &left)?;
        let mut params = self.core.as_ref().map_or_else(Vec::new, |core| core.params.clone());
        let has_state: HashSet<&str> = file.specs().iter().map(|spec| &spec.name[..]).collect();
        let firsts = firsts_of(&found);
        let (mut names, known) = (Names::of(&params), params.iter().map(|known| known.id).collect::<HashSet<_>>());
        for (i, (own, source)) in found.iter().zip(&sources).enumerate() {
            let is_new = firsts[&own.id] == i && own.steps && !known.contains(&own.id);
            if is_new && !left.contains(&i) && has_state.contains(&source.name[..]) {
                let name = names.add(own.id, &own.path);
                params.push(self.known(own.id, &own.path, &own.shape, name));
            }
        }
        let mut loses_masters = part == Part::Params;
        if part == Part::All && !params.is_empty() {
            let mut built = self.build(self.core.as_ref(), &self.loaded, params)?;
            let Core { optimizer, params, .. } = &mut built.0;
            let without: HashSet<_> = optimizer.mismatches(&file, part)?.into_iter().collect();
            if without.len() < params.len() {
                optimizer.load_matching(&mut file, part)?;
            }
            for known in params.iter().filter(|known| without.contains(&known.name)) {
                loses_masters |= firsts.get(&known.id).is_some_and(|&first| left.insert(first));
            }
            self.take(built);
        }
        if let Some(core) = self.core.as_ref().filter(|_| loses_masters) {
            core.optimizer.forget_masters();
        }
        fill.into(module);
        Ok((0..found.len()).filter(|i| left.contains(i)).map(|i| found[i].path.clone()).collect())
    }

    /// A file, what it says about its parameters, and what else was saved.
    fn open(&self, path: &Path) -> Result<(Checkpoint, Notes, BTreeMap<String, String>), Error> {
        self.gpu.check()?;
        let file = Checkpoint::open(path)?;
        let mut extra = file.extra().clone();
        let notes = match extra.remove(NOTES) {
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| refusal(path, format!("its key `{NOTES}`: {e}; was it written by a newer version?")))?,
            None => Notes::default(),
        };
        Ok((file, notes, extra))
    }

    fn survey<M: Module>(&self, module: &M, copies: bool) -> Result<Vec<Found>, Error> {
        Ok(Survey::of(module, Parameters::new(self, copies))?.found)
    }

    /// The parameters with state that a checkpoint of a module has, or none if they are those of the optimizer below.
    fn params_of(&self, found: &[Found]) -> Result<Option<Vec<Known>>, Error> {
        let firsts = firsts_of(found);
        let known = self.core.as_ref().map_or(&[][..], |core| &core.params);
        let mut params = Vec::new();
        for known in known {
            match firsts.get(&known.id).map(|&i| &found[i]) {
                Some(found) if found.shape != known.shape => {
                    return Err(known.reshaped(&found.path, &found.shape));
                }
                Some(_) => params.push(known.clone()),
                None => {}
            }
        }
        let mut same = params.len() == known.len();
        let (waiting, mut names) = (Places::of(&self.loaded), Names::of(&params));
        let index = self.core.as_ref().map(|core| &core.index);
        for (i, found) in found.iter().enumerate() {
            let fresh = firsts[&found.id] == i && !index.is_some_and(|index| index.contains_key(&found.id));
            if fresh && found.steps && waiting.find(found.id, &found.path).is_some() {
                let name = names.add(found.id, &found.path);
                params.push(self.known(found.id, &found.path, &found.shape, name));
                same = false;
            }
        }
        if params.is_empty() {
            let reason = match known.is_empty() {
                true => "no step was taken yet: call `step` first",
                false => "no step was taken yet with a parameter of this module",
            };
            return Err(Error::NoStep(reason));
        }
        Ok((!same).then_some(params))
    }

    /// The parameters whose state a file has.
    fn params_in(&self, found: &[Found], sources: &[Source], file: &Checkpoint) -> Result<Vec<Known>, Error> {
        let mut places = HashMap::new();
        for (i, source) in sources.iter().enumerate() {
            places.entry(&source.name[..]).or_insert(i);
        }
        let (mut params, mut ids) = (Vec::new(), HashMap::new());
        for spec in file.specs() {
            let Some(own) = places.get(&spec.name[..]).map(|&i| &found[i]) else {
                return Err(Error::parameter(&spec.name, "the checkpoint has it, and the model does not"));
            };
            if let Some(other) = ids.insert(own.id, &own.path) {
                let reason = format!("it has the id of `{other}`, and the checkpoint has state of both; untie them");
                return Err(Error::parameter(&own.path, reason));
            }
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
        Ok(params)
    }
}

/// Applies the last update of running statistics, which otherwise waits for the next one. A file would lack it, and it would
/// replace values that were loaded.
fn settle<M: Module>(module: &M) {
    drop(module.valid());
}

fn refusal(path: &Path, reason: String) -> Error {
    wgpu_optim::Error::Checkpoint { path: path.to_owned(), reason }.into()
}

/// The first parameter of each id, which is the one that steps.
fn firsts_of(found: &[Found]) -> HashMap<ParamId, usize> {
    let mut firsts = HashMap::with_capacity(found.len());
    for (i, found) in found.iter().enumerate() {
        firsts.entry(found.id).or_insert(i);
    }
    firsts
}

/// The name of each parameter in a file: that of the optimizer below where it has state, that of the first of tied ones,
/// otherwise the path.
fn names_of(found: &[Found], known: &[Known]) -> Vec<String> {
    let firsts = firsts_of(found);
    let known_names: HashMap<_, _> = known.iter().map(|known| (known.id, &known.name)).collect();
    let mut taken = Names::of(known);
    let mut names: Vec<String> = Vec::with_capacity(found.len());
    for (i, found) in found.iter().enumerate() {
        let known = known_names.get(&found.id).filter(|_| firsts[&found.id] == i);
        names.push(match (found.tied, known) {
            (Some(first), _) => names[first].clone(),
            (None, Some(name)) => (*name).clone(),
            (None, None) => taken.add(found.id, &found.path),
        });
    }
    names
}

/// Where a parameter finds its values.
struct Source {
    /// In the file.
    name: String,
    /// The parameter before it whose tensor it shares.
    tied: Option<usize>,
}

/// Where each parameter finds its values.
///
/// # Errors
/// If what the file ties is not what the module ties.
fn sources_of(found: &[Found], notes: &Notes) -> Result<Vec<Source>, Error> {
    let mut firsts: HashMap<&str, usize> = HashMap::new();
    let mut sources = Vec::with_capacity(found.len());
    for (i, own) in found.iter().enumerate() {
        let name = notes.names.get(&own.path).unwrap_or(&own.path);
        let tied = match firsts.entry(name) {
            Entry::Occupied(first) => {
                let first = *first.get();
                if !own.can_share(&found[first]) {
                    let reason = format!(
                        "the checkpoint ties it to `{}`, and the model does not: give both one id, device, dtype and \
                         `require_grad`, or save a model that does not tie them",
                        found[first].path
                    );
                    return Err(Error::parameter(&own.path, reason));
                }
                Some(first)
            }
            Entry::Vacant(place) => {
                if let Some(first) = own.tied {
                    let reason = format!(
                        "the model ties it to `{}`, and the checkpoint does not: untie them, or save a model that ties \
                         them",
                        found[first].path
                    );
                    return Err(Error::parameter(&own.path, reason));
                }
                place.insert(i);
                None
            }
        };
        sources.push(Source { name: name.clone(), tied });
    }
    Ok(sources)
}

/// Why a parameter cannot have the values of a file, if it cannot: the file lacks it, or has it in another form.
fn misfit(found: &Found, source: &Source, saved: &HashMap<String, Vec<usize>>, notes: &Notes) -> Option<String> {
    if let Some(form) = notes.bytes.get(&source.name) {
        let own = found.form();
        return (*form != own).then(|| format!("it is {own}, and the checkpoint has the bytes of {form}"));
    }
    match saved.get(&source.name) {
        None => Some("the checkpoint does not have it".to_owned()),
        Some(shape) if *shape != found.shape => {
            Some(format!("its shape is {:?}, and the checkpoint's {shape:?}", found.shape))
        }
        Some(_) if !found.dtype.is_float() => {
            Some(format!("it is {:?}, and the checkpoint has its values: quantize it after loading", found.dtype))
        }
        Some(_) => None,
    }
}

/// A parameter of a module.
struct Found {
    id: ParamId,
    path: String,
    shape: Vec<usize>,
    dtype: DType,
    device: Device,
    require_grad: bool,
    /// Whether the optimizer can step it.
    steps: bool,
    /// On the optimizer's device.
    storage: Option<CubeTensor>,
    /// The parameter before it of the same id and storage, which the step moves with it.
    tied: Option<usize>,
    /// A copy in host memory, if the optimizer cannot step it.
    copy: Option<Copied>,
}

impl Found {
    /// The storage, if the optimizer can step it.
    fn stepped_storage(&self) -> Option<CubeTensor> {
        self.storage.clone().filter(|_| self.steps)
    }

    /// Whether one tensor can serve both.
    fn can_share(&self, other: &Self) -> bool {
        (self.id, self.dtype, &self.device, self.require_grad, &self.shape)
            == (other.id, other.dtype, &other.device, other.require_grad, &other.shape)
    }

    /// Dtype and shape as text, which [`Notes`] compare.
    fn form(&self) -> String {
        format!("{:?} of shape {:?}", self.dtype, self.shape)
    }
}

/// A parameter in a buffer of host memory, in the optimizer's precision.
struct Copied {
    buffer: wgpu::Buffer,
    /// The number of bytes, if the buffer holds the bytes instead of the values.
    of_bytes: Option<usize>,
}

impl Copied {
    fn new(gpu: &Gpu, data: TensorData, precision: Precision) -> Result<Self, String> {
        let exact = match (precision, data.dtype()) {
            (Precision::F32, dtype) => matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
            (Precision::F16, dtype) => dtype == DType::F16,
            (Precision::Bf16, dtype) => dtype == DType::BF16,
        };
        let numbers: Vec<f32> = match exact {
            true => {
                let values = data.try_cast(DType::F32).and_then(|data| data.try_to_vec());
                values.map_err(|e| e.to_string())?
            }
            false => data.bytes().iter().map(|&byte| f32::from(byte)).collect(),
        };
        let bytes = precision.encode(&numbers);
        let buffer = gpu.guarded(|| {
            Ok(gpu.wgpu_device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("wgpu-optim-burn.checkpoint"),
                size: bytes.len() as u64,
                // Host memory, from which a copy can read.
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            }))
        });
        let buffer = buffer.map_err(|e| e.to_string())?;
        buffer.get_mapped_range_mut(..).map_err(|e| e.to_string())?.copy_from_slice(&bytes);
        buffer.unmap();
        Ok(Self { buffer, of_bytes: (!exact).then_some(numbers.len()) })
    }
}

/// Finds all parameters of a module that have coordinates.
struct Parameters<'a> {
    gpu: &'a Gpu,
    /// What the optimizer steps.
    dtype: DType,
    /// The precision of copies, if parameters that cannot be stepped are copied.
    copies: Option<Precision>,
    paths: HashSet<String>,
    firsts: HashMap<ParamId, usize>,
    found: Vec<Found>,
}

impl<'a> Parameters<'a> {
    fn new(optimizer: &'a GpuModuleOptimizer, copies: bool) -> Self {
        Self {
            gpu: &optimizer.gpu,
            dtype: optimizer.dtype(),
            copies: copies.then(|| optimizer.precision()),
            paths: HashSet::new(),
            firsts: HashMap::new(),
            found: Vec::new(),
        }
    }
}

impl Visit for Parameters<'_> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &[String]) -> Result<(), Error> {
        let (path, shape) = (path.join("."), param.lazy_shape().to_vec());
        if !self.paths.insert(path.clone()) {
            return Err(Error::parameter(&path, "two parameters have this path; a checkpoint knows them by it"));
        }
        let tensor = param.base();
        let (dtype, device, require_grad) = (tensor.dtype(), tensor.device().inner(), tensor.is_require_grad());
        let steps = tensor::check(&tensor, &self.gpu.device, self.dtype).is_ok();
        let is_here = device == self.gpu.device && dtype.is_float();
        let storage = is_here.then(|| tensor::storage(tensor.clone().inner()));
        let first = *self.firsts.entry(param.id).or_insert(self.found.len());
        let tied = self.found.get(first).and_then(|other| {
            let (one, two) = (other.storage.as_ref()?, storage.as_ref()?);
            (other.require_grad == require_grad && tensor::same_storage(one, two)).then_some(first)
        });
        let copy = match self.copies {
            Some(precision) if !steps && tied.is_none() => {
                let data = tensor.inner().try_into_data().map_err(|e| e.to_string());
                let copy = data.and_then(|data| Copied::new(self.gpu, data, precision));
                Some(copy.map_err(|e| Error::parameter(&path, format!("it cannot be read: {e}")))?)
            }
            _ => None,
        };
        let id = param.id;
        self.found.push(Found { id, path, shape, dtype, device, require_grad, steps, storage, tied, copy });
        Ok(())
    }
}

/// Reads the values of every parameter from a file.
struct Read<'a> {
    file: &'a mut Checkpoint,
    notes: &'a Notes,
    /// By path.
    index: HashMap<&'a str, usize>,
    sources: &'a [Source],
    /// A `Tensor<D>` for each parameter.
    tensors: Vec<Option<Box<dyn Any>>>,
}

impl Visit for Read<'_> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &[String]) -> Result<(), Error> {
        let path = path.join(".");
        let Some(&at) = self.index.get(&path[..]) else { return Ok(()) };
        let Source { name, tied } = &self.sources[at];
        let first = tied.and_then(|first| self.tensors[first].as_ref()?.downcast_ref::<Tensor<D>>());
        let old = param.base();
        let context = Context::capture(&old);
        let tensor = match first {
            Some(first) if Context::capture(first) == context => first.clone(),
            Some(first) => context.restore(first.clone().inner(), param.id),
            None => {
                let (shape, dtype, device) = (old.shape(), old.dtype(), old.device().inner());
                let data = if self.notes.bytes.contains_key(name) {
                    let numbers = self.file.read_param(&bytes_of(name))?;
                    TensorData::try_from_bytes_vec(numbers.iter().map(|&x| x as u8).collect(), shape, dtype)
                } else {
                    let values = Bytes::from_elems(self.file.read_param(name)?);
                    TensorData::try_from_bytes(values, shape, DType::F32).and_then(|data| data.try_cast(dtype))
                };
                let data = data.map_err(|e| Error::parameter(&path, e.to_string()))?;
                context.restore(Tensor::from_data(data, (&device, dtype)), param.id)
            }
        };
        self.tensors[at] = Some(Box::new(tensor));
        Ok(())
    }
}

/// Gives every parameter its new tensor.
struct Fill {
    /// By path.
    tensors: HashMap<String, Option<Box<dyn Any>>>,
    path: Vec<String>,
}

impl Fill {
    /// Reads all but those `left`.
    fn read<M: Module>(
        module: &M,
        file: &mut Checkpoint,
        notes: &Notes,
        found: &[Found],
        sources: &[Source],
        left: &HashSet<usize>,
    ) -> Result<Self, Error> {
        let read = (0..found.len()).filter(|i| !left.contains(i));
        let index = read.map(|i| (&found[i].path[..], i)).collect();
        let tensors = found.iter().map(|_| None).collect();
        let Read { tensors, .. } = Survey::of(module, Read { file, notes, index, sources, tensors })?;
        let paths = found.iter().map(|found| found.path.clone());
        Ok(Self { tensors: paths.zip(tensors).collect(), path: Vec::new() })
    }

    fn into<M: Module>(mut self, module: &mut M) {
        settle(module);
        *module = module.clone().map(&mut self);
    }
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let tensor = self.tensors.remove(&self.path.join(".")).flatten();
        let Some(tensor) = tensor.and_then(|tensor| tensor.downcast::<Tensor<D>>().ok()) else {
            return param;
        };
        let (id, _, mapper) = param.consume();
        Param::from_mapped_value(id, *tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use wgpu_optim::Recipe;

    use super::*;
    use crate::module::tests::gpu;

    fn found(i: usize, tied: Option<usize>) -> Found {
        Found {
            id: ParamId::from((i - usize::from(tied.is_some())) as u64),
            path: format!("layers.{i}.weight"),
            shape: vec![4],
            dtype: DType::F32,
            device: gpu().device.clone(),
            require_grad: true,
            steps: true,
            storage: None,
            tied,
            copy: None,
        }
    }

    #[test]
    fn names_and_sources_of_100_000_parameters_are_found_in_linear_time() {
        // Each second one is tied to the one before it.
        let found: Vec<_> = (0..100_000).map(|i| found(i, (i % 2 == 1).then(|| i - 1))).collect();
        let optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-3));
        let start = Instant::now();
        let mut given = Names::of(&[]);
        let known: Vec<_> =
            found.iter().step_by(2).map(|f| optim.known(f.id, &f.path, &f.shape, given.add(f.id, &f.path))).collect();
        let names = names_of(&found, &known);
        assert!(names.chunks(2).zip(&known).all(|(two, known)| two[0] == known.name && two[1] == known.name));
        let paths = found.iter().zip(&names).filter(|(found, name)| found.path != **name);
        let names = paths.map(|(found, name)| (found.path.clone(), name.clone())).collect();
        let sources = sources_of(&found, &Notes { names, ..Notes::default() }).unwrap();
        assert!(sources.iter().zip(&found).all(|(source, found)| source.tied == found.tied));
        assert!(optim.params_of(&found).is_err());
        // In quadratic time it takes minutes.
        assert!(start.elapsed().as_secs() < 10);
    }

    #[test]
    fn two_parameters_of_one_path_are_refused() {
        let optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-3));
        let param = || Param::from_tensor(Tensor::<1>::ones([4], &gpu().device));
        // A tuple gives its members paths of their own.
        assert_eq!(optim.survey(&(param(), param()), false).unwrap().len(), 2);
        let mut parameters = Parameters::new(&optim, false);
        parameters.visit(&param(), &[]).unwrap();
        let error = parameters.visit(&param(), &[]).unwrap_err();
        assert!(error.to_string().contains("two parameters have this path"));
    }
}
