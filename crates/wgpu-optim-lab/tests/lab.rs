//! The program as its users meet it: a tiny study of every task, its files, its resuming, and what it refuses.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use wgpu_optim_lab::config::{Config, PRESETS};
use wgpu_optim_lab::protocol::{choices, comparison, wanted};
use wgpu_optim_lab::results::{Length, Machine, Results, Run, Stage};
use wgpu_optim_lab::statistics::Verdict;
use wgpu_optim_lab::{Place, ties};

/// Two recipes and two seeds on every task.
const TINY: &str = r#"
name = "tiny"
seeds = 2
telemetry = 5
goal = 100.0
tasks = [
    { kind = "language", steps = 20, batch = 4, context = 32, width = 32, depth = 1, held_out = 16 },
    { kind = "language", name = "pieces", vocabulary = 300, steps = 20, batch = 4, context = 16, width = 16, depth = 1, held_out = 16 },
    { kind = "fine_tuning", steps = 20, pretraining = 20, vocabulary = 300, context = 16, width = 16, depth = 1, held_out = 32 },
    { kind = "fine_tuning", name = "cold", steps = 20, pretraining = 0, vocabulary = 300, context = 16, width = 16, depth = 1, held_out = 32 },
    { kind = "autoencoder", steps = 20, batch = 8, width = 16, depth = 1, decoder_width = 16, held_out = 32 },
    { kind = "classification", steps = 20, batch = 32, width = 32, held_out = 128 },
    { kind = "classification", name = "cnn", network = "cnn", steps = 20, batch = 16, width = 4, held_out = 64 },
    { kind = "regression", steps = 20 },
    { kind = "quadratic", steps = 20 },
]
optimizers = [{ recipe = "adamw", rate = 1e-2 }, { recipe = "mgup-adamw", rate = 1e-2 }]
"#;

fn lab(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-optim-lab"));
    command.args(arguments).env("WGPU_OPTIM_CACHE", "").output().unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = lab(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(arguments: &[&str]) -> String {
    let output = lab(arguments);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// The runs without their times, which differ.
fn timeless(directory: &Path) -> Vec<Run> {
    let mut runs = Results::read(directory).unwrap().runs;
    runs.iter_mut().for_each(|run| (run.seconds, run.optimizer_share) = (0.0, 0.0));
    runs
}

/// Digits alone, so that it does not matter what else is installed.
fn digits(directory: &Path) -> String {
    let data = directory.join("digits");
    fs::create_dir_all(&data).unwrap();
    // IDX files of 12 × 12 pictures: bars whose place is their class.
    for (part, count) in [("train", 600u32), ("t10k", 300)] {
        let labels: Vec<u8> = (0..count).map(|at| (at * 7 % 10) as u8).collect();
        let pixel = |label: u8, at: usize| if at / 12 == usize::from(label) { 255 } else { (at * 31 % 50) as u8 };
        let pixels = labels.iter().flat_map(|&label| (0..144).map(move |at| pixel(label, at)));
        let header = |magic: u32, sizes: &[u32]| {
            [&[magic][..], sizes].concat().iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>()
        };
        let images = [header(0x803, &[count, 12, 12]), pixels.collect()].concat();
        fs::write(data.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        fs::write(data.join(format!("{part}-labels-idx1-ubyte")), [header(0x801, &[count]), labels].concat()).unwrap();
    }
    data.to_str().unwrap().to_owned()
}

/// Sentences of few words, two of which decide their class.
fn sentences(directory: &Path) -> String {
    let path = directory.join("sentences.csv");
    let line = |at: usize| {
        let words = ["a film", "the story", "this play", "its music"];
        let (good, word) = (at % 2, words[at / 2 % 4]);
        format!("\"{word}, {} to watch {at}\",{good},nobody\n", ["boring", "lovely"][good])
    };
    fs::write(&path, format!("text,label,source\n{}", (0..400).map(line).collect::<String>())).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The arguments that run a study.
fn run<'a>((study, sources): (&'a str, &[&'a str]), out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["run", study, "--out", out], sources, more].concat()
}

#[test]
fn every_task_is_learned_and_an_interrupted_study_equals_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let (study, out, parts) = (folder.path().join("tiny.toml"), folder.path().join("out"), folder.path().join("parts"));
    fs::write(&study, TINY).unwrap();
    let [study, out_name, parts_name] = [&study, &out, &parts].map(|path| path.to_str().unwrap());
    let (data, lines) = (digits(folder.path()), sentences(folder.path()));
    let study = (study, &["--data", &data[..], "--sentences", &lines][..]);
    let text = succeeds(&run(study, out_name, &[]));
    let results = Results::read(&out).unwrap();
    assert_eq!(results.runs.len(), 9 * 2 * 2);
    for run in &results.runs {
        let what = format!("{}, {}, seed {}", run.task, run.optimizer, run.seed);
        assert!(!run.diverged && run.loss < run.untrained, "{what}: {} from {}", run.loss, run.untrained);
        assert_eq!((run.losses.len(), run.stage), (20, Stage::Final), "{what}");
        assert_eq!(
            run.accuracy.is_some(),
            ["classification", "cnn", "fine_tuning", "cold"].contains(&run.task.as_str()),
            "{what}"
        );
        assert_eq!(run.path.len(), if run.task == "quadratic" { 21 } else { 0 }, "{what}");
        assert_eq!(run.lengths.iter().map(|length| length.step).collect::<Vec<_>>(), [1, 6, 11, 16], "{what}");
        // Half of the coordinates step 2 times as far, and half of them half as far.
        let longer = run.lengths.iter().any(|length| length.l2 > 1.1);
        assert_eq!(longer, run.optimizer == "mgup-adamw", "{what}: {:?}", run.lengths);
    }
    let first = |task: &str| results.of(task, "adamw", Stage::Final).next().unwrap().losses[0];
    assert_ne!(first("fine_tuning"), first("cold"), "a run begins where pre-training ended");
    assert!(text.contains("until the smoothed training loss is 100."), "{text}");
    assert!(text.contains("undecided (2 of at least 5 seeds)"), "{text}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.matches("<svg").count() >= 12, "it holds its pictures");
    assert!(!page.contains("src=") && !page.contains("href="), "it needs no other file");
    assert!(out.join("quadratic-paths.svg").exists() && out.join("language-losses.svg").exists());

    // A budget of nothing ends it before its first run; resumed, it makes the same runs.
    let text = succeeds(&run(study, parts_name, &["--budget", "0s"]));
    assert!(text.contains("--resume"), "{text}");
    assert!(Results::read(&parts).unwrap().runs.is_empty());
    let mut half = results.clone();
    half.runs.truncate(7);
    half.write(&parts).unwrap();
    let refused = fails(&run(study, parts_name, &[]));
    assert!(refused.contains("--resume"), "{refused}");
    succeeds(&run(study, parts_name, &["--resume"]));
    assert_eq!(timeless(&parts), timeless(&out));

    let refused = fails(&["run", "quick", "--out", parts_name, "--resume"]);
    assert!(refused.contains("another study"), "{refused}");
    let again = succeeds(&["report", out_name]);
    assert!(again.contains("## language"), "{again}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (from, to, expected) in [
        ("seeds = 2", "seeds = 0", "`seeds` is 0"),
        ("steps = 20, batch = 4,", "steps = 1, batch = 4,", "the task language: `steps` is 1"),
        ("recipe = \"adamw\"", "recipe = \"adamv\"", "adamv"),
        ("rate = 1e-2 }, {", "rate = -1.0 }, {", "`rate` is -1"),
        ("rate = 1e-2 }, {", "rate_of = \"lion\" }, {", "`rate_of` names lion"),
        ("vocabulary = 300, steps", "vocabulary = 256, steps", "`vocabulary` is 256; expected 257 to 65536"),
        ("rate = 1e-2 }, {", "rate = 1e-2, policy = { tau = 2 } }, {", "tau"),
        ("name = \"cnn\",", "", "two tasks have the name classification"),
        ("telemetry = 5", "telemtry = 5", "telemtry"),
        ("telemetry = 5", "tuning = { seeds = 1 }", "one seed misleads"),
    ] {
        assert!(TINY.contains(from), "{from}");
        let error = format!("{:#}", Config::parse(&TINY.replacen(from, to, 1)).unwrap_err());
        assert!(error.contains(expected), "{to}: {error}");
    }
    assert!(fails(&["run", "fine-tuning"]).contains("--sentences"));
    let out = tempfile::tempdir().unwrap();
    let half = ["run", "precision", "--model-on", "adapter", "--out", out.path().to_str().unwrap()];
    assert!(fails(&half).contains("use --model-on host for bf16"));
    assert!(fails(&["run", "nowhere.toml"]).contains("presets quick, cpu20, gpu10"));
    assert!(fails(&["report", "nowhere"]).contains("results.json"));
    assert!(!succeeds(&["claims"]).is_empty());
}

#[test]
fn models_on_the_adapter_learn_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let study = folder.path().join("one.toml");
    fs::write(
        &study,
        "name = 'one'\nseeds = 1\ntasks = [{ kind = 'regression', steps = 6, batch = 16, width = 16 }]\n\
         optimizers = [{ recipe = 'mgup-adamw', rate = 1e-2 }]\n",
    )
    .unwrap();
    let losses = |place: &str| {
        let out = folder.path().join(place);
        succeeds(&["run", study.to_str().unwrap(), "--out", out.to_str().unwrap(), "--model-on", place]);
        let results = Results::read(&out).unwrap();
        let expected = if place == "host" { Place::Host } else { Place::Adapter };
        assert_eq!(results.machine.model, expected);
        let run = &results.runs[0];
        run.losses.iter().map(|loss| f64::from(loss.unwrap())).chain([run.loss]).collect::<Vec<_>>()
    };
    for (own, other) in losses("adapter").iter().zip(losses("host")) {
        assert!((own - other).abs() < 1e-3 * other, "{own} on the adapter, {other} on the host");
    }
}

#[test]
fn equal_scores_favor_the_front_of_a_tensor() {
    let gpu = wgpu_optim_burn::Gpu::open().unwrap();
    let quotient = |recipe: &str| {
        let drift = ties::drift(&gpu.wgpu_device, &gpu.queue, &recipe.parse().unwrap(), &ties::LAYOUTS[0]).unwrap();
        drift.first / drift.last
    };
    let [plain, mgup, cautious] = ["adamw", "mgup-adamw", "cautious-mgup-adamw"].map(quotient);
    assert!((0.9..1.1).contains(&plain) && (0.9..1.1).contains(&cautious), "{plain}, {cautious}");
    // 1/τ over τ is 4, for steps without a gradient alone.
    assert!((2.0..4.0).contains(&mgup), "{mgup}");
}

#[test]
fn presets_are_valid() {
    for (name, _) in PRESETS {
        assert_eq!(Config::open(name).unwrap().name, name);
    }
}

/// A study whose losses follow from the rate, the seed and the optimizer: better, worse, undecided and itself beside `base`.
fn planted(study: &str, loss: impl Fn(&str, f64, u64) -> f64) -> Results {
    let machine =
        Machine { adapter: "none".into(), model: Place::Host, version: "0".into(), burn: "0".into(), autotune: false };
    let mut results = Results::new(Config::parse(study).unwrap(), vec!["nothing".into()], machine);
    loop {
        let next = wanted(&results);
        if next.is_empty() {
            return results;
        }
        for run in next {
            let own = loss(&run.optimizer, run.rate, run.seed);
            let lengths = vec![Length { step: 1, l1: 1.5, l2: 1.75, descent: 2.5 }];
            results.runs.push(Run {
                task: run.task,
                optimizer: run.optimizer,
                rate: run.rate,
                seed: run.seed,
                stage: run.stage,
                losses: vec![Some(3.0), Some(own as f32)],
                untrained: 3.0,
                loss: if own.is_finite() { own } else { 3.0 },
                diverged: !own.is_finite(),
                accuracy: None,
                lengths,
                path: Vec::new(),
                seconds: 1.0,
                optimizer_share: 0.1,
            });
        }
    }
}

const PLANTED: &str = r#"
name = "planted"
tuning = { rates = 3, seeds = 2, most = 7 }
tasks = [{ kind = "quadratic" }]
optimizers = [
    { name = "base", recipe = "adamw", rate = 1e-3 },
    { name = "better", recipe = "mgup-adamw", rate = 1e-3 },
    { name = "worse", recipe = "lion", rate = 1e-3 },
    { name = "noisy", recipe = "grams", rate = 1e-3 },
    { name = "itself", recipe = "adamw", rate_of = "base" },
    { name = "as long", recipe = "adamw", rate_of = "better", times = "length", against = ["better"] },
]
"#;

/// Best at a rate of 4e-3, with noise of the seed that all share, and some of `noisy` alone.
fn losses(optimizer: &str, rate: f64, seed: u64) -> f64 {
    let from_best = (rate / 4e-3).log2().abs();
    let shared = (seed % 5) as f64 * 0.1;
    let own = match optimizer {
        "better" => -0.05 - 0.001 * (seed % 3) as f64,
        "worse" => 0.05 + 0.001 * (seed % 3) as f64,
        "noisy" => {
            if seed.is_multiple_of(2) {
                0.2
            } else {
                -0.25
            }
        }
        _ => 0.0,
    };
    if rate > 0.1 { f64::NAN } else { 1.0 + 0.1 * from_best + shared + own }
}

#[test]
fn planted_losses_give_their_verdicts() {
    let results = planted(PLANTED, losses);
    let of = |own: &str, other: &str| comparison(&results, "quadratic", own, other);
    assert_eq!(of("better", "base").verdict, Verdict::Better);
    assert_eq!(of("worse", "base").verdict, Verdict::Worse);
    for own in ["noisy", "itself"] {
        let found = of(own, "base");
        assert_eq!((found.verdict, found.reason), (Verdict::Undecided, None), "{own}");
    }
    let difference = of("better", "base").difference.unwrap();
    assert_eq!(difference.count, 5);
    assert!((difference.mean + 0.0508).abs() < 1e-9, "{difference:?}");
}

#[test]
fn rates_are_widened_for_all_until_the_best_lies_between_others() {
    let results = planted(PLANTED, losses);
    let choices = choices(&results, "quadratic");
    assert_eq!(choices.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["base", "better", "worse", "noisy"]);
    for (name, choice) in &choices {
        // 5e-4 to 2e-3 at first, then twice wider.
        assert_eq!((choice.rate, choice.is_at_edge, choice.tried.len()), (4e-3, false, 5), "{name}");
    }
    // Two seeds of five rates of four, and five fresh seeds of six.
    assert_eq!(results.runs.len(), 2 * 5 * 4 + 5 * 6);
    let fresh = |run: &&Run| run.stage == Stage::Final;
    assert!(results.runs.iter().filter(fresh).all(|run| run.rate == 4e-3 && run.seed < 5));
    assert!(results.runs.iter().filter(|run| !fresh(run)).all(|run| run.seed >= 1_000_000));

    let narrow = planted(&PLANTED.replace("most = 7", "most = 4"), losses);
    let found = comparison(&narrow, "quadratic", "better", "base");
    assert_eq!(found.verdict, Verdict::Undecided);
    assert_eq!(found.reason.as_deref(), Some("rate at edge: better, base"));
}

#[test]
fn runs_that_diverge_are_counted_and_their_rate_is_not_chosen() {
    // All rates of `better` above 2e-3 diverge, and one fresh seed of `worse`.
    let results = planted(PLANTED, |optimizer, rate, seed| match (optimizer, seed) {
        ("better", _) if rate > 2e-3 => f64::NAN,
        ("worse", 3) => f64::NAN,
        _ => losses(optimizer, rate, seed),
    });
    let choices = choices(&results, "quadratic");
    let better = &choices.iter().find(|(name, _)| name == "better").unwrap().1;
    assert_eq!((better.rate, better.is_at_edge), (2e-3, false));
    assert!(better.tried.iter().any(|tried| tried.diverged == 2));
    let worse: Vec<_> = results.of("quadratic", "worse", Stage::Final).collect();
    assert_eq!(worse.iter().filter(|run| run.diverged).count(), 1);
    assert_eq!(worse.len(), 5);
}
