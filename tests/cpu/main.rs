//! What needs no device: recipes, the layout, the reference and the shaders' translations.

#[path = "../common/sound.rs"]
mod sound;

mod plan;
mod recipes;
mod reference;
mod shaders;
