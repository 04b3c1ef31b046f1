//! Text to learn from.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::bufread::GzDecoder;

const NOVEL: &[u8] = include_bytes!("../../data/persuasion.txt.gz");

/// The bytes of a text, in three parts: nine tenths to train on, and a twentieth for each held-out set.
pub(crate) struct Text {
    pub name: String,
    bytes: Vec<u8>,
}

impl Text {
    /// A file, or the novel that the program carries.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let (name, bytes) = match path {
            Some(path) => (
                path.display().to_string(),
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            ),
            None => {
                let mut bytes = Vec::new();
                GzDecoder::new(NOVEL).read_to_end(&mut bytes).context("the novel of the program")?;
                ("Persuasion by Jane Austen".to_owned(), bytes)
            }
        };
        Ok(Self { name, bytes })
    }

    /// Refuses a text whose parts are shorter than this.
    pub(super) fn at_least(self, bytes: usize) -> Result<Self> {
        let shortest = self.tuning().len().min(self.last().len());
        ensure!(
            shortest >= bytes,
            "{} has {} bytes; expected at least {}, because a twentieth of them is held out twice",
            self.name,
            self.bytes.len(),
            20 * bytes
        );
        Ok(self)
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A number that tells texts apart.
    pub(super) fn digest(&self) -> u64 {
        self.bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    pub(super) fn train(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() / 20 * 18]
    }

    pub(super) fn tuning(&self) -> &[u8] {
        &self.bytes[self.bytes.len() / 20 * 18..self.bytes.len() / 20 * 19]
    }

    pub(super) fn last(&self) -> &[u8] {
        &self.bytes[self.bytes.len() / 20 * 19..]
    }
}
