//! A language model in the manner of LLaMA: rotary positions, root-mean-square norms, gated networks. It predicts the next byte of a text.

use anyhow::{Result, ensure};
use burn::module::{Module, Param, ParamGroup};
use burn::nn::{Linear, RmsNorm, RmsNormConfig, RotaryEncoding, RotaryEncodingConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use wgpu_optim::MatrixLayout;
use wgpu_optim_burn::Select;

use super::layers::{Block, linear, normal};
use super::text::Text;
use crate::task::{Held, Rng, Sources, Task};

const BYTES: usize = 256;

/// Settings of the language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LanguageConfig {
    /// The task's name in the report. Default: `language`.
    pub name: Option<String>,
    /// Steps of a run. Default 300.
    pub steps: usize,
    /// Sequences per step. Default 6.
    pub batch: usize,
    /// Bytes per sequence. Default 64.
    pub context: usize,
    /// Numbers per position. Default 64.
    pub width: usize,
    /// Blocks. Default 2.
    pub depth: usize,
    /// Heads of attention per block. Default 4.
    pub heads: usize,
    /// Sequences of each held-out set, evenly spaced; rounded up to a multiple of four batches. Default 96.
    pub held_out: usize,
}

impl Default for LanguageConfig {
    fn default() -> Self {
        Self { name: None, steps: 300, batch: 6, context: 64, width: 64, depth: 2, heads: 4, held_out: 96 }
    }
}

impl LanguageConfig {
    pub(super) fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("batch", self.batch),
            ("context", self.context),
            ("depth", self.depth),
            ("held_out", self.held_out),
            ("heads", self.heads),
        ] {
            ensure!(value >= 1, "`{name}` is 0; expected at least 1");
        }
        ensure!(
            self.width >= 1 && self.width.is_multiple_of(2 * self.heads),
            "`width` is {}; expected a multiple of twice the {} heads",
            self.width,
            self.heads
        );
        Ok(())
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct Llama {
    embedding: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
    rotary: RotaryEncoding,
}

impl Llama {
    /// Logits of the next bytes, (batch · positions, 256).
    fn forward(&self, bytes: Tensor<2, Int>) -> Tensor<2> {
        let [_, positions] = bytes.dims();
        let hidden = Tensor::<2, Bool>::tril_mask([positions, positions], 0, &bytes.device());
        let x = burn::tensor::module::embedding(self.embedding.val(), bytes).flatten(0, 1);
        let block = |x, block: &Block| block.forward(x, positions, Some(&self.rotary), Some(&hidden));
        self.head.forward(self.norm.forward(self.blocks.iter().fold(x, block)))
    }
}

/// The task.
pub(crate) struct Language {
    config: LanguageConfig,
    text: Text,
}

impl Language {
    pub(crate) fn open(config: &LanguageConfig, sources: &Sources) -> Result<Self> {
        let text = Text::open(sources.text.as_deref())?.at_least(config.context + 1)?;
        Ok(Self { config: config.clone(), text })
    }

    /// Sequences that begin at these bytes, and the byte after each byte of a sequence.
    fn sequences(
        &self,
        part: &[u8],
        starts: impl Iterator<Item = usize>,
        device: &Device,
    ) -> (Tensor<2, Int>, Tensor<2, Int>) {
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for start in starts {
            let window = &part[start..=start + self.config.context];
            inputs.extend(window[..self.config.context].iter().map(|&byte| i32::from(byte)));
            targets.extend(window[1..].iter().map(|&byte| i32::from(byte)));
        }
        let count = inputs.len() / self.config.context;
        let inputs = TensorData::new(inputs, [count, self.config.context]);
        let targets = TensorData::new(targets, [count * self.config.context, 1]);
        (Tensor::from_data(inputs, device), Tensor::from_data(targets, device))
    }
}

impl Task for Language {
    type Model = Llama;
    type Batch = (Tensor<2, Int>, Tensor<2, Int>);

    fn data(&self) -> String {
        format!("{} ({} bytes, digest {:016x})", self.text.name, self.text.len(), self.text.digest())
    }

    fn model(&self, rng: &mut Rng, device: &Device) -> Llama {
        let LanguageConfig { context, width, depth, heads, .. } = self.config;
        Llama {
            embedding: normal(rng, [BYTES, width], 1.0, device),
            blocks: (0..depth).map(|_| Block::new(rng, width, heads, depth, device)).collect(),
            norm: RmsNormConfig::new(width).init(device),
            head: linear(rng, width, BYTES, device),
            rotary: RotaryEncodingConfig::new(context, width / heads).init(device),
        }
    }

    fn batch(&self, rng: &mut Rng, device: &Device) -> Self::Batch {
        let part = self.text.train();
        let starts: Vec<_> =
            (0..self.config.batch).map(|_| rng.random_range(0..part.len() - self.config.context)).collect();
        self.sequences(part, starts.into_iter(), device)
    }

    fn loss(&self, model: &Llama, (inputs, targets): &Self::Batch) -> Tensor<1> {
        log_softmax(model.forward(inputs.clone()), 1).gather(1, targets.clone()).mean().neg()
    }

    fn held_out(&self, held: Held, device: &Device) -> Vec<Self::Batch> {
        let part = if held == Held::Tuning { self.text.tuning() } else { self.text.last() };
        let (at_once, last) = (4 * self.config.batch, part.len() - self.config.context - 1);
        let count = self.config.held_out.next_multiple_of(at_once);
        let starts: Vec<_> = (0..count).map(|i| i * last / count).collect();
        starts.chunks(at_once).map(|starts| self.sequences(part, starts.iter().copied(), device)).collect()
    }

    fn layouts(&self) -> Vec<(Select, MatrixLayout)> {
        ["embedding", "head"].map(|name| (ParamGroup::from_predicate(name).into(), MatrixLayout::Fallback)).into()
    }
}
