//! Parameters that have state: their names, and their state from a record.

use std::collections::{BTreeMap, HashMap, HashSet};

use burn::module::ParamId;
use wgpu_optim::base::{BaseKind, Per, StateRow};
use wgpu_optim::{GpuOptimizer, MatrixLayout, StateFormat, TensorSpec};

use crate::error::Error;

/// A parameter that has state.
#[derive(Clone)]
pub(crate) struct Known {
    pub id: ParamId,
    pub path: String,
    /// In the optimizer below; see [`Names::add`].
    pub name: String,
    pub shape: Vec<usize>,
    pub group: usize,
    pub layout: MatrixLayout,
}

impl Known {
    /// The parameter as the core optimizer's spec.
    pub(crate) fn spec(&self) -> TensorSpec {
        TensorSpec::new(&self.name, self.shape.clone()).in_group(self.group).with_layout(self.layout)
    }

    /// Why a parameter of this id and another shape is refused.
    pub(crate) fn reshaped(&self, path: &str, shape: &[usize]) -> Error {
        Error::parameter(path, format!("its shape was {:?} and is {shape:?}", self.shape))
    }
}

/// Names of parameters, all different.
pub(crate) struct Names(HashSet<String>);

impl Names {
    /// The names of these parameters.
    pub(crate) fn of(params: &[Known]) -> Self {
        Self(params.iter().map(|known| known.name.clone()).collect())
    }

    /// A name for a parameter: its path, or path and id should another have that name.
    pub(crate) fn add(&mut self, id: ParamId, path: &str) -> String {
        let mut name = path.to_owned();
        if self.0.contains(&name) {
            name = format!("{path}#{id}");
        }
        while !self.0.insert(name.clone()) {
            name.push('#');
        }
        name
    }
}

/// States of Burn's own optimizers: the base, our name, the name in a record. Other states have our name in records too.
const BURN: [(&str, &str, &str); 16] = [
    ("adamw", "exp_avg", "momentum.moment_1"),
    ("adamw", "exp_avg_sq", "momentum.moment_2"),
    ("adamw", "max_exp_avg_sq", "momentum.max_moment_2"),
    ("adam", "exp_avg", "momentum.moment_1"),
    ("adam", "exp_avg_sq", "momentum.moment_2"),
    ("adam", "max_exp_avg_sq", "momentum.max_moment_2"),
    ("lion", "exp_avg", "momentum"),
    ("sgd", "momentum_buffer", "momentum.velocity"),
    ("adagrad", "sum", "lr_decay.sum"),
    ("adan", "exp_avg", "momentum.exp_avg"),
    ("adan", "exp_avg_diff", "momentum.exp_avg_diff"),
    ("adan", "exp_avg_sq", "momentum.exp_avg_sq"),
    ("adan", "neg_pre_grad", "momentum.neg_pre_grad"),
    ("adafactor", "row_var", "second_moment"),
    ("adafactor", "col_var", "column_second_moment"),
    ("adafactor", "variance", "second_moment"),
];

/// The name of a base without its variant.
fn family(base: BaseKind) -> &'static str {
    base.row().name.split(" (").next().unwrap_or_default()
}

/// The name of a state in a record.
pub(crate) fn leaf(base: BaseKind, state: &'static str) -> &'static str {
    let of_burn = BURN.iter().find(|(of, name, _)| (*of, *name) == (family(base), state));
    of_burn.map_or(state, |(_, _, leaf)| *leaf)
}

/// The names under which Burn's optimizers keep the number of steps.
pub(crate) fn counts(base: BaseKind) -> Option<&'static str> {
    match family(base) {
        "adamw" | "adam" | "adan" => Some("momentum.time"),
        "adagrad" => Some("lr_decay.time"),
        "adafactor" => Some("time"),
        _ => None,
    }
}

/// Whether `RecipeOptimizer` keeps the state of this base in a type of Burn's.
pub(crate) fn is_of_burn(base: BaseKind) -> bool {
    let has_two = base.state_bytes(StateFormat::F32) == 8;
    family(base) == "lion" || (["adamw", "adam"].contains(&family(base)) && has_two)
}

/// The states of a base by their name in a record.
pub(crate) fn leaves(base: BaseKind) -> BTreeMap<&'static str, &'static StateRow> {
    base.row().states.iter().map(|state| (leaf(base, state.name), state)).collect()
}

/// The base that steps a parameter.
pub(crate) fn base_of(optimizer: &GpuOptimizer, known: &Known) -> Result<BaseKind, Error> {
    Ok(BaseKind::of(&optimizer.recipe_of(&known.name)?.base))
}

/// The shape of a state in a record. If a base has moments of rows and of columns, they have the shapes (rows, 1) and
/// (1, columns), as in Burn.
pub(crate) fn shape_of(base: BaseKind, state: &StateRow, spec: &TensorSpec) -> Vec<usize> {
    let shape = || spec.shape.iter().copied().enumerate();
    let has_columns = base.row().states.iter().any(|state| state.per == Per::Column);
    match state.per {
        Per::Tensor => vec![1],
        Per::Row if has_columns => shape().map(|(i, size)| if i == 0 { size } else { 1 }).collect(),
        Per::Column => shape().map(|(i, size)| if i == 0 { 1 } else { size }).collect(),
        Per::Row => vec![spec.shape.first().copied().unwrap_or(1)],
        per => per.shape(spec).to_vec(),
    }
}

/// The bases whose states have these names and shapes in a record.
pub(crate) fn bases_of<'a>(shapes: &'a BTreeMap<&str, Vec<usize>>) -> impl Iterator<Item = BaseKind> + 'a {
    let fits = move |base: &BaseKind| {
        let states = base.row().states;
        let shapes: Option<Vec<_>> =
            states.iter().map(|state| Some((state.per, shapes.get(leaf(*base, state.name))?))).collect();
        let Some(shapes) = shapes else { return false };
        let whole = shapes.iter().find(|(per, _)| *per == Per::Coordinate).map(|(_, shape)| *shape);
        shapes.iter().all(|(per, shape)| match (per, whole) {
            (Per::Coordinate, Some(whole)) => *shape == whole,
            // A vector has as many rows as coordinates.
            (Per::Row, Some(whole)) => *shape != whole || whole.len() == 1,
            _ => true,
        })
    };
    BaseKind::known().filter(fits)
}

/// Where the states of a record are.
pub(crate) struct Places<'a> {
    by_id: HashMap<ParamId, usize>,
    by_path: HashMap<&'a str, usize>,
}

impl<'a> Places<'a> {
    pub(crate) fn of(all: &'a [Loaded]) -> Self {
        let (mut by_id, mut by_path) = (HashMap::new(), HashMap::new());
        for (at, loaded) in all.iter().enumerate() {
            by_id.entry(loaded.id).or_insert(at);
            if let Some(path) = &loaded.path {
                by_path.entry(&path[..]).or_insert(at);
            }
        }
        Self { by_id, by_path }
    }

    /// The state of a parameter: found by its id, or by its path where the model is a new one with other ids.
    pub(crate) fn find(&self, id: ParamId, path: &str) -> Option<usize> {
        self.by_id.get(&id).or_else(|| self.by_path.get(path)).copied()
    }
}

/// State of one parameter from a record.
pub(crate) struct Loaded {
    pub id: ParamId,
    pub path: Option<String>,
    pub steps: Option<u64>,
    pub state: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Loaded {
    /// Writes the state to the optimizer.
    ///
    /// # Errors
    /// If the parameter's recipe needs other state, or state of another shape.
    pub(crate) fn apply(&self, optimizer: &mut GpuOptimizer, known: &Known) -> Result<(), Error> {
        let base = base_of(optimizer, known)?;
        let leaves = leaves(base);
        let wanted: Vec<_> = leaves.keys().copied().collect();
        let found: Vec<_> = self.state.keys().map(String::as_str).collect();
        if found != wanted {
            return Err(Error::Record(format!(
                "parameter `{}` has the state {}, but its recipe needs {}",
                known.path,
                found.join(", "),
                wanted.join(", ")
            )));
        }
        for (leaf, state) in leaves {
            let (shape, values) = &self.state[leaf];
            if *shape != shape_of(base, state, &known.spec()) {
                return Err(Error::Record(format!(
                    "`{leaf}` of parameter `{}` has shape {shape:?}, but the parameter {:?}",
                    known.path, known.shape
                )));
            }
            optimizer.write_state(&known.name, state.name, values)?;
        }
        // Burn's Lion and SGD do not count their steps.
        let steps = self.steps.or(["lion", "sgd"].contains(&family(base)).then_some(1));
        let steps = steps.ok_or_else(|| {
            Error::Record(format!(
                "parameter `{}` lacks its number of steps, `{}`",
                known.path,
                counts(base).unwrap_or("step")
            ))
        })?;
        Ok(optimizer.set_tensor_steps(&known.name, steps)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_found_by_id_before_path_and_in_linear_time() {
        let ids: Vec<_> = (0..100_000).map(|_| ParamId::new()).collect();
        let path = |i: usize| format!("layers.{i}.weight");
        let loaded = |(i, &id)| Loaded { id, path: Some(path(i)), steps: None, state: BTreeMap::new() };
        let all: Vec<_> = ids.iter().enumerate().map(loaded).collect();
        let start = std::time::Instant::now();
        let places = Places::of(&all);
        for (i, &id) in ids.iter().enumerate() {
            assert_eq!(places.find(id, &path((i + 1) % ids.len())), Some(i));
            assert_eq!(places.find(ParamId::new(), &path(i)), Some(i));
        }
        assert_eq!(places.find(ParamId::new(), "another"), None);
        // In quadratic time it takes minutes.
        assert!(start.elapsed().as_secs() < 10);
    }

    #[test]
    fn names_are_given_once() {
        let (first, second) = (ParamId::new(), ParamId::new());
        let (path, name, layout) = ("b".to_owned(), "a".to_owned(), MatrixLayout::InOut);
        let mut names = Names::of(&[Known { id: first, path, name, shape: vec![4], group: 0, layout }]);
        assert_eq!(names.add(second, "b"), "b");
        assert_eq!(names.add(second, "a"), format!("a#{second}"));
        assert_eq!(names.add(second, "a"), format!("a#{second}#"));
    }
}
