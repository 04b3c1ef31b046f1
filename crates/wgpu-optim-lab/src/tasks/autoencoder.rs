//! A masked autoencoder: a vision transformer sees a quarter of a picture's patches and draws the others.

use anyhow::{Result, ensure};
use burn::module::{Module, Param, ParamGroup};
use burn::nn::{Linear, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use wgpu_optim::MatrixLayout;
use wgpu_optim_burn::Select;

use super::layers::{Block, biased, normal};
use super::pictures::Gallery;
use crate::task::{Held, Rng, Sources, Task};

/// Settings of the masked autoencoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// The task's name in the report. Default: `autoencoder`.
    pub name: Option<String>,
    /// Steps of a run. Default 300.
    pub steps: usize,
    /// Pictures per step. Default 16.
    pub batch: usize,
    /// Rows and columns of a patch. Default 4.
    pub patch: usize,
    /// Share of the patches that are hidden. Default 0.75.
    pub hidden: f64,
    /// Numbers per patch in the encoder. Default 48.
    pub width: usize,
    /// Blocks of the encoder. Default 2.
    pub depth: usize,
    /// Numbers per patch in the decoder, which has one block. Default 32.
    pub decoder_width: usize,
    /// Heads of attention per block. Default 4.
    pub heads: usize,
    /// Pictures of each held-out set. Default 256.
    pub held_out: usize,
}

impl Default for AutoencoderConfig {
    fn default() -> Self {
        Self {
            name: None,
            steps: 300,
            batch: 16,
            patch: 4,
            hidden: 0.75,
            width: 48,
            depth: 2,
            decoder_width: 32,
            heads: 4,
            held_out: 256,
        }
    }
}

impl AutoencoderConfig {
    pub(super) fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("batch", self.batch),
            ("patch", self.patch),
            ("depth", self.depth),
            ("heads", self.heads),
            ("held_out", self.held_out),
        ] {
            ensure!(value >= 1, "`{name}` is 0; expected at least 1");
        }
        ensure!(
            self.hidden > 0.0 && self.hidden < 1.0,
            "`hidden` is {}; expected a share above 0 and below 1",
            self.hidden
        );
        for (name, width) in [("width", self.width), ("decoder_width", self.decoder_width)] {
            ensure!(
                width >= 1 && width.is_multiple_of(self.heads),
                "`{name}` is {width}; expected a multiple of the {} heads",
                self.heads
            );
        }
        Ok(())
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct Vit {
    patches: Linear,
    positions: Param<Tensor<2>>,
    encoder: Vec<Block>,
    encoder_norm: RmsNorm,
    narrow: Linear,
    hidden: Param<Tensor<2>>,
    decoder_positions: Param<Tensor<2>>,
    decoder: Block,
    decoder_norm: RmsNorm,
    draw: Linear,
}

/// Pictures as patches. Places are one-hot: a product puts positions to patches and patches to positions.
pub struct Patches {
    /// What the encoder sees, (pictures, visible, values).
    visible: Tensor<3>,
    /// Where it lies, (pictures, visible, patches).
    places: Tensor<3>,
    /// 1 where a patch is hidden, (pictures, patches, 1).
    is_hidden: Tensor<3>,
    /// All patches, each of mean 0 and variance 1, (pictures, patches, values).
    targets: Tensor<3>,
}

/// The task.
pub(crate) struct Autoencoder {
    config: AutoencoderConfig,
    gallery: Gallery,
}

impl Autoencoder {
    pub(crate) fn open(config: &AutoencoderConfig, sources: &Sources) -> Result<Self> {
        let gallery = Gallery::open(sources)?;
        let [rows, ..] = gallery.shape();
        ensure!(
            rows.is_multiple_of(config.patch),
            "`patch` is {}; expected a divisor of the pictures' {rows} rows",
            config.patch
        );
        let task = Self { config: config.clone(), gallery };
        ensure!(
            task.seen() < task.count(),
            "`hidden` is {}; nothing is hidden of {} patches",
            config.hidden,
            task.count()
        );
        Ok(task)
    }

    /// Patches of a picture.
    fn count(&self) -> usize {
        (self.gallery.shape()[0] / self.config.patch).pow(2)
    }

    /// The patches that the encoder sees.
    fn seen(&self) -> usize {
        (((1.0 - self.config.hidden) * self.count() as f64).round() as usize).max(1)
    }

    /// Values of a patch.
    fn values(&self) -> usize {
        self.config.patch.pow(2) * self.gallery.shape()[2]
    }

    fn patches(&self, pictures: &[Vec<f32>], rng: &mut Rng, device: &Device) -> Patches {
        let ([side, _, channels], size, seen, count) =
            (self.gallery.shape(), self.config.patch, self.seen(), self.count());
        let (across, values) = (side / size, self.values());
        let (mut visible, mut places, mut is_hidden, mut targets) =
            (Vec::new(), vec![0.0; pictures.len() * seen * count], Vec::new(), Vec::new());
        for (at, picture) in pictures.iter().enumerate() {
            let patch = |place: usize| -> Vec<f32> {
                let (top, left) = (place / across * size, place % across * size);
                let pixel = |i: usize| {
                    let (channel, row, column) = (i / size.pow(2), i % size.pow(2) / size, i % size);
                    picture[(channel * side + top + row) * side + left + column]
                };
                (0..channels * size.pow(2)).map(pixel).collect()
            };
            let mut order: Vec<_> = (0..count).collect();
            order.shuffle(rng);
            for (index, &place) in order[..seen].iter().enumerate() {
                visible.extend(patch(place));
                places[(at * seen + index) * count + place] = 1.0;
            }
            is_hidden.extend((0..count).map(|place| if order[..seen].contains(&place) { 0.0 } else { 1.0f32 }));
            for place in 0..count {
                let patch = patch(place);
                let mean = patch.iter().sum::<f32>() / values as f32;
                let variance = patch.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / values as f32;
                targets.extend(patch.iter().map(|value| (value - mean) / (variance + 1e-6).sqrt()));
            }
        }
        let tensor = |data: Vec<f32>, shape: [usize; 3]| Tensor::from_data(TensorData::new(data, shape), device);
        Patches {
            visible: tensor(visible, [pictures.len(), seen, values]),
            places: tensor(places, [pictures.len(), seen, count]),
            is_hidden: tensor(is_hidden, [pictures.len(), count, 1]),
            targets: tensor(targets, [pictures.len(), count, values]),
        }
    }
}

impl Task for Autoencoder {
    type Model = Vit;
    type Batch = Patches;

    fn data(&self) -> String {
        self.gallery.name()
    }

    fn model(&self, rng: &mut Rng, device: &Device) -> Vit {
        let AutoencoderConfig { width, depth, decoder_width, heads, .. } = self.config;
        let (count, values) = (self.count(), self.values());
        Vit {
            patches: biased(rng, values, width, device),
            positions: normal(rng, [count, width], 0.2, device),
            encoder: (0..depth).map(|_| Block::new(rng, width, heads, depth, device)).collect(),
            encoder_norm: RmsNormConfig::new(width).init(device),
            narrow: biased(rng, width, decoder_width, device),
            hidden: normal(rng, [1, decoder_width], 0.2, device),
            decoder_positions: normal(rng, [count, decoder_width], 0.2, device),
            decoder: Block::new(rng, decoder_width, heads, 1, device),
            decoder_norm: RmsNormConfig::new(decoder_width).init(device),
            draw: biased(rng, decoder_width, values, device),
        }
    }

    fn batch(&self, rng: &mut Rng, device: &Device) -> Patches {
        let pictures: Vec<_> = (0..self.config.batch).map(|_| self.gallery.any(rng).0).collect();
        self.patches(&pictures, rng, device)
    }

    /// The mean squared error of the hidden patches.
    fn loss(&self, model: &Vit, batch: &Patches) -> Tensor<1> {
        let [pictures, seen, _] = batch.visible.dims();
        let [_, count, values] = batch.targets.dims();
        let of = |x: Tensor<2>, positions: usize, width: usize| x.reshape([pictures, positions, width]);
        let x = model.patches.forward(batch.visible.clone().flatten(0, 1))
            + batch.places.clone().flatten::<2>(0, 1).matmul(model.positions.val());
        let x = model.encoder.iter().fold(x, |x, block| block.forward(x, seen, None, None));
        let x = of(model.narrow.forward(model.encoder_norm.forward(x)), seen, self.config.decoder_width);
        let x = batch.places.clone().swap_dims(1, 2).matmul(x)
            + batch.is_hidden.clone() * model.hidden.val().unsqueeze()
            + model.decoder_positions.val().unsqueeze();
        let x = model.decoder.forward(x.flatten(0, 1), count, None, None);
        let drawn = of(model.draw.forward(model.decoder_norm.forward(x)), count, values);
        let hidden = (pictures * (count - seen) * values) as f64;
        ((drawn - batch.targets.clone()).square() * batch.is_hidden.clone()).sum() / hidden
    }

    fn held_out(&self, held: Held, device: &Device) -> Vec<Patches> {
        let pictures: Vec<_> =
            self.gallery.held_out(held, self.config.held_out).into_iter().map(|(picture, _)| picture).collect();
        // The same patches are hidden each time.
        let mut rng = Rng::seed_from_u64(1);
        let at_once = pictures.len().min(4 * self.config.batch);
        pictures.chunks_exact(at_once).map(|pictures| self.patches(pictures, &mut rng, device)).collect()
    }

    fn layouts(&self) -> Vec<(Select, MatrixLayout)> {
        ["positions", "hidden", "decoder_positions", "draw"]
            .map(|name| (ParamGroup::from_predicate(name).into(), MatrixLayout::Fallback))
            .into()
    }
}
