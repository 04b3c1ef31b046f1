//! Checkpoints: everything that a run needs to go on to the bit, in one safetensors file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, tensor};
use serde::{Deserialize, Serialize};

use super::GpuOptimizer;
use super::access::MASTER;
use crate::error::Error;
use crate::groups::ParamGroups;
use crate::json;
use crate::kernel::{Header, MASTERED, SKIPPED, TENSORS_HEADER};
use crate::plan::{Ownership, TensorSpec};
use crate::precision::Precision;
use crate::ranges::{check, finite_non_negative, finite_positive, invertible};
use crate::readback;
use crate::schedule::Shape;
use crate::scope;
use crate::slices::TensorSlice;

/// The version that [`GpuOptimizer::save`] writes, and the newest that is read.
///
/// A file of a version is read by every later program. The version rises when a program of today would read a new file wrongly: when a
/// tensor or a setting takes another meaning or another name, or is no longer written. It does not rise for a new tensor or a new
/// setting: these are written only where they are in use, and a program that does not know one refuses the file and names it.
pub const FORMAT_VERSION: u32 = 1;

const GRAD_SUM: &str = "grad_sum";
const RATES: &str = "rates";
const PARAM: &str = "params";
const FORMAT: &str = "wgpu-optim";
/// No header of ours is as long: the length of a foreign file's may be anything.
const LONGEST_HEADER: u64 = 100 << 20;
/// Bytes of entries that are copied together, and how many they are at most: what wgpu does for a copy grows with those before it.
const PART: usize = 1 << 20;
const COPIES: usize = 256;

/// A checkpoint file, its header read and checked. Nothing else of it is in memory.
///
/// | tensor | of | shape |
/// |---|---|---|
/// | `params.{name}` | optimizers with arenas | the tensor's |
/// | `state.{name}.exp_avg`, `.exp_avg_sq`, `.momentum_buffer` | the base | the tensor's; its rows where these have a second moment |
/// | `state.{name}.accumulator` | AdaGO | scalar |
/// | `state.{name}.master` | parameters in two bytes in the caller's buffers | the tensor's |
/// | `state.{name}.grad_sum` | gradients that no step has taken, between two micro-batches | the tensor's |
/// | `state.{name}.rates` | tensors with components | their number |
/// | `state.{name}.step` | all | scalar, I64 |
///
/// All but the last are F32, `params` too, whatever the precision. The metadata hold `format`, `format_version` and, as JSON under `optimizer`, the tensors, groups,
/// learning rates, places in the schedules, and the scaler.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: File,
    /// Where the data begin.
    data: u64,
    tensors: Metadata,
    about: About,
}

/// What is said in the metadata, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    specs: Vec<TensorSpec>,
    groups: ParamGroups,
    /// Groups whose schedule is a function, which no file can hold.
    functions: Vec<usize>,
    lrs: Vec<f64>,
    grad_scale: f64,
    recorded_steps: u64,
    micro_batches: u32,
    loss_scale: f32,
    grown: u32,
    skipped_steps: u32,
    extra: BTreeMap<String, String>,
}

/// A tensor of the file, and where it lies on the GPU.
struct Entry<'a> {
    key: String,
    /// Which of the plan, where it is one of these.
    tensor: Option<usize>,
    /// `params`, or the name of a state.
    what: &'static str,
    shape: Vec<usize>,
    content: Content<'a>,
}

enum Content<'a> {
    Words(TensorSlice<'a>),
    /// So many parameters in two bytes.
    Halves(TensorSlice<'a>, usize),
    Step,
}

impl Entry<'_> {
    /// Where it lies on the GPU: buffer, offset and bytes.
    fn range(&self) -> Option<(&wgpu::Buffer, u64, u64)> {
        match &self.content {
            Content::Words(slice) | Content::Halves(slice, _) => {
                Some((slice.buffer, slice.offset, slice.size))
            }
            Content::Step => None,
        }
    }

    /// Whether a file may do without: a tensor that has not stepped takes its parameter for a master, and sums are not always there.
    fn is_optional(&self) -> bool {
        [MASTER, GRAD_SUM].contains(&self.what)
    }

    /// The bytes, if a file may have them.
    fn sound(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        match self.fault(&bytes) {
            None => Ok(bytes),
            Some(reason) => Err(Error::Readback { what: self.key.clone(), reason }),
        }
    }

    /// What is wrong with a value that no optimizer writes, which would be found out later and elsewhere.
    fn fault(&self, bytes: &[u8]) -> Option<String> {
        let is_wrong = match self.what {
            RATES => |x: f32| finite_non_negative(x.into()).is_some(),
            "exp_avg_sq" | "accumulator" => |x: f32| x.is_nan() || x < 0.0,
            _ => return None,
        };
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
        let at = values.iter().position(|&x| is_wrong(x))?;
        let (key, value) = (&self.key, values[at]);
        Some(format!("`{key}` is {value:?} at {at}, and must be a number that is not negative"))
    }

    fn dtype(&self) -> Dtype {
        match self.content {
            Content::Words(_) | Content::Halves(..) => Dtype::F32,
            Content::Step => Dtype::I64,
        }
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::Words(slice) => slice.size as usize,
            Content::Halves(_, numel) => 4 * numel,
            Content::Step => 8,
        }
    }
}

impl Checkpoint {
    /// Opens a file, and reads its header.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it cannot be read, is no checkpoint, is truncated, or was written by a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let refuse = |reason: String| refusal(path, reason);
        let mut file = File::open(path).map_err(|e| refuse(e.to_string()))?;
        let size = file.metadata().map_err(|e| refuse(e.to_string()))?.len();
        let foreign = |what: &str| refuse(format!("it is no safetensors file: {what}"));
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| foreign("it has less than 8 bytes"))?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER || length + 8 > size {
            return Err(foreign(&format!("its header would have {length} bytes, and the file has {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(|e| refuse(e.to_string()))?;
        json::check_keys(&header).map_err(|e| foreign(&e.to_string()))?;
        let tensors: Metadata = serde_json::from_slice(&header).map_err(|e| foreign(&e.to_string()))?;

        let said = tensors.metadata().clone().unwrap_or_default();
        if said.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(refuse("it is a safetensors file, but no checkpoint of wgpu-optim".to_owned()));
        }
        let version = said.get("format_version").map_or("none", String::as_str);
        match version.parse::<u32>() {
            Ok(version) if (1..=FORMAT_VERSION).contains(&version) => {}
            _ => {
                return Err(refuse(format!(
                    "its format version is {version}; this program reads up to {FORMAT_VERSION}"
                )));
            }
        }
        let (data, expected) = (8 + length, 8 + length + tensors.data_len() as u64);
        if size != expected {
            return Err(refuse(format!(
                "it has {size} bytes instead of {expected}: it was cut short, or grew"
            )));
        }
        let about = said.get("optimizer").map_or("", String::as_str);
        let about = json::check_keys(about.as_bytes()).and_then(|()| serde_json::from_str::<About>(about));
        let about = about.map_err(|e| refuse(format!("its metadata: {e}")))?;
        Ok(Self { path: path.to_owned(), file, data, tensors, about })
    }

    /// The tensors that were stepped, in their order.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.about.specs
    }

    /// The parameter groups, with the learning rates that they began with.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a schedule was a function: no file can hold it, so build the groups as they were built before.
    pub fn groups(&self) -> Result<ParamGroups, Error> {
        if let Some(group) = self.about.functions.first() {
            let reason = format!("the schedule of group {group} was a function, which must be given again");
            return Err(refusal(&self.path, reason));
        }
        Ok(self.about.groups.clone())
    }

    /// What [`GpuOptimizer::save_with`] was given besides.
    pub fn extra(&self) -> &BTreeMap<String, String> {
        &self.about.extra
    }

    /// Names and shapes of the parameters in the file.
    pub fn params(&self) -> Vec<(String, Vec<usize>)> {
        let keys = self.tensors.offset_keys().into_iter();
        let of = |key: String| {
            Some((key.strip_prefix("params.")?.to_owned(), self.tensors.info(&key)?.shape.clone()))
        };
        keys.filter_map(of).collect()
    }

    /// Reads a parameter.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file does not have it, or cannot be read.
    pub fn read_param(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        let key = format!("params.{name}");
        let info = self.tensors.info(&key).filter(|info| info.dtype == Dtype::F32).cloned();
        let info = info.ok_or_else(|| refusal(&self.path, format!("it lacks `{key}` in F32")))?;
        Ok(bytemuck::pod_collect_to_vec(&self.read(&info)?))
    }

    fn read(&mut self, info: &TensorInfo) -> Result<Vec<u8>, Error> {
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        let seek = self.file.seek(SeekFrom::Start(self.data + start as u64));
        let read = seek.and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| refusal(&self.path, format!("{e}; load it again, or another")))?;
        Ok(bytes)
    }
}

impl GpuOptimizer {
    /// Writes a checkpoint: parameters where they lie in arenas, state, counts, learning rates, scaler. It is written
    /// beside `path` under a temporary name of its own, synced and renamed: `path` always holds a complete checkpoint, also while others
    /// save to it or read it. Where `path` is a link, the file that it names is replaced; permissions stay as they were. Host
    /// memory stays a small multiple of the largest tensor. Waits for the GPU. Submit before what was recorded: it is counted already.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file cannot be written, or what it says besides tensors takes more than 100 MiB;
    /// [`Error::Readback`] if the GPU cannot be read; the old file is then as it was. So it is for a state that [`load`](Self::load)
    /// refuses: a second moment that is NaN, after a gradient that was and was not skipped. [`Error::MicroBatchDropped`] as for
    /// [`record`](Self::record). [`Error::Ownership`] if the caller holds the state.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.save_with(path, BTreeMap::new())
    }

    /// [`save`](Self::save), with anything of the caller's besides; see [`Checkpoint::extra`].
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub fn save_with(&self, path: impl AsRef<Path>, extra: BTreeMap<String, String>) -> Result<(), Error> {
        self.save_params(path, &[], extra)
    }

    /// [`save_with`](Self::save_with), with parameters that lie in the caller's buffers, whether they are stepped or not: name, shape
    /// and place. The file has their masters, where there are any. [`Checkpoint::read_param`] reads them.
    ///
    /// # Errors
    /// As for [`save`](Self::save); [`Error::Ownership`] for an optimizer with arenas, [`Error::Slice`] for a slice of another size than
    /// its shape, or of a buffer without `COPY_SRC`.
    pub fn save_params(
        &self,
        path: impl AsRef<Path>,
        params: &[(&str, &[usize], TensorSlice<'_>)],
        extra: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let path = path.as_ref();
        self.check_submissions()?;
        let (header, counts) = self.read_counts()?;
        let mut entries = self.entries()?;
        entries.retain(|entry| match (entry.what, entry.tensor) {
            (MASTER, Some(tensor)) => counts[tensor].mastered,
            (GRAD_SUM, Some(tensor)) => self.micro_batches > 0 || self.has_sum[tensor],
            _ => true,
        });
        let mut names = HashSet::new();
        for (name, shape, slice) in params {
            if !names.insert(name) {
                let reason = "two parameters have this name".to_owned();
                return Err(Error::Tensor { tensor: (*name).to_owned(), reason });
            }
            entries.push(self.given(name, shape, *slice, &counts)?);
        }
        let mut offset = 0;
        let mut infos = Vec::with_capacity(entries.len());
        for entry in &entries {
            let data_offsets = (offset, offset + entry.size());
            offset = data_offsets.1;
            let info = TensorInfo { dtype: entry.dtype(), shape: entry.shape.clone(), data_offsets };
            infos.push((entry.key.clone(), info));
        }
        let about = serde_json::to_string(&self.about(header, extra)).expect("nothing that JSON cannot hold");
        let said =
            [("format", FORMAT), ("format_version", &FORMAT_VERSION.to_string()), ("optimizer", &about)];
        let said: HashMap<_, _> = said.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let failed = |e: &dyn std::fmt::Display| refusal(path, e.to_string());
        let tensors = tensor::Metadata::new(Some(said), infos).map_err(|e| failed(&e))?;
        let mut head = serde_json::to_vec(&tensors).map_err(|e| failed(&e))?;
        head.resize(head.len().next_multiple_of(8), b' ');
        if head.len() as u64 > LONGEST_HEADER {
            return Err(failed(&format_args!(
                "the names, settings and extra data take {} bytes, of {LONGEST_HEADER} that a header may have; write extra data elsewhere",
                head.len()
            )));
        }

        write_synced(path, &head, &entries, |entries| self.read_entries(entries, &counts))
    }

    /// What the file has of these entries, one after the other, in one copy from the GPU.
    fn read_entries(&self, entries: &[Entry<'_>], counts: &[TensorCounts]) -> Result<Vec<u8>, Error> {
        let ranges: Vec<_> = entries.iter().filter_map(Entry::range).collect();
        let read = match ranges.is_empty() {
            true => Vec::new(),
            false => readback::block_on(&self.device, self.fetch(&entries[0].key, &ranges)?)?,
        };
        if let [entry @ Entry { content: Content::Words(_), .. }] = entries {
            return entry.sound(read);
        }
        let (mut rest, mut bytes) = (&read[..], Vec::with_capacity(read.len()));
        for entry in entries {
            let (own, after) = rest.split_at(entry.range().map_or(0, |(.., size)| size as usize));
            rest = after;
            match entry.content {
                Content::Words(_) => bytes.extend(entry.sound(own.to_vec())?),
                Content::Halves(_, numel) => {
                    bytes.extend_from_slice(bytemuck::cast_slice(&self.plan.precision.decode(own, numel)));
                }
                Content::Step => {
                    let tensor = entry.tensor.expect("only tensors of the plan take steps");
                    let taken = self.steps[tensor].saturating_sub(counts[tensor].skipped.into());
                    bytes.extend(i64::try_from(taken).unwrap_or(i64::MAX).to_le_bytes());
                }
            }
        }
        Ok(bytes)
    }

    /// Goes on from a checkpoint: parameters where they lie in arenas, state, counts, learning rates, scaler. The recipes and
    /// schedules stay those of this optimizer; [`resume`](Self::resume) takes those of the file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file is no checkpoint, truncated, newer than this program, or of other tensors, shapes or
    /// state: nothing is changed then. If the disk fails while tensors are read, some are changed: load again, or another file.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut file = Checkpoint::open(path)?;
        self.load_from(&mut file)
    }

    /// [`load`](Self::load) from a file that is open already.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_from(&mut self, file: &mut Checkpoint) -> Result<(), Error> {
        let refuse = |file: &Checkpoint, reason: String| Err(refusal(&file.path, reason));
        if file.about.micro_batches > 0 && file.about.micro_batches >= self.groups.accumulation() {
            let reason = format!(
                "it holds {} micro-batches of a step, and this optimizer takes {} for one",
                file.about.micro_batches,
                self.groups.accumulation()
            );
            return refuse(file, reason);
        }
        if file.about.lrs.len() != self.groups.recipes().len() {
            let reason = format!(
                "it has {} parameter groups, this optimizer {}",
                file.about.lrs.len(),
                self.groups.recipes().len()
            );
            return refuse(file, reason);
        }
        let mut entries = self.entries()?;
        entries.retain(|entry| !entry.is_optional() || file.tensors.info(&entry.key).is_some());
        let known: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        // Parameters are of no use to an optimizer that holds none.
        let idle = |key: &str| self.plan.ownership != Ownership::Arenas && key.starts_with("params.");
        for key in file.tensors.offset_keys() {
            if !known.contains(key.as_str()) && !idle(&key) {
                // Settings that differ explain what a tensor's name does not.
                let (of_file, own) = (&file.about.groups, &self.groups);
                let why = match key.rsplit('.').next() {
                    Some(GRAD_SUM) => format!(
                        ": it was saved within a step of {} micro-batches, and this optimizer takes {} for one",
                        of_file.accumulation(),
                        own.accumulation()
                    ),
                    Some(MASTER) if of_file.precision() != own.precision() => format!(
                        ": its parameters are stored in {}, and this optimizer's in {}",
                        of_file.precision().name(),
                        own.precision().name()
                    ),
                    _ => String::new(),
                };
                return refuse(file, format!("it has `{key}`, which this optimizer does not{why}"));
            }
        }
        for entry in &entries {
            let Some(info) = file.tensors.info(&entry.key) else {
                return refuse(file, format!("it lacks `{}`", entry.key));
            };
            if (info.dtype, &info.shape) != (entry.dtype(), &entry.shape) {
                let reason = format!(
                    "`{}` is {:?} of shape {:?} instead of {:?} of shape {:?}",
                    entry.key,
                    info.dtype,
                    info.shape,
                    entry.dtype(),
                    entry.shape
                );
                return refuse(file, reason);
            }
        }
        let lrs = file.about.lrs.clone();
        // What comes after the first write must not fail.
        let mut ranges = self.initial.iter().zip(&lrs).try_for_each(|(initial, &lr)| {
            check("lr", lr, finite_non_negative)?;
            initial.with_lr(lr).validate()
        });
        ranges = ranges.and(check("grad_scale", file.about.grad_scale, finite_positive));
        ranges = ranges.and(check("loss_scale", file.about.loss_scale.into(), invertible));
        ranges.map_err(|e| refusal(&file.path, e.to_string()))?;

        let mut steps = self.steps.clone();
        for entry in &entries {
            if let (Content::Step, Some(tensor)) = (&entry.content, entry.tensor) {
                let info = file.tensors.info(&entry.key).expect("it was looked for").clone();
                let step = file.read(&info)?.try_into().expect("its size was checked");
                let step = i64::from_le_bytes(step);
                steps[tensor] = u64::try_from(step).map_err(|_| {
                    refusal(&file.path, format!("`{}` is {step}, expected 0 or more", entry.key))
                })?;
            }
        }
        self.rows_after(&steps).map_err(|e| refusal(&file.path, e.to_string()))?;
        for entry in entries.iter().filter(|entry| [RATES, "exp_avg_sq", "accumulator"].contains(&entry.what))
        {
            let info = file.tensors.info(&entry.key).expect("it was looked for").clone();
            if let Some(reason) = entry.fault(&file.read(&info)?) {
                return refuse(file, reason);
            }
        }

        self.clear_sums();
        for part in parts(&entries) {
            for entry in part {
                let (Content::Words(slice) | Content::Halves(slice, _)) = &entry.content else { continue };
                let info = file.tensors.info(&entry.key).expect("it was looked for").clone();
                let bytes = file.read(&info)?;
                scope::watch(&self.device, || self.queue.write_buffer(slice.buffer, slice.offset, &bytes))?;
            }
            // Otherwise wgpu keeps a copy of all of them until the next step.
            self.queue.submit([]);
            self.device
                .poll(wgpu::PollType::wait_indefinitely())
                .map_err(|e| Error::Gpu(format!("waiting for the device: {e}")))?;
        }
        let count = self.plan.tensors.len();
        let [mut mastered, mut has_sum] = [vec![false; count], vec![false; count]];
        for entry in &entries {
            match (entry.what, entry.tensor) {
                (MASTER, Some(tensor)) => mastered[tensor] = true,
                (GRAD_SUM, Some(tensor)) => has_sum[tensor] = true,
                _ => {}
            }
        }
        self.set_mastered(mastered.into_iter().enumerate());
        self.has_sum = has_sum;
        self.submissions.forget_sums();
        for (tensor, step) in steps.into_iter().enumerate() {
            self.set_steps_of(tensor, step);
        }
        let about = file.about.clone();
        lrs.iter().enumerate().try_for_each(|(group, &lr)| self.set_group_lr(group, lr))?;
        (self.recorded, self.micro_batches) = (about.recorded_steps, about.micro_batches);
        self.grad_scale = about.grad_scale;
        if self.plan.gradients.guarded {
            let fresh = Header::new(&self.groups);
            // A scale that was not looked for says nothing about one that is.
            let both = self.groups.grad_scaler().and(about.groups.grad_scaler()).is_some();
            let loss_scale = if both { about.loss_scale } else { fresh.loss_scale };
            self.write_header(Header {
                loss_scale,
                unscale: 1.0 / loss_scale,
                grown: about.grown,
                skipped: about.skipped_steps,
                ..fresh
            });
        }
        self.arrange_rows()?;
        // Where parameters are stored in two bytes, from their masters.
        if self.plan.ownership == Ownership::Arenas {
            let mut encoder = self.encoder();
            self.record_own(&mut encoder, &self.schedule.round);
            self.queue.submit([encoder.finish()]);
        }
        Ok(())
    }

    /// An optimizer with arenas, its tensors, groups and everything else from a checkpoint, but for the way of multiplying matrices
    /// ([`ParamGroups::with_matmul`]), which is a choice for a machine: build and [`load`](Self::load) to make it.
    ///
    /// # Errors
    /// As for [`Checkpoint::open`], [`Checkpoint::groups`], [`new`](Self::new) and [`load`](Self::load).
    pub fn resume(device: &wgpu::Device, queue: &wgpu::Queue, path: impl AsRef<Path>) -> Result<Self, Error> {
        let mut file = Checkpoint::open(path)?;
        // What the metadata asks for, the file must hold, before there is room made for it.
        for spec in file.specs() {
            let key = format!("params.{}", spec.name);
            let has = file.tensors.info(&key).is_some_and(|info| info.shape == spec.shape);
            if !has {
                return Err(refusal(&file.path, format!("it lacks `{key}` of shape {:?}", spec.shape)));
            }
        }
        let mut optimizer = Self::new_blocking(device, queue, file.specs(), file.groups()?)?;
        optimizer.load_from(&mut file)?;
        Ok(optimizer)
    }

    fn about(&self, header: Header, extra: BTreeMap<String, String>) -> About {
        let plan = &self.plan;
        let mut groups = self.groups.clone();
        groups.recipes_mut().copy_from_slice(&self.initial);
        let function = |g: &usize| matches!(groups.schedules()[*g].shape, Shape::Function(_));
        About {
            specs: plan.order.iter().map(|&tensor| plan.tensors[tensor].spec.clone()).collect(),
            functions: (0..groups.schedules().len()).filter(function).collect(),
            lrs: self.groups.recipes().iter().map(|recipe| recipe.lr()).collect(),
            grad_scale: self.grad_scale,
            recorded_steps: self.recorded,
            micro_batches: self.micro_batches,
            loss_scale: header.loss_scale,
            grown: header.grown,
            skipped_steps: header.skipped,
            groups,
            extra,
        }
    }

    /// What a file holds of each tensor, in the caller's order, and what it may hold.
    fn entries(&self) -> Result<Vec<Entry<'_>>, Error> {
        let mut entries = Vec::new();
        for &tensor in &self.plan.order {
            let spec = &self.plan.tensors[tensor].spec;
            let name = &spec.name;
            let mut push = |what: &'static str, shape: &[usize], content| {
                let key =
                    if what == PARAM { format!("params.{name}") } else { format!("state.{name}.{what}") };
                entries.push(Entry { key, tensor: Some(tensor), what, shape: shape.to_vec(), content });
            };
            let arenas = self.plan.ownership == Ownership::Arenas;
            if arenas {
                let param = self.master(tensor).map_or_else(|| self.param(name), Ok)?;
                push(PARAM, &spec.shape, Content::Words(param));
            }
            // In arenas the parameters are the masters.
            for state in self.state_names(name)?.filter(|&state| state != MASTER || !arenas) {
                let slice = self.state(name, state)?;
                let shape = match state {
                    "accumulator" => &[][..],
                    _ if slice.size == 4 * spec.numel() => &spec.shape,
                    // Of rows.
                    _ => &spec.shape[..1],
                };
                push(state, shape, Content::Words(slice));
            }
            if self.plan.accumulates {
                push(GRAD_SUM, &spec.shape, Content::Words(self.grad_sum(tensor)));
            }
            if spec.components > 0 {
                push(RATES, &[spec.components], Content::Words(self.rates(name)?));
            }
            push("step", &[], Content::Step);
        }
        Ok(entries)
    }

    /// Clears what was added up of gradients.
    fn clear_sums(&self) {
        let mut encoder = self.encoder();
        self.sums.iter().for_each(|sum| encoder.clear_buffer(sum, 0, None));
        self.queue.submit([encoder.finish()]);
    }

    fn write_header(&self, header: Header) {
        let mut bytes = encase::StorageBuffer::new(Vec::<u8>::new());
        bytes.write(&header).expect("a vector grows");
        self.queue.write_buffer(&self.tensors, 0, bytes.as_ref());
        self.reported.store(header.skipped, Ordering::Relaxed);
    }

    /// A parameter of the caller's.
    fn given<'a>(
        &'a self,
        name: &str,
        shape: &[usize],
        slice: TensorSlice<'a>,
        counts: &[TensorCounts],
    ) -> Result<Entry<'a>, Error> {
        if self.plan.ownership == Ownership::Arenas {
            return Err(Error::Ownership("this optimizer has arenas of its own, which `save` writes"));
        }
        let refuse = |reason| Err(Error::Slice { tensor: name.to_owned(), what: "parameter", reason });
        let Some(numel) = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)) else {
            return refuse(format!("shape {shape:?} is too large"));
        };
        if !slice.offset.is_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT) {
            return refuse(format!(
                "offset {} is no multiple of {}",
                slice.offset,
                wgpu::COPY_BUFFER_ALIGNMENT
            ));
        }
        let size = (self.plan.precision.bytes() * numel as u64).next_multiple_of(4);
        if slice.size < size || slice.offset.checked_add(size).is_none_or(|end| end > slice.buffer.size()) {
            return refuse(format!("{} bytes given, {size} needed for shape {shape:?}", slice.size));
        }
        if !slice.buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return refuse(format!("its buffer lacks COPY_SRC, it has {:?}", slice.buffer.usage()));
        }
        let tensor = self.plan.tensor_index(name).ok();
        let master = tensor.filter(|&tensor| counts[tensor].mastered).and_then(|tensor| self.master(tensor));
        let slice = TensorSlice { size, ..slice };
        let content = match (master, self.plan.precision) {
            (Some(master), _) => Content::Words(master),
            (None, Precision::F32) => Content::Words(slice),
            (None, _) => Content::Halves(slice, numel),
        };
        Ok(Entry { key: format!("params.{name}"), tensor, what: PARAM, shape: shape.to_vec(), content })
    }

    /// The header of the tensors' table, and what the GPU counts about each of them.
    fn read_counts(&self) -> Result<(Header, Vec<TensorCounts>), Error> {
        let table = &self.tensors;
        let bytes = self.fetch("counts", &[(table, 0, table.size())])?;
        let bytes = readback::block_on(&self.device, bytes)?;
        let word = |at: u64| {
            let at = at as usize;
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
        };
        let of = |entry: u64| TensorCounts {
            skipped: word(entry + SKIPPED),
            mastered: !self.masters.is_empty() && word(entry + MASTERED) == 1,
        };
        let counts = (0..self.plan.tensors.len()).map(|tensor| of(self.entry(tensor))).collect();
        Ok((readback::decode("counts", bytes[..TENSORS_HEADER as usize].to_vec())?, counts))
    }
}

/// What the GPU counts about a tensor.
struct TensorCounts {
    /// Steps that it was to take and did not.
    skipped: u32,
    /// Whether its master holds its values.
    mastered: bool,
}

fn refusal(path: &Path, reason: String) -> Error {
    Error::Checkpoint { path: path.to_owned(), reason }
}

/// The file that a path names, also where it is a link, and where a link leads nowhere yet.
fn target(path: &Path) -> Result<PathBuf, Error> {
    let mut target = path.to_owned();
    for _ in 0..40 {
        let Ok(link) = fs::read_link(&target) else { return Ok(target) };
        target = target.parent().unwrap_or(Path::new("")).join(link);
    }
    Err(refusal(path, "it is a link to a link, and so on without an end".to_owned()))
}

/// Entries that are copied together: one, or small ones.
fn parts<'e, 'a>(entries: &'e [Entry<'a>]) -> impl Iterator<Item = &'e [Entry<'a>]> {
    let (mut size, mut count) = (0, 0);
    entries.chunk_by(move |before, next| {
        (size, count) = (size + before.size(), count + 1);
        let joins = size + next.size() <= PART && count < COPIES;
        if !joins {
            (size, count) = (0, 0);
        }
        joins
    })
}

/// Writes a file tensor by tensor, has the disk keep it, and gives it its name.
fn write_synced(
    path: &Path,
    head: &[u8],
    entries: &[Entry<'_>],
    read: impl Fn(&[Entry<'_>]) -> Result<Vec<u8>, Error>,
) -> Result<(), Error> {
    let failed = |e: std::io::Error| refusal(path, e.to_string());
    let target = target(path)?;
    if target.file_name().is_none() {
        return Err(refusal(path, "it has no file name".to_owned()));
    }
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A name that nobody knows, created by nobody else: an error removes it again.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".wgpu-optim-").suffix(".partial");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut partial = builder.tempfile_in(directory).map_err(failed)?;
    let own = partial.as_file().metadata().map_err(failed)?.permissions();
    if let Some(old) = fs::metadata(&target).map(|old| old.permissions()).ok().filter(|old| *old != own) {
        partial.as_file().set_permissions(old).map_err(failed)?;
    }
    let mut file = BufWriter::with_capacity(1 << 20, partial.as_file_mut());
    file.write_all(&(head.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(head).map_err(failed)?;
    for part in parts(entries) {
        file.write_all(&read(part)?).map_err(failed)?;
    }
    file.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)?;
    partial.persist(&target).map_err(|e| failed(e.error))?;
    sync_directory(directory);
    Ok(())
}

/// Has the disk keep the new name, where directories can be synced.
fn sync_directory(directory: &Path) {
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
}
