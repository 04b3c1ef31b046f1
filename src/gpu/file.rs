//! The file of a checkpoint: safetensors, with everything else that the run needs in its metadata.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::held::{RATES, Stored};
use super::slices::TensorSlice;
use crate::error::{Error, Result, ensure};
use crate::recipe::groups::ParamGroups;
use crate::recipe::json;
use crate::recipe::spec::TensorSpec;
use crate::recipe::state::Bytes;

/// The format version that [`GpuOptimizer::save`](crate::GpuOptimizer::save) writes, and the newest that this crate reads.
///
/// Later releases read all older versions. The version rises when an older release would misread a new file: when the meaning or the name
/// of a tensor or setting changes, or when one is no longer written. New tensors and settings do not raise it. They are written only
/// where they are used, and a release that does not know one refuses the file and names it.
pub const FORMAT_VERSION: u32 = 1;

pub(super) const STEP: &str = "step";
/// The step that began a tensor's average.
pub(super) const AVERAGE_STEP: &str = "average_step";
pub(super) const FORMAT: &str = "wgpu-optim";
/// Longest header that is read or written. The header of a foreign file may claim any length.
pub(super) const LONGEST_HEADER: u64 = 100 << 20;
/// Bytes of entries that are copied together, and how many they are at most: what wgpu does for a copy grows with those before it.
const PART: usize = 1 << 20;
const COPIES: usize = 256;

/// An open checkpoint file. Its header is read and checked; tensors are read when they are needed.
///
/// | tensor | written for | shape |
/// |---|---|---|
/// | `params.{name}` | parameters in the optimizer's buffers, and those given to `save_params` | the tensor's |
/// | `state.{name}.exp_avg` and other states of the base | the base | the tensor's, or that of its rows or columns |
/// | `state.{name}.exp_avg.8bit` and others per coordinate | the same, in place of these, with 8-bit states; U32 | a word for each four coordinates |
/// | `state.{name}.accumulator` and others that are one number per tensor | the base | scalar |
/// | `state.{name}.master` | parameters in two bytes in your buffers | the tensor's |
/// | `state.{name}.master_low` | the lower halves of masters, where these alone are kept; U16 | the tensor's |
/// | `state.{name}.average` | averages over the steps that have begun | the tensor's |
/// | `state.{name}.average_step` | the same: the step that began the average | scalar, I64 |
/// | `state.{name}.grad_sum` | sums of micro-batches that no step has used yet | the tensor's |
/// | `state.{name}.rates` | tensors with components | number of components |
/// | `state.{name}.step` | all tensors | scalar, I64 |
///
/// All others are F32 at any precision. The metadata hold `format`, `format_version` and, as JSON under `optimizer`, the
/// tensors, groups, learning rates, places in the schedules, and the scaler.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) path: PathBuf,
    source: Box<dyn Source>,
    /// Where the data begin.
    data: u64,
    pub(super) tensors: Metadata,
    pub(super) about: About,
}

/// What is said in the metadata, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    pub(super) specs: Vec<TensorSpec>,
    pub(super) groups: ParamGroups,
    /// Groups whose schedule is a function, which no file can hold.
    pub(super) functions: Vec<usize>,
    pub(super) lrs: Vec<f64>,
    pub(super) grad_scale: f64,
    pub(super) recorded_steps: u64,
    pub(super) micro_batches: u32,
    /// The sum of the weights of these, where it is not their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) weights: Option<f64>,
    /// Whether averages are in the place of the parameters.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) evaluating: bool,
    pub(super) loss_scale: f32,
    pub(super) grown: u32,
    pub(super) skipped_steps: u32,
    pub(super) extra: BTreeMap<String, String>,
}

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
    /// The format there.
    pub(super) format: Stored,
    /// The format in the file: f32, or bytes.
    pub(super) saved: Stored,
    /// Whether it is a sum of squares, which is never negative.
    pub(super) squares: bool,
}

/// The end of the keys of states that are stored in bytes.
const BYTES: &str = ".8bit";

impl Entry<'_> {
    /// The same in a file that has the state in the other format, f32 or bytes, if it is a state.
    pub(super) fn in_other_format(&self) -> (String, Stored) {
        match (self.key.strip_suffix(BYTES), self.squares) {
            _ if self.saved == Stored::Low => (self.key.clone(), self.saved),
            (Some(key), _) => (key.to_owned(), Stored::F32),
            (None, true) => (format!("{}{BYTES}", self.key), Stored::Byte(Bytes::Squares)),
            (None, false) => (format!("{}{BYTES}", self.key), Stored::Byte(Bytes::Signed)),
        }
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

/// What a checkpoint is read from.
trait Source: Read + Seek + Debug + Send + Sync {}

impl<S: Read + Seek + Debug + Send + Sync> Source for S {}

impl Checkpoint {
    /// Opens a file, and reads its header.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it cannot be read, is not a checkpoint, is truncated, or was written by a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |e: std::io::Error| refusal(path, e);
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Self::read_head(path, file, size)
    }

    /// Opens a checkpoint that lies in memory, as [`GpuOptimizer::save_to`](crate::GpuOptimizer::save_to) wrote it. Errors name its path as
    /// `(bytes)`.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        Self::read_head(Path::new("(bytes)"), Cursor::new(bytes), size)
    }

    fn read_head(path: &Path, mut file: impl Source + 'static, size: u64) -> Result<Self> {
        let failed = |e: std::io::Error| refusal(path, e);
        let foreign = |what: &dyn Display| refusal(path, format!("it is not a safetensors file: {what}"));
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| foreign(&"it has less than 8 bytes"))?;
        let length = u64::from_le_bytes(length);
        let too_long = format!("its header would have {length} bytes, and the file has {size}");
        ensure!(length <= LONGEST_HEADER && length + 8 <= size, foreign(&too_long));
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let tensors: Metadata = unique(&header).map_err(|e| foreign(&e))?;

        let said = tensors.metadata().clone().unwrap_or_default();
        let about = |key: &str| said.get(key).map(String::as_str);
        let other = "it is a safetensors file, but not a checkpoint of wgpu-optim";
        ensure!(about("format") == Some(FORMAT), refusal(path, other));
        let version = about("format_version").unwrap_or("none");
        let newer = format!("its format version is {version}; this program reads up to {FORMAT_VERSION}");
        let is_known = version.parse().is_ok_and(|version| (1..=FORMAT_VERSION).contains(&version));
        ensure!(is_known, refusal(path, newer));
        let (data, expected) = (8 + length, 8 + length + tensors.data_len() as u64);
        let cut = format!("it has {size} bytes instead of {expected}: it was cut short, or grew");
        ensure!(size == expected, refusal(path, cut));
        let about = unique(about("optimizer").unwrap_or_default().as_bytes());
        let about = about.map_err(|e| refusal(path, format!("its metadata: {e}")))?;
        Ok(Self { path: path.to_owned(), source: Box::new(file), data, tensors, about })
    }

    /// The tensors that were stepped, in their order.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.about.specs
    }

    /// The parameter groups, with their initial learning rates.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a schedule was a function, which a file cannot hold. Build the groups in code, or use
    /// [`GpuOptimizer::resume_with`](crate::GpuOptimizer::resume_with).
    pub fn groups(&self) -> Result<ParamGroups> {
        let Some(group) = self.about.functions.first() else { return Ok(self.about.groups.clone()) };
        let reason = format!("the schedule of group {group} was a function, which a file cannot hold; give it again");
        Err(refusal(&self.path, reason))
    }

    /// The text that [`GpuOptimizer::save_with`](crate::GpuOptimizer::save_with) was given.
    pub fn extra(&self) -> &BTreeMap<String, String> {
        &self.about.extra
    }

    /// Names and shapes of the parameters in the file.
    ///
    /// ```no_run
    /// # fn example(bytes: Vec<u8>) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{Checkpoint, FORMAT_VERSION};
    /// let mut file = Checkpoint::from_bytes(bytes)?;
    /// for (name, shape) in file.params() {
    ///     println!("{name} {shape:?}: {:?}", file.read_param(&name)?);
    /// }
    /// println!("{:?} of format {FORMAT_VERSION} at most", file.extra());
    /// # Ok(())
    /// # }
    /// ```
    pub fn params(&self) -> Vec<(String, Vec<usize>)> {
        let keys = self.tensors.offset_keys().into_iter();
        let of = |key: String| Some((key.strip_prefix("params.")?.to_owned(), self.tensors.info(&key)?.shape.clone()));
        keys.filter_map(of).collect()
    }

    /// Reads a parameter.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file does not have it, or cannot be read.
    pub fn read_param(&mut self, name: &str) -> Result<Vec<f32>> {
        let key = format!("params.{name}");
        let is_there = self.tensors.info(&key).is_some_and(|info| info.dtype == Dtype::F32);
        ensure!(is_there, refusal(&self.path, format!("it lacks `{key}` in F32")));
        Ok(bytemuck::pod_collect_to_vec(&self.read(&key)?))
    }

    /// The bytes of a tensor that the file has.
    pub(super) fn read(&mut self, key: &str) -> Result<Vec<u8>> {
        let (start, end) = self.tensors.info(key).expect("it was looked for").data_offsets;
        let mut bytes = vec![0; end - start];
        let seek = self.source.seek(SeekFrom::Start(self.data + start as u64));
        let read = seek.and_then(|_| self.source.read_exact(&mut bytes));
        read.map_err(|e| refusal(&self.path, format!("{e}; load it again, or another")))?;
        Ok(bytes)
    }
}

/// Reads JSON whose objects have no key twice.
fn unique<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    json::check_keys(text)?;
    serde_json::from_slice(text)
}

pub(super) fn refusal(path: &Path, reason: impl ToString) -> Error {
    Error::Checkpoint { path: path.to_owned(), reason: reason.to_string() }
}

/// The file that a path names, also where it is a link, and where a link leads nowhere yet.
fn target(path: &Path) -> Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..40 {
        let Ok(link) = fs::read_link(&target) else { return Ok(target) };
        target = target.parent().unwrap_or(Path::new("")).join(link);
    }
    Err(refusal(path, "it is a chain of more than 40 symbolic links"))
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

/// Writes a header, and what `read` returns of each part of the entries. `path` is for errors.
pub(super) fn write(
    path: &Path,
    to: &mut dyn Write,
    head: &[u8],
    entries: &[Entry<'_>],
    read: impl Fn(&[Entry<'_>]) -> Result<Vec<u8>>,
) -> Result<()> {
    let failed = |e: std::io::Error| refusal(path, e);
    to.write_all(&(head.len() as u64).to_le_bytes()).map_err(failed)?;
    to.write_all(head).map_err(failed)?;
    parts(entries).try_for_each(|part| to.write_all(&read(part)?).map_err(failed))
}

/// Writes a file tensor by tensor, has the disk keep it, and gives it its name.
pub(super) fn write_synced(
    path: &Path,
    head: &[u8],
    entries: &[Entry<'_>],
    read: impl Fn(&[Entry<'_>]) -> Result<Vec<u8>>,
) -> Result<()> {
    let failed = |e: std::io::Error| refusal(path, e);
    let target = target(path)?;
    ensure!(target.file_name().is_some(), refusal(path, "it has no file name"));
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
    write(path, &mut file, head, entries, read)?;
    file.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)?;
    partial.persist(&target).map_err(|e| failed(e.error))?;
    // The disk keeps the new name too, where directories can be synced.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}
