//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use wgpu_optim::{Error, LrSchedule, Precision, Recipe};

use crate::numbers::whole;
use crate::recipes;
use wgpu_optim_train::data::SPLITS;

const EXAMPLES: &str = "\
Examples:
  wgpu-optim-train
      AdamW, MGUP-AdamW and MGUP-Muon on the built-in digits
  wgpu-optim-train --compare adamw,lion,mgup-lion --steps 2000
      three optimizers, each with its own learning rate
  wgpu-optim-train --optimizer mgup-adamw --lr 3e-3 --seed 7
      one optimizer, another learning rate, another start
  wgpu-optim-train --optimizer recipe.json
      an optimizer from a file: {\"base\": {\"type\": \"adamw\"}, \"policy\": {\"type\": \"mgup\", \"ratio\": 0.3}}
  wgpu-optim-train --data mnist --steps 3000 --out runs/mnist
      the four IDX files of MNIST in the directory mnist
  wgpu-optim-train --data gzip --split balanced
      one of the splits of EMNIST in the directory gzip
  wgpu-optim-train --schedule cosine --warmup 50 --clip 1 --accumulate 4 --precision f16
      settings of a large run; Ctrl-C saves and stops, and the same line with --resume continues

Environment:
  WGPU_BACKEND       vulkan, metal, dx12 or gl: the graphics API to use
  WGPU_ADAPTER_NAME  a part of the name of the adapter to use
  WGPU_OPTIM_CACHE   a folder for compiled pipelines instead of the user's; empty for none";

/// Trains a classifier of digits on any GPU and compares optimizers.
///
/// Burn computes the forward pass, the loss and the gradients; wgpu-optim takes the optimizer steps on the
/// same wgpu device. Every optimizer starts from the same parameters and sees the same batches.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Args {
    /// The optimizers to compare: presets or JSON recipe files
    #[arg(
        long,
        value_name = "NAME,NAME,…",
        value_delimiter = ',',
        default_value = "adamw,mgup-adamw,mgup-muon",
        value_parser = OsStringValueParser::new().try_map(optimizer)
    )]
    compare: Vec<Optimizer>,

    /// One optimizer only: a preset or a JSON recipe file
    #[arg(long, value_name = "NAME", conflicts_with = "compare", value_parser = OsStringValueParser::new().try_map(optimizer))]
    optimizer: Option<Optimizer>,

    /// Learning rate of all optimizers [default: each recipe's own]
    #[arg(long, allow_negative_numbers = true, value_parser = positive)]
    pub lr: Option<f64>,

    /// Optimizer steps in total, including those before --resume
    #[arg(
        long,
        value_name = "N",
        default_value_t = 600,
        allow_negative_numbers = true,
        value_parser = whole::<usize>(1..=u64::MAX)
    )]
    pub steps: usize,

    /// Pictures per step
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        allow_negative_numbers = true,
        value_parser = whole::<usize>(1..=u64::MAX)
    )]
    pub batch: usize,

    /// Determines the initial parameters and the order of the pictures
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_parser = whole::<u64>(0..=u64::MAX)
    )]
    pub seed: u64,

    /// Widths of the hidden layers, each 1 to 65536
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        default_value = "256,128",
        allow_hyphen_values = true,
        value_parser = whole::<usize>(1..=65_536)
    )]
    pub hidden: Vec<usize>,

    /// A directory with IDX files (MNIST, Fashion-MNIST, EMNIST) or CIFAR-10 binary batches, or the directory above it
    /// [default: the built-in digits]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// The split of EMNIST to read, if --data holds several
    #[arg(
        long,
        value_name = "NAME",
        requires = "data",
        value_parser = PossibleValuesParser::new(SPLITS.iter().map(|split| split.name))
    )]
    pub split: Option<String>,

    /// How the learning rate changes over the steps
    #[arg(long, value_enum, default_value_t = ScheduleName::Constant)]
    pub schedule: ScheduleName,

    /// Steps over which the learning rate rises linearly from 0, before the schedule
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_parser = whole::<u64>(0..=u64::MAX)
    )]
    pub warmup: u64,

    /// Clip the gradients of a step to this global norm
    #[arg(long, value_name = "NORM", allow_negative_numbers = true, value_parser = positive)]
    pub clip: Option<f64>,

    /// Batches per step; a step takes the mean of their gradients
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true,
        value_parser = whole::<u32>(1..=1024)
    )]
    pub accumulate: u32,

    /// Format of parameters, activations and gradients. With f16 and bf16, the optimizer keeps f32 copies of the parameters;
    /// with f16, the loss is scaled, too
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub precision: PrecisionName,

    /// Steps between two checkpoints, OPTIMIZER.checkpoint.safetensors; 0 for none. Ctrl-C writes one too
    #[arg(
        long,
        value_name = "N",
        default_value_t = 200,
        allow_negative_numbers = true,
        value_parser = whole::<usize>(0..=u64::MAX)
    )]
    pub save_every: usize,

    /// Continue from the checkpoints in --out; optimizers without one begin at step 0. Options that affect the result must
    /// match the checkpoint, except that --steps may grow under --schedule constant. --steps must not be below the
    /// checkpoint's
    #[arg(long)]
    pub resume: bool,

    /// Observe every tensor in the first of every N steps; write telemetry.csv and telemetry.svg, and log with RUST_LOG=info
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = whole::<u32>(1..=u32::MAX.into())
    )]
    pub telemetry: Option<u32>,

    /// Also write selection.csv: what `mgup` selected of every tensor in every step. Waits for the GPU each step
    #[arg(long)]
    pub selection: bool,

    /// Where summary.json, metrics.csv, loss.svg and the checkpoints go
    #[arg(long, value_name = "DIR", default_value = "runs/digits")]
    pub out: PathBuf,
}

impl Args {
    /// The schedule of the learning rate, or why there is none.
    pub fn lr_schedule(&self) -> Result<LrSchedule, String> {
        let steps = self.steps as u64;
        if self.warmup >= steps && self.warmup > 0 {
            return Err(format!("--warmup must be below --steps {steps}, got {}", self.warmup));
        }
        let schedule = match self.schedule {
            ScheduleName::Constant => LrSchedule::constant(),
            ScheduleName::Cosine => LrSchedule::cosine(steps, 0.0),
            ScheduleName::Linear => LrSchedule::linear(steps, 0.0),
            ScheduleName::Step => LrSchedule::step(((steps - self.warmup) / 3).max(1), 0.1),
            ScheduleName::Stable => LrSchedule::stable(steps, ((steps - self.warmup) / 5).max(1), 0.0),
        };
        Ok(schedule.with_warmup(self.warmup))
    }

    /// The optimizers to train, with the learning rate that was asked for, or why there are none.
    pub fn optimizers(&self) -> Result<Vec<Optimizer>, String> {
        let mut chosen = match &self.optimizer {
            Some(one) => vec![one.clone()],
            None => self.compare.clone(),
        };
        for (index, optimizer) in chosen.iter().enumerate() {
            if chosen[..index].iter().any(|o| o.name == optimizer.name) {
                return Err(format!("--compare names '{}' twice; name each optimizer once", optimizer.name));
            }
        }
        if let Some(lr) = self.lr {
            for optimizer in &mut chosen {
                optimizer.recipe = optimizer.recipe.with_lr(lr);
                optimizer.recipe.validate().map_err(|e| unfit(lr, &optimizer.name, e))?;
            }
        }
        Ok(chosen)
    }
}

/// How the learning rate changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ScheduleName {
    /// Constant
    Constant,
    /// Half a cosine down to 0
    Cosine,
    /// Linear down to 0
    Linear,
    /// Times 0.1 after each third of the steps that follow the warm-up
    Step,
    /// Constant, then linear down to 0 over the last fifth of the steps that follow the warm-up
    Stable,
}

/// What parameters and gradients are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PrecisionName {
    /// Four bytes
    F32,
    /// Two bytes; the adapter must support f16
    F16,
    /// Two bytes, the range of f32; the adapter must support bf16, which WGSL does not have
    Bf16,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::F16 => Self::F16,
            PrecisionName::Bf16 => Self::Bf16,
        }
    }
}

/// A recipe and the name under which its results are kept.
#[derive(Debug, Clone)]
pub struct Optimizer {
    /// The preset's name, or the recipe file's without its ending.
    pub name: String,
    /// What to compute.
    pub recipe: Recipe,
}

/// A number that is normal and above 0 in f32, in which the GPU computes.
fn positive(text: &str) -> Result<f64, String> {
    let range = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| "expected a number above 0 in the range of f32, 1.2e-38 to 3.4e38".into())
}

/// The shortest decimal of a number, with an exponent where it would have many zeros.
pub fn short(number: f64) -> String {
    let is_plain = number == 0.0 || (1e-4..1e7).contains(&number.abs());
    if is_plain { number.to_string() } else { format!("{number:e}") }
}

/// Why a recipe is out of range with this learning rate: a fallback's grows in proportion.
fn unfit(lr: f64, name: &str, error: Error) -> String {
    match error {
        Error::Recipe { field, value, allowed } => {
            let value = value.parse().map_or(value, short);
            format!("--lr {} makes `{field}` of {name} {value}, but it must be {allowed}", short(lr))
        }
        other => format!("--lr {}: {name}: {other}", short(lr)),
    }
}

/// A preset by its name, or a recipe by its file.
fn optimizer(text: OsString) -> Result<Optimizer, String> {
    recipes::named(&text).map(|(name, recipe)| Optimizer { name, recipe })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::CommandFactory;
    use tempfile::tempdir;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args, String> {
        Args::try_parse_from([&["wgpu-optim-train"], arguments].concat()).map_err(|e| e.to_string())
    }

    fn names(args: &Args) -> Vec<String> {
        let optimizers = args.optimizers().unwrap();
        optimizers.into_iter().map(|o| o.name).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!(names(&args), ["adamw", "mgup-adamw", "mgup-muon"]);
        assert_eq!(args.out, Path::new("runs/digits"));
        assert_eq!(args.hidden, [256, 128]);
        let lr = args.optimizers().unwrap()[0].recipe.lr();
        assert_eq!(lr, "adamw".parse::<Recipe>().unwrap().lr());
    }

    #[test]
    fn optimizers_are_chosen() {
        assert_eq!(names(&parse(&["--optimizer", "lion"]).unwrap()), ["lion"]);
        let args = parse(&["--compare", "cautious-lion,mgup-lion", "--lr", "0.25"]).unwrap();
        assert_eq!(names(&args), ["cautious-lion", "mgup-lion"]);
        for optimizer in args.optimizers().unwrap() {
            assert_eq!(optimizer.recipe.lr(), 0.25);
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let cases: [(&[&str], &str); 10] = [
            (&["--steps", "0"], "invalid value '0' for '--steps <N>': expected a whole number of at least 1"),
            (&["--batch", "0"], "invalid value '0' for '--batch <N>': expected a whole number of at least 1"),
            (&["--hidden", "0"], "'--hidden <N,N,…>': expected a whole number from 1 to 65536"),
            (&["--accumulate", "1025"], "'--accumulate <N>': expected a whole number from 1 to 1024"),
            (&["--schedule", "spiral"], "--schedule"),
            (&["--split", "digits"], "--data"),
            (&["--data", "x", "--split", "numbers"], "balanced"),
            (&["--precision", "f8"], "--precision"),
            (&["--optimizer", "adamv"], "mgup-adamw"),
            (&["--compare", "adamw,"], "--compare"),
        ];
        for (arguments, message) in cases {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(message), "{arguments:?}: {error}");
        }
        let both = parse(&["--optimizer", "adamw", "--compare", "lion"]).unwrap_err();
        assert!(both.contains("cannot be used with"), "{both}");
        let warm = parse(&["--warmup", "600"]).unwrap();
        assert_eq!(warm.lr_schedule().unwrap_err(), "--warmup must be below --steps 600, got 600");
        for name in ["constant", "cosine", "linear", "step", "stable"] {
            for steps in ["1", "2", "600"] {
                let schedule = parse(&["--schedule", name, "--steps", steps]).unwrap().lr_schedule().unwrap();
                assert_eq!(schedule.factor(0), 1.0, "{name}");
            }
        }
        let twice = parse(&["--compare", "adamw,lion,adamw"]).unwrap();
        let error = twice.optimizers().unwrap_err();
        assert!(error.contains("'adamw' twice"), "{error}");
    }

    #[test]
    fn a_negative_number_is_a_bad_value_of_its_option() {
        let whole = ["steps", "batch", "seed", "warmup", "accumulate", "save-every", "telemetry"];
        for option in whole.map(|option| format!("--{option}")) {
            let error = parse(&[&option, "-1"]).unwrap_err();
            let expected = format!("invalid value '-1' for '{option} <N>': expected a whole number");
            assert!(error.contains(&expected), "{error}");
        }
        for widths in ["-1", "-1,2", "2,-1"] {
            let error = parse(&["--hidden", widths]).unwrap_err();
            assert!(error.contains("invalid value '-1' for '--hidden <N,N,…>': expected a whole"), "{error}");
        }
    }

    #[test]
    fn rates_and_norms_are_in_the_range_of_f32() {
        for option in ["--lr", "--clip"] {
            for bad in ["0", "-1", "inf", "NaN", "fast", "1e39", "1e-39", "-0", "1e400"] {
                let error = parse(&[option, bad]).unwrap_err();
                let expected = "expected a number above 0 in the range of f32, 1.2e-38 to 3.4e38";
                assert!(error.contains(&format!("invalid value '{bad}' for '{option}")), "{error}");
                assert_eq!(error.matches(expected).count(), 1, "{error}");
            }
            for good in ["1.2e-38", "3.4e38", "1"] {
                parse(&[option, good]).unwrap();
            }
        }
        // That of the fallback grows with it.
        let dir = tempdir().unwrap();
        let path = dir.path().join("mine.json");
        let json = r#"{"base": {"type": "muon", "lr": 1e-3, "fallback": {"type": "adamw", "lr": 1}}}"#;
        fs::write(&path, json).unwrap();
        let args = parse(&["--optimizer", path.to_str().unwrap(), "--lr", "1e38"]).unwrap();
        let error = args.optimizers().unwrap_err();
        assert!(error.starts_with("--lr 1e38 makes `base.fallback.lr` of mine 1"), "{error}");
        assert!(error.contains("e41, but it must be finite in f32") && error.len() < 130, "{error}");
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 1.0, -0.25, 1e-3, 1e-5, 3e38, 1e39, 1_234_567.0].map(short);
        assert_eq!(numbers, ["0", "1", "-0.25", "0.001", "1e-5", "3e38", "1e39", "1234567"]);
    }

    #[test]
    fn a_recipe_may_be_a_file() {
        let dir = tempdir().unwrap();
        let json = r#"{ "base": { "type": "lion", "lr": 0.5 }, "policy": { "type": "cautious" } }"#;
        for name in ["mine.json", "mine.txt"] {
            let path = dir.path().join(name);
            fs::write(&path, json).unwrap();
            let args = parse(&["--optimizer", path.to_str().unwrap()]).unwrap();
            let chosen = args.optimizers().unwrap();
            assert_eq!(chosen[0].name, "mine");
            assert_eq!(chosen[0].recipe.lr(), 0.5);
        }
        let path = dir.path().join("bad.json");
        fs::write(&path, r#"{ "base": { "type": "adamv" } }"#).unwrap();
        let error = parse(&["--optimizer", path.to_str().unwrap()]).unwrap_err();
        assert!(error.contains("adamv"), "{error}");
        let error = parse(&["--optimizer", "nowhere.json"]).unwrap_err();
        for word in ["nowhere.json", "neither a preset nor a JSON recipe file", "mgup-adamw"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
