//! Fine-tuning: a language model is trained on text first, once for all runs, and then learns to tell classes of sentences apart.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::nn::Linear;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::store::ModuleRecord;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bytes, Device, Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use wgpu_optim::MatrixLayout;
use wgpu_optim_burn::Select;

use super::language::{Decoder, LanguageModel, Shape, layouts, random};
use super::layers::biased;
use super::text::{Text, Vocabulary, digest};
use crate::task::{Held, Rng, Sources, Task};

/// The highest learning rate of pre-training, which falls linearly.
const RATE: f64 = 4e-3;

/// Settings of the fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FineTuningConfig {
    /// The task's name in the report. Default: `fine_tuning`.
    pub name: Option<String>,
    /// Steps of a run, after pre-training. Default 200.
    pub steps: usize,
    /// Sentences per step, and sequences per step of pre-training. Default 16.
    pub batch: usize,
    /// Steps of pre-training. They are taken once, by Burn's AdamW. Default 1,000.
    pub pretraining: usize,
    /// Tokens of a byte-pair encoding, which is found from the text: 257 to 65,536. None for bytes. Default 1,024.
    pub vocabulary: Option<usize>,
    /// Tokens per sentence; longer sentences are cut. Default 32.
    pub context: usize,
    /// Numbers per position. Default 64.
    pub width: usize,
    /// Blocks. Default 2.
    pub depth: usize,
    /// Heads of attention per block. Default 4.
    pub heads: usize,
    /// Sentences of each held-out set, at most; rounded down to a multiple of a batch. Default 1,024.
    pub held_out: usize,
}

impl Default for FineTuningConfig {
    fn default() -> Self {
        Self {
            name: None,
            steps: 200,
            batch: 16,
            pretraining: 1000,
            vocabulary: Some(1024),
            context: 32,
            width: 64,
            depth: 2,
            heads: 4,
            held_out: 1024,
        }
    }
}

impl FineTuningConfig {
    pub(super) fn validate(&self) -> Result<()> {
        ensure!(self.batch >= 1, "`batch` is 0; expected at least 1");
        ensure!(self.held_out >= self.batch, "`held_out` is {}; expected at least a batch", self.held_out);
        Vocabulary::validate(self.vocabulary)?;
        self.shape().validate()
    }

    fn shape(&self) -> Shape {
        let Self { context, width, depth, heads, .. } = *self;
        Shape { context, width, depth, heads }
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct Reader {
    decoder: Decoder,
    head: Linear,
}

/// Sentences with padding at their ends (batch, positions), the share of each position in the mean of its sentence, 0 for padding, and the
/// classes (batch, 1).
pub type Sentences = (Tensor<2, Int>, Tensor<2>, Tensor<2, Int>);

impl Reader {
    /// Logits of the classes: from the mean over the positions.
    fn forward(&self, tokens: Tensor<2, Int>, shares: Tensor<2>) -> Tensor<2> {
        let [batch, positions] = tokens.dims();
        let x = self.decoder.forward(tokens);
        let [_, width] = x.dims();
        let mean: Tensor<2> =
            (x.reshape([batch, positions, width]) * shares.reshape([batch, positions, 1])).sum_dim(1).flatten(1, 2);
        self.head.forward(mean)
    }
}

/// A sentence as tokens, and its class.
type Sentence = (Vec<u16>, usize);

/// The task.
pub(crate) struct FineTuning {
    config: FineTuningConfig,
    description: String,
    text: Text,
    classes: usize,
    train: Vec<Sentence>,
    tuning: Vec<Sentence>,
    last: Vec<Sentence>,
    /// The parameters after pre-training.
    pretrained: OnceLock<Vec<u8>>,
}

/// A line of the file of sentences. Other columns are ignored.
#[derive(Deserialize)]
struct Line {
    text: String,
    label: String,
}

impl FineTuning {
    pub(crate) fn open(config: &FineTuningConfig, sources: &Sources) -> Result<Self> {
        let path = sources.sentences.as_deref().context(
            "it needs sentences and their classes; give a CSV file with the columns `text` and `label` by --sentences",
        )?;
        let context = || format!("cannot read {}", path.display());
        let bytes = std::fs::read(path).with_context(context)?;
        let mut lines: Vec<Line> =
            csv::Reader::from_reader(&bytes[..]).deserialize().collect::<Result<_, _>>().with_context(context)?;
        let mut labels: Vec<_> = lines.iter().map(|line| line.label.clone()).collect();
        labels.sort_unstable();
        labels.dedup();
        ensure!(labels.len() >= 2, "{} has {} classes; expected at least 2", path.display(), labels.len());
        lines.shuffle(&mut Rng::seed_from_u64(0));
        let parts = lines.len() / 10;
        ensure!(
            parts >= config.batch,
            "{} has {} sentences; expected at least {}, because a tenth of them is held out twice",
            path.display(),
            lines.len(),
            10 * config.batch
        );
        let text = Self::text(config, sources, path, &lines[2 * parts..])?.at_least(config.context + 1)?;
        let sentence = |line: &Line| -> Result<Sentence> {
            let mut tokens = text.vocabulary.encode(line.text.as_bytes())?;
            tokens.truncate(config.context);
            ensure!(!tokens.is_empty(), "{} has an empty sentence", path.display());
            Ok((tokens, labels.partition_point(|label| *label < line.label)))
        };
        let held = config.held_out.min(parts) / config.batch * config.batch;
        let all: Vec<_> = lines.iter().map(sentence).collect::<Result<_>>()?;
        Ok(Self {
            config: config.clone(),
            description: format!(
                "{} ({} sentences of {} classes, digest {:016x}), pre-trained on {}",
                path.display(),
                lines.len(),
                labels.len(),
                digest(&bytes),
                text.description
            ),
            text,
            classes: labels.len(),
            train: all[2 * parts..].to_vec(),
            tuning: all[..held].to_vec(),
            last: all[parts..parts + held].to_vec(),
            pretrained: OnceLock::new(),
        })
    }

    /// The text of pre-training: a file, or the sentences to train on, one per line.
    fn text(config: &FineTuningConfig, sources: &Sources, path: &Path, train: &[Line]) -> Result<Text> {
        if let Some(text) = &sources.text {
            return Text::open(Some(text), config.vocabulary);
        }
        let mut all = String::new();
        for line in train {
            // Writing to a string cannot fail.
            let _ = writeln!(all, "{}", line.text);
        }
        Text::new(&format!("the sentences of {}", path.display()), all.as_bytes(), config.vocabulary)
    }

    fn tensors<'a>(&self, sentences: impl Iterator<Item = &'a Sentence>, device: &Device) -> Sentences {
        let positions = self.config.context;
        let (mut tokens, mut shares, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        for (sentence, class) in sentences {
            let share = 1.0 / sentence.len() as f32;
            tokens.extend((0..positions).map(|at| sentence.get(at).map_or(0, |&token| i32::from(token))));
            shares.extend((0..positions).map(|at| if at < sentence.len() { share } else { 0.0 }));
            classes.push(*class as i32);
        }
        let count = classes.len();
        (
            Tensor::from_data(TensorData::new(tokens, [count, positions]), device),
            Tensor::from_data(TensorData::new(shares, [count, positions]), device),
            Tensor::from_data(TensorData::new(classes, [count, 1]), device),
        )
    }
}

impl Task for FineTuning {
    type Model = Reader;
    type Batch = Sentences;

    fn data(&self) -> String {
        self.description.clone()
    }

    fn prepare(&self, device: &Device, progress: &dyn Fn(usize, usize) -> bool) -> Result<()> {
        let FineTuningConfig { batch, context, pretraining, .. } = self.config;
        if self.pretrained.get().is_some() {
            return Ok(());
        }
        let mut rng = Rng::seed_from_u64(0);
        let mut model = LanguageModel::new(&mut rng, self.text.vocabulary.size(), self.config.shape(), device);
        let mut optimizer = AdamWConfig::new().with_beta_2(0.95).init();
        for step in 0..pretraining {
            if !progress(step, pretraining) {
                return Ok(());
            }
            let loss = model.loss(&random(&self.text.train, batch, context, &mut rng, device));
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(RATE * (1.0 - step as f64 / pretraining as f64), model, grads);
        }
        // On the host: an optimizer may step in the buffers of its model.
        let bytes = model.decoder.valid().into_record().into_bytes().context("cannot keep the pre-trained model")?;
        self.pretrained.get_or_init(|| bytes.to_vec());
        Ok(())
    }

    fn model(&self, rng: &mut Rng, device: &Device) -> Reader {
        let decoder = Decoder::new(rng, self.text.vocabulary.size(), self.config.shape(), device);
        let pretrained = self.pretrained.get().expect("it was prepared").clone();
        let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(pretrained)).expect("a record of a model");
        Reader { decoder: decoder.load_record(record), head: biased(rng, self.config.width, self.classes, device) }
    }

    fn batch(&self, rng: &mut Rng, device: &Device) -> Sentences {
        let any: Vec<_> = (0..self.config.batch).map(|_| rng.random_range(0..self.train.len())).collect();
        self.tensors(any.into_iter().map(|at| &self.train[at]), device)
    }

    fn loss(&self, model: &Reader, (tokens, shares, classes): &Sentences) -> Tensor<1> {
        log_softmax(model.forward(tokens.clone(), shares.clone()), 1).gather(1, classes.clone()).mean().neg()
    }

    fn accuracy(&self, model: &Reader, (tokens, shares, classes): &Sentences) -> Option<Tensor<1>> {
        Some(model.forward(tokens.clone(), shares.clone()).argmax(1).equal(classes.clone()).float().mean())
    }

    fn held_out(&self, held: Held, device: &Device) -> Vec<Sentences> {
        let part = if held == Held::Tuning { &self.tuning } else { &self.last };
        part.chunks(self.config.batch).map(|sentences| self.tensors(sentences.iter(), device)).collect()
    }

    fn layouts(&self) -> Vec<(Select, MatrixLayout)> {
        layouts()
    }
}
