//! The program from outside: what a run leaves behind, and what it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output};

use flate2::read::GzDecoder;
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::tempdir;
use wgpu_optim::Precision;

fn command(arguments: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-optim-train"));
    // Nothing in the user's folders.
    command.env("WGPU_OPTIM_CACHE", "").args(arguments).arg("--out").arg(out);
    command
}

fn succeeds(arguments: &[&str], out: &Path) -> String {
    let Output { status, stdout, stderr } = command(arguments, out).output().unwrap();
    let stdout = String::from_utf8(stdout).unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{arguments:?}: {stdout}\n{stderr}");
    println!("{stdout}");
    stdout
}

/// Runs what must be refused: the words are in the message, and nothing was written.
fn refused(command: &mut Command, out: &Path, words: &[&str]) {
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{command:?} was accepted");
    assert!(!message.contains("panicked"), "{message}");
    for word in words {
        assert!(message.contains(word), "'{word}' is not in: {message}");
    }
    assert!(!out.exists(), "{command:?} left {}", out.display());
}

fn summary(out: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(out.join("summary.json")).unwrap()).unwrap()
}

/// metrics.csv: for each optimizer, (step, train loss, test accuracy).
type Metrics = BTreeMap<String, Vec<(usize, f64, Option<f64>)>>;

fn metrics(out: &Path) -> Metrics {
    let text = fs::read_to_string(out.join("metrics.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("optimizer,step,train_loss,test_accuracy"));
    let mut metrics = Metrics::new();
    for line in lines {
        let [optimizer, step, loss, test] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        metrics.entry(optimizer.into()).or_default().push((
            step.parse().unwrap(),
            loss.parse().unwrap(),
            (!test.is_empty()).then(|| test.parse().unwrap()),
        ));
    }
    metrics
}

/// Of each name: shape, values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors of a checkpoint.
fn checkpoint(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        assert_eq!(view.dtype(), safetensors::Dtype::F32);
        let values = view.data().chunks_exact(4);
        let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        (name, (view.shape().to_vec(), values.collect()))
    };
    tensors.tensors().into_iter().map(read).collect()
}

/// The share of right answers that a checkpoint gives on the test digits, computed here.
fn accuracy_on_the_host(path: &Path) -> f64 {
    let tensors = checkpoint(path);
    let mut text = String::new();
    GzDecoder::new(&include_bytes!("../data/digits.csv.gz")[..]).read_to_string(&mut text).unwrap();
    let (mut right, mut count) = (0, 0);
    for line in text.lines().skip(5).step_by(6) {
        let values: Vec<f32> = line.split(',').map(|v| v.parse().unwrap()).collect();
        let mut x: Vec<f32> = values[..64].iter().map(|v| v / 16.0).collect();
        for layer in 0..3 {
            let (shape, weight) = &tensors[&format!("layers.{layer}.weight")];
            let (_, bias) = &tensors[&format!("layers.{layer}.bias")];
            x = weight
                .chunks_exact(shape[1])
                .zip(bias)
                .map(|(row, b)| b + row.iter().zip(&x).map(|(w, x)| w * x).sum::<f32>())
                .map(|y| if layer < 2 { y.max(0.0) } else { y })
                .collect();
        }
        let answer = (0..10).max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap();
        right += usize::from(answer == values[64] as usize);
        count += 1;
    }
    assert_eq!(count, 299);
    f64::from(right as u32) / f64::from(count)
}

#[test]
fn the_default_run_trains_three_optimizers_and_reports() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("runs").join("digits");
    let stdout = succeeds(&[], &out);

    let summary = summary(&out);
    let keys: Vec<_> = summary.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["adapter", "runs"]);
    let adapter = summary["adapter"].as_str().unwrap();
    assert!(!adapter.is_empty() && stdout.contains(adapter));

    let metrics = metrics(&out);
    let runs = summary["runs"].as_array().unwrap();
    let names: Vec<_> = runs.iter().map(|r| r["optimizer"].as_str().unwrap()).collect();
    assert_eq!(names, ["adamw", "mgup-adamw", "mgup-muon"]);
    for run in runs {
        let mut keys: Vec<_> = run.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["final_loss", "optimizer", "seconds", "steps", "test_accuracy"]);
        let name = run["optimizer"].as_str().unwrap();
        let accuracy = run["test_accuracy"].as_f64().unwrap();
        assert!((0.96..=1.0).contains(&accuracy), "{name}: {accuracy}");
        assert!(run["seconds"].as_f64().unwrap() > 0.0);

        let steps = run["steps"].as_u64().unwrap() as usize;
        let rows = &metrics[name];
        assert!(rows.iter().map(|r| r.0).eq(1..=steps), "{name}: not every step");
        assert!(rows.iter().all(|r| r.1.is_finite() && r.1 > 0.0));
        assert!(rows[0].1 > 1.5, "{name} starts at {}", rows[0].1);
        let last = rows[steps - 1];
        assert!((last.1 - run["final_loss"].as_f64().unwrap()).abs() < 1e-6);
        // The JSON reader may miss the last bit.
        assert!((last.2.unwrap() - accuracy).abs() < 1e-12);
        assert!(rows.iter().filter(|r| r.2.is_some()).count() > 1);

        let path = out.join(format!("{name}.safetensors"));
        let shapes: Vec<_> = checkpoint(&path).into_iter().map(|(name, (shape, _))| (name, shape)).collect();
        let expected: [(&str, &[usize]); 6] = [
            ("layers.0.bias", &[256]),
            ("layers.0.weight", &[256, 64]),
            ("layers.1.bias", &[128]),
            ("layers.1.weight", &[128, 256]),
            ("layers.2.bias", &[10]),
            ("layers.2.weight", &[10, 128]),
        ];
        assert_eq!(shapes, expected.map(|(name, shape)| (name.to_string(), shape.to_vec())));
        // One picture may stand between two answers.
        let host = accuracy_on_the_host(&path);
        assert!((host - accuracy).abs() < 1.5 / 299.0, "{host} {accuracy}");
        assert!(stdout.contains(&format!("{:.2} %", 100.0 * accuracy)));
    }

    // The same start, and then another way.
    let (a, b) = (&metrics["adamw"], &metrics["mgup-adamw"]);
    assert_eq!(a[0].1, b[0].1);
    assert_ne!(a[2].1, b[2].1);
    let c = &metrics["mgup-muon"];
    assert_eq!(a[0].1, c[0].1);
    assert_ne!(b[2].1, c[2].1);

    let svg = fs::read_to_string(out.join("loss.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for word in ["adamw", "mgup-adamw", "mgup-muon", "step", "cross-entropy"] {
        assert!(svg.contains(word), "loss.svg lacks '{word}'");
    }
    assert!(svg.matches("<polyline").count() >= 4);

    let mut files: Vec<_> =
        fs::read_dir(&out).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(
        files,
        [
            "adamw.checkpoint.safetensors",
            "adamw.safetensors",
            "loss.svg",
            "metrics.csv",
            "mgup-adamw.checkpoint.safetensors",
            "mgup-adamw.safetensors",
            "mgup-muon.checkpoint.safetensors",
            "mgup-muon.safetensors",
            "summary.json"
        ]
    );
}

#[test]
fn the_seed_and_the_learning_rate_decide_a_run() {
    let dir = tempdir().unwrap();
    let run = |name: &str, arguments: &[&str]| {
        let out = dir.path().join(name);
        let common = ["--optimizer", "adamw", "--steps", "12"];
        succeeds(&[&common, arguments].concat(), &out);
        let weights = checkpoint(&out.join("adamw.safetensors"));
        (metrics(&out).remove("adamw").unwrap(), weights)
    };
    let first = run("first", &["--seed", "3"]);
    assert_eq!(first.0.len(), 12);
    assert!(first == run("again", &["--seed", "3"]), "not reproducible");
    assert_ne!(first.0[0], run("other", &["--seed", "4"]).0[0]);
    let slow = run("slow", &["--seed", "3", "--lr", "1e-6"]).0;
    assert_eq!(first.0[0].1, slow[0].1);
    assert!(slow[11].1 > first.0[11].1 + 0.1, "--lr had no effect");
}

/// A directory with IDX files of 40 and 10 pictures of 2 × 3.
fn idx_files(dir: &Path) {
    for (part, count) in [("train", 40u32), ("t10k", 10)] {
        let header = |magic: u32, dims: &[u32]| -> Vec<u8> {
            [&[magic], dims].concat().into_iter().flat_map(u32::to_be_bytes).collect()
        };
        let mut images = header(0x803, &[count, 2, 3]);
        images.extend((0..count * 6).map(|i| (i * 37) as u8));
        fs::write(dir.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        let mut labels = header(0x801, &[count]);
        labels.extend((0..count).map(|i| (i % 10) as u8));
        fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn a_recipe_file_trains_on_a_data_directory() {
    let dir = tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    fs::create_dir(&data).unwrap();
    idx_files(&data);
    let recipe = dir.path().join("mine.json");
    fs::write(&recipe, r#"{ "base": { "type": "lion" } }"#).unwrap();
    let data = data.to_str().unwrap();
    let arguments = ["--optimizer", recipe.to_str().unwrap(), "--data", data];
    succeeds(&[&arguments[..], &["--steps", "1", "--batch", "40", "--hidden", "8"]].concat(), &out);
    let summary = summary(&out);
    assert_eq!(summary["runs"][0]["optimizer"], "mine");
    assert_eq!(summary["runs"][0]["steps"], 1);
    let weights = checkpoint(&out.join("mine.safetensors"));
    assert_eq!(weights["layers.0.weight"].0, [8, 6]);

    let out = dir.path().join("none");
    let mut command = command(&["--data", data, "--batch", "41"], &out);
    refused(&mut command, &out, &["--batch 41", "40 pictures"]);
}

#[test]
fn wrong_arguments_are_refused() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    let range = "expected a number above 0 in the range of f32, 1.2e-38 to 3.4e38";
    let cases: [(&[&str], &[&str]); 11] = [
        (&["--steps", "0"], &["--steps"]),
        (&["--batch", "0"], &["--batch"]),
        (&["--batch", "1499"], &["--batch 1499", "1498"]),
        (&["--lr", "0"], &["invalid value '0' for '--lr <LR>'", range]),
        (&["--clip", "1e39"], &["invalid value '1e39' for '--clip <NORM>'", range]),
        (&["--warmup", "-1"], &["invalid value '-1' for '--warmup <N>': expected a whole number"]),
        (&["--warmup", "600"], &["--warmup must be below --steps 600, got 600"]),
        (&["--optimizer", "adamm"], &["adamm", "mgup-adamw"]),
        (&["--compare", "adamw,lion,adamw"], &["'adamw' twice"]),
        (&["--optimizer", "missing.json"], &["missing.json"]),
        (&["--optimizer", "lion", "--compare", "adamw"], &["cannot be used with"]),
    ];
    for (arguments, words) in cases {
        // All before an adapter is opened.
        refused(command(arguments, &out).env("WGPU_ADAPTER_NAME", "nonsense"), &out, words);
    }
}

#[test]
fn broken_data_is_refused() {
    let dir = tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    let arguments = ["--data", data.to_str().unwrap()];
    let missing = ["cannot read the data directory", arguments[1]];
    refused(&mut command(&arguments, &out), &out, &missing);
    fs::create_dir(&data).unwrap();
    refused(&mut command(&arguments, &out), &out, &["holds no data set"]);
    idx_files(&data);
    let letters = [&arguments[..], &["--split", "letters"]].concat();
    refused(&mut command(&letters, &out), &out, &["--split letters", "no split of EMNIST"]);
    let path = data.join("train-images-idx3-ubyte");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..100]).unwrap();
    let words = ["train-images-idx3-ubyte", "truncated", "expected 256"];
    refused(&mut command(&arguments, &out), &out, &words);
}

#[test]
fn an_adapter_that_is_not_there_is_an_error() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    let mut command = command(&[], &out);
    command.env("WGPU_ADAPTER_NAME", "nonsense");
    refused(&mut command, &out, &["nonsense"]);
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let out = file.join("out");
    let words = ["cannot write into the output directory", "file"];
    refused(&mut command(&["--steps", "1000000"], &out), &out, &words);
}

#[test]
fn help_shows_defaults_and_examples() {
    let output = Command::new(env!("CARGO_BIN_EXE_wgpu-optim-train")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for word in ["adamw,mgup-adamw,mgup-muon", "runs/digits", "Examples:", "WGPU_ADAPTER_NAME", "--data", "--split"] {
        assert!(help.contains(word), "--help lacks '{word}'");
    }
}

/// Reads what a run measured of its training, and what it ended with.
fn outcome(out: &Path, optimizer: &str) -> (Vec<f64>, Tensors) {
    let losses = metrics(out)[optimizer].iter().map(|line| line.1).collect();
    (losses, checkpoint(&out.join(format!("{optimizer}.safetensors"))))
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_goes_on_as_if_it_had_not_been() {
    let dir = tempdir().unwrap();
    let (cut, whole) = (dir.path().join("cut"), dir.path().join("whole"));
    let settings = ["--optimizer", "mgup-adamw", "--accumulate", "2", "--clip", "1", "--hidden", "32"];
    let with =
        |more: &[&str]| -> Vec<String> { settings.iter().chain(more).map(|argument| argument.to_string()).collect() };
    let borrowed = |arguments: &[String]| command(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &cut);
    let endless = with(&["--steps", "1000000", "--save-every", "5"]);
    let mut child = borrowed(&endless).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let kept = cut.join("mgup-adamw.checkpoint.safetensors");
    while !kept.exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before its first checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let interrupt = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stdout).contains("--resume continues"));
    let done = outcome(&cut, "mgup-adamw").0.len();
    assert!(done >= 5);
    // It is tested where it ended.
    assert!(metrics(&cut)["mgup-adamw"][done - 1].2.is_some_and(|accuracy| accuracy > 0.0));

    let steps = (done + 7).to_string();
    let more = with(&["--steps", &steps, "--resume"]);
    assert!(borrowed(&more).output().unwrap().status.success());
    let straight = with(&["--steps", &steps, "--save-every", "0"]);
    succeeds(&straight.iter().map(String::as_str).collect::<Vec<_>>(), &whole);
    assert_eq!(outcome(&cut, "mgup-adamw"), outcome(&whole, "mgup-adamw"));
    assert!(!whole.join("mgup-adamw.checkpoint.safetensors").exists());

    let other = with(&["--steps", &steps, "--resume", "--batch", "32"]);
    let output = borrowed(&other).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{message}");
    assert!(message.contains("a run with --batch 64, but this run has --batch 32;"), "{message}");
}

#[test]
fn a_finished_run_goes_on_to_more_steps_where_the_rate_does_not_depend_on_them() {
    let dir = tempdir().unwrap();
    let (twice, once) = (dir.path().join("twice"), dir.path().join("once"));
    let settings = ["--optimizer", "adamw", "--hidden", "16", "--warmup", "4"];
    let with = |more: &[&'static str]| [&settings[..], more].concat();
    succeeds(&with(&["--steps", "6"]), &twice);
    let said = succeeds(&with(&["--steps", "12", "--resume"]), &twice);
    assert!(said.contains("adamw after 6 steps"), "{said}");
    succeeds(&with(&["--steps", "12"]), &once);
    assert!(outcome(&twice, "adamw") == outcome(&once, "adamw"));
    // With nothing left to do, the results are written again.
    fs::remove_file(twice.join("adamw.safetensors")).unwrap();
    succeeds(&with(&["--steps", "12", "--resume"]), &twice);
    assert!(outcome(&twice, "adamw") == outcome(&once, "adamw"));

    let refused = |more: &[&'static str], words: &[&str]| {
        let mut command = command(&[&with(more)[..], &["--resume"]].concat(), &twice);
        // Before an adapter is opened.
        let output = command.env("WGPU_ADAPTER_NAME", "nonsense").output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        for word in words.iter().chain(&["adamw.checkpoint.safetensors", "leave out --resume"]) {
            assert!(message.contains(word), "'{word}' is not in: {message}");
        }
    };
    refused(&["--steps", "11"], &["has taken 12 steps, more than --steps 11"]);
    refused(&["--steps", "20", "--clip", "1"], &["with no --clip, but this run has --clip 1;"]);
    refused(&["--steps", "20", "--lr", "0.5"], &["but this run has --lr 0.5;"]);
    let cosine = ["--steps", "20", "--schedule", "cosine"];
    refused(&cosine, &["with --schedule constant, but this run has --schedule cosine;"]);

    succeeds(&with(&cosine), &twice);
    let longer = ["--steps", "30", "--schedule", "cosine"];
    refused(&longer, &["with --steps 20, but this run has --steps 30 (--steps may grow only under"]);
    fs::write(twice.join("adamw.checkpoint.safetensors"), "").unwrap();
    let output = command(&with(&["--resume"]), &twice).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("adamw.checkpoint.safetensors"));
}

#[test]
#[cfg(unix)]
fn nothing_beside_the_results_is_touched() {
    use std::os::unix::fs::symlink;
    let dir = tempdir().unwrap();
    let (out, other) = (dir.path().join("out"), dir.path().join("other"));
    fs::write(&other, "other").unwrap();
    fs::create_dir(&out).unwrap();
    let planted = [".write-test", "summary.json.part", "metrics.csv.part", "loss.svg.part", "lion.safetensors.part"];
    planted.iter().for_each(|name| symlink(&other, out.join(name)).unwrap());
    symlink(dir.path().join("kept.json"), out.join("summary.json")).unwrap();
    succeeds(&["--optimizer", "lion", "--steps", "1", "--hidden", "8", "--save-every", "0"], &out);
    assert_eq!(fs::read_to_string(&other).unwrap(), "other");
    assert!(planted.iter().all(|name| out.join(name).is_symlink()));
    assert!(out.join("summary.json").is_symlink() && !dir.path().join("kept.json").is_symlink());
    assert_eq!(summary(&out)["runs"][0]["optimizer"], "lion");
    assert_eq!(fs::read_dir(&out).unwrap().count(), planted.len() + 4);
}

#[test]
fn telemetry_is_written_and_drawn() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    let schedule = ["--schedule", "cosine", "--warmup", "5", "--telemetry", "4", "--steps", "20"];
    succeeds(&[&["--compare", "adamw,mgup-muon", "--hidden", "32"], &schedule[..]].concat(), &out);
    let csv = fs::read_to_string(out.join("telemetry.csv")).unwrap();
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0].len(), 15);
    // Steps 1, 5, 9, 13 and 17 of two optimizers, four tensors each.
    assert_eq!(lines.len(), 1 + 5 * 2 * 4);
    let column = |name: &str| lines[0].iter().position(|column| *column == name).unwrap();
    for line in &lines[1..] {
        assert_eq!(line.len(), 15);
        let number = |name: &str| line[column(name)].parse::<f64>().unwrap();
        assert!(number("grad_norm") > 0.0 && number("update_norm") > 0.0, "{line:?}");
        assert!((0.0..=1.0).contains(&number("alignment")));
        assert_eq!(number("k"), number("selected"), "{line:?}");
        assert_eq!(line[column("threshold")].is_empty(), line[0] == "adamw");
    }
    // The warm-up is in the updates.
    let update = |step: &str| -> f64 {
        let of = lines.iter().find(|line| line[0] == "adamw" && line[1] == step).unwrap();
        of[column("update_norm")].parse().unwrap()
    };
    assert!(update("5") > 2.0 * update("1"));
    let svg = fs::read_to_string(out.join("telemetry.svg")).unwrap();
    assert!(svg.contains("mgup-muon, update") && svg.contains("adamw, gradient"));
}

#[test]
fn two_bytes_learn_as_four_where_the_adapter_has_them() {
    let dir = tempdir().unwrap();
    let run = |precision: &str| {
        let out = dir.path().join(precision);
        let arguments = ["--optimizer", "adamw", "--steps", "60", "--precision", precision];
        let output = command(&arguments, &out).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), message, out)
    };
    let last = |out: &Path| -> f64 { outcome(out, "adamw").0[50..].iter().sum::<f64>() / 10.0 };
    let (fine, message, full) = run("f32");
    assert!(fine, "{message}");
    for precision in ["f16", "bf16"] {
        let (fine, message, out) = run(precision);
        if fine {
            let (found, expected) = (last(&out), last(&full));
            assert!((found / expected - 1.0).abs() < 0.1, "{precision}: {found}, {expected}");
            // What the file has are values of this precision; those of f32 are not.
            let format = if precision == "f16" { Precision::F16 } else { Precision::Bf16 };
            let fits = |out: &Path| {
                let mut weights = outcome(out, "adamw").1.into_values();
                weights.all(|(_, values)| format.decode(&format.encode(&values), values.len()) == values)
            };
            assert!(fits(&out) && !fits(&full), "{precision}");
        } else {
            assert!(message.contains("Burn cannot compute in"), "{message}");
        }
    }
}
