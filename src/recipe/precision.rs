//! Formats of parameters and gradients. Arithmetic and state are always f32.

use std::fmt;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use super::sampling::hash;

/// The format of stored parameters and gradients. Below f32 the optimizer keeps *masters*: the parameters in f32. It steps the masters
/// and rounds them to the nearest, ties to even, into the parameters. See
/// [`ParamGroups::without_masters`](crate::ParamGroups::without_masters).
///
/// The kernels convert with integers. So both formats need no adapter feature and round identically everywhere. On a device with
/// `SHADER_F16`, your own kernels can read `array<f16>`. A bf16 is the upper half of an f32. Each word holds two, the first one in its
/// lower half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Four bytes. The default.
    #[default]
    F32,
    /// Two bytes: 11 bits of precision up to 65,504. Use it with a [`GradScaler`](crate::GradScaler).
    F16,
    /// Two bytes: 8 bits of precision, the range of f32.
    Bf16,
}

/// How a step writes bf16 parameters that have no masters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Rounding {
    /// To the nearest value, ties to even. Steps of less than half the distance of two values are lost.
    Nearest,
    /// Up or down at random, so that the mean over many steps is exact. The random bits follow from the seed, the step of the tensor, its
    /// name, and the coordinate: a run can be repeated and resumed to the bit.
    Stochastic {
        /// Runs with other seeds round differently.
        #[serde(default)]
        seed: u32,
    },
}

impl Rounding {
    /// The seed, or 0.
    pub(crate) fn seed(self) -> u32 {
        match self {
            Self::Nearest => 0,
            Self::Stochastic { seed } => seed,
        }
    }

    /// The value that step `t` writes into a coordinate of a tensor if it computes `value`. `tensor` is its
    /// [`identity`](crate::TensorSpec::identity).
    ///
    /// ```
    /// use wgpu_optim::Rounding;
    ///
    /// let mean = |rounding: Rounding| (0..1000).map(|i| rounding.round(1.001, 1, 0, i)).sum::<f32>() / 1000.0;
    /// assert_eq!(mean(Rounding::Nearest), 1.0);
    /// assert!((mean(Rounding::Stochastic { seed: 0 }) - 1.001).abs() < 5e-4);
    /// ```
    pub fn round(self, value: f32, t: u32, tensor: u32, coordinate: u32) -> f32 {
        let Self::Stochastic { seed } = self else { return bf16::from_f32(value).to_f32() };
        if !value.is_finite() {
            return value;
        }
        let noise = hash(hash(t, tensor) ^ seed, coordinate) & 0xffff;
        let bits = value.to_bits();
        let sum = f32::from_bits((bits + noise) & 0xffff_0000);
        if sum.is_finite() { sum } else { f32::from_bits(bits & 0xffff_0000) }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Precision {
    /// Bytes per coordinate.
    pub fn bytes(self) -> u64 {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The bytes of a buffer with these values, padded to whole words.
    ///
    /// ```
    /// use wgpu_optim::Precision;
    ///
    /// let bytes = Precision::Bf16.encode(&[1.0, -2.5, 1.001]);
    /// assert_eq!(bytes.len(), 8); // whole words
    /// assert_eq!(Precision::Bf16.decode(&bytes, 3), [1.0, -2.5, 1.0]);
    /// ```
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        let mut bytes: Vec<u8> = match self {
            Self::F32 => bytemuck::cast_slice(values).to_vec(),
            Self::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_bits().to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_bits().to_le_bytes()).collect(),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// Decodes the first `count` values of a buffer.
    ///
    /// # Panics
    /// For [`Precision::F32`], if there are fewer than 4 × `count` bytes. The other formats return as many values as there are.
    pub fn decode(self, bytes: &[u8], count: usize) -> Vec<f32> {
        let halves = || bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).take(count);
        match self {
            Self::F32 => bytemuck::pod_collect_to_vec(&bytes[..4 * count]),
            Self::F16 => halves().map(|bits| f16::from_bits(bits).to_f32()).collect(),
            Self::Bf16 => halves().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        }
    }
}
