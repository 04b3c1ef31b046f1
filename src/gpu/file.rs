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

use crate::error::{Error, Result, ensure};
use crate::recipe::groups::ParamGroups;
use crate::recipe::json;
use crate::recipe::spec::TensorSpec;

/// The format version that [`GpuOptimizer::save`](crate::GpuOptimizer::save) writes, and the newest that this crate reads.
///
/// Later releases read all older versions. The version rises when an older release would misread a new file: when the meaning or the name
/// of a tensor or setting changes, or when one is no longer written. New tensors and settings do not raise it. They are written only
/// where they are used, and a release that does not know one refuses the file and names it.
pub const FORMAT_VERSION: u32 = 1;

pub(super) const FORMAT: &str = "wgpu-optim";
/// Longest header that is read or written. The header of a foreign file may claim any length.
pub(super) const LONGEST_HEADER: u64 = 100 << 20;

/// An open checkpoint file. Its header is read and checked; tensors are read when they are needed.
///
/// | tensor | written for | shape |
/// |---|---|---|
/// | `params.{name}` | parameters in the optimizer's buffers, and those given to `save_params` | the tensor's |
/// | `state.{name}.exp_avg` and other states of the base | the base | the tensor's, or that of its rows or columns |
/// | `state.{name}.exp_avg.8bit` and others per coordinate | the same, in place of these, with 8-bit states; U32 | a word for each four coordinates |
/// | `state.{name}.accumulator` and others that are one number per tensor | the base | scalar |
/// | `state.{name}.master` | parameters in two bytes in your buffers | the tensor's |
/// | `state.{name}.master_low` | the lower halves of split masters, if your buffers hold the parameters, or averages in bf16 are in their place; U16 | the tensor's |
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

/// Writes a header, and then the parts of the data. `path` is for errors.
pub(super) fn write(
    path: &Path,
    to: &mut dyn Write,
    head: &[u8],
    mut parts: impl Iterator<Item = Result<Vec<u8>>>,
) -> Result<()> {
    let failed = |e: std::io::Error| refusal(path, e);
    to.write_all(&(head.len() as u64).to_le_bytes()).map_err(failed)?;
    to.write_all(head).map_err(failed)?;
    parts.try_for_each(|part| to.write_all(&part?).map_err(failed))
}

/// Writes a file tensor by tensor, has the disk keep it, and gives it its name.
pub(super) fn write_synced(path: &Path, head: &[u8], parts: impl Iterator<Item = Result<Vec<u8>>>) -> Result<()> {
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
    write(path, &mut file, head, parts)?;
    file.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)?;
    partial.persist(&target).map_err(|e| failed(e.error))?;
    // The disk keeps the new name too, where directories can be synced.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}
