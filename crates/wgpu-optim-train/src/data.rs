//! The pictures to learn from: the embedded digits, IDX files as MNIST ships them, or CIFAR-10's binary
//! batches.
//!
//! Everything is read and checked here, before a GPU is opened; an error names the file and what was
//! expected of it.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;

/// Every data set that is understood has ten classes, labelled from 0 to 9.
pub const CLASSES: usize = 10;

const DIGITS: &[u8] = include_bytes!("../data/digits.csv.gz");
const DIGITS_PIXELS: usize = 64;
const DIGITS_MAX: u8 = 16;

const IDX_IMAGES: u32 = 0x0000_0803;
const IDX_LABELS: u32 = 0x0000_0801;

const CIFAR_PIXELS: usize = 3072;
const CIFAR_RECORD: usize = 1 + CIFAR_PIXELS;

/// Bytes of a file, unpacked, at most: a few megabytes of gzip can hold more than a machine does.
const LARGEST: u64 = 1 << 30;

/// Pictures and their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictures {
    /// Grey or colour values, one picture after the other.
    pub pixels: Vec<u8>,
    /// One label a picture, below [`CLASSES`].
    pub labels: Vec<u8>,
}

impl Pictures {
    fn new() -> Self {
        Self { pixels: Vec::new(), labels: Vec::new() }
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    fn push(&mut self, label: u8, pixels: &[u8]) {
        self.labels.push(label);
        self.pixels.extend_from_slice(pixels);
    }
}

/// A training set and a test set of pictures of one size.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What it is, for people.
    pub name: String,
    /// Values in one picture.
    pub features: usize,
    /// The value that stands for full brightness: inputs are divided by it.
    pub white: f32,
    /// What to learn from.
    pub train: Pictures,
    /// What to test on.
    pub test: Pictures,
}

impl Dataset {
    /// The 1,797 digits of 8 × 8 that the program carries. Records 5, 11, 17, … are the test set.
    pub fn digits() -> Result<Self> {
        let text = gunzip(DIGITS).context("the embedded digits")?;
        let text = String::from_utf8(text).context("the embedded digits")?;
        let (mut train, mut test) = (Pictures::new(), Pictures::new());
        for (index, line) in text.lines().enumerate() {
            let (label, pixels) =
                parse_digit(line).with_context(|| format!("the embedded digits, line {}", index + 1))?;
            let part = if index % 6 == 5 { &mut test } else { &mut train };
            part.push(label, &pixels);
        }
        Ok(Self {
            name: "digits (8 × 8)".into(),
            features: DIGITS_PIXELS,
            white: f32::from(DIGITS_MAX),
            train,
            test,
        })
    }

    /// Reads a directory of IDX files or of CIFAR-10 batches, whichever it holds.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let mut names = Vec::new();
        let listing =
            fs::read_dir(dir).with_context(|| format!("cannot read the data directory {}", dir.display()))?;
        for entry in listing {
            let entry = entry.with_context(|| format!("cannot read the directory {}", dir.display()))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let batches: Vec<_> = names
            .iter()
            .filter(|n| n.starts_with("data_batch_") && n.ends_with(".bin"))
            .map(|n| dir.join(n))
            .collect();
        let cifar = !batches.is_empty() || names.iter().any(|n| n == "test_batch.bin");
        let idx = names.iter().any(|n| n.contains("-ubyte"));
        match (cifar, idx) {
            (true, false) => Self::cifar(dir, &batches),
            (false, true) => Self::idx(dir),
            (true, true) => bail!(
                "{} holds both IDX files and CIFAR-10 batches: give a directory with one of the two",
                dir.display()
            ),
            (false, false) => bail!(
                "{} holds no data set: expected the IDX files train-images-idx3-ubyte, \
                 train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte \
                 (each may end in .gz), or the CIFAR-10 batches data_batch_*.bin and test_batch.bin",
                dir.display()
            ),
        }
    }

    fn idx(dir: &Path) -> Result<Self> {
        let (train, train_size) = read_idx_pair(dir, "train")?;
        let (test, test_size) = read_idx_pair(dir, "t10k")?;
        ensure!(
            train_size == test_size,
            "{}: the training images are {} × {} and the test images {} × {}; expected one size",
            dir.display(),
            train_size[0],
            train_size[1],
            test_size[0],
            test_size[1]
        );
        Ok(Self {
            name: format!("{} ({} × {})", dir.display(), train_size[0], train_size[1]),
            features: train_size[0] * train_size[1],
            white: 255.0,
            train,
            test,
        })
    }

    fn cifar(dir: &Path, batches: &[PathBuf]) -> Result<Self> {
        ensure!(
            !batches.is_empty(),
            "{}: expected data_batch_1.bin and more beside test_batch.bin, found none",
            dir.display()
        );
        let mut train = Pictures::new();
        for path in batches {
            read_cifar_batch(path, &mut train)?;
        }
        let mut test = Pictures::new();
        read_cifar_batch(&dir.join("test_batch.bin"), &mut test)?;
        Ok(Self {
            name: format!("{} (32 × 32 × 3)", dir.display()),
            features: CIFAR_PIXELS,
            white: 255.0,
            train,
            test,
        })
    }
}

fn parse_digit(line: &str) -> Result<(u8, Vec<u8>)> {
    let mut values = line
        .split(',')
        .map(|v| v.parse::<u8>().with_context(|| format!("'{v}' is no number from 0 to 255")))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        values.len() == DIGITS_PIXELS + 1,
        "expected {DIGITS_PIXELS} values and a label, found {} values",
        values.len()
    );
    let label = values.pop().unwrap_or_default();
    ensure!(usize::from(label) < CLASSES, "the label {label} is not one of 0 to 9");
    ensure!(values.iter().all(|&v| v <= DIGITS_MAX), "a grey value is larger than {DIGITS_MAX}");
    Ok((label, values))
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut out).context("not a whole gzip file")?;
    Ok(out)
}

/// A file's bytes, unpacked if its name ends in `.gz`, as they are asked for.
struct Source {
    path: PathBuf,
    is_packed: bool,
    bytes: Box<dyn Read>,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = BufReader::new(file);
        let is_packed = path.extension().is_some_and(|e| e == "gz");
        let bytes: Box<dyn Read> =
            if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self { path: path.to_owned(), is_packed, bytes })
    }

    /// The next bytes, fewer at the end.
    fn up_to(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let read = self.bytes.by_ref().take(count).read_to_end(&mut out);
        let what = if self.is_packed { "not a whole gzip file" } else { "cannot be read" };
        read.with_context(|| format!("{}: {what}", self.path.display()))?;
        Ok(out)
    }
}

/// The first that exists of `train-images-idx3-ubyte`, `train-images.idx3-ubyte` and both with `.gz`.
fn find_idx(dir: &Path, part: &str, what: &str, rank: u32) -> Result<PathBuf> {
    let names = ["-", "."].map(|dash| format!("{part}-{what}{dash}idx{rank}-ubyte"));
    for name in &names {
        for ending in ["", ".gz"] {
            let path = dir.join(format!("{name}{ending}"));
            if path.exists() {
                return Ok(path);
            }
        }
    }
    bail!(
        "{} is missing: expected it (or {}, either of them also with .gz) beside the other IDX files",
        dir.join(&names[0]).display(),
        names[1]
    )
}

fn read_idx_pair(dir: &Path, part: &str) -> Result<(Pictures, [usize; 2])> {
    let images_path = find_idx(dir, part, "images", 3)?;
    let labels_path = find_idx(dir, part, "labels", 1)?;
    let (dims, pixels) = read_idx(&images_path, IDX_IMAGES, 3)?;
    let (label_dims, labels) = read_idx(&labels_path, IDX_LABELS, 1)?;
    ensure!(
        dims[0] == label_dims[0],
        "{} holds {} images and {} holds {} labels; expected as many of one as of the other",
        images_path.display(),
        dims[0],
        labels_path.display(),
        label_dims[0]
    );
    if let Some(at) = labels.iter().position(|&l| usize::from(l) >= CLASSES) {
        bail!("{}: label {} at index {at}; expected 0 to 9", labels_path.display(), labels[at]);
    }
    Ok((Pictures { pixels, labels }, [dims[1], dims[2]]))
}

/// Reads one IDX file of unsigned bytes: a magic number, `rank` sizes (all big-endian u32), the bytes.
fn read_idx(path: &Path, magic: u32, rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut file = Source::open(path)?;
    let header = 4 + 4 * rank;
    let head = file.up_to(header as u64)?;
    ensure!(
        head.len() == header,
        "{}: truncated: {} bytes, expected an IDX header of {header}",
        path.display(),
        head.len()
    );
    let mut words = head.chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]));
    let found = words.next().unwrap_or_default();
    ensure!(
        found == magic,
        "{}: magic number {found:#010x}, expected {magic:#010x} (unsigned bytes in {rank} dimension{})",
        path.display(),
        if rank == 1 { "" } else { "s" }
    );
    let dims: Vec<u32> = words.collect();
    ensure!(
        dims.iter().all(|&d| d > 0),
        "{}: empty: sizes {dims:?}, expected at least 1 of each",
        path.display()
    );
    let size = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d.into())).filter(|&n| n <= LARGEST);
    let size = size.with_context(|| {
        format!("{}: the sizes {dims:?} are of more than the {LARGEST} bytes that are read", path.display())
    })?;
    let expected = header as u64 + size;
    // One more than there should be, which says whether the file ends there.
    let bytes = file.up_to(size + 1)?;
    let read = bytes.len() as u64;
    ensure!(
        read >= size,
        "{}: truncated: {} bytes, expected {expected} for the sizes {dims:?}",
        path.display(),
        header as u64 + read
    );
    ensure!(read == size, "{}: too long: expected {expected} bytes for the sizes {dims:?}", path.display());
    Ok((dims.iter().map(|&d| d as usize).collect(), bytes))
}

/// Adds the records of one CIFAR-10 batch: a label byte and 3,072 pixel bytes each.
fn read_cifar_batch(path: &Path, to: &mut Pictures) -> Result<()> {
    let mut file = Source::open(path)?;
    for index in 0.. {
        let record = file.up_to(CIFAR_RECORD as u64)?;
        let before = index * CIFAR_RECORD;
        match record.len() {
            0 if index > 0 => break,
            0 => bail!("{}: empty, expected records of {CIFAR_RECORD} bytes", path.display()),
            CIFAR_RECORD => {}
            rest => bail!(
                "{}: {} bytes, expected a multiple of {CIFAR_RECORD} (a label and {CIFAR_PIXELS} pixel values)",
                path.display(),
                before + rest
            ),
        }
        ensure!((before as u64) < LARGEST, "{}: more than the {LARGEST} bytes that are read", path.display());
        ensure!(
            usize::from(record[0]) < CLASSES,
            "{}: label {} in record {index}; expected 0 to 9",
            path.display(),
            record[0]
        );
        to.push(record[0], &record[1..]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use tempfile::{TempDir, tempdir};

    use super::*;

    fn idx(magic: u32, dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut out = magic.to_be_bytes().to_vec();
        for d in dims {
            out.extend(d.to_be_bytes());
        }
        out.extend(data);
        out
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Three training pictures and one test picture of 2 × 3 pixels.
    fn mnist() -> TempDir {
        let dir = tempdir().unwrap();
        let pixels: Vec<u8> = (0..18).collect();
        let put = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
        put("train-images-idx3-ubyte", idx(IDX_IMAGES, &[3, 2, 3], &pixels));
        put("train-labels-idx1-ubyte", idx(IDX_LABELS, &[3], &[7, 0, 9]));
        put("t10k-images-idx3-ubyte", idx(IDX_IMAGES, &[1, 2, 3], &pixels[6..12]));
        put("t10k-labels-idx1-ubyte", idx(IDX_LABELS, &[1], &[4]));
        dir
    }

    fn cifar_record(label: u8, first: u8) -> Vec<u8> {
        let mut record = vec![label];
        record.extend((0..CIFAR_PIXELS).map(|i| first.wrapping_add(i as u8)));
        record
    }

    fn refused(dir: &Path, words: &[&str]) {
        let error = format!("{:#}", Dataset::from_dir(dir).unwrap_err());
        for word in words {
            assert!(error.contains(word), "'{word}' is not in: {error}");
        }
    }

    #[test]
    fn digits_are_split_by_every_sixth_record() {
        let digits = Dataset::digits().unwrap();
        assert_eq!((digits.train.len(), digits.test.len()), (1498, 299));
        assert_eq!(digits.features, 64);
        for part in [&digits.train, &digits.test] {
            assert_eq!(part.pixels.len(), part.len() * 64);
            for class in 0..10 {
                assert!(part.labels.contains(&class));
            }
        }
        // The file opens with the labels 0 1 2 3 4 5 6 7 8 9: the sixth is the first test picture.
        assert_eq!(digits.train.labels[..6], [0, 1, 2, 3, 4, 6]);
        assert_eq!(digits.test.labels[0], 5);
        assert_eq!(digits.train.pixels[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
    }

    #[test]
    fn a_digit_line_is_checked() {
        let good = format!("{}3", "1,".repeat(64));
        assert_eq!(parse_digit(&good).unwrap(), (3, vec![1; 64]));
        let bad = [
            ("1,2,3".to_string(), "found 3 values"),
            (format!("{}10", "1,".repeat(64)), "label 10"),
            (format!("{}3", "17,".repeat(64)), "larger than 16"),
            (format!("{}x", "1,".repeat(64)), "'x' is no number"),
        ];
        for (line, message) in bad {
            let error = format!("{:#}", parse_digit(&line).unwrap_err());
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn idx_files_are_read() {
        let dir = mnist();
        let data = Dataset::from_dir(dir.path()).unwrap();
        assert_eq!(data.features, 6);
        assert_eq!(data.white, 255.0);
        assert_eq!(data.train.labels, [7, 0, 9]);
        assert_eq!(data.train.pixels, (0..18).collect::<Vec<u8>>());
        assert_eq!(data.test.labels, [4]);
        assert_eq!(data.test.pixels, [6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn idx_files_may_be_gzipped_and_named_with_a_dot() {
        let dir = mnist();
        let plain = Dataset::from_dir(dir.path()).unwrap();
        for (old, new) in [
            ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"),
            ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte.gz"),
        ] {
            let bytes = fs::read(dir.path().join(old)).unwrap();
            fs::remove_file(dir.path().join(old)).unwrap();
            fs::write(dir.path().join(new), gz(&bytes)).unwrap();
        }
        fs::rename(dir.path().join("t10k-images-idx3-ubyte"), dir.path().join("t10k-images.idx3-ubyte"))
            .unwrap();
        let data = Dataset::from_dir(dir.path()).unwrap();
        assert_eq!(data.train, plain.train);
        assert_eq!(data.test, plain.test);
    }

    #[test]
    fn malformed_idx_files_are_refused() {
        let cases: [(&str, Vec<u8>, &[&str]); 9] = [
            (
                "train-images-idx3-ubyte",
                idx(IDX_IMAGES, &[3, 2, 3], &[0; 17]),
                &["truncated", "33 bytes", "expected 34"],
            ),
            ("train-images-idx3-ubyte", idx(IDX_IMAGES, &[3, 2, 3], &[0; 19]), &["too long", "expected 34"]),
            ("train-labels-idx1-ubyte", vec![0, 0, 8], &["truncated", "3 bytes", "header of 8"]),
            (
                "train-images-idx3-ubyte",
                idx(IDX_LABELS, &[3, 2, 3], &[0; 18]),
                &["0x00000801", "expected 0x00000803"],
            ),
            (
                "train-images-idx3-ubyte",
                idx(IDX_IMAGES, &[u32::MAX, u32::MAX, u32::MAX], &[0; 18]),
                &["4294967295", "more than the"],
            ),
            (
                "train-labels-idx1-ubyte",
                idx(IDX_LABELS, &[2], &[1, 2]),
                &["3 images", "2 labels", "train-images-idx3-ubyte"],
            ),
            ("t10k-labels-idx1-ubyte", idx(IDX_LABELS, &[1], &[10]), &["label 10 at index 0", "0 to 9"]),
            ("t10k-images-idx3-ubyte", idx(IDX_IMAGES, &[0, 2, 3], &[]), &["empty"]),
            ("t10k-images-idx3-ubyte", idx(IDX_IMAGES, &[1, 3, 3], &[0; 9]), &["2 × 3", "3 × 3"]),
        ];
        for (name, bytes, words) in cases {
            let dir = mnist();
            fs::write(dir.path().join(name), bytes).unwrap();
            refused(dir.path(), words);
            if words[0] != "2 × 3" {
                refused(dir.path(), &[name]);
            }
        }
    }

    #[test]
    fn what_unpacks_to_more_than_the_header_says_is_not_unpacked() {
        // A hundred megabytes of zeros in a hundred kilobytes.
        let dir = mnist();
        fs::remove_file(dir.path().join("train-images-idx3-ubyte")).unwrap();
        let packed = gz(&idx(IDX_IMAGES, &[3, 2, 3], &vec![0; 100 << 20]));
        assert!(packed.len() < 1 << 20);
        // Its end is missing, which is not noticed where it is not reached.
        let half = &packed[..packed.len() / 2];
        fs::write(dir.path().join("train-images-idx3-ubyte.gz"), half).unwrap();
        refused(dir.path(), &["train-images-idx3-ubyte.gz", "too long", "expected 34"]);
    }

    /// What happens to a file.
    #[derive(Debug, Clone)]
    enum Damage {
        Other(Vec<u8>),
        Flip(usize, u8),
        Cut(usize),
        Grow(Vec<u8>),
    }

    fn damage() -> impl Strategy<Value = Damage> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Damage::Other),
            (any::<usize>(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
            any::<usize>().prop_map(Damage::Cut),
            proptest::collection::vec(any::<u8>(), 1..20).prop_map(Damage::Grow),
        ]
    }

    fn apply(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
        let at = |at: usize| at % bytes.len();
        match damage {
            Damage::Other(other) => return other.clone(),
            Damage::Flip(place, bits) => {
                let place = at(*place);
                bytes[place] ^= bits;
            }
            Damage::Cut(place) => bytes.truncate(at(*place)),
            Damage::Grow(more) => bytes.extend(more),
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn damaged_files_are_read_whole_or_refused_by_name(
            which in 0..4usize, damage in damage(), packed in 0..3usize, cifar in any::<bool>(),
        ) {
            let dir = mnist();
            let mut names = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                "t10k-labels-idx1-ubyte"];
            if cifar {
                names.iter().for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
                names = ["data_batch_1.bin", "data_batch_1.bin", "test_batch.bin", "test_batch.bin"];
                for name in [names[0], names[2]] {
                    fs::write(dir.path().join(name), cifar_record(1, 2)).unwrap();
                }
            }
            let path = dir.path().join(names[which]);
            let whole = fs::read(&path).unwrap();
            // Damaged as it is, before it is packed, or afterwards; CIFAR-10's batches have no packed form.
            let packed = if cifar { 0 } else { packed };
            let bytes = match packed {
                0 => apply(whole, &damage),
                1 => gz(&apply(whole, &damage)),
                _ => apply(gz(&whole), &damage),
            };
            fs::remove_file(&path).unwrap();
            let path = if packed > 0 { path.with_extension("gz") } else { path };
            fs::write(&path, bytes).unwrap();
            match Dataset::from_dir(dir.path()) {
                Ok(data) => for part in [&data.train, &data.test] {
                    prop_assert!(part.len() > 0 && part.labels.iter().all(|&label| label < 10));
                    prop_assert_eq!(part.pixels.len(), part.len() * data.features);
                },
                Err(error) => {
                    let error = format!("{error:#}");
                    prop_assert!(error.contains(&*dir.path().to_string_lossy()), "{error}");
                }
            }
        }
    }

    #[test]
    fn missing_and_broken_files_are_named() {
        for name in [
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ] {
            let dir = mnist();
            fs::remove_file(dir.path().join(name)).unwrap();
            refused(dir.path(), &[name, "is missing"]);
        }
        let dir = mnist();
        let bytes = fs::read(dir.path().join("train-images-idx3-ubyte")).unwrap();
        fs::remove_file(dir.path().join("train-images-idx3-ubyte")).unwrap();
        let path = dir.path().join("train-images-idx3-ubyte.gz");
        let packed = gz(&bytes);
        fs::write(&path, &packed[..packed.len() - 6]).unwrap();
        refused(dir.path(), &["train-images-idx3-ubyte.gz", "gzip"]);
        fs::write(&path, &bytes).unwrap();
        refused(dir.path(), &["train-images-idx3-ubyte.gz", "gzip"]);
    }

    #[test]
    fn cifar_batches_are_read_in_order() {
        let dir = tempdir().unwrap();
        let put = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
        put("data_batch_2.bin", cifar_record(3, 30));
        put("data_batch_1.bin", [cifar_record(1, 10), cifar_record(2, 20)].concat());
        put("test_batch.bin", cifar_record(9, 90));
        let data = Dataset::from_dir(dir.path()).unwrap();
        assert_eq!(data.features, 3072);
        assert_eq!(data.train.labels, [1, 2, 3]);
        assert_eq!(data.train.pixels[3072], 20);
        assert_eq!(data.test.labels, [9]);
        assert_eq!(data.test.pixels[..2], [90, 91]);
    }

    #[test]
    fn malformed_cifar_batches_are_refused() {
        let record = cifar_record(1, 10);
        let cases: [(&str, Vec<u8>, &[&str]); 4] = [
            ("data_batch_1.bin", record[..3072].to_vec(), &["3072 bytes", "multiple of 3073"]),
            ("data_batch_1.bin", vec![], &["empty"]),
            ("test_batch.bin", cifar_record(10, 0), &["label 10 in record 0"]),
            ("test_batch.bin", vec![], &["empty"]),
        ];
        for (name, bytes, words) in cases {
            let dir = tempdir().unwrap();
            fs::write(dir.path().join("data_batch_1.bin"), &record).unwrap();
            fs::write(dir.path().join("test_batch.bin"), &record).unwrap();
            fs::write(dir.path().join(name), bytes).unwrap();
            refused(dir.path(), &[words, &[name]].concat());
        }
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("test_batch.bin"), &record).unwrap();
        refused(dir.path(), &["data_batch_1.bin"]);
        fs::rename(dir.path().join("test_batch.bin"), dir.path().join("data_batch_1.bin")).unwrap();
        refused(dir.path(), &["test_batch.bin"]);
    }

    #[test]
    fn a_directory_without_data_is_refused() {
        let dir = tempdir().unwrap();
        refused(dir.path(), &["holds no data set", "data_batch_*.bin"]);
        refused(&dir.path().join("nowhere"), &["nowhere", "cannot read"]);
        let both = mnist();
        fs::write(both.path().join("test_batch.bin"), cifar_record(1, 1)).unwrap();
        refused(both.path(), &["both"]);
    }
}
