//! Checkpoints: everything that a run needs to go on to the bit, in one safetensors file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::mem::offset_of;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{self, TensorInfo};

use super::entries::{AVERAGE_STEP, Entry, STEP, parts};
use super::file::{About, Checkpoint, FORMAT, FORMAT_VERSION, LONGEST_HEADER, refusal, write, write_synced};
use super::held::{AVERAGE, GRAD_SUM, MASTER, MASTER_LOW, PARAM, Stored, joined, upper_halves};
use super::optimizer::GpuOptimizer;
use super::slices::TensorSlice;
use super::target::Target;
use super::{readback, scope};
use crate::error::{Error, Result, ensure};
use crate::kernel::tables::{HEADER_BYTES, Header, TENSOR_BYTES, Tensor};
use crate::plan::layout::Ownership;
use crate::plan::program::When;
use crate::recipe::groups::ParamGroups;
use crate::recipe::ranges::{INVERTIBLE, NOT_NEGATIVE, POSITIVE, check};
use crate::recipe::schedule::Shape;

/// What [`GpuOptimizer::load_matching`] takes from a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Parameters. State and counts stay as they are.
    Params,
    /// Parameters if the optimizer holds them, state, and the number of steps of each tensor.
    All,
}

impl GpuOptimizer {
    /// Writes a checkpoint: parameters if the optimizer holds them, state, step counts, learning rates and the scaler. Submit recorded
    /// steps first, because they are already counted. Waits for the GPU.
    ///
    /// The file is written under a unique temporary name next to `path`, synced and renamed. So `path` always holds a complete checkpoint,
    /// even while others save to it or read it. If `path` is a link, the file that it names is replaced. Permissions stay. Host memory
    /// stays a small multiple of the largest tensor.
    ///
    /// # Errors
    /// After an error, the old file is unchanged.
    ///
    /// - [`Error::Checkpoint`] if the file cannot be written, or its header takes more than 100 MiB.
    /// - [`Error::Readback`] if the GPU cannot be read, or a state has a value that [`load`](Self::load) refuses, such as NaN in a second
    ///   moment.
    /// - [`Error::MicroBatchDropped`] as for [`record`](Self::record).
    /// - [`Error::Ownership`] if your buffers hold the state.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_with(path, BTreeMap::new())
    }

    /// [`save`](Self::save) with `extra` text of your own, which [`Checkpoint::extra`] and [`resume_with`](Self::resume_with) return.
    ///
    /// ```no_run
    /// # fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// use std::collections::BTreeMap;
    /// let extra = BTreeMap::from([("epoch".to_owned(), "3".to_owned())]);
    /// optimizer.save_with("run.safetensors", extra)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub fn save_with(&self, path: impl AsRef<Path>, extra: BTreeMap<String, String>) -> Result<()> {
        self.save_params(path, &[], extra)
    }

    /// [`save_with`](Self::save_with), and parameters in your buffers, as name, shape and place. The optimizer need not step them. If a
    /// parameter has an f32 master, the file holds the master. [`Checkpoint::read_param`] reads them.
    ///
    /// ```no_run
    /// # fn example(optimizer: &wgpu_optim::GpuOptimizer, weight: &wgpu_optim::wgpu::Buffer) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::TensorSlice;
    /// let params = [("weight", &[256, 64][..], TensorSlice::whole(weight))];
    /// optimizer.save_params("run.safetensors", &params, Default::default())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`save`](Self::save); [`Error::Ownership`] for an optimizer that holds its parameters; [`Error::Slice`] for a slice smaller
    /// than its shape, or of a buffer without `COPY_SRC`; [`Error::Tensor`] for a name that occurs twice.
    pub fn save_params(
        &self,
        path: impl AsRef<Path>,
        params: &[(&str, &[usize], TensorSlice<'_>)],
        extra: BTreeMap<String, String>,
    ) -> Result<()> {
        let path = path.as_ref();
        let (head, entries, counts) = self.saved(path, params, extra)?;
        write_synced(path, &head, parts(&entries).map(|part| self.read_entries(part, &counts)))
    }

    /// [`save_params`](Self::save_params) into a writer: a buffer, a socket, an archive. It is written in parts and not flushed.
    /// [`Checkpoint::from_bytes`] reads it.
    ///
    /// ```no_run
    /// # fn send(optimizer: &wgpu_optim::GpuOptimizer) -> Result<Vec<u8>, wgpu_optim::Error> {
    /// let mut bytes = Vec::new();
    /// optimizer.save_to(&mut bytes, &[], Default::default())?;
    /// # Ok(bytes)
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`save_params`](Self::save_params), with the path `(bytes)`.
    pub fn save_to(
        &self,
        mut to: impl Write,
        params: &[(&str, &[usize], TensorSlice<'_>)],
        extra: BTreeMap<String, String>,
    ) -> Result<()> {
        let path = Path::new("(bytes)");
        let (head, entries, counts) = self.saved(path, params, extra)?;
        write(path, &mut to, &head, parts(&entries).map(|part| self.read_entries(part, &counts)))
    }

    /// The header of a file, what it holds, and what the GPU counts about each tensor.
    fn saved<'a>(
        &'a self,
        path: &Path,
        params: &[(&str, &'a [usize], TensorSlice<'a>)],
        extra: BTreeMap<String, String>,
    ) -> Result<(Vec<u8>, Vec<Entry<'a>>, Vec<Tensor>)> {
        self.check_submissions()?;
        let (header, counts) = self.read_table()?;
        let mut entries = self.entries()?;
        entries.retain(|entry| match (entry.what, entry.tensor) {
            (MASTER, Some(tensor)) => counts[tensor].mastered == 1,
            (AVERAGE | AVERAGE_STEP, Some(tensor)) => counts[tensor].averaged > 0,
            // In one part with the parameters, where these are in the file.
            (MASTER_LOW, _) => self.plan.ownership != Ownership::Arenas || self.has_half_averages_in_place(),
            (GRAD_SUM, Some(tensor)) => self.counts.micro_batches > 0 || self.counts.has_sum[tensor],
            _ => true,
        });
        let mut names = HashSet::new();
        for (name, shape, slice) in params {
            let tensor = (*name).to_owned();
            let reason = "two parameters have this name".to_owned();
            ensure!(names.insert(name), Error::Tensor { tensor, reason });
            entries.push(self.given(name, shape, *slice, &counts)?);
        }
        let mut end = 0;
        let info = |entry: &Entry<'_>| {
            let data_offsets = (end, end + entry.size());
            end = data_offsets.1;
            let info = TensorInfo { dtype: entry.dtype(), shape: entry.saved_shape(), data_offsets };
            (entry.key.clone(), info)
        };
        let infos = entries.iter().map(info).collect();
        let about = serde_json::to_string(&self.about(header, extra)).expect("nothing that JSON cannot hold");
        let version = FORMAT_VERSION.to_string();
        let said = [("format", FORMAT), ("format_version", &version), ("optimizer", &about)];
        let said = said.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let tensors = tensor::Metadata::new(Some(said.into()), infos).map_err(|e| refusal(path, e))?;
        let mut head = serde_json::to_vec(&tensors).map_err(|e| refusal(path, e))?;
        head.resize(head.len().next_multiple_of(8), b' ');
        let too_long = format!(
            "the names, settings and extra data take {} bytes, but a header has at most {LONGEST_HEADER}; store extra data elsewhere",
            head.len()
        );
        ensure!(head.len() as u64 <= LONGEST_HEADER, refusal(path, too_long));
        Ok((head, entries, counts))
    }

    /// What the file has of these entries, one after the other, in one copy from the GPU.
    fn read_entries(&self, entries: &[Entry<'_>], counts: &[Tensor]) -> Result<Vec<u8>> {
        let slices: Vec<_> = entries.iter().flat_map(|entry| entry.slice.into_iter().chain(entry.low)).collect();
        let read = match slices.is_empty() {
            true => Vec::new(),
            false => readback::block_on(&self.device, self.read(&entries[0].key, &slices, Ok)?)?,
        };
        let (mut rest, mut bytes) = (&read[..], Vec::with_capacity(read.len()));
        for entry in entries {
            let (own, after) = rest.split_at(entry.slice.map_or(0, |slice| slice.size as usize));
            let (low, after) = after.split_at(entry.low.map_or(0, |slice| slice.size as usize));
            rest = after;
            let start = bytes.len();
            match entry.tensor {
                Some(tensor) if entry.what == STEP => {
                    let taken = self.counts.steps[tensor].saturating_sub(counts[tensor].skipped.into());
                    bytes.extend(i64::try_from(taken).unwrap_or(i64::MAX).to_le_bytes());
                }
                Some(tensor) if entry.what == AVERAGE_STEP => {
                    bytes.extend(i64::from(counts[tensor].averaged).to_le_bytes());
                }
                _ if entry.low.is_some() => {
                    bytes.extend_from_slice(bytemuck::cast_slice(&joined(own, low, entry.size() / 4)));
                }
                _ => {
                    bytes.extend(entry.converted(own.to_vec(), entry.format, entry.saved));
                    // Without what fills the last word.
                    bytes.truncate(start + entry.size());
                }
            }
            entry.check(&bytes[start..]).map_err(|reason| Error::readback(&entry.key, reason))?;
        }
        Ok(bytes)
    }

    /// Loads a checkpoint: parameters if the optimizer holds them, state, step counts, learning rates and the scaler. The optimizer keeps
    /// its own recipes and schedules; [`resume`](Self::resume) takes those of the file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file is not a checkpoint, is truncated, has a newer format, or has other tensors, shapes or state.
    /// Nothing is changed then. If reading fails later, some tensors are already changed: load it again, or load another file.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let mut file = Checkpoint::open(path)?;
        self.load_from(&mut file)
    }

    /// [`load`](Self::load) from a file that is open already.
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::Checkpoint;
    /// let mut file = Checkpoint::open("run.safetensors")?;
    /// for line in optimizer.differences(&file) {
    ///     println!("{line}");
    /// }
    /// optimizer.load_from(&mut file)?; // `load` does all of this
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_from(&mut self, file: &mut Checkpoint) -> Result<()> {
        self.differences(file).iter().for_each(|line| log::warn!("{}: {line}", file.path.display()));
        let (path, about) = (file.path.clone(), file.about.clone());
        let refusal = |reason: String| refusal(&path, reason);
        let (saved, takes) = (about.micro_batches, self.groups.accumulation());
        let within = || format!("it holds {saved} micro-batches of a step, and this optimizer takes {takes} per step");
        ensure!(saved == 0 || saved < takes, refusal(within()));
        let (given, own) = (about.lrs.len(), self.initial.len());
        ensure!(given == own, refusal(format!("it has {given} parameter groups, but this optimizer has {own}")));
        self.check_averages(file)?;
        self.check_texts(file)?;
        for spec in file.specs() {
            let Ok(tensor) = self.plan.tensor(&spec.name) else { continue };
            let turned = tensor.spec.layout != spec.layout && self.plan.base_of(tensor).depends_on_layout();
            let reason = || format!("`{}` has another layout, and states of inputs or outputs", spec.name);
            ensure!(!turned, refusal(reason()));
        }
        let mut entries = self.entries_in(file)?;
        // Tensors that have not stepped take their parameters for masters, and sums and averages are not always there.
        let is_optional =
            |entry: &Entry<'_>| [MASTER, MASTER_LOW, GRAD_SUM, AVERAGE, AVERAGE_STEP].contains(&entry.what);
        entries.retain(|entry| !is_optional(entry) || file.tensors.info(&entry.key).is_some());
        let known: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        // Parameters are of no use to an optimizer that holds none.
        let idle = |key: &str| self.plan.ownership != Ownership::Arenas && key.starts_with("params.");
        let mut keys = file.tensors.offset_keys().into_iter();
        if let Some(key) = keys.find(|key| !known.contains(key.as_str()) && !idle(key)) {
            // Settings that differ explain what a tensor's name does not.
            let saved = about.groups.accumulation();
            let [given, own] = [&about.groups, &self.groups].map(|groups| groups.precision().name());
            let why = match key.rsplit('.').next() {
                Some(GRAD_SUM) => format!(
                    ": it was saved within a step of {saved} micro-batches, and this optimizer takes {takes} per step"
                ),
                Some(MASTER) if given != own => {
                    format!(": its parameters are stored in {given}, and this optimizer's in {own}")
                }
                Some(MASTER_LOW) => {
                    ": it was saved with split masters, and this optimizer does not split them".to_owned()
                }
                Some(AVERAGE | AVERAGE_STEP) if self.plan.average.is_none() => {
                    ": it was saved with averages of its parameters, and this optimizer keeps none".to_owned()
                }
                _ => String::new(),
            };
            return Err(refusal(format!("it has `{key}`, which this optimizer does not{why}")));
        }
        for entry in &entries {
            let key = &entry.key;
            let found = file.tensors.info(key).ok_or_else(|| refusal(format!("it lacks `{key}`")))?;
            let shape = entry.saved_shape();
            let [saved, own] = [(found.dtype, &found.shape[..]), (entry.dtype(), &shape[..])];
            let words = |(dtype, shape)| format!("{dtype:?} of shape {shape:?}");
            let differs = || refusal(format!("`{key}` is {} instead of {}", words(saved), words(own)));
            ensure!(saved == own, differs());
            let name = entry.tensor.map_or("", |tensor| &self.plan.tensors[tensor].spec.name);
            let other = || refusal(format!("`{key}` is of a tensor of another shape than {:?}", entry.shape));
            ensure!(entry.fits(file, name), other());
        }
        // What comes after the first write must not fail.
        let mut ranges = self.initial.iter().zip(&about.lrs).try_for_each(|(initial, &lr)| {
            check("lr", lr, NOT_NEGATIVE)?;
            initial.with_lr(lr).validate()
        });
        let weights = about.weights.filter(|_| saved > 0).unwrap_or(saved.into());
        ranges = ranges.and(check("weights", weights, NOT_NEGATIVE));
        ranges = ranges.and(check("grad_scale", about.grad_scale, POSITIVE));
        ranges = ranges.and(check("loss_scale", about.loss_scale.into(), INVERTIBLE));
        ranges.map_err(|e| refusal(e.to_string()))?;

        let SavedCounts { steps, begun } = counts_in(file, &entries)?;
        let has = |what: &str| {
            let mut has = vec![false; self.plan.tensors.len()];
            entries
                .iter()
                .filter(|entry| entry.what == what)
                .filter_map(|entry| entry.tensor)
                .for_each(|t| has[t] = true);
            has
        };
        let (mastered, has_sum) = (has(MASTER), has(GRAD_SUM));

        let mut encoder = self.encoder();
        self.clear_sums_of(&mut Target::Encoder(&mut encoder), &(0..self.plan.tensors.len()).collect::<Vec<_>>());
        self.queue.submit([encoder.finish()]);
        self.clear_low();
        self.write_entries(file, &entries, false)?;
        self.set_mastered(mastered.into_iter().enumerate());
        self.set_averaged((0..self.plan.tensors.len()).map(|tensor| (tensor, begun.get(&tensor).copied())));
        self.counts.has_sum = has_sum;
        self.submissions.forget_sums();
        steps.into_iter().for_each(|(tensor, step)| self.set_steps_of(tensor, step));
        about.lrs.iter().enumerate().try_for_each(|(group, &lr)| self.set_group_lr(group, lr))?;
        self.evaluating = about.evaluating;
        (self.counts.recorded, self.counts.micro_batches) = (about.recorded_steps, about.micro_batches);
        (self.counts.weights, self.counts.recorded_weight) = (weights, None);
        self.grad_scale = about.grad_scale;
        if self.plan.gradients.guarded {
            let fresh = Header::new(&self.groups);
            // A scale that was not looked for says nothing about one that is.
            let both = self.groups.grad_scaler().and(about.groups.grad_scaler()).is_some();
            let loss_scale = if both { about.loss_scale } else { fresh.loss_scale };
            let (unscale, grown, skipped) = (1.0 / loss_scale, about.grown, about.skipped_steps);
            let header = Header { loss_scale, unscale, grown, skipped, ..fresh };
            self.queue.write_buffer(self.table(), 0, bytemuck::bytes_of(&header));
            // A read that began before reports to nobody.
            self.reported = Arc::new(skipped.into());
        }
        // Where parameters are stored in two bytes, from their masters.
        self.submit_own(When::Round);
        Ok(())
    }

    /// Loads the tensors that a file has with the same name and shape, and leaves the others unchanged, such as a new head. Returns the
    /// names of the unchanged tensors, in the order of the specs. Learning rates, schedules, the scaler and micro-batches stay.
    ///
    /// ```no_run
    /// use wgpu_optim::{Checkpoint, Error, GpuOptimizer, Part};
    ///
    /// fn fine_tune(optimizer: &mut GpuOptimizer) -> Result<(), Error> {
    ///     let left = optimizer.load_matching(&mut Checkpoint::open("pretrained.safetensors")?, Part::Params)?;
    ///     println!("left as they are: {}", left.join(", "));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file has none of the tensors, or values out of range; [`Error::Ownership`] for [`Part::Params`] if your
    /// buffers hold the parameters. Nothing is changed then.
    pub fn load_matching(&mut self, file: &mut Checkpoint, part: Part) -> Result<Vec<String>> {
        let (entries, left) = self.matching(file, part)?;
        ensure!(!entries.is_empty(), refusal(&file.path, "no tensor of this optimizer is in it with the same shape"));
        if part == Part::All && self.plan.averages() {
            let reason = "one holds averages for evaluation, the other does not: call `evaluate` or `train` first";
            ensure!(self.evaluating == file.about.evaluating, refusal(&file.path, reason));
            self.check_averages(file)?;
        }
        let SavedCounts { steps, begun } = counts_in(file, &entries)?;
        let has_low: HashSet<usize> =
            entries.iter().filter(|entry| entry.what == MASTER_LOW).filter_map(|entry| entry.tensor).collect();
        let mut encoder = self.encoder();
        for tensor in steps.iter().map(|(tensor, _)| *tensor).filter(|tensor| !has_low.contains(tensor)) {
            if let Some(low) = self.low(tensor) {
                encoder.clear_buffer(low.buffer, low.offset, Some(low.size));
            }
        }
        self.queue.submit([encoder.finish()]);
        self.write_entries(file, &entries, self.has_half_averages_in_place())?;
        let masters = entries.iter().filter(|entry| entry.what == MASTER).filter_map(|entry| entry.tensor);
        let masters: HashSet<usize> = masters.collect();
        self.set_mastered(steps.iter().map(|(tensor, _)| (*tensor, masters.contains(tensor))));
        self.set_averaged(steps.iter().map(|(tensor, _)| (*tensor, begun.get(tensor).copied())));
        steps.into_iter().for_each(|(tensor, step)| self.set_steps_of(tensor, step));
        // Or masters would not be rounded after a skipped step.
        self.queue.write_buffer(self.table(), offset_of!(Header, skip) as u64, &[0; 4]);
        self.submit_own(When::Round);
        Ok(left)
    }

    /// The names of the tensors that [`load_matching`](Self::load_matching) would leave as they are, in the order of the specs.
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{Checkpoint, Part};
    /// let mut file = Checkpoint::open("pretrained.safetensors")?;
    /// if optimizer.mismatches(&file, Part::All)? == ["head.weight"] {
    ///     optimizer.load_matching(&mut file, Part::All)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Ownership`] as for [`load_matching`](Self::load_matching).
    pub fn mismatches(&self, file: &Checkpoint, part: Part) -> Result<Vec<String>> {
        Ok(self.matching(file, part)?.1)
    }

    /// What a file has of this optimizer, and the names of the tensors that it does not have as they are here.
    fn matching(&self, file: &Checkpoint, part: Part) -> Result<(Vec<Entry<'_>>, Vec<String>)> {
        if part == Part::Params {
            self.has_arenas(true, "your buffers hold the parameters: read them with `Checkpoint::read_param`")?;
        }
        let mut entries = self.entries_in(file)?;
        entries.retain(|entry| entry.what != GRAD_SUM && (part == Part::All || entry.what == PARAM));
        let fits = |entry: &Entry<'_>| {
            entry.fits(file, entry.tensor.map_or("", |tensor| &self.plan.tensors[tensor].spec.name))
        };
        // Tensors that have not stepped have no masters in a file, and other files have no averages.
        let lacks =
            |entry: &&Entry<'_>| ![MASTER, MASTER_LOW, AVERAGE, AVERAGE_STEP].contains(&entry.what) && !fits(entry);
        let left: HashSet<usize> = entries.iter().filter(lacks).filter_map(|entry| entry.tensor).collect();
        entries.retain(|entry| fits(entry) && entry.tensor.is_some_and(|tensor| !left.contains(&tensor)));
        let left = self.plan.order.iter().filter(|&tensor| left.contains(tensor));
        Ok((entries, left.map(|&tensor| self.plan.tensors[tensor].spec.name.clone()).collect()))
    }

    /// Writes what a file has of these entries. The lower halves of masters may stay.
    fn write_entries(&self, file: &mut Checkpoint, entries: &[Entry<'_>], keeps_low: bool) -> Result<()> {
        for part in parts(entries) {
            for (entry, slice) in part.iter().filter_map(|entry| Some((entry, entry.slice?))) {
                let saved = file.read(&entry.key)?;
                let low = entry.tensor.filter(|_| entry.what == PARAM).and_then(|tensor| self.low(tensor));
                if let Some(low) = low.filter(|_| !keeps_low) {
                    // Lower halves that are in the file by themselves come next.
                    let masters: Vec<f32> = bytemuck::pod_collect_to_vec(&saved);
                    let parts = [(slice, upper_halves(&masters)), (low, Stored::Low.encode(&masters))];
                    for (to, bytes) in parts {
                        scope::watch(&self.device, || self.queue.write_buffer(to.buffer, to.offset, &bytes))?;
                    }
                    continue;
                }
                let mut bytes = entry.converted(saved, entry.saved, entry.format);
                bytes.resize(slice.size as usize, 0);
                scope::watch(&self.device, || self.queue.write_buffer(slice.buffer, slice.offset, &bytes))?;
            }
            // Otherwise wgpu keeps a copy of all of them until the next step.
            self.queue.submit([]);
            readback::wait(&self.device)?;
        }
        Ok(())
    }

    /// Builds an optimizer that holds its parameters, with the tensors, groups and everything else of a checkpoint. A file does not hold
    /// [`ParamGroups::with_matmul`](crate::ParamGroups::with_matmul), which depends on the machine: set it with
    /// [`resume_with`](Self::resume_with).
    ///
    /// # Errors
    /// As for [`Checkpoint::open`], [`Checkpoint::groups`], [`new`](Self::new) and [`load`](Self::load).
    pub fn resume(device: &wgpu::Device, queue: &wgpu::Queue, path: impl AsRef<Path>) -> Result<Self> {
        let mut file = Checkpoint::open(path)?;
        let groups = file.groups()?;
        Self::resume_from(device, queue, &mut file, groups)
    }

    /// [`resume`](Self::resume) with changed settings. Returns the optimizer and the extra text of [`save_with`](Self::save_with).
    ///
    /// `change` gets the groups of the file. Schedules that were functions are constant there: set them again. Also use `change` to choose
    /// how this machine multiplies matrices.
    ///
    /// ```no_run
    /// use wgpu_optim::{Error, GpuOptimizer, LrSchedule, wgpu};
    ///
    /// fn resume(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<GpuOptimizer, Error> {
    ///     let halved = LrSchedule::function(|step| 0.5f64.powf(step as f64 / 1000.0));
    ///     let (optimizer, extra) =
    ///         GpuOptimizer::resume_with(device, queue, "run.safetensors", |groups| groups.with_schedule(halved))?;
    ///     println!("epoch {:?}", extra.get("epoch"));
    ///     Ok(optimizer)
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`resume`](Self::resume), except that functions are not errors.
    pub fn resume_with(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        path: impl AsRef<Path>,
        change: impl FnOnce(ParamGroups) -> ParamGroups,
    ) -> Result<(Self, BTreeMap<String, String>)> {
        let mut file = Checkpoint::open(path)?;
        let groups = change(file.about.groups.clone());
        let optimizer = Self::resume_from(device, queue, &mut file, groups)?;
        Ok((optimizer, file.about.extra))
    }

    fn resume_from(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        file: &mut Checkpoint,
        groups: ParamGroups,
    ) -> Result<Self> {
        // The file must hold the tensors that its metadata names, before memory is allocated for them.
        for spec in file.specs() {
            let key = format!("params.{}", spec.name);
            let has = file.tensors.info(&key).is_some_and(|info| info.shape == spec.shape);
            ensure!(has, refusal(&file.path, format!("it lacks `{key}` of shape {:?}", spec.shape)));
        }
        let mut optimizer = Self::new_blocking(device, queue, file.specs(), groups)?;
        optimizer.load_from(file)?;
        Ok(optimizer)
    }

    fn about(&self, header: Header, extra: BTreeMap<String, String>) -> About {
        let groups = self.as_made();
        let function = |g: &usize| matches!(groups.schedules()[*g].shape, Shape::Function(_));
        About {
            specs: self.specs().cloned().collect(),
            functions: (0..groups.schedules().len()).filter(function).collect(),
            lrs: self.groups.recipes().iter().map(|recipe| recipe.lr()).collect(),
            grad_scale: self.grad_scale,
            recorded_steps: self.counts.recorded,
            micro_batches: self.counts.micro_batches,
            weights: Some(self.counts.weights).filter(|&weights| weights != f64::from(self.counts.micro_batches)),
            evaluating: self.evaluating,
            loss_scale: header.loss_scale,
            grown: header.grown,
            skipped_steps: header.skipped,
            groups,
            extra,
        }
    }

    /// The tensors' table: what the GPU counts about all of them, and about each.
    fn read_table(&self) -> Result<(Header, Vec<Tensor>)> {
        let bytes = self.read("counts", &[TensorSlice::whole(self.table())], Ok)?;
        let bytes = readback::block_on(&self.device, bytes)?;
        let (header, entries) = bytes.split_at(HEADER_BYTES as usize);
        let entries = entries.chunks_exact(TENSOR_BYTES as usize);
        let counts = entries.map(|entry| readback::decode("counts", entry)).collect::<Result<_, _>>()?;
        Ok((readback::decode("counts", header)?, counts))
    }
}

/// Step counts in a file, by tensors of the plan.
struct SavedCounts {
    /// The step of each.
    steps: Vec<(usize, u64)>,
    /// The steps that began averages.
    begun: HashMap<usize, u32>,
}

/// Refuses values out of range.
fn counts_in(file: &mut Checkpoint, entries: &[Entry<'_>]) -> Result<SavedCounts> {
    let (mut steps, mut begun) = (Vec::new(), HashMap::new());
    for entry in entries.iter().filter(|entry| entry.is_limited()) {
        let bytes = file.read(&entry.key)?;
        entry.check(&bytes).map_err(|reason| refusal(&file.path, reason))?;
        let Some(tensor) = entry.tensor.filter(|_| entry.is_count()) else { continue };
        let count: u64 = bytemuck::pod_read_unaligned(&bytes);
        match entry.what {
            STEP => steps.push((tensor, count)),
            _ => drop(begun.insert(tensor, count as u32)),
        }
    }
    Ok(SavedCounts { steps, begun })
}
