//! How states per coordinate are stored: in f32, or in one byte each.
//!
//! Four coordinates share a word of 32 bits: an exponent in its upper 8 bits, and 6 bits for each. `shaders/lib/bytes.wgsl` is the same on
//! the GPU.

use serde::{Deserialize, Serialize};

use super::sampling::hash;

/// Coordinates that share a word.
const VECTOR: usize = 4;
/// Sets the random bits of states apart from those of other values.
const SEED: u32 = 0x8b17_57a7;

/// How the states of a base are stored that have a number for each coordinate. States of rows, columns and tensors are always f32.
///
/// One byte saves 6 of AdamW's 8 bytes of state per parameter, and 12 of the 28 bytes of traffic of a step. Four coordinates that follow
/// each other share a word of 32 bits: the exponent of the largest of them in 8 bits, and a small float of 6 bits for each. A sum of
/// squares has 4 bits of exponent and 2 of mantissa: the least number above 0 is 20,000 to 39,000 times smaller than the largest of the
/// four, and a number above 0 never becomes 0. Other states have a sign, 3 bits of exponent and 2 of mantissa.
///
/// Steps round up or down at random, so that the mean over many steps is exact: a moment follows gradients that change it by less than the
/// distance of two of its numbers. Only sums of squares below the least number are always raised to it. The random bits follow from the step
/// of the tensor, its name, and the coordinate, so a run can be repeated and resumed to the bit. The direction follows from the rounded
/// states, except under Lion, where it follows from the states before the step. Selection is exact in both cases.
///
/// A gradient that is infinite or beyond ±1.84e19 raises the exponent of its word until the moments have forgotten it, so that the three other
/// coordinates hardly move. Skip such steps, or clip gradients.
///
/// [`Recipe::validate`](crate::Recipe::validate) refuses bases whose state must be exact, with the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StateFormat {
    /// Four bytes per state. The default.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// One byte per state.
    #[serde(rename = "8bit")]
    EightBit,
}

impl StateFormat {
    /// Bytes per coordinate of one state.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::EightBit => 1,
        }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::EightBit => "8bit",
        }
    }

    pub(crate) fn is_f32(&self) -> bool {
        *self == Self::F32
    }
}

/// The code of a state in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Numbers of both signs.
    Signed,
    /// Sums of squares.
    Squares,
}

impl Code {
    /// Bits of exponent of a coordinate.
    fn exponent_bits(self) -> u32 {
        match self {
            Self::Signed => 3,
            Self::Squares => 4,
        }
    }

    /// From the exponent of a word to that of code 0.
    fn span(self) -> u32 {
        (1 << self.exponent_bits()) - 1
    }

    /// The code of what is not finite. Of signed codes, it is −0.
    fn not_finite(self) -> u32 {
        match self {
            Self::Signed => 0b10_0000,
            Self::Squares => 0b11_1111,
        }
    }

    /// The word of four numbers, rounded with 21 random bits each.
    fn pack(self, values: [f32; VECTOR], noise: [u32; VECTOR]) -> u32 {
        let counts = |x: f32| x.is_finite() && (self == Self::Signed || x >= 0.0);
        let sizes = values.map(|x| if counts(x) { x.abs().to_bits() } else { 0 });
        let largest = sizes.into_iter().max().unwrap_or(0);
        // So that the largest code is at most that of 1.75 times the power of two, or of 1.5 where the last code is taken.
        let exponent = match self {
            Self::Signed => ((largest + 0x1f_ffff) >> 23).clamp(40, 254),
            Self::Squares => ((largest + 0x3f_ffff) >> 23).clamp(16, 254),
        };
        let zero = (exponent - self.span()) << 2;
        let code = |i: usize| {
            let (x, size) = (values[i], sizes[i]);
            let rounded = ((size + noise[i]) >> 21).saturating_sub(zero);
            match self {
                _ if !x.is_finite() || (self == Self::Squares && x < 0.0) => self.not_finite(),
                Self::Squares if size == 0 => 0,
                Self::Squares => rounded.clamp(1, 62),
                Self::Signed => {
                    let least = f32::from_bits((zero + 1) << 21);
                    let up = x.abs() > least * ((noise[i] + 1) as f32 / 2f32.powi(21));
                    let code = if size < (zero + 1) << 21 { u32::from(up) } else { rounded.min(31) };
                    code | if code > 0 && x < 0.0 { 0b10_0000 } else { 0 }
                }
            }
        };
        (0..VECTOR).fold(exponent << 24, |word, i| word | code(i) << (6 * i))
    }

    /// The four numbers of a word.
    fn unpack(self, word: u32) -> [f32; VECTOR] {
        [0, 1, 2, 3].map(|i| {
            let field = word >> (6 * i) & 0b11_1111;
            let is_signed = self == Self::Signed;
            let (code, negative) = if is_signed { (field & 0b1_1111, field >> 5) } else { (field, 0) };
            if field == self.not_finite() {
                return f32::NAN;
            }
            let size = ((word >> 24).wrapping_sub(self.span()) << 23).wrapping_add(code << 21);
            if code == 0 { 0.0 } else { f32::from_bits(size | negative << 31) }
        })
    }

    /// The bytes of these numbers, rounded to the nearest, and padded to whole words.
    pub(crate) fn encode(self, values: &[f32]) -> Vec<u8> {
        let half = [1 << 20; VECTOR];
        let word = |values: &[f32]| {
            let mut padded = [0.0; VECTOR];
            padded[..values.len()].copy_from_slice(values);
            self.pack(padded, half)
        };
        values.chunks(VECTOR).flat_map(|values| word(values).to_le_bytes()).collect()
    }

    /// The first `count` numbers of these bytes.
    pub(crate) fn decode(self, bytes: &[u8], count: usize) -> Vec<f32> {
        let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        words.flat_map(|word| self.unpack(word)).take(count).collect()
    }

    /// What step `t` of a tensor writes into its state `number` of those per coordinate if it computes these values.
    /// `tensor` is its identity.
    pub(crate) fn round(self, values: &[f32], number: u32, t: u32, tensor: u32) -> Vec<f32> {
        let of_step = hash(t, tensor) ^ SEED;
        self.rounded(values, |i| hash(of_step, i as u32).rotate_left(8 * number) >> 11)
    }

    /// These values, rounded with 21 random bits for each.
    fn rounded(self, values: &[f32], noise: impl Fn(usize) -> u32) -> Vec<f32> {
        let word = |(vector, values): (usize, &[f32])| {
            let mut padded = [0.0; VECTOR];
            padded[..values.len()].copy_from_slice(values);
            self.unpack(self.pack(padded, [0, 1, 2, 3].map(|i| noise(VECTOR * vector + i))))
        };
        let words = values.chunks(VECTOR).enumerate().flat_map(word);
        words.take(values.len()).collect()
    }

    /// Takes those of `found` into `rounded` that are the number below or above the exact value too. Returns how many differed.
    pub(crate) fn adopt(self, rounded: &mut [f32], exact: &[f32], found: &[f32]) -> usize {
        let [below, above] = [0, (1 << 21) - 1].map(|noise| self.rounded(exact, |_| noise));
        let is_next = |(i, rounded): &(usize, &mut f32)| {
            let (i, found) = (*i, found[*i].to_bits());
            found != rounded.to_bits() && (found == below[i].to_bits() || found == above[i].to_bits())
        };
        let next = rounded.iter_mut().enumerate().filter(is_next);
        next.map(|(i, rounded)| *rounded = found[i]).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Code; 2] = [Code::Signed, Code::Squares];

    fn values(bytes: Code, values: [f32; VECTOR]) -> [f32; VECTOR] {
        if bytes == Code::Squares { values.map(|x| x.abs()) } else { values }
    }

    proptest! {
        /// Noise does not move a number that a word holds, so that a state that is not stepped stays.
        #[test]
        fn a_rounded_number_stays(given in any::<[f32; VECTOR]>(), noise in prop::array::uniform4(0u32..1 << 21), again in prop::array::uniform4(0u32..1 << 21)) {
            for bytes in BOTH {
                let once = bytes.unpack(bytes.pack(values(bytes, given), noise));
                let twice = bytes.unpack(bytes.pack(once, again));
                prop_assert_eq!(once.map(f32::to_bits), twice.map(f32::to_bits), "{:?} of {:?}", bytes, given);
            }
        }

        /// The largest of four is off by at most a quarter. All are off by at most a quarter, or by the least number.
        #[test]
        fn rounding_is_to_a_neighbor(given in prop::array::uniform4(-1e30f32..1e30), shift in -60i32..20, noise in prop::array::uniform4(0u32..1 << 21)) {
            for (bytes, range) in [(Code::Signed, 7), (Code::Squares, 15)] {
                let given = values(bytes, given.map(|x| x * 2f32.powi(shift)));
                let found = bytes.unpack(bytes.pack(given, noise));
                let largest = given.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                for (x, y) in given.iter().zip(found) {
                    let off = (x - y).abs();
                    prop_assert!(off <= 0.25 * x.abs() || off <= 2.5 * largest * 2f32.powi(-range), "{bytes:?}: {y} for {x}");
                    prop_assert!(y == 0.0 || (y < 0.0) == (*x < 0.0));
                    prop_assert!(bytes == Code::Signed || (*x == 0.0) == (y == 0.0), "{y} for {x}: 0 stays 0, and only 0");
                }
            }
        }
    }

    #[test]
    fn the_mean_of_many_steps_is_exact() {
        let given: Vec<f32> = [1.0, 0.37, -0.0171, 0.0004].repeat(1 << 16);
        for bytes in BOTH {
            let given: Vec<_> = given.iter().map(|x| if bytes == Code::Squares { x.abs() } else { *x }).collect();
            for number in 0..4 {
                let found = bytes.round(&given, number, 3, 1);
                for (i, x) in given.iter().enumerate().take(VECTOR) {
                    let all = found.iter().skip(i).step_by(VECTOR).map(|&y| f64::from(y)).collect::<Vec<_>>();
                    let mean = all.iter().sum::<f64>() / all.len() as f64;
                    let variance = all.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / all.len() as f64;
                    let deviation = (variance / all.len() as f64).sqrt().max(1e-9);
                    assert!((mean - f64::from(*x)).abs() < 5.0 * deviation, "{bytes:?}, {number}: {mean} for {x}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so_and_leaves_the_others() {
        for bytes in BOTH {
            for broken in [f32::NAN, f32::INFINITY] {
                let found = bytes.unpack(bytes.pack([1.0, broken, 0.5, 0.0], [0; VECTOR]));
                assert!(found[1].is_nan());
                assert_eq!([found[0], found[2], found[3]], [1.0, 0.5, 0.0]);
            }
        }
        assert_eq!(BOTH.map(|bytes| bytes.unpack(0)), [[0.0; VECTOR]; 2], "cleared memory is 0");
    }

    #[test]
    fn every_number_of_both_kinds_is_known() {
        let squares = Code::Squares.unpack((127 + 15) << 24 | 62 << 18 | 61 << 12 | 2 << 6 | 1);
        assert_eq!(squares, [1.25, 1.5, 1.25 * 32768.0, 1.5 * 32768.0]);
        let signed = Code::Signed.unpack((127 + 7) << 24 | 31 << 18 | 63 << 12 | 33 << 6 | 1);
        assert_eq!(signed, [1.25, -1.25, -1.75 * 128.0, 1.75 * 128.0]);
    }

    #[test]
    fn bytes_round_to_the_nearest_and_decode() {
        let given = [1.0, -0.3, 0.55, 0.0, 7.1, -2.2];
        let bytes = Code::Signed.encode(&given);
        assert_eq!(bytes.len(), 8);
        assert_eq!(Code::Signed.decode(&bytes, given.len()), [1.0, -0.3125, 0.5, 0.0, 7.0, -2.0]);
    }
}
