//! The tasks of the lab: models and their data, each with its settings.

pub(crate) mod autoencoder;
pub(crate) mod classification;
pub(crate) mod fine_tuning;
pub(crate) mod language;
pub(crate) mod layers;
pub(crate) mod pictures;
pub(crate) mod quadratic;
pub(crate) mod regression;
pub(crate) mod text;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

pub use autoencoder::AutoencoderConfig;
pub use classification::{ClassificationConfig, Network};
pub use fine_tuning::FineTuningConfig;
pub use language::LanguageConfig;
pub use quadratic::QuadraticConfig;
pub use regression::RegressionConfig;

/// A task of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskConfig {
    /// A language model.
    Language(LanguageConfig),
    /// A masked autoencoder on pictures.
    Autoencoder(AutoencoderConfig),
    /// A classifier of pictures.
    Classification(ClassificationConfig),
    /// A language model that learns to classify sentences.
    FineTuning(FineTuningConfig),
    /// A network that learns a function.
    Regression(RegressionConfig),
    /// A quadratic function of two variables.
    Quadratic(QuadraticConfig),
    /// A task that the program brings itself; see [`study`](crate::study).
    Own {
        /// The task's name.
        name: String,
        /// Steps of a run.
        steps: usize,
    },
}

impl TaskConfig {
    /// The task's name in the report.
    pub fn name(&self) -> &str {
        let (name, kind) = match self {
            Self::Language(own) => (&own.name, "language"),
            Self::Autoencoder(own) => (&own.name, "autoencoder"),
            Self::Classification(own) => (&own.name, "classification"),
            Self::FineTuning(own) => (&own.name, "fine_tuning"),
            Self::Regression(own) => (&own.name, "regression"),
            Self::Quadratic(own) => (&own.name, "quadratic"),
            Self::Own { name, .. } => return name,
        };
        name.as_deref().unwrap_or(kind)
    }

    /// Steps of a run.
    pub fn steps(&self) -> usize {
        match self {
            Self::Language(own) => own.steps,
            Self::Autoencoder(own) => own.steps,
            Self::Classification(own) => own.steps,
            Self::FineTuning(own) => own.steps,
            Self::Regression(own) => own.steps,
            Self::Quadratic(own) => own.steps,
            Self::Own { steps, .. } => *steps,
        }
    }

    /// Refuses settings out of range.
    pub(crate) fn validate(&self) -> Result<()> {
        ensure!(self.steps() >= 2, "`steps` is {}; expected at least 2", self.steps());
        match self {
            Self::Language(own) => own.validate(),
            Self::Autoencoder(own) => own.validate(),
            Self::Classification(own) => own.validate(),
            Self::FineTuning(own) => own.validate(),
            Self::Regression(own) => own.validate(),
            Self::Quadratic(_) | Self::Own { .. } => Ok(()),
        }
    }
}
