//! [wgpu-optim](https://docs.rs/wgpu-optim) in the browser: the same Rust and the same WGSL, on WebGPU, as an npm package.
//!
//! `scripts/web.sh` builds the package; its `README.md` and `wgpu_optim.d.ts` say how a page uses it. Elsewhere than in a browser
//! this crate is empty.
#![cfg(target_arch = "wasm32")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod gpu;
mod js;
mod optimizer;
mod options;

pub use gpu::Gpu;
pub use optimizer::GpuOptimizer;

use wasm_bindgen::prelude::*;
use wgpu_optim::Recipe;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.d.ts");

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// The names of all recipes.
#[wasm_bindgen(unchecked_return_type = "string[]")]
pub fn recipes() -> Vec<String> {
    Recipe::presets()
}

/// A preset as an object with every hyper-parameter. Change it, and pass it to `create`.
///
/// @throws If no recipe has this name.
#[wasm_bindgen(unchecked_return_type = "Recipe")]
pub fn recipe(name: &str) -> Result<JsValue, js::Thrown> {
    options::recipe_object(&name.parse()?)
}
