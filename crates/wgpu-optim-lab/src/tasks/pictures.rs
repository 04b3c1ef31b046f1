//! Pictures to learn from, in three parts: a tenth of the training set, at most 2,000, is the tuning set.

use anyhow::{Result, ensure};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use wgpu_optim_train::data::{Dataset, Pictures};

use crate::task::{Held, Rng, Sources};

/// Where Debian's package `dataset-fashion-mnist` lies.
const FASHION: &str = "/usr/share/datasets/fashion-mnist";

/// A data set of pictures.
pub(crate) struct Gallery {
    data: Dataset,
    /// Places of the training set in a random order. The last of them are the tuning set.
    order: Vec<usize>,
    tuning: usize,
}

impl Gallery {
    /// The directory of the command line, Debian's Fashion-MNIST if it is there, or the digits that the trainer carries.
    pub(crate) fn open(sources: &Sources) -> Result<Self> {
        let fashion = std::path::Path::new(FASHION);
        let data = match &sources.pictures {
            Some(directory) => Dataset::from_dir(directory, None)?,
            None if fashion.is_dir() => Dataset::from_dir(fashion, None)?,
            None => Dataset::digits()?,
        };
        let mut order: Vec<_> = (0..data.train.len()).collect();
        order.shuffle(&mut Rng::seed_from_u64(0));
        let tuning = (order.len() / 10).min(2000);
        ensure!(
            tuning > 0 && !data.test.is_empty(),
            "{} has {} + {} pictures; expected at least 10 + 1",
            data.name,
            data.train.len(),
            data.test.len()
        );
        Ok(Self { data, order, tuning })
    }

    pub(super) fn name(&self) -> String {
        format!("{} {}", self.data.name, self.data.identity())
    }

    /// Values of a picture.
    pub(super) fn features(&self) -> usize {
        self.data.features
    }

    pub(super) fn classes(&self) -> usize {
        self.data.classes
    }

    /// Rows, columns and channels of a picture.
    pub(super) fn shape(&self) -> [usize; 3] {
        let channels = if self.data.features.isqrt().pow(2) == self.data.features { 1 } else { 3 };
        let side = (self.data.features / channels).isqrt();
        [side, side, channels]
    }

    /// Values from 0 to 1, row by row, channels apart, and the label.
    fn picture(&self, part: &Pictures, at: usize) -> (Vec<f32>, u8) {
        let values = &part.pixels[at * self.data.features..(at + 1) * self.data.features];
        (values.iter().map(|&value| f32::from(value) / self.data.white).collect(), part.labels[at])
    }

    /// A random picture of the training set.
    pub(super) fn any(&self, rng: &mut Rng) -> (Vec<f32>, u8) {
        let at = self.order[rng.random_range(0..self.order.len() - self.tuning)];
        self.picture(&self.data.train, at)
    }

    /// Up to so many pictures of a held-out set.
    pub(super) fn held_out(&self, held: Held, most: usize) -> Vec<(Vec<f32>, u8)> {
        match held {
            Held::Tuning => self.order[self.order.len() - self.tuning..]
                .iter()
                .take(most)
                .map(|&at| self.picture(&self.data.train, at))
                .collect(),
            Held::Final => (0..self.data.test.len().min(most)).map(|at| self.picture(&self.data.test, at)).collect(),
        }
    }
}
