//! The task of a study, with its data.

use anyhow::{Context, Result};

use crate::task::Sources;
use crate::tasks::TaskConfig;
use crate::tasks::autoencoder::Autoencoder;
use crate::tasks::classification::Classification;
use crate::tasks::fine_tuning::FineTuning;
use crate::tasks::language::Language;
use crate::tasks::quadratic::Quadratic;
use crate::tasks::regression::Regression;
use crate::train::Trains;

/// The task of these settings.
///
/// # Errors
/// If the data cannot be read.
pub(crate) fn open(config: &TaskConfig, sources: &Sources) -> Result<Box<dyn Trains>> {
    let context = || format!("the task {}", config.name());
    Ok(match config {
        TaskConfig::Language(own) => Box::new(Language::open(own, sources).with_context(context)?),
        TaskConfig::Autoencoder(own) => Box::new(Autoencoder::open(own, sources).with_context(context)?),
        TaskConfig::Classification(own) => Box::new(Classification::open(own, sources).with_context(context)?),
        TaskConfig::FineTuning(own) => Box::new(FineTuning::open(own, sources).with_context(context)?),
        TaskConfig::Regression(own) => Box::new(Regression::new(own)),
        TaskConfig::Quadratic(own) => Box::new(Quadratic::new(own)),
        TaskConfig::Own { name, .. } => anyhow::bail!("the task {name} belongs to another program"),
    })
}
