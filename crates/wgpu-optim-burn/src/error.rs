//! What can go wrong, and a model that survives it.

use std::fmt;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter or its gradient cannot be stepped here.
    #[error("parameter `{path}`: {reason}")]
    Parameter {
        /// Its path in the module.
        path: String,
        /// What is wrong, and what to do about it.
        reason: String,
    },
    /// An error of `wgpu-optim`.
    #[error(transparent)]
    Optimizer(#[from] wgpu_optim::Error),
    /// No device could be opened or shared.
    #[error("{0}")]
    Device(String),
    /// The call needs at least one earlier step.
    #[error("{0}")]
    NoStep(&'static str),
    /// A record could not be written, read or applied.
    #[error("optimizer record: {0}")]
    Record(String),
}

impl Error {
    /// A stable word for the kind of error, for example `parameter`. Errors of `wgpu-optim` keep
    /// [their own](wgpu_optim::Error::code).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Parameter { .. } => "parameter",
            Self::Optimizer(error) => error.code(),
            Self::Device(_) => "device",
            Self::NoStep(_) => "no_step",
            Self::Record(_) => "record",
        }
    }

    pub(crate) fn parameter(path: &str, reason: impl Into<String>) -> Self {
        Self::Parameter { path: path.to_owned(), reason: reason.into() }
    }
}

/// A refused step: the error, and the unchanged model.
pub struct StepError<M> {
    /// The model, with the values that it had before the step.
    pub model: M,
    /// Why the step was refused.
    pub error: Error,
}

impl<M> fmt::Debug for StepError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for StepError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<M> std::error::Error for StepError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
