//! The pictures to learn from: the embedded digits, IDX files as MNIST and EMNIST ship them, or CIFAR-10's
//! binary batches.
//!
//! Everything is read and checked here, before a GPU is opened; an error names the file and what was
//! expected of it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::GzDecoder;

/// Classes of every data set except some of EMNIST's, labeled from 0 to 9.
const CLASSES: usize = 10;

/// A split of EMNIST, as its files are named.
#[derive(Debug)]
pub struct Split {
    /// As in `emnist-letters-train-images-idx3-ubyte`.
    pub name: &'static str,
    classes: u8,
    /// The label of the first class.
    first: u8,
}

impl Split {
    const fn new(name: &'static str, classes: u8, first: u8) -> Self {
        Self { name, classes, first }
    }

    fn named(name: &str) -> Result<&'static Self> {
        SPLITS.iter().find(|split| split.name == name).with_context(|| format!("--split {name} does not exist"))
    }

    /// Whether a file of EMNIST is of this split, by its name after `emnist-`.
    fn owns(&self, rest: &str) -> bool {
        rest.strip_prefix(self.name).is_some_and(|rest| rest.starts_with('-'))
    }
}

/// The splits of EMNIST. The labels of letters begin at 1.
pub static SPLITS: [Split; 6] = [
    Split::new("balanced", 47, 0),
    Split::new("byclass", 62, 0),
    Split::new("bymerge", 47, 0),
    Split::new("digits", 10, 0),
    Split::new("letters", 26, 1),
    Split::new("mnist", 10, 0),
];

const SUPPORTED: &str = "the IDX files train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                         t10k-labels-idx1-ubyte, or those of EMNIST (emnist-balanced-train-images-idx3-ubyte, …), each \
                         as it is or gzipped, or the CIFAR-10 batches data_batch_*.bin and test_batch.bin";
const CIFAR_100: &str = "CIFAR-100, which is not supported";

const DIGITS: &[u8] = include_bytes!("../data/digits.csv.gz");
const DIGITS_PIXELS: usize = 64;
const DIGITS_MAX: u8 = 16;

const IDX_IMAGES: u32 = 0x0000_0803;
const IDX_LABELS: u32 = 0x0000_0801;

const CIFAR_PIXELS: usize = 3072;
const CIFAR_RECORD: usize = 1 + CIFAR_PIXELS;
/// That of CIFAR-100, which has two labels.
const CIFAR_100_RECORD: u64 = 2 + CIFAR_PIXELS as u64;

/// Bytes of a file, unpacked, at most: a few megabytes of gzip can hold more than a machine does.
const LARGEST: u64 = 1 << 30;

/// Pictures and their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictures {
    /// Gray or color values, one picture after the other.
    pub pixels: Vec<u8>,
    /// The label of each picture, below the number of classes.
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

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, label: u8, pixels: &[u8]) {
        self.labels.push(label);
        self.pixels.extend_from_slice(pixels);
    }
}

/// A training set and a test set of pictures of one size.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// A description for people.
    pub name: String,
    /// Values in one picture.
    pub features: usize,
    /// Classes of pictures.
    pub classes: usize,
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
            classes: CLASSES,
            white: f32::from(DIGITS_MAX),
            train,
            test,
        })
    }

    /// Reads the IDX files or CIFAR-10 batches of a directory, or of the one directory in it that holds some. `split` is the
    /// split of EMNIST to read, which matters where there are several.
    ///
    /// # Errors
    /// If there is no data set or more than one, or a file is missing or malformed.
    pub fn from_dir(dir: &Path, split: Option<&str>) -> Result<Self> {
        let split = split.map(Split::named).transpose()?;
        let names = list(dir)?;
        let found = Contents::of(dir, &names);
        if !found.is_empty() {
            return found.read(split);
        }
        let below = names.iter().map(|name| dir.join(name)).filter(|path| path.is_dir());
        let below = below.filter_map(|path| Some(Contents::of(&path, &list(&path).ok()?)));
        let (known, unknown): (Vec<_>, Vec<_>) =
            below.filter(|found| !found.is_empty()).partition(|found| found.unsupported.is_none());
        match (&known[..], &unknown[..]) {
            ([one], _) => one.read(split),
            ([], [unknown, ..]) => unknown.read(split),
            ([], []) => bail!("{} holds no data set: expected {SUPPORTED}", dir.display()),
            _ => {
                let dirs: Vec<_> = known.iter().map(|found| found.dir.display().to_string()).collect();
                bail!("{} holds several data sets: give one of {}", dir.display(), dirs.join(", "))
            }
        }
    }

    /// The pictures of a data set, in a few words: the same for the same pictures in another place.
    pub fn identity(&self) -> String {
        let mut digest = 0u64;
        for bytes in [&self.train, &self.test].into_iter().flat_map(|part| [&part.labels, &part.pixels]) {
            for chunk in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                // A hash against accidents: each word goes through the whole state.
                digest = (digest.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }
        format!(
            "({} + {} pictures of {} values in {} classes, digest {digest:016x})",
            self.train.len(),
            self.test.len(),
            self.features,
            self.classes
        )
    }

    fn idx(dir: &Path, split: Option<&Split>) -> Result<Self> {
        let parts = match split {
            Some(Split { name, .. }) => [format!("emnist-{name}-train"), format!("emnist-{name}-test")],
            None => ["train", "t10k"].map(str::to_owned),
        };
        let [(train, train_size), (test, test_size)] =
            [read_idx_pair(dir, &parts[0], split)?, read_idx_pair(dir, &parts[1], split)?];
        ensure!(
            train_size == test_size,
            "{}: the training images are {} × {} and the test images {} × {}; expected one size",
            dir.display(),
            train_size[0],
            train_size[1],
            test_size[0],
            test_size[1]
        );
        let of_split = split.map_or_else(String::new, |split| format!(", EMNIST {}", split.name));
        Ok(Self {
            name: format!("{}{of_split} ({} × {})", dir.display(), train_size[0], train_size[1]),
            features: train_size[0] * train_size[1],
            classes: split.map_or(CLASSES, |split| split.classes.into()),
            white: 255.0,
            train,
            test,
        })
    }

    fn cifar(dir: &Path, batches: &[PathBuf]) -> Result<Self> {
        ensure!(
            !batches.is_empty(),
            "{}: expected data_batch_1.bin and others next to test_batch.bin, found none",
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
            classes: CLASSES,
            white: 255.0,
            train,
            test,
        })
    }
}

/// The names in a directory, in order.
fn list(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let listing = fs::read_dir(dir).with_context(|| format!("cannot read the data directory {}", dir.display()))?;
    for entry in listing {
        let entry = entry.with_context(|| format!("cannot read the directory {}", dir.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The data sets of a directory, as the names of its files tell.
struct Contents {
    dir: PathBuf,
    /// Whether there are IDX files under MNIST's names.
    mnist: bool,
    emnist: Vec<&'static Split>,
    /// Whether there is any batch of CIFAR-10.
    cifar: bool,
    /// Its training batches.
    batches: Vec<PathBuf>,
    /// A data set that cannot be read, and what to do.
    unsupported: Option<&'static str>,
}

impl Contents {
    fn of(dir: &Path, names: &[String]) -> Self {
        let has = |name: &str| names.iter().any(|n| n == name);
        let idx: Vec<_> = names.iter().filter(|n| n.contains("-ubyte")).collect();
        let of_split = |name: &str, split: &Split| name.strip_prefix("emnist-").is_some_and(|rest| split.owns(rest));
        let batches = names.iter().filter(|n| n.starts_with("data_batch_") && n.ends_with(".bin"));
        let batches: Vec<_> = batches.map(|n| dir.join(n)).collect();
        let cifar = !batches.is_empty() || has("test_batch.bin");
        let is_cifar_100 = has("fine_label_names.txt") || has_cifar_100_size(&dir.join("test.bin"));
        let unsupported = if has("train.bin") && has("test.bin") && is_cifar_100 {
            Some(CIFAR_100)
        } else if has("data_batch_1") && has("batches.meta") {
            Some("the Python version of CIFAR-10, which is not supported; give its binary version")
        } else if ["train", "test", "meta"].iter().all(|name| dir.join(name).is_file()) {
            Some("the Python version of CIFAR-100, which is not supported")
        } else {
            None
        };
        Self {
            dir: dir.to_owned(),
            mnist: idx.iter().any(|name| !name.starts_with("emnist-")),
            emnist: SPLITS.iter().filter(|split| idx.iter().any(|name| of_split(name, split))).collect(),
            cifar,
            batches,
            unsupported: unsupported.filter(|_| idx.is_empty() && !cifar),
        }
    }

    fn is_empty(&self) -> bool {
        !self.mnist && self.emnist.is_empty() && !self.cifar && self.unsupported.is_none()
    }

    fn read(&self, split: Option<&Split>) -> Result<Dataset> {
        let dir = self.dir.display();
        if let Some(what) = self.unsupported {
            bail!("{dir} holds {what}. Expected {SUPPORTED}");
        }
        let names = self.emnist.iter().map(|split| split.name).collect::<Vec<_>>().join(", ");
        if let Some(split) = split {
            ensure!(
                self.emnist.iter().any(|found| found.name == split.name),
                "--split {}: {dir} holds {}",
                split.name,
                if names.is_empty() { "no split of EMNIST".to_owned() } else { format!("only {names}") }
            );
            return Dataset::idx(&self.dir, Some(split));
        }
        match (self.mnist, &self.emnist[..], self.cifar) {
            (true, [], false) => Dataset::idx(&self.dir, None),
            (false, [split], false) => Dataset::idx(&self.dir, Some(split)),
            (false, [], _) => Dataset::cifar(&self.dir, &self.batches),
            (false, _, false) => {
                bail!("{dir} holds several splits of EMNIST: choose one with --split: {names}")
            }
            (true, [], true) => {
                bail!("{dir} holds both IDX files and CIFAR-10 batches: give a directory with one of the two")
            }
            _ => bail!(
                "{dir} holds EMNIST ({names}) and other data sets: choose a split with --split, or give a directory with \
                 one data set"
            ),
        }
    }
}

fn parse_digit(line: &str) -> Result<(u8, Vec<u8>)> {
    let mut values = line
        .split(',')
        .map(|v| v.parse::<u8>().with_context(|| format!("'{v}' is not a number from 0 to 255")))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        values.len() == DIGITS_PIXELS + 1,
        "expected {DIGITS_PIXELS} values and a label, found {} values",
        values.len()
    );
    let label = values.pop().unwrap_or_default();
    ensure!(usize::from(label) < CLASSES, "the label {label} is not one of 0 to 9");
    ensure!(values.iter().all(|&v| v <= DIGITS_MAX), "a gray value is larger than {DIGITS_MAX}");
    Ok((label, values))
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    Gunzip::new(bytes).read_to_end(&mut out).context("incomplete or damaged gzip file")?;
    Ok(out)
}

/// The unpacked members of a gzip file. Zeros may follow the last one: tapes and block devices pad files with them.
struct Gunzip<R> {
    /// `None` at the end.
    member: Option<GzDecoder<R>>,
    is_padded: bool,
}

impl<R: BufRead> Gunzip<R> {
    fn new(packed: R) -> Self {
        Self { member: Some(GzDecoder::new(packed)), is_padded: false }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(out)?;
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            let rest = member.get_mut().fill_buf()?;
            let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
            match rest.get(zeros) {
                None if zeros == 0 => self.member = None,
                None => {
                    self.is_padded = true;
                    member.get_mut().consume(zeros);
                }
                Some(&MAGIC_0) if zeros == 0 && !self.is_padded => {
                    self.member = self.member.take().map(|ended| GzDecoder::new(ended.into_inner()));
                }
                Some(_) => {
                    return Err(io::Error::other("bytes that are neither gzip nor zeros follow its end"));
                }
            }
        }
        Ok(0)
    }
}

/// The first byte of a gzip file, and the second.
const MAGIC_0: u8 = 0x1f;
const MAGIC_1: u8 = 0x8b;

/// A file's bytes as they are asked for, unpacked if it is gzip, whatever its name.
struct Source {
    path: PathBuf,
    is_packed: bool,
    bytes: Box<dyn Read>,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut file = BufReader::new(file);
        let start = file.fill_buf().with_context(|| format!("cannot read {}", path.display()))?;
        let is_packed = start.starts_with(&[MAGIC_0, MAGIC_1]);
        let bytes: Box<dyn Read> = if is_packed { Box::new(Gunzip::new(file)) } else { Box::new(file) };
        Ok(Self { path: path.to_owned(), is_packed, bytes })
    }

    /// The next bytes, fewer at the end.
    fn up_to(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let read = self.bytes.by_ref().take(count).read_to_end(&mut out);
        let what = if self.is_packed { "incomplete or damaged gzip file" } else { "cannot be read" };
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

fn read_idx_pair(dir: &Path, part: &str, split: Option<&Split>) -> Result<(Pictures, [usize; 2])> {
    let images_path = find_idx(dir, part, "images", 3)?;
    let labels_path = find_idx(dir, part, "labels", 1)?;
    let (dims, pixels) = read_idx(&images_path, IDX_IMAGES, 3)?;
    let (label_dims, mut labels) = read_idx(&labels_path, IDX_LABELS, 1)?;
    ensure!(
        dims[0] == label_dims[0],
        "{} holds {} images and {} holds {} labels; expected as many of one as of the other",
        images_path.display(),
        dims[0],
        labels_path.display(),
        label_dims[0]
    );
    let (first, last) = split.map_or((0, CLASSES as u8 - 1), |split| (split.first, split.first + split.classes - 1));
    if let Some(at) = labels.iter().position(|label| !(first..=last).contains(label)) {
        let hint = match split {
            Some(_) => "",
            None => {
                "; the splits of EMNIST are known by their own file names, as in emnist-letters-train-labels-idx1-ubyte"
            }
        };
        bail!("{}: label {} at index {at}; expected {first} to {last}{hint}", labels_path.display(), labels[at]);
    }
    labels.iter_mut().for_each(|label| *label -= first);
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
        "{}: magic number {found:#010x}, expected {magic:#010x} (unsigned bytes in {rank} dimension{}), or gzip",
        path.display(),
        if rank == 1 { "" } else { "s" }
    );
    let dims: Vec<u32> = words.collect();
    ensure!(dims.iter().all(|&d| d > 0), "{}: empty: sizes {dims:?}, expected at least 1 of each", path.display());
    let size = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d.into())).filter(|&n| n <= LARGEST);
    let size = size.with_context(|| {
        format!("{}: the sizes {dims:?} hold more than the {LARGEST} bytes allowed", path.display())
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

/// Whether a file is as long as some records of CIFAR-100.
fn has_cifar_100_size(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0 && file.len().is_multiple_of(CIFAR_100_RECORD))
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
            _ if has_cifar_100_size(path) => bail!("{} is of {CIFAR_100}", path.display()),
            rest => bail!(
                "{}: {} bytes, expected a multiple of {CIFAR_RECORD} (a label and {CIFAR_PIXELS} pixel values)",
                path.display(),
                before + rest
            ),
        }
        ensure!((before as u64) < LARGEST, "{}: more than the {LARGEST} bytes allowed", path.display());
        ensure!(
            usize::from(record[0]) < CLASSES || !has_cifar_100_size(path),
            "{} is of {CIFAR_100}: expected a label from 0 to 9 and {CIFAR_PIXELS} pixel values per record, as in CIFAR-10",
            path.display()
        );
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
        let error = format!("{:#}", Dataset::from_dir(dir, None).unwrap_err());
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
            (format!("{}x", "1,".repeat(64)), "'x' is not a number"),
        ];
        for (line, message) in bad {
            let error = format!("{:#}", parse_digit(&line).unwrap_err());
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn idx_files_are_read() {
        let dir = mnist();
        let data = Dataset::from_dir(dir.path(), None).unwrap();
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
        let plain = Dataset::from_dir(dir.path(), None).unwrap();
        for (old, new) in [
            ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"),
            ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte.gz"),
        ] {
            let bytes = fs::read(dir.path().join(old)).unwrap();
            fs::remove_file(dir.path().join(old)).unwrap();
            fs::write(dir.path().join(new), gz(&bytes)).unwrap();
        }
        fs::rename(dir.path().join("t10k-images-idx3-ubyte"), dir.path().join("t10k-images.idx3-ubyte")).unwrap();
        let data = Dataset::from_dir(dir.path(), None).unwrap();
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
            ("train-images-idx3-ubyte", idx(IDX_LABELS, &[3, 2, 3], &[0; 18]), &["0x00000801", "expected 0x00000803"]),
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
            match Dataset::from_dir(dir.path(), None) {
                Ok(data) => for part in [&data.train, &data.test] {
                    prop_assert!(!part.is_empty() && part.labels.iter().all(|&label| label < 10));
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
        for name in
            ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
        {
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
        fs::write(&path, [&packed[..], b"more"].concat()).unwrap();
        refused(dir.path(), &["train-images-idx3-ubyte.gz", "neither gzip nor zeros"]);
        fs::write(&path, b"neither of them, but long enough").unwrap();
        refused(dir.path(), &["train-images-idx3-ubyte.gz", "expected 0x00000803", "or gzip"]);
    }

    #[test]
    fn contents_tell_whether_a_file_is_gzipped() {
        let dir = mnist();
        let plain = Dataset::from_dir(dir.path(), None).unwrap();
        let (images, labels) = (dir.path().join("train-images-idx3-ubyte"), dir.path().join("t10k-labels-idx1-ubyte"));
        fs::write(&images, gz(&fs::read(&images).unwrap())).unwrap();
        fs::rename(&labels, labels.with_extension("gz")).unwrap();
        let data = Dataset::from_dir(dir.path(), None).unwrap();
        assert_eq!((data.train, data.test), (plain.train, plain.test));

        let dir = tempdir().unwrap();
        for name in ["data_batch_1.bin", "test_batch.bin"] {
            fs::write(dir.path().join(name), gz(&cifar_record(3, 30))).unwrap();
        }
        assert_eq!(Dataset::from_dir(dir.path(), None).unwrap().train.labels, [3]);
    }

    #[test]
    fn gzip_members_follow_one_another_and_zeros_may_follow_the_last() {
        let (a, b) = (gz(b"first, "), gz(b"second"));
        for zeros in [0, 1, 511, 100_000] {
            let packed = [&a[..], &b, &vec![0; zeros]].concat();
            assert_eq!(gunzip(&packed).unwrap(), b"first, second", "{zeros}");
            for after in [&b"x"[..], &[MAGIC_0], &a] {
                let packed = [&packed[..], after].concat();
                assert_eq!(gunzip(&packed).is_ok(), zeros == 0 && after == a, "{zeros} {after:?}");
            }
        }
        // The same through a buffer of one byte.
        let padded = [&a[..], &b, &[0; 5]].concat();
        let mut out = String::new();
        Gunzip::new(BufReader::with_capacity(1, &padded[..])).read_to_string(&mut out).unwrap();
        assert_eq!(out, "first, second");
    }

    /// Files of a split under EMNIST's names: pictures of 2 × 2, one of each label from `first` to `last`.
    fn emnist(dir: &Path, split: &str, [first, last]: [u8; 2]) {
        let labels: Vec<u8> = (first..=last).collect();
        let count = labels.len() as u32;
        for part in ["train", "test"] {
            let images = idx(IDX_IMAGES, &[count, 2, 2], &vec![1; 4 * labels.len()]);
            fs::write(dir.join(format!("emnist-{split}-{part}-images-idx3-ubyte.gz")), gz(&images)).unwrap();
            let labels = idx(IDX_LABELS, &[count], &labels);
            fs::write(dir.join(format!("emnist-{split}-{part}-labels-idx1-ubyte")), labels).unwrap();
        }
        fs::write(dir.join(format!("emnist-{split}-mapping.txt")), "0 48").unwrap();
    }

    #[test]
    fn splits_of_emnist_are_read_by_their_names() {
        for (split, first, last) in [("balanced", 0, 46), ("byclass", 0, 61), ("letters", 1, 26), ("mnist", 0, 9)] {
            let dir = tempdir().unwrap();
            emnist(dir.path(), split, [first, last]);
            let data = Dataset::from_dir(dir.path(), None).unwrap();
            let labels: Vec<u8> = (0..=last - first).collect();
            assert_eq!((data.classes, &data.train.labels), (labels.len(), &labels), "{split}");
            assert_eq!(data.test.labels, labels);
            assert!(data.name.contains(&format!("EMNIST {split}")), "{}", data.name);
            emnist(dir.path(), split, [first, last + 1]);
            refused(
                dir.path(),
                &["train-labels", &format!("label {}", last + 1), &format!("expected {first} to {last}")],
            );
        }
        let dir = tempdir().unwrap();
        emnist(dir.path(), "letters", [0, 26]);
        refused(dir.path(), &["label 0 at index 0", "expected 1 to 26"]);
        let labels = dir.path().join("emnist-letters-test-labels-idx1-ubyte");
        emnist(dir.path(), "letters", [1, 26]);
        fs::remove_file(labels).unwrap();
        refused(dir.path(), &["emnist-letters-test-labels-idx1-ubyte", "is missing"]);
    }

    #[test]
    fn one_of_several_splits_must_be_chosen() {
        let dir = tempdir().unwrap();
        emnist(dir.path(), "letters", [1, 26]);
        emnist(dir.path(), "digits", [0, 9]);
        refused(dir.path(), &["several splits of EMNIST", "--split", "digits, letters"]);
        assert_eq!(Dataset::from_dir(dir.path(), Some("letters")).unwrap().classes, 26);
        assert_eq!(Dataset::from_dir(dir.path(), Some("digits")).unwrap().classes, 10);
        let error = Dataset::from_dir(dir.path(), Some("balanced")).unwrap_err().to_string();
        assert!(error.contains("--split balanced") && error.contains("only digits, letters"), "{error}");
        fs::write(dir.path().join("test_batch.bin"), cifar_record(1, 1)).unwrap();
        refused(dir.path(), &["EMNIST (digits, letters) and other data sets", "--split"]);
        assert_eq!(Dataset::from_dir(dir.path(), Some("digits")).unwrap().classes, 10);
        let error = Dataset::from_dir(mnist().path(), Some("digits")).unwrap_err().to_string();
        assert!(error.contains("no split of EMNIST"), "{error}");
    }

    #[test]
    fn the_directory_above_a_data_set_stands_for_it() {
        let dir = tempdir().unwrap();
        let batches = dir.path().join("cifar-10-batches-bin");
        for below in [&batches, &dir.path().join("notes")] {
            fs::create_dir(below).unwrap();
            fs::write(below.join("readme.html"), "").unwrap();
        }
        refused(dir.path(), &["holds no data set"]);
        for name in ["data_batch_1.bin", "test_batch.bin"] {
            fs::write(batches.join(name), cifar_record(3, 30)).unwrap();
        }
        let data = Dataset::from_dir(dir.path(), None).unwrap();
        assert!(data.name.contains("cifar-10-batches-bin") && data.train.labels == [3], "{}", data.name);
        // One that is not supported does not stand in the way of one that is.
        let python = dir.path().join("cifar-10-batches-py");
        fs::create_dir(&python).unwrap();
        ["data_batch_1", "batches.meta"].iter().for_each(|name| fs::write(python.join(name), "").unwrap());
        Dataset::from_dir(dir.path(), None).unwrap();
        refused(&python, &["Python version of CIFAR-10", "binary version"]);

        let letters = dir.path().join("gzip");
        fs::create_dir(&letters).unwrap();
        emnist(&letters, "letters", [1, 26]);
        refused(dir.path(), &["several data sets", "cifar-10-batches-bin, ", "gzip"]);
        fs::remove_dir_all(&batches).unwrap();
        assert_eq!(Dataset::from_dir(dir.path(), None).unwrap().classes, 26);
        fs::remove_dir_all(&letters).unwrap();
        refused(dir.path(), &["cifar-10-batches-py", "Python version"]);
    }

    #[test]
    fn cifar_100_is_recognized() {
        let record = |coarse: u8, fine: u8| [&[coarse][..], &cifar_record(fine, 200)].concat();
        let words = ["CIFAR-100, which is not supported", "CIFAR-10"];
        let dir = tempdir().unwrap();
        let binary = dir.path().join("cifar-100-binary");
        fs::create_dir(&binary).unwrap();
        for name in ["train.bin", "test.bin"] {
            fs::write(binary.join(name), [record(3, 40), record(19, 99)].concat()).unwrap();
        }
        refused(&binary, &words);
        refused(dir.path(), &[&words[..], &["cifar-100-binary"]].concat());
        // Under the names of CIFAR-10's files.
        for (from, to) in [("train.bin", "data_batch_1.bin"), ("test.bin", "test_batch.bin")] {
            fs::rename(binary.join(from), binary.join(to)).unwrap();
        }
        refused(&binary, &[&words[..], &["data_batch_1.bin"]].concat());
        let python = tempdir().unwrap();
        ["train", "test", "meta"].iter().for_each(|name| fs::write(python.path().join(name), "").unwrap());
        refused(python.path(), &["Python version of CIFAR-100"]);
    }

    #[test]
    fn the_identity_is_of_the_pictures() {
        let dir = mnist();
        let identity = Dataset::from_dir(dir.path(), None).unwrap().identity();
        assert!(identity.starts_with("(3 + 1 pictures of 6 values in 10 classes, digest "), "{identity}");
        assert_eq!(identity, Dataset::from_dir(mnist().path(), None).unwrap().identity());
        let path = dir.path().join("t10k-labels-idx1-ubyte");
        fs::write(&path, idx(IDX_LABELS, &[1], &[5])).unwrap();
        assert_ne!(identity, Dataset::from_dir(dir.path(), None).unwrap().identity());
    }

    #[test]
    fn cifar_batches_are_read_in_order() {
        let dir = tempdir().unwrap();
        let put = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
        put("data_batch_2.bin", cifar_record(3, 30));
        put("data_batch_1.bin", [cifar_record(1, 10), cifar_record(2, 20)].concat());
        put("test_batch.bin", cifar_record(9, 90));
        let data = Dataset::from_dir(dir.path(), None).unwrap();
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
