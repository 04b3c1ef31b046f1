//! Compares a checkpoint with an optimizer.

use std::collections::BTreeSet;

use serde_json::Value;

use super::file::{Checkpoint, refusal};
use super::optimizer::GpuOptimizer;
use crate::error::{Result, ensure};
use crate::recipe::Recipe;
use crate::recipe::base::Base;
use crate::recipe::groups::ParamGroups;

impl GpuOptimizer {
    /// How the recipes and settings of a file differ from this optimizer's, one line per field, for example
    /// `` `recipes[0].base.weight_decay` is 0.1 in the file and 0.0 here ``. [`load`](Self::load) logs these lines as warnings, and keeps
    /// this optimizer's recipes and settings.
    pub fn differences(&self, file: &Checkpoint) -> Vec<String> {
        let groups = [&file.about.groups, &self.as_made()];
        let [theirs, own] = groups.map(|groups| serde_json::to_value(groups).expect("nothing that JSON cannot hold"));
        let mut all = Vec::new();
        differ("", &theirs, &own, &mut all);
        all
    }

    /// Refuses averages that another β1 has made: `train` could not undo them.
    pub(super) fn check_averages(&self, file: &Checkpoint) -> Result<()> {
        let shares = |recipes: &[Recipe]| recipes.iter().map(|recipe| recipe.base.averaging()).collect::<Vec<_>>();
        let same = shares(file.about.groups.recipes()) == shares(&self.initial);
        let reason =
            "it holds averages for evaluation that another β1 or momentum has made: use the recipes of the file";
        ensure!(same || !file.about.evaluating, refusal(&file.path, reason));
        // What lies in the place of an average follows from how both are stored.
        let stored =
            |groups: &ParamGroups| (groups.rounding().is_some(), groups.average().map(|average| average.precision));
        let same = stored(&file.about.groups) == stored(&self.groups);
        let reason = "it holds averages for evaluation, and parameters or averages are stored in another way: use the settings of the file";
        ensure!(same || !file.about.evaluating, refusal(&file.path, reason));
        Ok(())
    }

    /// The groups without the learning rates that were set.
    pub(super) fn as_made(&self) -> ParamGroups {
        let mut groups = self.groups.clone();
        groups.recipes.copy_from_slice(&self.initial);
        groups
    }

    /// Refuses a checkpoint if a tensor has another base there than here, and one of the two is custom. Texts are compared by hash.
    pub(super) fn check_texts(&self, file: &Checkpoint) -> Result<()> {
        let named = |base: &Base| match base.custom() {
            Some(custom) => format!("`{}` with hash {}", custom.name(), custom.definition().fingerprint()),
            None => format!("the built-in `{}`", base.type_name()),
        };
        for spec in file.specs() {
            let own = self.plan.tensor(&spec.name).map(|tensor| self.initial[tensor.spec.group].on(&tensor.spec).base);
            let theirs = file.about.groups.recipes().get(spec.group).map(|recipe| recipe.on(spec).base);
            let (Ok(own), Some(theirs)) = (own, theirs) else { continue };
            if own.custom().or(theirs.custom()).is_none() {
                continue;
            }
            let [saved, here] = [theirs, own].map(|base| named(&base));
            let reason = format!(
                "`{}` has the state of {saved}, but here {here} steps it; to load its tensors anyway, use `load_matching`",
                spec.name
            );
            ensure!(saved == here, refusal(&file.path, reason));
        }
        Ok(())
    }
}

/// Adds a line for each field of JSON that is not the same.
fn differ(path: &str, file: &Value, own: &Value, all: &mut Vec<String>) {
    match (file, own) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for key in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let [file, own] = [theirs, ours].map(|fields| fields.get(key).unwrap_or(&Value::Null));
                differ(&path, file, own, all);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            let pairs = theirs.iter().zip(ours).enumerate();
            pairs.for_each(|(i, (file, own))| differ(&format!("{path}[{i}]"), file, own, all));
        }
        _ if file == own => {}
        _ if path.ends_with(".wgsl") => all.push(format!("`{path}` is a different text in the file")),
        _ => all.push(format!("`{path}` is {file} in the file and {own} here")),
    }
}
