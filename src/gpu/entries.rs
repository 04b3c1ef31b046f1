//! What a checkpoint holds of each tensor, and where it lies on the GPU.

use safetensors::Dtype;

use super::file::Checkpoint;
use super::held::{Held, PARAM, RATES, Stored};
use super::optimizer::GpuOptimizer;
use super::slices::TensorSlice;
use crate::error::{Error, Result, ensure};
use crate::kernel::tables::Tensor;
use crate::recipe::base::{Per, StateRow};
use crate::recipe::precision::Precision;
use crate::recipe::state::Code;

pub(super) const STEP: &str = "step";
/// The step that began a tensor's average.
pub(super) const AVERAGE_STEP: &str = "average_step";
/// Bytes of entries that are copied together, and how many they are at most: what wgpu does for a copy grows with those before it.
const PART: usize = 1 << 20;
const COPIES: usize = 256;

/// A tensor of the file, and where it lies on the GPU.
pub(super) struct Entry<'a> {
    pub(super) key: String,
    /// Which of the plan, where it is one of these.
    pub(super) tensor: Option<usize>,
    /// `params`, or the name of a state.
    pub(super) what: &'static str,
    pub(super) shape: &'a [usize],
    /// Where it lies on the GPU. Steps are counted elsewhere.
    pub(super) slice: Option<TensorSlice<'a>>,
    /// Where the lower halves lie of masters that a file holds in one part.
    pub(super) low: Option<TensorSlice<'a>>,
    /// The format there.
    pub(super) format: Stored,
    /// The format in the file: f32, or bytes.
    pub(super) saved: Stored,
    /// The code of a state per coordinate in bytes. `None` for everything else.
    pub(super) code: Option<Code>,
    /// Whether it is a sum of squares, which is never negative.
    pub(super) squares: bool,
}

/// The end of the keys of states that are stored in bytes.
const BYTES: &str = ".8bit";

impl Entry<'_> {
    /// The key and format in a file that has the state in the other format, f32 or bytes, if it may be in both.
    fn in_other_format(&self) -> Option<(String, Stored)> {
        let code = self.code?;
        Some(match self.key.strip_suffix(BYTES) {
            Some(key) => (key.to_owned(), Stored::F32),
            None => (format!("{}{BYTES}", self.key), Stored::Byte(code)),
        })
    }

    /// Whether a file has it: with this type, and for a tensor of this shape.
    pub(super) fn fits(&self, file: &Checkpoint, name: &str) -> bool {
        let info = file.tensors.info(&self.key);
        // The shape of words says nothing about that of the tensor.
        let is_own = || file.specs().iter().any(|spec| spec.name == name && spec.shape == self.shape);
        info.is_some_and(|info| (info.dtype, &info.shape) == (self.dtype(), &self.saved_shape()))
            && (!matches!(self.saved, Stored::Byte(_)) || is_own())
    }

    /// The key, given that of f32.
    pub(super) fn key_of(key: String, saved: Stored) -> String {
        if matches!(saved, Stored::Byte(_)) { key + BYTES } else { key }
    }

    /// What the file holds, as the GPU stores it, or the reverse.
    pub(super) fn converted(&self, bytes: Vec<u8>, from: Stored, to: Stored) -> Vec<u8> {
        if from == to { bytes } else { to.encode(&from.decode(&bytes, self.shape.iter().product())) }
    }

    /// Whether it is a count of steps.
    pub(super) fn is_count(&self) -> bool {
        [STEP, AVERAGE_STEP].contains(&self.what)
    }

    /// Whether a file may hold values that no optimizer writes.
    pub(super) fn is_limited(&self) -> bool {
        self.is_count() || self.what == RATES || self.squares
    }

    /// Refuses values that no optimizer writes, which would be found out later and elsewhere.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let key = &self.key;
        if self.is_count() {
            let step: i64 = bytemuck::pod_read_unaligned(bytes);
            ensure!(step >= 0, format!("`{key}` is {step}, expected 0 or more"));
            let fits = self.what == STEP || step <= u32::MAX.into();
            ensure!(fits, format!("`{key}` is {step}, expected at most {}", u32::MAX));
        } else if self.is_limited() {
            let values = self.saved.decode(bytes, self.shape.iter().product());
            let is_wrong = |&x: &f32| x.is_nan() || x < 0.0 || (self.what == RATES && x.is_infinite());
            if let Some(at) = values.iter().position(is_wrong) {
                let value = values[at];
                return Err(format!("`{key}` is {value:?} at {at}, and must be a number that is not negative"));
            }
        }
        Ok(())
    }

    pub(super) fn dtype(&self) -> Dtype {
        match self.saved {
            _ if self.is_count() => Dtype::I64,
            Stored::Byte(_) => Dtype::U32,
            Stored::Low => Dtype::U16,
            Stored::Float(_) => Dtype::F32,
        }
    }

    /// The shape in the file: that of the tensor, or the number of words.
    pub(super) fn saved_shape(&self) -> Vec<usize> {
        match self.saved {
            Stored::Byte(_) => vec![self.size() / 4],
            Stored::Float(_) | Stored::Low => self.shape.to_vec(),
        }
    }

    pub(super) fn size(&self) -> usize {
        let count = self.shape.iter().product::<usize>();
        match self.saved {
            _ if self.is_count() => 8 * count,
            Stored::Low => 2 * count,
            saved => saved.size(count as u64) as usize,
        }
    }
}

/// Entries that are copied together: one, or small ones.
pub(super) fn parts<'e, 'a>(entries: &'e [Entry<'a>]) -> impl Iterator<Item = &'e [Entry<'a>]> {
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

impl GpuOptimizer {
    /// What a file holds of each tensor, in the caller's order, and what it may hold.
    pub(super) fn entries(&self) -> Result<Vec<Entry<'_>>> {
        self.has_state()?;
        let of = |&tensor: &usize| {
            let name = &self.plan.tensors[tensor].spec.name;
            let states = self.plan.base_of(&self.plan.tensors[tensor]).row().states;
            let held = self
                .held(tensor)
                .into_iter()
                .map(|Held { what, shape, slice, format, .. }| (what, shape, format, Some(slice)));
            let counts = [STEP].into_iter().chain(self.plan.average.map(|_| AVERAGE_STEP));
            held.chain(counts.map(|what| (what, &[][..], Stored::F32, None))).map(
                move |(what, shape, format, slice)| {
                    let key = if what == PARAM { format!("params.{name}") } else { format!("state.{name}.{what}") };
                    let state = states.iter().find(|state| state.name == what);
                    let squares = state.is_some_and(|state| state.squares);
                    let code = state.filter(|state| state.per == Per::Coordinate).map(StateRow::code);
                    let low = self.low(tensor).filter(|_| what == PARAM && !self.has_half_averages_in_place());
                    let saved = if matches!(format, Stored::Float(_)) { Stored::F32 } else { format };
                    let key = Entry::key_of(key, saved);
                    Entry { key, tensor: Some(tensor), what, shape, slice, low, format, saved, code, squares }
                },
            )
        };
        Ok(self.plan.order.iter().flat_map(of).collect())
    }

    /// The same, with states in the format in which a file has them.
    pub(super) fn entries_in(&self, file: &Checkpoint) -> Result<Vec<Entry<'_>>> {
        let mut entries = self.entries()?;
        for entry in entries.iter_mut().filter(|entry| file.tensors.info(&entry.key).is_none()) {
            let other = entry.in_other_format().filter(|(key, _)| file.tensors.info(key).is_some());
            if let Some((key, saved)) = other {
                (entry.key, entry.saved) = (key, saved);
            }
        }
        Ok(entries)
    }

    /// A parameter of the caller's.
    pub(super) fn given<'a>(
        &'a self,
        name: &str,
        shape: &'a [usize],
        slice: TensorSlice<'a>,
        counts: &[Tensor],
    ) -> Result<Entry<'a>> {
        self.has_arenas(false, "this optimizer holds its parameters, and `save` writes them")?;
        let refusal = |reason| Error::slice(name, "parameter", reason);
        let numel = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let numel = numel.ok_or_else(|| refusal(format!("shape {shape:?} is too large")))?;
        let (given, size) = (slice.size, (self.plan.precision.bytes() * numel as u64).next_multiple_of(4));
        ensure!(given >= size, refusal(format!("{given} bytes given, {size} needed for shape {shape:?}")));
        let slice = TensorSlice { size, ..slice };
        slice.check(wgpu::COPY_BUFFER_ALIGNMENT, wgpu::BufferUsages::COPY_SRC).map_err(refusal)?;
        let tensor = self.plan.tensor_index(name).ok();
        let mastered = tensor.filter(|&tensor| counts[tensor].mastered == 1);
        let master = mastered.and_then(|tensor| self.master(tensor));
        let format = Stored::Float(if master.is_some() { Precision::F32 } else { self.plan.precision });
        let (key, slice) = (format!("params.{name}"), Some(master.unwrap_or(slice)));
        let (saved, squares) = (Stored::F32, false);
        Ok(Entry { key, tensor, what: PARAM, shape, slice, low: None, format, saved, code: None, squares })
    }
}
