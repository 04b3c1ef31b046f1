//! State as Burn's records keep it, so that a run can go on with Burn's optimizers or with ours.
//!
//! A record names state by parameter: `{id}.momentum.moment_1`, `{id}.momentum.moment_2` and `{id}.momentum.time` for
//! Adam and AdamW, `{id}.momentum` for Lion, and others for SGD, AdaGrad, Adan and Adafactor. Ours adds `{id}.step`, which
//! Burn ignores. States of other bases have our own names. The momentum of Muon is an average, where Burn's Muon keeps a
//! sum.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::ParamId;
use burn::optim::OptimizerRecord;
use burn::tensor::Bytes;
use burn_pack::{DType, Reader, Scalar, Tensor, Writer};

use crate::error::Error;
use crate::module::GpuModuleOptimizer;
use crate::state::{Loaded, base_of, leaves, shape_of};

impl GpuModuleOptimizer {
    /// The state as a Burn record, which Burn's optimizers of the same kind can load, too. Averages of
    /// [`ParamGroups::with_average`](wgpu_optim::ParamGroups::with_average) are not in it; a checkpoint holds them.
    ///
    /// # Errors
    /// [`Error::Optimizer`] between [`evaluate`](Self::evaluate) and [`train`](Self::train), or if the state cannot be read
    /// back, for example from a lost device.
    pub fn to_record(&self) -> Result<OptimizerRecord, Error> {
        OptimizerRecord::from_bytes(self.into_bytes()?).map_err(|e| Error::Record(e.to_string()))
    }

    /// Replaces the state with a record of this optimizer, or of Burn's of the same kind. The first step checks it against the
    /// module. Parameters that are not in the record start without state.
    ///
    /// # Errors
    /// [`Error::Record`] if the record is malformed.
    pub fn load_record(self, record: OptimizerRecord) -> Result<Self, Error> {
        self.from_bytes(record.into_bytes().map_err(|e| Error::Record(e.to_string()))?)
    }

    /// Writes the state to a file, which is replaced as a whole or not at all. A path without an extension gets `.bpk`.
    ///
    /// # Errors
    /// As for [`to_record`](Self::to_record); [`Error::Record`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.writer()?.overwrite(true).write_to_file(path).map_err(|e| Error::Record(e.to_string()))
    }

    /// [`load_record`](Self::load_record) from a file.
    ///
    /// # Errors
    /// [`Error::Record`] if the file does not exist or is not a record.
    pub fn load(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        self.read(Reader::from_file(path).map_err(|e| Error::Record(e.to_string()))?)
    }

    /// The record in memory.
    ///
    /// # Errors
    /// As for [`to_record`](Self::to_record).
    #[allow(clippy::wrong_self_convention)] // Burn's name
    pub fn into_bytes(&self) -> Result<Bytes, Error> {
        self.writer()?.into_bytes().map_err(|e| Error::Record(e.to_string()))
    }

    /// [`load_record`](Self::load_record) from memory.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    #[allow(clippy::wrong_self_convention)] // Burn's name
    pub fn from_bytes(self, bytes: Bytes) -> Result<Self, Error> {
        self.read(Reader::from_bytes(bytes).map_err(|e| Error::Record(e.to_string()))?)
    }

    fn writer(&self) -> Result<Writer, Error> {
        let mut all = Vec::new();
        if let Some(core) = &self.core {
            if core.optimizer.is_evaluating() {
                return Err(wgpu_optim::Error::Evaluating.into());
            }
            for known in &core.params {
                let base = base_of(&core.optimizer, known)?;
                let leaves = leaves(base);
                let state = leaves.into_iter().map(|(leaf, state)| {
                    let values = core.optimizer.read_state_blocking(&known.name, state.name)?;
                    Ok((leaf.to_owned(), (shape_of(base, state, &known.spec()), values)))
                });
                all.push(Loaded {
                    id: known.id,
                    path: Some(known.path.clone()),
                    steps: Some(core.optimizer.read_steps_blocking(&known.name)?),
                    state: state.collect::<Result<_, Error>>()?,
                });
            }
        }
        // What was loaded and has not stepped yet is not lost.
        let all = all.iter().chain(&self.loaded);
        let mut tensors = Vec::new();
        let mut scalars = Vec::new();
        let mut paths = Vec::new();
        for Loaded { id, path, steps, state } in all {
            let id = id.val();
            for (leaf, (shape, values)) in state {
                let bytes = Bytes::from_elems(values.clone());
                tensors.push(Tensor::new(format!("{id}.{leaf}"), DType::F32, shape.clone(), Some(id), bytes));
            }
            let rank = state.values().map(|(shape, _)| shape.len()).max().unwrap_or(0);
            scalars.push((format!("{id}.__rank"), rank as u64));
            // Burn counts the steps of some optimizers next to their state.
            let counts = [
                ("momentum.time", ["momentum.moment_1", "momentum.exp_avg"]),
                ("lr_decay.time", ["lr_decay.sum"; 2]),
                ("time", ["second_moment"; 2]),
            ];
            let counted = counts.iter().filter(|(_, leaves)| leaves.iter().any(|leaf| state.contains_key(*leaf)));
            for leaf in counted.map(|(leaf, _)| *leaf).chain(["step"]) {
                scalars.extend(steps.map(|steps| (format!("{id}.{leaf}"), steps)));
            }
            if let Some(path) = path {
                paths.push((id.to_string(), path));
            }
        }
        let writer = Writer::new(tensors);
        let writer =
            scalars.iter().fold(writer, |writer, (name, value)| writer.with_scalar(name, Scalar::from(*value)));
        Ok(paths.iter().fold(writer, |writer, (id, path)| writer.with_metadata(id, path)))
    }

    fn read(mut self, reader: Reader) -> Result<Self, Error> {
        if self.core.as_ref().is_some_and(|core| core.optimizer.is_evaluating()) {
            return Err(wgpu_optim::Error::Evaluating.into());
        }
        let (scalars, paths) = (reader.scalars().clone(), reader.metadata().clone());
        let mut loaded: BTreeMap<u64, Loaded> = BTreeMap::new();
        for tensor in reader.into_tensors().map_err(|e| Error::Record(e.to_string()))? {
            let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(|e| Error::Record(e.to_string()))?;
            let parts = name.split_once('.').and_then(|(id, leaf)| Some((id.parse::<u64>().ok()?, leaf)));
            let Some((id, leaf)) = parts else {
                return Err(Error::Record(format!("`{name}` is not `<parameter id>.<state>`")));
            };
            if dtype != DType::F32 {
                return Err(Error::Record(format!("`{name}` is {dtype:?}, not F32")));
            }
            let values: Vec<f32> =
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let scalar = |leaf: &str| scalars.get(&format!("{id}.{leaf}")).and_then(|s| u64::try_from(*s).ok());
            let entry = loaded.entry(id).or_insert_with(|| Loaded {
                id: ParamId::from(id),
                path: paths.get(&id.to_string()).cloned(),
                steps: ["momentum.time", "lr_decay.time", "time", "step"].into_iter().find_map(scalar),
                state: BTreeMap::new(),
            });
            entry.state.insert(leaf.to_owned(), (shape.to_vec(), values));
        }
        // A base without state has counted its steps.
        for (name, steps) in &scalars {
            let id = name.strip_suffix(".step").and_then(|id| id.parse::<u64>().ok());
            let (Some(id), Ok(steps)) = (id, u64::try_from(*steps)) else { continue };
            loaded.entry(id).or_insert_with(|| Loaded {
                id: ParamId::from(id),
                path: paths.get(&id.to_string()).cloned(),
                steps: Some(steps),
                state: BTreeMap::new(),
            });
        }
        self.core = None;
        self.loaded = loaded.into_values().collect();
        Ok(self)
    }
}
