//! A model as a list of shapes, on the command line.

use std::str::FromStr;

/// The shapes of a model's tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes(pub Vec<Vec<usize>>);

impl Shapes {
    /// A GPT of 12 layers of 288, with a vocabulary of 2,048: 148 tensors.
    fn gpt() -> Self {
        let (layers, width, vocabulary, context) = (12, 288, 2048, 64);
        let layer = [
            vec![width], // norm
            vec![width],
            vec![width, 3 * width], // query, key and value
            vec![3 * width],
            vec![width, width], // projection
            vec![width],
            vec![width], // norm
            vec![width],
            vec![width, 4 * width], // feed forward
            vec![4 * width],
            vec![4 * width, width],
            vec![width],
        ];
        let mut shapes = vec![vec![vocabulary, width], vec![context, width]];
        shapes.extend((0..layers).flat_map(|_| layer.clone()));
        shapes.extend([vec![width], vec![width]]);
        Self(shapes)
    }
}

/// Tensors of a model, at most.
const MOST: usize = 1_000_000;

impl FromStr for Shapes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "gpt" {
            return Ok(Self::gpt());
        }
        let number = |text: &str| match text.parse::<usize>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!(
                "`{text}` is not a whole number of at least 1; write shapes as in 288x864*12,288*25, or `gpt`"
            )),
        };
        let mut shapes = Vec::new();
        for item in text.split(',') {
            let (shape, count) = item.split_once('*').unwrap_or((item, "1"));
            let shape = shape.split('x').map(number).collect::<Result<Vec<_>, _>>()?;
            let count = number(count)?;
            if count > MOST - shapes.len() {
                return Err(format!("`{item}`: more than {MOST} tensors"));
            }
            shapes.extend(std::iter::repeat_n(shape, count));
        }
        Ok(Self(shapes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_with_their_counts() {
        let shapes: Shapes = "288x864*2,5".parse().unwrap();
        assert_eq!(shapes.0, [vec![288, 864], vec![288, 864], vec![5]]);
        for bad in ["", "0", "3x", "4*0", "4*-1", "gpt2"] {
            assert!(bad.parse::<Shapes>().unwrap_err().contains("not a whole number of at least 1"), "{bad}");
        }
        for bad in ["1*18446744073709551615", "1*999999,1,1"] {
            assert!(bad.parse::<Shapes>().unwrap_err().contains("more than 1000000 tensors"), "{bad}");
        }
    }

    #[test]
    fn the_gpt_has_148_tensors() {
        let shapes = Shapes::gpt().0;
        assert_eq!(shapes.len(), 148);
        let params: usize = shapes.iter().map(|s| s.iter().product::<usize>()).sum();
        assert!((12_500_000..12_700_000).contains(&params), "{params}");
    }
}
