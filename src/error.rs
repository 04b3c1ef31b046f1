//! Everything that can go wrong, with the data a caller needs to act on it.

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantNames))]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Error {
    /// A recipe's field has a value that is not allowed.
    #[error("recipe: `{field}` is {value}, but must be {allowed}")]
    Recipe {
        /// Path of the field, for example `base.betas[1]`.
        field: String,
        /// The value that was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A recipe could not be read: bad JSON, an unknown key, a wrong type.
    #[error("recipe: {field}: {message}")]
    RecipeSyntax {
        /// Path of the field, for example `base.lr`, or `json` for text that is not JSON.
        field: String,
        /// What the parser said.
        message: String,
    },
    /// The WGSL of a custom base or policy is not valid, or uses something that is not available.
    #[error("{text}, line {line}, column {column}: {message}")]
    Custom {
        /// The role and the name of the WGSL, for example ``custom base `tiger` ``.
        text: String,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted in characters from 1.
        column: usize,
        /// What is wrong, and what is allowed.
        message: String,
    },
    /// No preset has this name.
    #[error("unknown optimizer `{name}`; known are {known}")]
    UnknownPreset {
        /// The name that was given.
        name: String,
        /// The names that exist, in a sentence.
        known: String,
    },
    /// A tensor's spec is not valid, or does not fit the call or the parameter groups.
    #[error("tensor `{tensor}`: {reason}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },
    /// There is nothing to optimize, or no parameter group.
    #[error("there must be at least one {what}")]
    Empty {
        /// `tensor` or `parameter group`.
        what: &'static str,
    },
    /// The tensors have more coordinates, or more components with learning rates of their own, than one optimizer takes.
    #[error("{given} {what} were given, and one optimizer takes at most {most}")]
    TooMany {
        /// The thing of which too many were given.
        what: &'static str,
        /// How many were given.
        given: u64,
        /// How many are allowed.
        most: u64,
    },
    /// A call got a list of another length than the optimizer needs.
    #[error("{given} {what} were given, but {needed} are needed")]
    Count {
        /// What the list holds.
        what: &'static str,
        /// The number of items that were given.
        given: usize,
        /// The number of items that are needed.
        needed: usize,
    },
    /// No parameter group has this index.
    #[error("parameter group {group} does not exist; there are {count}")]
    UnknownGroup {
        /// The index that was given.
        group: usize,
        /// Number of groups.
        count: usize,
    },
    /// The parameters are averages for evaluation.
    #[error("the parameters are averages for evaluation: call `train` first")]
    Evaluating,
    /// A parameter group does not fit the tensors.
    #[error("parameter group {group}: {reason}")]
    Group {
        /// Index of the group.
        group: usize,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The call needs a setting of [`ParamGroups`](crate::ParamGroups) that the optimizer was made without.
    #[error("this optimizer was made without {setting}; {advice}")]
    SettingOff {
        /// The setting, or the settings of which one is needed.
        setting: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A setting needs commands that a compute pass cannot record.
    #[error("{setting} copies to the host, which a compute pass cannot do; record into an encoder, or turn it off")]
    InPass {
        /// The setting of [`ParamGroups`](crate::ParamGroups).
        setting: &'static str,
    },
    /// The device lacks a feature that a setting needs.
    #[error("{what} needs {feature}")]
    MissingFeature {
        /// What needs it.
        what: String,
        /// The feature, as wgpu names it, and what the adapter must offer.
        feature: &'static str,
    },
    /// The device's limits are too low for the tensors and settings.
    #[error("the limits of the device are too low: {}", .0.iter().map(Missing::to_string).collect::<Vec<_>>().join("; "))]
    Unsupported(Vec<Missing>),
    /// A slice of a buffer, or a list of values for a tensor, does not fit.
    #[error("{what} of tensor `{tensor}`: {reason}")]
    Slice {
        /// Name of the tensor.
        tensor: String,
        /// What was given: `parameter`, `gradient`, `rates`, `row index`, `state`, or the name of a state.
        what: &'static str,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },
    /// No tensor has this name.
    #[error("no tensor is named `{0}`")]
    UnknownTensor(String),
    /// The optimizer does not hold this state.
    #[error("no state is named `{name}`; this optimizer keeps {known}")]
    UnknownState {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The call or setting does not fit where parameters, gradients and state lie: in the optimizer's buffers or in yours.
    #[error("{0}")]
    Ownership(&'static str),
    /// Too many steps are recorded and not submitted.
    #[error(
        "{slots} recorded steps have not been submitted or have not finished; submit their encoders before recording more"
    )]
    RingFull {
        /// How many steps may be in flight.
        slots: usize,
    },
    /// An encoder with a micro-batch, or with the step that ends a sum, was dropped. The accumulated gradients are incomplete or stale.
    #[error(
        "an encoder with a micro-batch was dropped instead of submitted, so the sum of the gradients is wrong; call \
         `forget_micro_batches`, and record all micro-batches of the step again"
    )]
    MicroBatchDropped,
    /// A step was skipped because of a gradient that is infinite or not a number
    /// ([`NonFinite::Error`](crate::NonFinite::Error)).
    #[error("a gradient of tensor `{tensor}` is not finite; {steps} steps were skipped so far")]
    NonFinite {
        /// A tensor with such a gradient; `unknown (an earlier step)` if the last step had none.
        tensor: String,
        /// Number of steps that were skipped so far.
        steps: u64,
    },
    /// A checkpoint cannot be written or read, or does not fit this optimizer.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// No adapter fits the choice made by the environment.
    #[error("{0}")]
    NoAdapter(String),
    /// The device is gone: its driver failed or was reset, the adapter was unplugged, or it was destroyed.
    #[error("the device of {adapter} was lost; open a new one, and resume from the last checkpoint")]
    DeviceLost {
        /// The adapter, in words.
        adapter: String,
    },
    /// The adapter has no room for the buffers.
    #[error(
        "{adapter} has no room for {needed} bytes of optimizer buffers ({reason}); free memory, or use a smaller model, \
         a base with less state, or another adapter"
    )]
    OutOfMemory {
        /// The adapter, in words.
        adapter: String,
        /// Size of all buffers of the optimizer, in bytes.
        needed: u64,
        /// The message of wgpu.
        reason: String,
    },
    /// wgpu reported another error: a buffer that was destroyed or belongs to another device, or a bug in this crate or the driver.
    #[error("wgpu: {0}")]
    Gpu(String),
    /// Reading from the GPU failed, for example because the device was lost, or found a value that no checkpoint may hold.
    #[error("reading `{what}` back failed: {reason}")]
    Readback {
        /// What was read.
        what: String,
        /// Why it failed.
        reason: String,
    },
}

impl Error {
    /// A stable word for the kind of the error: the name of its variant in snake case, for example `unknown_tensor`. In JavaScript it is
    /// `error.code`.
    ///
    /// ```
    /// let error = "adamx".parse::<wgpu_optim::Recipe>().unwrap_err();
    /// assert_eq!(error.code(), "unknown_preset");
    /// ```
    pub fn code(&self) -> &'static str {
        self.into()
    }

    /// [`Error::Slice`] about a tensor.
    pub(crate) fn slice(tensor: &str, what: &'static str, reason: String) -> Self {
        Self::Slice { tensor: tensor.to_owned(), what, reason }
    }

    /// [`Error::Readback`] with the words of another error.
    pub(crate) fn readback(what: &str, reason: impl ToString) -> Self {
        Self::Readback { what: what.to_owned(), reason: reason.to_string() }
    }
}

/// Returns an error unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $error:expr) => {
        if !$holds {
            return Err($error);
        }
    };
}
pub(crate) use ensure;

/// A limit that a device lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} needed {needed}, available {available}")]
#[non_exhaustive]
pub struct Missing {
    /// Name of the limit, as in `wgpu::Limits`.
    pub limit: String,
    /// What the plan needs.
    pub needed: u64,
    /// What the device has.
    pub available: u64,
}

#[cfg(test)]
mod tests {
    use strum::VariantNames;

    use super::*;

    #[test]
    fn codes_are_stable() {
        let known = [
            "recipe",
            "recipe_syntax",
            "custom",
            "unknown_preset",
            "tensor",
            "empty",
            "too_many",
            "count",
            "unknown_group",
            "evaluating",
            "group",
            "setting_off",
            "in_pass",
            "missing_feature",
            "unsupported",
            "slice",
            "unknown_tensor",
            "unknown_state",
            "ownership",
            "ring_full",
            "micro_batch_dropped",
            "non_finite",
            "checkpoint",
            "no_adapter",
            "device_lost",
            "out_of_memory",
            "gpu",
            "readback",
        ];
        assert_eq!(Error::VARIANTS, known);
        assert_eq!(Error::UnknownTensor("w".into()).code(), "unknown_tensor");
    }
}
