//! A race as one HTML file that needs no other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::race::{Race, Racer};

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
.wide { overflow-x: auto; }
th:first-child, td:first-child { text-align: left; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { width: 100%; image-rendering: pixelated; border-radius: .3rem; }
.curves svg { width: 100%; height: auto; border-radius: .3rem; }
";

/// The page.
pub fn page(race: &Race, target: &[u8], curves: &str) -> String {
    let Race { adapter, width, height, gaussians, steps, results } = race;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "wgpu-optim demo" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Optimizers fit a picture" }
                p {
                    "Each optimizer moved " (gaussians) " Gaussians for " (steps) " steps to match " (width) " × " (height)
                    " pixels. Parameters, gradients and state stayed on the GPU: " (adapter) "."
                }
                div.wide { (table(results)) }
                h2 { "Pictures" }
                div.pictures {
                    (figure("target", target))
                    @for racer in results {
                        (figure(&format!("{}, {:.2} dB", racer.name, racer.psnr), &racer.picture))
                    }
                }
                h2 { "Loss" }
                div.curves { (PreEscaped(curves)) }
                p {
                    "Made by " code { "wgpu-optim demo" } " " (env!("CARGO_PKG_VERSION")) ". Buffers and dispatches are those of the "
                    "optimizer. Speeds include the renderer and leave out the first step, which compiles kernels. The optimizers took "
                    "turns of a few steps. At equal learning rates, MGUP's factors average 1 + τ − τ², which is 1.25 at τ = 0.5."
                }
            }
        }
    }
    .into_string()
}

fn table(results: &[Racer]) -> Markup {
    html! {
        table {
            tr {
                th { "optimizer" } th { "learning rate" } th { "first loss" } th { "last loss" } th { "PSNR" } th { "steps/s" }
                th { "buffers" } th { "dispatches" }
            }
            @for racer in results {
                tr {
                    td { (racer.name) }
                    td { (racer.lr) }
                    td { (format!("{:.3e}", racer.first_loss)) }
                    td { (format!("{:.3e}", racer.last_loss)) }
                    td { (format!("{:.2} dB", racer.psnr)) }
                    td { (format!("{:.1}", racer.steps_per_second)) }
                    td { (format!("{:.1} kB", racer.memory as f64 / 1e3)) }
                    td { (racer.dispatches) }
                }
            }
        }
    }
}

fn figure(caption: &str, png: &[u8]) -> Markup {
    html! {
        figure {
            img src=(format!("data:image/png;base64,{}", STANDARD.encode(png))) alt=(caption);
            figcaption { (caption) }
        }
    }
}
