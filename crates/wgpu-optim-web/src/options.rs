//! Options of a page, in Rust.
//!
//! Objects go through JSON, so that errors name the field. Recipes may be written in camelCase or as in recipe files.

use std::collections::BTreeMap;

use js_sys::{JSON, JsString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wasm_bindgen::prelude::*;
use wgpu_optim::schedule::Shape;
use wgpu_optim::verify::{self, Case};
use wgpu_optim::{
    Average, GradScaler, LrSchedule, MatrixLayout, NonFinite, ParamGroups, Precision, Recipe, Rounding, TensorSpec,
    wgpu,
};

use crate::js::Thrown;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GpuOptions {
    power_preference: Option<PowerPreference>,
    required_features: Vec<String>,
    required_limits: Map<String, Value>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PowerPreference {
    LowPower,
    HighPerformance,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OptimizerOptions {
    tensors: Vec<Tensor>,
    recipe: Option<Value>,
    groups: Option<Vec<Group>>,
    lr: Option<f64>,
    schedule: Option<Schedule>,
    scalar_schedules: Option<BTreeMap<String, Schedule>>,
    max_grad_norm: Option<f64>,
    max_grad_value: Option<f64>,
    non_finite: Option<NonFinite>,
    grad_scaler: Option<GradScaler>,
    accumulation: Option<u32>,
    precision: Option<Precision>,
    rounding: Option<Rounding>,
    split_masters: Option<bool>,
    telemetry: Option<u32>,
    average: Option<Average>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Group {
    recipe: Value,
    lr: Option<f64>,
    schedule: Option<Schedule>,
    #[serde(default)]
    scalar_schedules: BTreeMap<String, Schedule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    #[serde(default)]
    group: usize,
    #[serde(default)]
    layout: MatrixLayout,
    #[serde(default)]
    components: usize,
}

#[derive(Clone, Deserialize)]
struct Schedule {
    #[serde(default)]
    warmup: u64,
    #[serde(flatten)]
    shape: Shape,
}

impl From<Schedule> for LrSchedule {
    fn from(Schedule { warmup, shape }: Schedule) -> Self {
        Self::from(shape).with_warmup(warmup)
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct VerifyOptions {
    recipes: Option<Vec<String>>,
    max_size: Option<usize>,
}

/// Reads an object of the page's; nothing reads as one without fields.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, object: &JsValue) -> Result<T, Thrown> {
    let value = if object.is_undefined() { Value::Object(Map::new()) } else { json(what, object)? };
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { what.to_owned() } else { format!("{what}.{path}") };
        Thrown::options(&format!("{field}: {}", error.into_inner()))
    })
}

fn json(what: &str, object: &JsValue) -> Result<Value, Thrown> {
    // JSON leaves these out: no setting may vanish for that.
    let mut refuse = |key: JsString, value: JsValue| {
        let kind = value.js_typeof().as_string().unwrap_or_default();
        match kind.as_str() {
            "function" | "symbol" | "bigint" => {
                Err(JsError::new(&format!("{what}: `{}` is a {kind}", String::from(key))))
            }
            _ => Ok(Some(value)),
        }
    };
    let text = JSON::stringify_with_replacer_func(object, &mut refuse, None).map_err(|thrown| {
        let said = thrown.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message()));
        Thrown::options(&said.unwrap_or_else(|| format!("{what}: not an object of strings, numbers and arrays")))
    })?;
    let text = text.as_string().unwrap_or_default();
    let value = serde_json::from_str(&text)?;
    match nothing(&value, what) {
        // JSON says null for NaN and infinities: no setting may vanish for that.
        Some(path) => Err(Thrown::options(&format!("{path}: null, NaN or infinite; leave it out for its default"))),
        None => Ok(value),
    }
}

/// The path to a null.
fn nothing(value: &Value, path: &str) -> Option<String> {
    match value {
        Value::Null => Some(path.to_owned()),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| nothing(item, &format!("{path}[{i}]"))),
        Value::Object(fields) => fields.iter().find_map(|(name, field)| nothing(field, &format!("{path}.{name}"))),
        _ => None,
    }
}

/// A recipe as the page sees it, with every field.
pub(crate) fn recipe_object(recipe: &Recipe) -> Result<JsValue, Thrown> {
    let value = serde_json::to_value(recipe)?;
    JSON::parse(&renamed(value, &camel_case)?.to_string()).map_err(|_| Thrown::options("a recipe is JSON"))
}

/// A recipe that the page gives, by its name or as an object.
pub(crate) fn recipe(value: &JsValue) -> Result<Recipe, Thrown> {
    read_recipe(&json("recipe", value)?, None)
}

/// A recipe by its name, or as an object with a base and a policy.
fn read_recipe(value: &Value, lr: Option<f64>) -> Result<Recipe, Thrown> {
    let recipe: Recipe = match value {
        Value::String(name) => name.parse()?,
        value => Recipe::try_from(renamed(value.clone(), &snake_case)?)?,
    };
    Ok(lr.map_or(recipe, |lr| recipe.with_lr(lr)))
}

/// The same with other names of fields, all the way down.
fn renamed(value: Value, name: &dyn Fn(&str) -> String) -> Result<Value, Thrown> {
    Ok(match value {
        Value::Object(fields) => {
            let mut all = Map::new();
            for (field, value) in fields {
                // The WGSL chooses the names of its hyper-parameters, so they stay as they are.
                let value = if field == "scalars" { value } else { renamed(value, name)? };
                if all.insert(name(&field), value).is_some() {
                    return Err(Thrown::options(&format!("recipe: `{field}` is given twice")));
                }
            }
            Value::Object(all)
        }
        value => value,
    })
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        text += &word[..1].to_ascii_uppercase();
        text += &word[1..];
    }
    text
}

impl GpuOptions {
    pub(crate) fn power_preference(&self) -> wgpu::PowerPreference {
        match self.power_preference {
            Some(PowerPreference::LowPower) => wgpu::PowerPreference::LowPower,
            Some(PowerPreference::HighPerformance) => wgpu::PowerPreference::HighPerformance,
            None => wgpu::PowerPreference::None,
        }
    }

    pub(crate) fn features(&self) -> Result<wgpu::Features, Thrown> {
        self.required_features.iter().try_fold(wgpu::Features::empty(), |features, name| {
            match name.parse::<wgpu::Features>() {
                Ok(feature) => Ok(features | feature),
                Err(_) => Err(Thrown::options(&format!("requiredFeatures: no feature is named `{name}`"))),
            }
        })
    }

    /// Limits, with those that the page asks for.
    pub(crate) fn raise(&self, limits: wgpu::Limits) -> Result<wgpu::Limits, Thrown> {
        let mut all = serde_json::to_value(limits)?;
        for (name, value) in &self.required_limits {
            match all.get_mut(name) {
                Some(limit) => *limit = value.clone(),
                None => return Err(Thrown::options(&format!("requiredLimits: no limit is named `{name}`"))),
            }
        }
        Ok(serde_json::from_value(all)?)
    }
}

impl OptimizerOptions {
    pub(crate) fn specs(&self) -> Vec<TensorSpec> {
        let spec = |tensor: &Tensor| {
            TensorSpec::new(tensor.name.clone(), tensor.shape.clone())
                .in_group(tensor.group)
                .with_layout(tensor.layout)
                .with_components(tensor.components)
        };
        self.tensors.iter().map(spec).collect()
    }

    pub(crate) fn groups(&self) -> Result<ParamGroups, Thrown> {
        let (recipes, schedules): (Vec<_>, Vec<_>) = match (&self.recipe, &self.groups) {
            (Some(recipe), None) => (vec![read_recipe(recipe, self.lr)?], vec![None]),
            (None, Some(groups)) if self.lr.is_none() && self.scalar_schedules.is_none() => {
                let recipes = groups.iter().map(|group| read_recipe(&group.recipe, group.lr));
                let schedules = groups.iter().map(|group| group.schedule.clone()).collect();
                (recipes.collect::<Result<_, _>>()?, schedules)
            }
            (None, Some(_)) => {
                return Err(Thrown::options("options: give `lr` and `scalarSchedules` in each of `groups`"));
            }
            _ => return Err(Thrown::options("options: one of `recipe` and `groups` must be given")),
        };
        let mut groups = ParamGroups::from(recipes);
        for (group, schedule) in schedules.into_iter().enumerate() {
            if let Some(schedule) = schedule.or_else(|| self.schedule.clone()) {
                groups = groups.with_group_schedule(group, schedule.into());
            }
        }
        let own = self.groups.iter().flatten().map(|group| &group.scalar_schedules);
        for (group, schedules) in own.chain(&self.scalar_schedules).enumerate() {
            for (scalar, schedule) in schedules {
                groups = groups.with_scalar_schedule(group, scalar, schedule.clone().into());
            }
        }
        let set = |groups, value: Option<f64>, with: fn(ParamGroups, f64) -> ParamGroups| match value {
            Some(value) => with(groups, value),
            None => groups,
        };
        groups = set(groups, self.max_grad_norm, ParamGroups::with_max_grad_norm);
        groups = set(groups, self.max_grad_value, ParamGroups::with_max_grad_value);
        if let Some(policy) = self.non_finite {
            groups = groups.with_non_finite(policy);
        }
        if let Some(scaler) = self.grad_scaler {
            groups = groups.with_grad_scaler(scaler);
        }
        if let Some(micro_batches) = self.accumulation {
            groups = groups.with_accumulation(micro_batches);
        }
        if let Some(precision) = self.precision {
            groups = groups.with_precision(precision);
        }
        if let Some(rounding) = self.rounding {
            groups = groups.without_masters(rounding);
        }
        if self.split_masters == Some(true) {
            groups = groups.with_split_masters();
        }
        if let Some(every) = self.telemetry {
            groups = groups.with_telemetry(every);
        }
        if let Some(average) = self.average {
            groups = groups.with_average(average);
        }
        Ok(groups)
    }
}

impl VerifyOptions {
    /// The cases that are wanted.
    pub(crate) fn cases(&self) -> Result<Vec<Case>, Thrown> {
        let mut cases = verify::cases();
        for name in self.recipes.iter().flatten() {
            if !cases.iter().any(|case| case.name == *name) {
                return Err(Thrown::options(&format!("options.recipes: no recipe is verified as `{name}`")));
            }
        }
        cases.retain(|case| {
            let size: usize = case.shape.iter().product();
            self.max_size.is_none_or(|most| size <= most)
                && self.recipes.as_ref().is_none_or(|names| names.contains(&case.name))
        });
        match cases.is_empty() {
            true => Err(Thrown::options("options: no case is left to verify; raise `maxSize` or add `recipes`")),
            false => Ok(cases),
        }
    }
}
