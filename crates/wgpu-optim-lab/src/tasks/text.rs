//! Text to learn from, as tokens.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use flate2::bufread::GzDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{NormalizerWrapper, TokenizerImpl};

const NOVEL: &[u8] = include_bytes!("../../data/persuasion.txt.gz");
/// Tokens of a vocabulary that has a token for each byte alone.
const BYTES: usize = 256;

/// What a token is.
pub(super) enum Vocabulary {
    /// A byte.
    Bytes,
    /// A frequent piece of a word, by byte-pair encoding.
    Pairs(Box<TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel>>),
}

impl Vocabulary {
    /// Bytes, or pieces of words of this text: as many as `size`, or as there are.
    fn of(text: &[u8], size: Option<usize>) -> Result<Self> {
        let Some(size) = size else { return Ok(Self::Bytes) };
        let alphabet = ByteLevel::alphabet().into_iter().collect();
        let mut trainer =
            BpeTrainer::builder().vocab_size(size).show_progress(false).initial_alphabet(alphabet).build();
        let mut pairs = Box::new(TokenizerImpl::new(BPE::default()));
        pairs.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
        pairs
            .train(&mut trainer, String::from_utf8_lossy(text).split_inclusive('\n'))
            .map_err(|error| anyhow!("cannot find the vocabulary of the text: {error}"))?;
        Ok(Self::Pairs(pairs))
    }

    /// Refuses a size that cannot be.
    pub(super) fn validate(size: Option<usize>) -> Result<()> {
        let Some(size) = size else { return Ok(()) };
        ensure!(
            (BYTES + 1..=1 << 16).contains(&size),
            "`vocabulary` is {size}; expected 257 to 65536, or none for bytes"
        );
        Ok(())
    }

    /// How many tokens there are.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Bytes => BYTES,
            Self::Pairs(pairs) => pairs.get_vocab_size(true),
        }
    }

    /// A text as tokens.
    pub(super) fn encode(&self, text: &[u8]) -> Result<Vec<u16>> {
        let Self::Pairs(pairs) = self else { return Ok(text.iter().map(|&byte| u16::from(byte)).collect()) };
        let mut tokens = Vec::new();
        for line in String::from_utf8_lossy(text).split_inclusive('\n') {
            let line = pairs.encode_fast(line, false).map_err(|error| anyhow!("cannot encode the text: {error}"))?;
            tokens.extend(line.get_ids().iter().map(|&id| u16::try_from(id).expect("a vocabulary of at most 65536")));
        }
        Ok(tokens)
    }
}

/// A text in three parts: nine tenths to train on, and a twentieth for each held-out set.
pub(super) struct Text {
    /// A description for people. It tells texts apart.
    pub(super) description: String,
    pub(super) vocabulary: Vocabulary,
    pub(super) train: Vec<u16>,
    pub(super) tuning: Vec<u16>,
    pub(super) last: Vec<u16>,
}

impl Text {
    /// A file, or the novel that the program carries. The vocabulary is that of the part to train on.
    pub(super) fn open(path: Option<&Path>, vocabulary: Option<usize>) -> Result<Self> {
        match path {
            Some(path) => {
                let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                Self::new(&path.display().to_string(), &bytes, vocabulary)
            }
            None => {
                let mut bytes = Vec::new();
                GzDecoder::new(NOVEL).read_to_end(&mut bytes).context("the novel of the program")?;
                Self::new("Persuasion by Jane Austen", &bytes, vocabulary)
            }
        }
    }

    pub(super) fn new(name: &str, bytes: &[u8], vocabulary: Option<usize>) -> Result<Self> {
        let part = bytes.len() / 20;
        let (train, held) = bytes.split_at(18 * part);
        let (tuning, last) = held.split_at(part);
        let vocabulary = Vocabulary::of(train, vocabulary)?;
        Ok(Self {
            description: format!("{name} ({} bytes, digest {:016x})", bytes.len(), digest(bytes)),
            train: vocabulary.encode(train)?,
            tuning: vocabulary.encode(tuning)?,
            last: vocabulary.encode(last)?,
            vocabulary,
        })
    }

    /// Refuses a text whose parts have fewer tokens.
    pub(super) fn at_least(self, tokens: usize) -> Result<Self> {
        let shortest = self.tuning.len().min(self.last.len());
        ensure!(
            shortest >= tokens,
            "{} is too short: a twentieth of it is held out twice, and one of these parts has {shortest} tokens; expected \
             at least {tokens}",
            self.description
        );
        Ok(self)
    }
}

/// A number that tells data apart: FNV-1a.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_words_are_fewer_than_bytes_and_always_the_same() {
        let [bytes, pieces, again] = [None, Some(400), Some(400)].map(|size| Text::open(None, size).unwrap());
        assert_eq!((bytes.vocabulary.size(), pieces.vocabulary.size()), (256, 400));
        assert!(pieces.train.len() < bytes.train.len() * 3 / 4, "{} of {}", pieces.train.len(), bytes.train.len());
        assert_eq!((pieces.train, pieces.tuning, pieces.last), (again.train, again.tuning, again.last));
    }
}
