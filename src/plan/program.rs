//! The step as data: buffers, kernels and dispatches. It knows no wgpu; any host of WebGPU can execute it.

use serde::{Deserialize, Serialize};

pub use crate::kernel::catalog::Kernel;
pub use crate::kernel::linker::Binding;

use super::cost::Cost;
#[doc(hidden)]
pub use super::layout::SEARCHED;

/// A step as data, for any host of WebGPU: buffers, WGSL kernels and dispatches. `docs/program.md` says how a host executes it.
///
/// ```
/// use wgpu_optim::matrix::Matmul;
/// use wgpu_optim::program::{Bound, Dispatch, PROGRAM_VERSION, Place, Placed, Usage, When};
/// use wgpu_optim::{PlanLimits, Program, Recipe, TensorSpec};
///
/// let specs = [TensorSpec::new("weight", [1024, 1024])];
/// let program = Program::new(&specs, Recipe::adamw(1e-3).mgup(), PlanLimits::WEBGPU, Matmul::Tiles)?;
/// let uniforms = program.buffers.iter().filter(|buffer| buffer.usage == Usage::Uniform).count();
/// println!("{} buffers, {uniforms} of them uniforms", program.buffers.len());
/// let Placed { name, param: Place { buffer, offset, format, .. }, .. } = &program.tensors[0];
/// println!("`{name}` lies in buffer {buffer} at byte {offset}, in {format}");
/// assert_eq!(program.version, PROGRAM_VERSION);
/// for Dispatch { purpose, kernel, workgroups, bindings, .. } in program.dispatches.iter().filter(|d| d.when == When::Step) {
///     let written = bindings.iter().filter(|bound: &&Bound| bound.writes).count();
///     println!("{purpose}: {} over {workgroups:?}, writes {written} buffers", program.kernels[*kernel].name);
/// }
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Program {
    /// The version of this format: [`PROGRAM_VERSION`].
    pub version: u32,
    /// The tensors, in the order in which they were given.
    pub tensors: Vec<Placed>,
    /// Number of parameters that it steps.
    pub parameters: u64,
    /// Memory, traffic and dispatches.
    pub cost: Cost,
    /// All buffers, which bindings name by index.
    pub buffers: Vec<Buffer>,
    /// All kernels, which dispatches name by index.
    pub kernels: Vec<Kernel>,
    /// All dispatches, in order. [`When`] says in which steps each one runs.
    pub dispatches: Vec<Dispatch>,
    /// Names of the scalars that the host writes for every step, one word each, in this order. There is one set per parameter group, and
    /// then, if any group has a fallback, one per group for its fallback. Sets are 256 bytes apart.
    pub scalars: Vec<String>,
}

/// The version of [`Program`] as data. It rises when a host of an older version would misread a program: when a field is removed or
/// changes its meaning, or when a host must do more than before.
pub const PROGRAM_VERSION: u32 = 1;

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Placed {
    /// The name of the tensor.
    pub name: String,
    /// The sizes of the dimensions of the tensor.
    pub shape: Vec<usize>,
    /// The parameter, as steps leave it.
    pub param: Place,
    /// The gradient, as the host writes it before a step.
    pub grad: Place,
    /// The states by their names, zero before the first step.
    pub states: Vec<(String, Place)>,
}

/// A range of a buffer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Place {
    /// Index of the buffer in [`Program::buffers`].
    pub buffer: usize,
    /// First byte.
    pub offset: u64,
    /// Size in bytes: a multiple of 4.
    pub size: u64,
    /// How each number is stored: `f32`, `f16`, `bf16`, or `8bit` and `8bit squares` for the bytes of
    /// [`StateFormat::EightBit`](crate::StateFormat::EightBit).
    pub format: String,
}

/// A buffer. It begins with its contents, then zeros.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Buffer {
    /// A name of its contents.
    pub label: String,
    /// Its size in bytes.
    pub size: u64,
    /// How it is used.
    pub usage: Usage,
    /// The words that it begins with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<u32>,
}

/// How a buffer is used, in addition to copies to and from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Usage {
    /// As storage.
    Storage,
    /// As a uniform.
    Uniform,
    /// As both.
    StorageAndUniform,
}

/// When a dispatch runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum When {
    /// For each micro-batch, before a step.
    #[strum(to_string = "for each micro-batch")]
    MicroBatch,
    /// When masters are read from parameters in two bytes: before a step over your buffers, or after `forget_masters`.
    #[strum(to_string = "when masters are read again")]
    Masters,
    /// In each step.
    #[strum(to_string = "in each step")]
    Step,
    /// In steps that are observed.
    #[strum(to_string = "in observed steps")]
    Observed,
    /// After steps with an update of averages of the parameters.
    #[strum(to_string = "after steps that update averages")]
    Average,
    /// At the end of a step, after what observes it.
    #[strum(to_string = "at the end of a step")]
    Round,
    /// When parameters become averages for evaluation.
    #[strum(to_string = "before evaluation")]
    Evaluate,
    /// When they go back to where gradients are taken.
    #[strum(to_string = "after evaluation")]
    Train,
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dispatch {
    /// The purpose of the dispatch, in words.
    pub purpose: String,
    /// When it runs.
    pub when: When,
    /// Index of its kernel in [`Program::kernels`].
    pub kernel: usize,
    /// Name of its entry point.
    pub entry_point: String,
    /// The buffer ranges that it binds.
    pub bindings: Vec<Bound>,
    /// How many items it covers: runs of up to 4,096 coordinates (chunks) or a quarter of that, parts of tensors (pieces), matrices or
    /// tensors.
    pub count: u32,
    /// Number of workgroups in three dimensions.
    pub workgroups: [u32; 3],
    /// Whether it does nothing unless a bracket missed the K-th largest score of a tensor, which it then searches.
    pub after_miss: bool,
    /// Bytes that it reads and writes in storage buffers, without tables.
    pub bytes: u64,
    /// Number of invocations per workgroup.
    pub lanes: u32,
    /// Largest number of rounds of memory accesses that one invocation makes in sequence, if no bracket missed and few scores are tied.
    pub serial_rounds: u64,
}

/// A range of a buffer that a dispatch binds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Bound {
    /// The `@group`.
    pub group: u32,
    /// The `@binding`.
    pub binding: u32,
    /// Index of the buffer in [`Program::buffers`].
    pub buffer: usize,
    /// First byte of the range.
    pub offset: u64,
    /// Size of the range in bytes.
    pub size: u64,
    /// Whether the kernel reads it.
    pub reads: bool,
    /// Whether the kernel writes it.
    pub writes: bool,
}
