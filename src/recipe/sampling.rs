//! Which coordinates of a tensor are sampled in a step, and which of the sample's ranks bracket the K-th largest score.
//!
//! The tensor is cut into *sectors* of 4 consecutive coordinates, and the sectors into *strata* of equal length. A step
//! takes one sector of each stratum, at a place that a hash of the step and the stratum chooses: a fixed distance would
//! meet the same column of every row. The sample's order is that of the coordinates, so that its ties, too, go to the
//! lower index.

/// Consecutive coordinates that are sampled together; `SECTOR` in `shaders/lib/sampling.wgsl`.
pub const SECTOR: u64 = 4;
/// Strata that one workgroup samples; `STRATA` in `shaders/lib/sampling.wgsl`.
pub const STRATA: u64 = 512;
/// Sampled coordinates at least, and at most: one workgroup ranks them.
const SAMPLED: [f64; 2] = [2048.0, 65_536.0];
/// Words of a candidate.
pub(crate) const CANDIDATE: u64 = 3;
/// Candidates of a tensor that there is always room for.
const LEAST_CAPACITY: u32 = 4096;
/// Half the bracket's width in standard errors of a sampled rank.
const Z: f64 = 5.2;
/// A sampled coordinate costs a few loads, and so does one in the bracket. With about this factor, the two costs are equal.
const SIZE: f64 = 4.5;

/// How a tensor is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Sectors in a stratum; the last may have fewer.
    pub stride: u32,
    /// Strata.
    pub strata: u32,
    /// The rank in the sample that estimates the K-th largest: that many sampled coordinates are selected.
    pub middle: u32,
    /// Ranks in the sample between which the K-th largest lies, except once in some million steps: `high` sampled coordinates are
    /// certainly selected, those after the `low` largest certainly not.
    pub high: u32,
    /// See `high`. Beyond the sample's end if the bracket has no lower end.
    pub low: u32,
    /// How many coordinates of the bracket are kept.
    pub capacity: u32,
    /// How many coordinates of the one bin of the bracket that holds the K-th largest are kept.
    pub boundary: u32,
}

impl Sampling {
    /// The sampling of a tensor of `numel` coordinates, more than a sector, of which the `k` largest are wanted.
    pub fn new(numel: u64, k: u64) -> Self {
        let sectors = numel / SECTOR; // what is left of the last one is not sampled
        let wanted = (SIZE * numel as f64).powf(2.0 / 3.0).clamp(SAMPLED[0], SAMPLED[1]);
        let stride = ((sectors * SECTOR) as f64 / wanted).floor().max(1.0) as u64;
        let strata = sectors.div_ceil(stride);
        let sampled = (SECTOR * strata) as f64;
        let share = k as f64 / numel as f64;
        let (mean, error) = (share * sampled, (sampled * share * (1.0 - share)).sqrt());
        let margin = Z * error + 1.0;
        let high = (mean - margin).max(0.0).floor();
        let low = (mean + margin).ceil();
        // Some more than there should be, because a sector's scores resemble each other; and what chance adds.
        let ranks = low.min(sampled) - high;
        let room = (1.2 * ranks + 8.0 * ranks.sqrt()) / sampled * numel as f64;
        let capacity = (room.min(numel as f64) as u64).next_multiple_of(64);
        Self {
            stride: stride as u32,
            strata: strata as u32,
            middle: mean.round() as u32,
            high: high as u32,
            low: low as u32,
            capacity: capacity as u32,
            boundary: boundary(capacity) as u32,
        }
    }

    /// The same with room for fewer candidates, and a bracket that is narrower in proportion: it misses more often, and a step that
    /// misses is slower, not wrong.
    pub(crate) fn with_capacity(self, capacity: u32) -> Self {
        let share = f64::from(capacity) / f64::from(self.capacity);
        let toward = |rank: u32| f64::from(self.middle) + (f64::from(rank) - f64::from(self.middle)) * share;
        Self {
            high: toward(self.high).floor() as u32,
            low: toward(self.low).ceil() as u32,
            capacity,
            boundary: boundary(capacity.into()) as u32,
            ..self
        }
    }

    /// Words of its candidates, and of the list of those of one bin.
    pub(crate) fn candidate_words(&self) -> u64 {
        CANDIDATE * u64::from(self.capacity) + u64::from(self.boundary)
    }

    /// Smallest capacity that it may be given.
    pub(crate) fn least_capacity(&self) -> u32 {
        self.capacity.min(LEAST_CAPACITY)
    }

    /// Sampled coordinates.
    pub fn coordinates(&self) -> u64 {
        SECTOR * u64::from(self.strata)
    }

    /// Coordinates that the bracket is expected to hold, of `numel`.
    pub(crate) fn expected(&self, numel: u64) -> f64 {
        let ranks = u64::from(self.low).min(self.coordinates()) - u64::from(self.high);
        ranks as f64 / self.coordinates() as f64 * numel as f64
    }

    /// Workgroups that sample the coordinates `first..end` of the tensor.
    pub(crate) fn parts(&self, first: u64, end: u64) -> u64 {
        let stratum = SECTOR * u64::from(self.stride);
        let strata = end.div_ceil(stratum).min(self.strata.into()).saturating_sub(first / stratum);
        strata.div_ceil(STRATA).max(1)
    }

    /// The sampled coordinates of a step, in their order.
    pub fn indices(&self, numel: u64, step: u64) -> impl Iterator<Item = usize> {
        let Self { stride, strata, .. } = *self;
        let sectors = (numel / SECTOR) as u32;
        let step = step.min(u32::MAX.into()) as u32;
        (0..strata).flat_map(move |stratum| {
            let begin = stratum * stride;
            let sector = begin + hash(step, stratum) % stride.min(sectors - begin);
            (0..SECTOR).map(move |lane| (u64::from(sector) * SECTOR + lane) as usize)
        })
    }
}

/// How many candidates of one bin are kept.
fn boundary(capacity: u64) -> u64 {
    (capacity / 8).max(capacity.min(4096))
}

/// A stratum's random number in a step.
pub(crate) fn hash(step: u32, stratum: u32) -> u32 {
    let mut x = stratum ^ step.wrapping_mul(0x9e37_79b9);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_inside_in_order_and_differ_between_steps() {
        for numel in [4097, 5000, 65_537, 1_000_003, 16_777_216] {
            let sampling = Sampling::new(numel, numel / 2);
            let first: Vec<_> = sampling.indices(numel, 1).collect();
            assert_eq!(first.len() as u64, sampling.coordinates());
            assert!(first.windows(2).all(|w| w[0] < w[1]), "{numel}");
            assert!(*first.last().unwrap() < numel as usize);
            if sampling.stride > 1 {
                assert_ne!(first, sampling.indices(numel, 2).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_bracket_surrounds_the_rank_and_narrows_with_size() {
        for numel in [4097u64, 65_537, 1 << 20, 1 << 24, 100_000_000] {
            for k in [0, 1, numel / 1000, numel / 2, numel - 1, numel] {
                let s = Sampling::new(numel, k);
                assert!(s.high <= s.middle && s.middle <= s.low && s.high < s.low, "{numel} {k}: {s:?}");
                assert!(u64::from(s.capacity) <= numel.next_multiple_of(64), "{numel} {k}: {s:?}");
            }
        }
        // 12 bytes a candidate and 4 for the boundary: with the 2 bits a coordinate, within 0.7 bytes a parameter.
        let s = Sampling::new(1 << 24, 1 << 23);
        assert!((65_536..66_000).contains(&s.coordinates()), "{s:?}");
        assert!(f64::from(12 * s.capacity + 4 * s.boundary) / f64::from(1 << 24) < 0.43, "{s:?}");
    }

    #[test]
    fn less_room_makes_a_narrower_bracket() {
        for numel in [4097u64, 65_537, 1 << 24, 4_294_963_199] {
            for k in [0, 1, numel / 2, numel] {
                let s = Sampling::new(numel, k);
                let narrow = s.with_capacity(s.capacity / 128 * 64);
                assert!(narrow.high >= s.high && narrow.low <= s.low, "{numel} {k}: {narrow:?}");
                assert!(narrow.high <= s.middle && s.middle <= narrow.low, "{numel} {k}: {narrow:?}");
                assert!(narrow.expected(numel) <= f64::from(narrow.capacity), "{numel} {k}: {narrow:?}");
                assert_eq!(s.with_capacity(s.capacity), s);
            }
        }
    }

    #[test]
    fn every_stratum_has_a_part_whatever_the_pages() {
        let numel = 300_001;
        let s = Sampling::new(numel, numel / 2);
        assert_eq!(s.parts(0, numel), u64::from(s.strata).div_ceil(STRATA));
        for cut in [4096, 8192, 131_072] {
            let stratum = SECTOR * u64::from(s.stride);
            let covered = |first: u64, end: u64| {
                first / stratum + STRATA * s.parts(first, end) >= end.div_ceil(stratum).min(s.strata.into())
            };
            assert!(covered(0, cut) && covered(cut, numel));
        }
    }
}
