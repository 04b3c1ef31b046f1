//! Recipes for tests that cannot take all.

use wgpu_optim::base::{Base, BaseKind};
use wgpu_optim::{Recipe, StateFormat, verify};

/// Recipes of the table in which every base, every variant and every policy occurs: AdamW, Lion, Muon and AdaGO under each policy, other
/// bases under one of them in turn, and four with 8-bit states. All recipes, if the environment has `WGPU_OPTIM_ALL_RECIPES`.
pub fn few_recipes() -> Vec<(String, Recipe)> {
    let mut all = verify::recipes();
    if std::env::var_os("WGPU_OPTIM_ALL_RECIPES").is_some() {
        return all;
    }
    let kinds: Vec<_> = BaseKind::all().collect();
    let at_of = |recipe: &Recipe| kinds.iter().position(|kind| *kind == BaseKind::of(&recipe.base)).expect("a kind");
    let mut counts = vec![0; kinds.len()];
    let in_bytes: Vec<_> = all.extract_if(.., |(_, recipe)| recipe.state != StateFormat::F32).collect();
    all.iter().for_each(|(_, recipe)| counts[at_of(recipe)] += 1);
    let mut seen = vec![0; kinds.len()];
    all.retain(|(_, recipe)| {
        let (base, at) = (BaseKind::of(&recipe.base), at_of(recipe));
        seen[at] += 1;
        let first = matches!(recipe.base, Base::Adamw(_) | Base::Lion(_) | Base::Muon(_) | Base::Adago(_));
        first || base.row().name.contains('(') || seen[at] - 1 == at % counts[at].min(6)
    });
    let few = ["mgup-adamw", "mgup-lion", "mgup-rmsprop", "mgup-muon"];
    all.extend(in_bytes.into_iter().filter(|(_, recipe)| few.contains(&recipe.name().as_str())));
    all
}
