//! What needs no device: recipes, the layout, the reference, the shaders' translations, and the page about the architecture.

#[path = "../common/few.rs"]
mod few;
#[path = "../common/sound.rs"]
mod sound;

mod architecture;
mod custom;
mod examples;
mod plan;
mod recipes;
mod reference;
mod shaders;
