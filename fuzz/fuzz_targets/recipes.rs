//! Any text as a recipe's JSON or name: refused, or a recipe that takes steps and survives being written and read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgpu_optim::{Recipe, TensorSpec, reference};

fn seeds() -> impl Iterator<Item = Vec<u8>> {
    let presets = Recipe::presets().into_iter();
    presets.flat_map(|name| [name.parse::<Recipe>().unwrap().to_json().into_bytes(), name.into_bytes()])
}

fuzz_target!(init: wgpu_optim_fuzz::seed(seeds()), |text: &str| {
    let recipes = [Recipe::from_json(text), text.parse()];
    for recipe in recipes.into_iter().flatten() {
        recipe.validate().unwrap();
        assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
        let spec = TensorSpec::new("w", [2, 3]);
        if !recipe.has_twin() {
            continue;
        }
        let mut tensor = reference::Tensor::with_shape(recipe, &spec, vec![1.0f32; 6]).unwrap();
        for _ in 0..2 {
            tensor.step(&[0.5, -0.5, 0.0, 1.0, f32::MIN_POSITIVE, -1.0]);
        }
    }
});
