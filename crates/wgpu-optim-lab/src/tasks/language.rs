//! A language model in the manner of LLaMA: rotary positions, root-mean-square norms, gated networks. It predicts the next token of a text.

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
use super::text::{Text, Vocabulary};
use crate::task::{Held, Rng, Sources, Task};

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
    /// Tokens of a byte-pair encoding, which is found from the text: 257 to 65,536. Default: none, each byte is a token.
    pub vocabulary: Option<usize>,
    /// Tokens per sequence. Default 64.
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
        Self {
            name: None,
            steps: 300,
            batch: 6,
            vocabulary: None,
            context: 64,
            width: 64,
            depth: 2,
            heads: 4,
            held_out: 96,
        }
    }
}

impl LanguageConfig {
    pub(super) fn validate(&self) -> Result<()> {
        for (name, value) in [("batch", self.batch), ("held_out", self.held_out)] {
            ensure!(value >= 1, "`{name}` is 0; expected at least 1");
        }
        Vocabulary::validate(self.vocabulary)?;
        self.shape().validate()
    }

    fn shape(&self) -> Shape {
        let Self { context, width, depth, heads, .. } = *self;
        Shape { context, width, depth, heads }
    }
}

/// The shape of a transformer.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) context: usize,
    pub(super) width: usize,
    pub(super) depth: usize,
    pub(super) heads: usize,
}

impl Shape {
    pub(super) fn validate(&self) -> Result<()> {
        for (name, value) in [("context", self.context), ("depth", self.depth), ("heads", self.heads)] {
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

/// Tokens to a vector per position, which depends on the tokens up to it.
#[derive(Module, Debug)]
pub struct Decoder {
    embedding: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: RmsNorm,
    rotary: RotaryEncoding,
}

impl Decoder {
    pub(super) fn new(rng: &mut Rng, vocabulary: usize, shape: Shape, device: &Device) -> Self {
        let Shape { context, width, depth, heads } = shape;
        Self {
            embedding: normal(rng, [vocabulary, width], 1.0, device),
            blocks: (0..depth).map(|_| Block::new(rng, width, heads, depth, device)).collect(),
            norm: RmsNormConfig::new(width).init(device),
            rotary: RotaryEncodingConfig::new(context, width / heads).init(device),
        }
    }

    /// From (batch, positions) to (batch · positions, width).
    pub(super) fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let [_, positions] = tokens.dims();
        let hidden = Tensor::<2, Bool>::tril_mask([positions, positions], 0, &tokens.device());
        let x = burn::tensor::module::embedding(self.embedding.val(), tokens).flatten(0, 1);
        let block = |x, block: &Block| block.forward(x, positions, Some(&self.rotary), Some(&hidden));
        self.norm.forward(self.blocks.iter().fold(x, block))
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct LanguageModel {
    pub(super) decoder: Decoder,
    head: Linear,
}

impl LanguageModel {
    pub(super) fn new(rng: &mut Rng, vocabulary: usize, shape: Shape, device: &Device) -> Self {
        let decoder = Decoder::new(rng, vocabulary, shape, device);
        Self { decoder, head: linear(rng, shape.width, vocabulary, device) }
    }

    /// The mean loss of sequences.
    pub(super) fn loss(&self, (inputs, targets): &Sequences) -> Tensor<1> {
        let logits = self.head.forward(self.decoder.forward(inputs.clone()));
        log_softmax(logits, 1).gather(1, targets.clone()).mean().neg()
    }
}

/// Sequences (batch, positions), and the token after each of their tokens, (batch · positions, 1).
pub(super) type Sequences = (Tensor<2, Int>, Tensor<2, Int>);

/// Sequences of a text that begin at these tokens.
pub(super) fn sequences(
    text: &[u16],
    starts: impl Iterator<Item = usize>,
    positions: usize,
    device: &Device,
) -> Sequences {
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for start in starts {
        let window = &text[start..=start + positions];
        inputs.extend(window[..positions].iter().map(|&token| i32::from(token)));
        targets.extend(window[1..].iter().map(|&token| i32::from(token)));
    }
    let count = inputs.len() / positions;
    let inputs = TensorData::new(inputs, [count, positions]);
    let targets = TensorData::new(targets, [count * positions, 1]);
    (Tensor::from_data(inputs, device), Tensor::from_data(targets, device))
}

/// So many sequences of a text at random.
pub(super) fn random(text: &[u16], count: usize, positions: usize, rng: &mut Rng, device: &Device) -> Sequences {
    let starts: Vec<_> = (0..count).map(|_| rng.random_range(0..text.len() - positions)).collect();
    sequences(text, starts.into_iter(), positions, device)
}

/// How matrix bases read the parameters of a decoder and a head.
pub(super) fn layouts() -> Vec<(Select, MatrixLayout)> {
    ["embedding", "head"].map(|name| (ParamGroup::from_predicate(name).into(), MatrixLayout::Fallback)).into()
}

/// The task.
pub(crate) struct Language {
    config: LanguageConfig,
    text: Text,
}

impl Language {
    pub(crate) fn open(config: &LanguageConfig, sources: &Sources) -> Result<Self> {
        let text = Text::open(sources.text.as_deref(), config.vocabulary)?.at_least(config.context + 1)?;
        Ok(Self { config: config.clone(), text })
    }
}

impl Task for Language {
    type Model = LanguageModel;
    type Batch = Sequences;

    fn data(&self) -> String {
        self.text.description.clone()
    }

    fn model(&self, rng: &mut Rng, device: &Device) -> LanguageModel {
        LanguageModel::new(rng, self.text.vocabulary.size(), self.config.shape(), device)
    }

    fn batch(&self, rng: &mut Rng, device: &Device) -> Sequences {
        random(&self.text.train, self.config.batch, self.config.context, rng, device)
    }

    fn loss(&self, model: &LanguageModel, batch: &Sequences) -> Tensor<1> {
        model.loss(batch)
    }

    fn held_out(&self, held: Held, device: &Device) -> Vec<Sequences> {
        let part = if held == Held::Tuning { &self.text.tuning } else { &self.text.last };
        let (at_once, last) = (4 * self.config.batch, part.len() - self.config.context - 1);
        let count = self.config.held_out.next_multiple_of(at_once);
        let starts: Vec<_> = (0..count).map(|i| i * last / count).collect();
        let batch = |starts: &[usize]| sequences(part, starts.iter().copied(), self.config.context, device);
        starts.chunks(at_once).map(batch).collect()
    }

    fn layouts(&self) -> Vec<(Select, MatrixLayout)> {
        layouts()
    }
}
