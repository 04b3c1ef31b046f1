//! What a study compares, as TOML.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use wgpu_optim::{ParamGroups, Precision, Recipe, Rounding, StateFormat};

use crate::tasks::TaskConfig;

/// The studies that the program carries.
pub const PRESETS: [(&str, &str); 11] = [
    ("quick", include_str!("../presets/quick.toml")),
    ("cpu20", include_str!("../presets/cpu20.toml")),
    ("gpu10", include_str!("../presets/gpu10.toml")),
    ("ratios", include_str!("../presets/ratios.toml")),
    ("bases", include_str!("../presets/bases.toml")),
    ("others", include_str!("../presets/others.toml")),
    ("plane", include_str!("../presets/plane.toml")),
    ("precision", include_str!("../presets/precision.toml")),
    ("eight-bit", include_str!("../presets/eight-bit.toml")),
    ("small-steps", include_str!("../presets/small-steps.toml")),
    ("fine-tuning", include_str!("../presets/fine-tuning.toml")),
];

/// A study: tasks, optimizers, and how often each optimizer runs on each task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A name for people.
    pub name: String,
    /// Fresh seeds per optimizer and task. A verdict needs 5. Default 5.
    #[serde(default = "Config::default_seeds")]
    pub seeds: usize,
    /// How rates are chosen. Without it, each optimizer runs at its `rate`, and the report says that nothing was tuned.
    pub tuning: Option<Tuning>,
    /// Share of the steps in which the learning rate grows from 0. It then falls to 0 as a cosine. Default 0.1.
    #[serde(default = "Config::default_warmup")]
    pub warmup: f64,
    /// Every so many steps, lengths of steps and the time of the optimizer are measured. Default 10.
    #[serde(default = "Config::default_every")]
    pub telemetry: u32,
    /// The training loss whose step the report gives. Default: that of the first optimizer at its end.
    pub goal: Option<f64>,
    /// The norm to which all gradients of a step are clipped. Default: none.
    pub max_grad_norm: Option<f64>,
    /// What to learn.
    pub tasks: Vec<TaskConfig>,
    /// What learns it.
    pub optimizers: Vec<OptimizerConfig>,
}

/// How learning rates are chosen: each optimizer tries equally many of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Rates that each optimizer tries at first, around its `rate`. Default 3.
    #[serde(default = "Tuning::default_rates")]
    pub rates: usize,
    /// Quotient of neighboring rates. Default 2.
    #[serde(default = "Tuning::default_factor")]
    pub factor: f64,
    /// Seeds per rate, which are not those of the comparison. Default 2, and at least 2.
    #[serde(default = "Tuning::default_seeds")]
    pub seeds: usize,
    /// The grid of rates is widened up to this many. If the best rate still is the smallest or the largest, the verdict is undecided.
    /// Default 9.
    #[serde(default = "Tuning::default_most")]
    pub most: usize,
}

/// An optimizer of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The optimizer's name in the report. Default: the name of the recipe.
    #[serde(default)]
    pub name: String,
    /// The name of a preset.
    pub recipe: String,
    /// Fields that replace those of the preset's base, for example `betas = [0.9, 0.95]`.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub base: toml::Table,
    /// Fields that replace those of the preset's policy, for example `ratio = 0.3`.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub policy: toml::Table,
    /// How the optimizer stores parameters and gradients: `f32`, `f16` or `bf16`. Default `f32`. Others need models on the host.
    #[serde(default)]
    pub precision: Precision,
    /// How bf16 parameters are rounded without masters: `"nearest"` or `{ stochastic = { seed = 0 } }`. Default: they have masters.
    pub rounding: Option<Rounding>,
    /// Whether masters keep only what bf16 parameters lack.
    #[serde(default)]
    pub split_masters: bool,
    /// How states per coordinate are stored: `"f32"` (default) or `"8bit"`.
    #[serde(default)]
    pub state: StateFormat,
    /// The learning rate, or the middle of the first rates if rates are tuned; one for all tasks, or one for each.
    pub rate: Option<Rate>,
    /// A control instead takes the rate that was chosen for this optimizer.
    pub rate_of: Option<String>,
    /// What that rate is multiplied by. Default 1.
    pub times: Option<Times>,
    /// The optimizers that it is compared to. Default: the first of the study.
    pub against: Option<Vec<String>>,
}

/// A learning rate for all tasks, or by the names of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rate {
    /// For all tasks.
    All(f64),
    /// For each task.
    Each(BTreeMap<String, f64>),
}

/// What a control's rate is multiplied by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Times {
    /// The same number in every step.
    Number(f64),
    /// `"length"`: the quotient ‖φu‖₂ / ‖u‖₂ that telemetry has measured in the same phase of the other's runs, so that the steps become
    /// as long as the other's.
    Named(String),
}

impl Config {
    fn default_seeds() -> usize {
        5
    }

    fn default_warmup() -> f64 {
        0.1
    }

    fn default_every() -> u32 {
        10
    }

    /// Reads a preset by its name, or a file, and checks it.
    pub fn open(name: &str) -> Result<Self> {
        if let Some((_, text)) = PRESETS.iter().find(|(preset, _)| *preset == name) {
            return Self::parse(text).with_context(|| format!("the preset {name}"));
        }
        let presets = PRESETS.map(|(preset, _)| preset).join(", ");
        let text = std::fs::read_to_string(Path::new(name)).with_context(|| {
            format!("cannot read the study {name}; it is a TOML file or one of the presets {presets}")
        })?;
        Self::parse(&text).with_context(|| format!("the study {name}"))
    }

    /// Reads TOML, and checks it.
    pub fn parse(text: &str) -> Result<Self> {
        let mut config: Self = toml::from_str(text)?;
        for optimizer in &mut config.optimizers {
            if optimizer.name.is_empty() {
                optimizer.name.clone_from(&optimizer.recipe);
            }
        }
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        ensure!(!self.tasks.is_empty(), "`tasks` is empty; a study needs one");
        ensure!(!self.optimizers.is_empty(), "`optimizers` is empty; a study needs one");
        ensure!(self.seeds >= 1, "`seeds` is 0; expected at least 1");
        ensure!(
            (0.0..1.0).contains(&self.warmup),
            "`warmup` is {}; expected a share of the steps from 0 to below 1",
            self.warmup
        );
        ensure!(self.telemetry >= 1, "`telemetry` is 0; expected at least 1");
        if let Some(norm) = self.max_grad_norm {
            ensure!(norm > 0.0 && norm.is_finite(), "`max_grad_norm` is {norm}; expected a number above 0");
        }
        if let Some(Tuning { rates, factor, seeds, most }) = self.tuning {
            ensure!(rates >= 3, "`tuning.rates` is {rates}; expected at least 3, so that one lies between others");
            ensure!(factor > 1.0 && factor.is_finite(), "`tuning.factor` is {factor}; expected a number above 1");
            ensure!(seeds >= 2, "`tuning.seeds` is {seeds}; expected at least 2: one seed misleads");
            ensure!(most >= rates, "`tuning.most` is {most}, fewer than `tuning.rates`, which is {rates}");
        }
        let mut tasks = HashSet::new();
        for task in &self.tasks {
            ensure!(tasks.insert(task.name()), "two tasks have the name {}; give one of them a `name`", task.name());
            task.validate().with_context(|| format!("the task {}", task.name()))?;
        }
        let mut names = HashSet::new();
        for optimizer in &self.optimizers {
            let name = &optimizer.name;
            ensure!(
                names.insert(name.as_str()),
                "two optimizers have the name {name}; give one of them another `name`"
            );
            let context = || format!("the optimizer {name}");
            optimizer.groups(1e-3).and_then(|groups| Ok(groups.validate()?)).with_context(context)?;
            self.validate_rate(optimizer).with_context(context)?;
            for other in optimizer.against.iter().flatten() {
                ensure!(
                    other != name && self.optimizer(other).is_some(),
                    "{name}: `against` names {other}; expected another optimizer of the study"
                );
            }
        }
        Ok(())
    }

    fn validate_rate(&self, optimizer: &OptimizerConfig) -> Result<()> {
        match (&optimizer.rate, &optimizer.rate_of) {
            (Some(rate), None) => {
                ensure!(optimizer.times.is_none(), "`times` goes with `rate_of`");
                for task in &self.tasks {
                    let rate = rate
                        .on(task.name())
                        .with_context(|| format!("`rate` has no entry for the task {}", task.name()))?;
                    ensure!(rate > 0.0 && rate.is_finite(), "`rate` is {rate}; expected a number above 0");
                }
            }
            (None, Some(other)) => {
                let other = self
                    .optimizer(other)
                    .with_context(|| format!("`rate_of` names {other}; the study has no such optimizer"))?;
                ensure!(other.rate_of.is_none(), "`rate_of` names {}, which has no rate of its own", other.name);
                match &optimizer.times {
                    Some(Times::Number(times)) => {
                        ensure!(*times > 0.0 && times.is_finite(), "`times` is {times}; expected a number above 0")
                    }
                    Some(Times::Named(name)) => {
                        ensure!(name == "length", "`times` is {name:?}; expected a number or \"length\"")
                    }
                    None => {}
                }
            }
            _ => bail!("expected either `rate` or `rate_of`"),
        }
        Ok(())
    }

    /// The optimizer of this name.
    pub fn optimizer(&self, name: &str) -> Option<&OptimizerConfig> {
        self.optimizers.iter().find(|optimizer| optimizer.name == name)
    }

    /// The task of this name.
    pub fn task(&self, name: &str) -> Option<&TaskConfig> {
        self.tasks.iter().find(|task| task.name() == name)
    }

    /// The pairs that are compared: an optimizer, and the one that it is compared to.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let first = self.optimizers[0].name.as_str();
        let of = |optimizer: &OptimizerConfig| match &optimizer.against {
            Some(others) => others.clone(),
            None if optimizer.name == first => Vec::new(),
            None => vec![first.to_owned()],
        };
        let name = |name: String| self.optimizer(&name).map_or(first, |found| found.name.as_str());
        self.optimizers
            .iter()
            .flat_map(|own| of(own).into_iter().map(move |other| (own.name.as_str(), name(other))))
            .collect()
    }
}

impl Tuning {
    fn default_rates() -> usize {
        3
    }

    fn default_factor() -> f64 {
        2.0
    }

    fn default_seeds() -> usize {
        2
    }

    fn default_most() -> usize {
        9
    }
}

impl OptimizerConfig {
    /// The recipe at this learning rate, with the settings of this optimizer.
    pub fn groups(&self, rate: f64) -> Result<ParamGroups> {
        let groups = ParamGroups::from(self.recipe(rate)?).with_precision(self.precision).with_state(self.state);
        let groups = if self.split_masters { groups.with_split_masters() } else { groups };
        Ok(self.rounding.map_or(groups.clone(), |rounding| groups.without_masters(rounding)))
    }

    /// The recipe at this learning rate.
    pub fn recipe(&self, rate: f64) -> Result<Recipe> {
        let preset: Recipe = self.recipe.parse()?;
        let mut json: serde_json::Value = serde_json::from_str(&preset.with_lr(rate).to_json())?;
        for (section, fields) in [("base", &self.base), ("policy", &self.policy)] {
            for (name, value) in fields {
                json[section][name] = serde_json::to_value(value)?;
            }
        }
        Ok(Recipe::from_json(&json.to_string())?)
    }
}

impl Rate {
    /// The rate on the task of this name.
    pub fn on(&self, task: &str) -> Option<f64> {
        match self {
            Self::All(rate) => Some(*rate),
            Self::Each(rates) => rates.get(task).copied(),
        }
    }
}
