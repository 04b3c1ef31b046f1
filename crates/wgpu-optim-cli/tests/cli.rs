//! The tool as its users meet it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

/// The tool, which keeps nothing in the user's folders.
fn tool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-optim"));
    command.env("WGPU_OPTIM_CACHE", "");
    command
}

fn run(arguments: &[&str]) -> Output {
    tool().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(file)
}

fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), bytemuck::pod_collect_to_vec(view.data()))).collect()
}

#[test]
fn adapters_are_listed() {
    let output = run(&["adapters"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("0: "), "{}", text(&output.stdout));
}

#[test]
fn without_a_command_it_says_what_to_do_next() {
    let output = run(&[]);
    assert!(output.status.success());
    let said = text(&output.stdout);
    assert!(said.contains("wgpu-optim demo") && said.contains("--help"), "{said}");
    assert!(text(&run(&["--help"]).stdout).contains("Exit codes:"));
    let script = text(&run(&["completions", "bash"]).stdout);
    assert!(script.contains("complete -F") && script.contains("--gaussians"), "{script}");
}

#[test]
fn adapters_are_listed_in_json() {
    let found: serde_json::Value = serde_json::from_slice(&run(&["adapters", "--json"]).stdout).unwrap();
    assert!(found[0]["adapter"].is_string() && found[0]["max_buffer_size"].as_u64().unwrap() > 1 << 20, "{found}");
}

#[test]
fn the_demo_races_optimizers_and_writes_a_report_that_needs_no_other_file() {
    let folder = TempDir::new().unwrap();
    let demo = |more: &[&str]| {
        let mut command = tool();
        command.args([
            "demo",
            "--size",
            "32",
            "--gaussians",
            "40",
            "--steps",
            "60",
            "--optimizers",
            "mgup-adamw,grams",
        ]);
        command.args(more).arg("--out").arg(folder.path().join("out")).output().unwrap()
    };
    let output = demo(&[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert!(table.lines().count() >= 3 && table.contains("mgup-adamw") && table.contains("dB"), "{table}");
    assert!(said.contains("report.html") && said.contains("40 Gaussians, 32 × 24 pixels, 60 steps"), "{said}");
    let read = |name: &str| fs::read(folder.path().join("out").join(name)).unwrap();
    let page = text(&read("report.html"));
    assert_eq!(page.matches("data:image/png;base64,").count(), 3);
    assert!(page.contains("<svg") && !page.contains("src=\"http") && page.contains("grams, "), "{page}");

    // What was drawn is a picture to fit. The losses are those of before: the same seed gives the same bits.
    let json = |more: &[&str]| -> serde_json::Value { serde_json::from_slice(&demo(more).stdout).unwrap() };
    let (one, two) = (json(&["--json"]), json(&["--json"]));
    for (one, two) in one["results"].as_array().unwrap().iter().zip(two["results"].as_array().unwrap()) {
        assert_eq!(one["last_loss"], two["last_loss"]);
        assert!(one["last_loss"].as_f64().unwrap() < 0.3 * one["first_loss"].as_f64().unwrap(), "{one}");
    }
    fs::copy(folder.path().join("out/target.png"), folder.path().join("picture.png")).unwrap();
    let picture = folder.path().join("picture.png");
    let again = json(&["--json", "--image", picture.to_str().unwrap()]);
    assert_eq!((&again["width"], &again["height"]), (&one["width"], &one["height"]));
}

#[test]
fn a_demo_that_makes_no_sense_is_refused() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    for (arguments, words) in [
        (&["--optimizers", "adamw,adamw"][..], "names `adamw` twice"),
        (&["--optimizers", "adamx"], "neither a preset nor a JSON recipe file"),
        (&["--lr", "-1"], "`base.lr` is -1"),
        (&["--ratio", "2"], "`policy.ratio` is 2"),
        (&["--steps", "1"], "expected a whole number from 2 to 1000000"),
        (&["--image", "no/such/picture.png"], "no/such/picture.png"),
        (&["--gaussians", "65535", "--size", "2048"], "use fewer Gaussians"),
    ] {
        let output = tool().arg("demo").args(arguments).arg("--out").arg(&out).output().unwrap();
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(words), "{words}: {}", text(&output.stderr));
        assert!(!out.exists(), "{words}: nothing is written");
    }
}

#[test]
fn verify_prints_a_row_for_every_recipe_and_holds() {
    // The first one listed; the table in the library's tests runs on all of them.
    let listed = text(&run(&["adapters"]).stdout);
    let name = listed.strip_prefix("0: ").unwrap().split(" (").next().unwrap();
    let folder = TempDir::new().unwrap();
    let output = tool().arg("verify").env("WGPU_ADAPTER_NAME", name).current_dir(&folder).output().unwrap();
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    for recipe in ["adamw", "cautious-adamw (count)", "mgup-adamw-approximate", "grams-lion"] {
        let row = printed.lines().find(|l| l.trim_start().starts_with(&format!("{recipe} ")));
        assert!(row.is_some_and(|row| row.ends_with("ok")), "{recipe}: {printed}");
    }
    assert!(printed.contains("all recipes pass on 1 adapter"), "{printed}");

    let report = fs::read_to_string(folder.path().join("wgpu-optim-report.md")).unwrap();
    let version = format!("| wgpu-optim | {} |", env!("CARGO_PKG_VERSION"));
    let chosen = format!("| `WGPU_ADAPTER_NAME` | `{name}` |");
    let adapter = format!("## {name}");
    let versions = [&version, "| wgpu (Cargo.lock) | 30.", "| naga (Cargo.lock) | 30.", "| compiler | rustc "];
    for part in [&chosen, &adapter, "driver `", "Features: ", "max_buffer_size: "].into_iter().chain(versions) {
        assert!(report.contains(part), "{part}: {report}");
    }
    let rows = report.lines().filter(|line| line.ends_with("| ok |")).count();
    assert_eq!(rows, wgpu_optim::verify::recipes().len(), "{report}");
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_before_anything_runs() {
    let output = run(&["verify", "--report", "no/such/folder/report.md"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("report no/such/folder/report.md"), "{}", text(&output.stderr));
    if cfg!(target_os = "linux") {
        let output = run(&["verify", "--report", "/dev/full"]);
        let said = text(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
        assert!(said.contains("report /dev/full: No space left on device"), "{said}");
    }
}

#[test]
fn an_adapter_that_does_not_exist_is_an_error_that_lists_the_others() {
    for command in [&["verify"][..], &["bench", "--params", "1000"]] {
        let output = tool().args(command).env("WGPU_ADAPTER_NAME", "nonsense").output().unwrap();
        assert!(!output.status.success());
        let error = text(&output.stderr);
        assert!(error.contains("WGPU_ADAPTER_NAME is `nonsense`") && error.contains("there are"), "{error}");
    }
}

#[test]
fn replay_follows_the_recordings_on_gpu_and_cpu() {
    let folder = TempDir::new().unwrap();
    for case in ["mgup_adamw", "cautious_lion", "adamw_torch", "mgup_muon", "adago"] {
        for reference in [false, true] {
            let output = folder.path().join("out.safetensors");
            let mut command = tool();
            command.arg("replay").arg("--recipe").arg(golden(&format!("{case}.json")));
            command.arg("--input").arg(golden(&format!("{case}.safetensors"))).arg("--output").arg(&output);
            if reference {
                // Opens no adapter.
                command.arg("--reference").env("WGPU_ADAPTER_NAME", "nonsense");
            }
            let result = command.output().unwrap();
            assert!(result.status.success(), "{}", text(&result.stderr));
            let (found, recorded) = (tensors(&output), tensors(&golden(&format!("{case}.safetensors"))));
            let tolerance = match case {
                _ if reference => (1e-9, 1.3e-7),
                "mgup_muon" | "adago" => (2e-4, 2e-3),
                _ => (2e-6, 1e-5),
            };
            assert!(!found.is_empty());
            for (key, values) in found {
                let name = key.strip_prefix("param.").unwrap();
                let last = (0..).take_while(|k| recorded.contains_key(&format!("expected.{k}.{name}"))).count();
                let expected = &recorded[&format!("expected.{}.{name}", last - 1)];
                for (i, (a, e)) in values.iter().zip(expected).enumerate() {
                    assert!((a - e).abs() <= tolerance.0 + tolerance.1 * e.abs(), "{case} {name} at {i}");
                }
            }
        }
    }
}

#[test]
fn bad_recordings_are_refused_by_name_and_nothing_is_written() {
    let folder = TempDir::new().unwrap();
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let two = [1.0f32, 2.0];
    let f32s: &[u8] = bytemuck::cast_slice(&two);
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let good = || view(Dtype::F32, &[2], f32s);
    let write = |tensors: Vec<(&str, TensorView<'_>)>| {
        fs::write(&input, safetensors::serialize(tensors, None).unwrap()).unwrap();
    };
    let replay = |recipe: &Path| {
        let mut command = tool();
        command.arg("replay").arg("--recipe").arg(recipe).arg("--input").arg(&input);
        command.arg("--output").arg(&output).arg("--reference").output().unwrap()
    };
    let refused = |expected: &str| {
        let result = replay(&golden("lion.json"));
        let error = text(&result.stderr);
        assert!(!result.status.success() && error.contains(expected), "{expected}: {error}");
        assert!(!output.exists());
    };
    refused("in.safetensors");
    fs::write(&input, b"").unwrap();
    refused("not a safetensors file");
    let whole = fs::read(golden("lion.safetensors")).unwrap();
    fs::write(&input, &whole[..whole.len() / 2]).unwrap();
    refused("not a safetensors file");
    write(vec![("other", good())]);
    refused("there is no tensor `param.<name>`");
    write(vec![("param.w", good())]);
    refused("parameter `w` has no gradients");
    write(vec![("param.w", good()), ("grad.0.w", good()), ("grad.0.v", good())]);
    refused("gradients of `v` have no parameter");
    write(vec![("param.w", good()), ("grad.0.w", good()), ("grad.2.w", good())]);
    refused("gradients of `w`: step 1 is missing");
    write(vec![("param.w", good()), ("grad.0.w", view(Dtype::F32, &[2, 1], f32s))]);
    refused("tensor `grad.0.w` has shape [2, 1], but its parameter has [2]");
    write(vec![("param.w", good()), ("grad.0.w", view(Dtype::F16, &[4], f32s))]);
    refused("tensor `grad.0.w` has dtype F16, but must be F32");
    let v = vec![("param.v", good()), ("grad.0.v", good()), ("grad.1.v", good())];
    write([v, vec![("param.w", good()), ("grad.0.w", good())]].concat());
    refused("`w` has gradients of 1 steps, but `v` of 2");
    write(vec![("param.w", view(Dtype::F32, &[0], &[])), ("grad.0.w", view(Dtype::F32, &[0], &[]))]);
    refused("tensor `");

    // A recipe that does not exist, or is out of range.
    write(vec![("param.w", good()), ("grad.0.w", good())]);
    let said = text(&replay(&folder.path().join("none.json")).stderr);
    for word in ["none.json", "neither a preset nor a JSON recipe file", "mgup-adamw"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let recipe = folder.path().join("bad.json");
    fs::write(&recipe, r#"{"base": {"type": "adamw", "lr": -1}}"#).unwrap();
    assert!(text(&replay(&recipe).stderr).contains("`base.lr` is -1"));
    assert!(!output.exists());
    // And the good one is written.
    assert!(replay(&golden("lion.json")).status.success());
    assert!(output.exists());
}

/// A file with this header before `size` zeros.
fn with_header(path: &Path, header: &str, size: usize) {
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length, header.as_bytes(), &vec![0; size]].concat()).unwrap();
}

#[test]
fn headers_are_checked_and_tensors_of_other_dtypes_ignored() {
    let folder = TempDir::new().unwrap();
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let replay = |header: &str, size| {
        with_header(&input, header, size);
        let mut command = tool();
        command.args(["replay", "--recipe", "lion", "--reference", "--input"]).arg(&input);
        command.arg("--output").arg(&output).output().unwrap()
    };
    let entry = |name: &str, dtype: &str, from: usize, to: usize| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":[2],"data_offsets":[{from},{to}]}}"#)
    };
    let good = [entry("param.w", "F32", 0, 8), entry("grad.0.w", "F32", 8, 16)].join(",");
    for (other, size) in [
        (entry("other", "F128", 16, 48), 48),
        (entry("other", "I64", 16, 32), 32),
        (entry("__metadata__.x", "U1", 16, 19), 19),
        (r#""__metadata__":{"by":"hand"}"#.to_owned(), 16),
        (r#""__metadata__":null"#.to_owned(), 16),
    ] {
        let result = replay(&format!("{{{good},{other}}}"), size);
        assert!(result.status.success(), "{other}: {}", text(&result.stderr));
        assert_eq!(tensors(&output).keys().collect::<Vec<_>>(), ["param.w"]);
        fs::remove_file(&output).unwrap();
    }
    let huge = format!(r#""other":{{"dtype":"F32","shape":[{0},{0}],"data_offsets":[16,16]}}"#, 1u64 << 32);
    for (entries, size, expected) in [
        (
            format!("{good},{}", entry("grad.1.w", "F128", 16, 48)),
            48,
            "tensor `grad.1.w` has dtype F128, but must be F32",
        ),
        (
            format!("{},{}", entry("param.w", "Q8", 0, 8), entry("grad.0.w", "F32", 8, 16)),
            16,
            "tensor `param.w` has dtype Q8",
        ),
        (format!("{good},{}", entry("param.w", "F32", 0, 8)), 16, "tensor `param.w` is there twice"),
        (format!("{good},{0},{0}", entry("x", "F32", 16, 24)), 24, "tensor `x` is there twice"),
        (
            format!("{good},{}", entry("x", "F32", 8, 16)),
            16,
            "tensor `x`: its data are bytes 8 to 16, but must start at 16",
        ),
        (
            format!("{good},{}", entry("x", "F32", 20, 28)),
            28,
            "tensor `x`: its data are bytes 20 to 28, but must start at 16",
        ),
        (format!("{good},{}", entry("x", "F128", 16, 49)), 48, "tensor `x`: its data are bytes 16 to 49"),
        (format!("{good},{}", entry("x", "F128", 16, 15)), 16, "tensor `x`: its data are bytes 16 to 15"),
        (format!("{good},{}", entry("x", "F32", 16, 25)), 25, "tensor `x`: 9 bytes do not match F32 of shape [2]"),
        (format!("{good},{huge}"), 16, "tensor `other`: 0 bytes do not match F32"),
        (good.clone(), 17, "its tensors have 16 bytes of data, and the file has 17"),
        (format!(r#"{good},"x":{{"dtype":"F32","shape":[2]}}"#), 16, "tensor `x`: missing field `data_offsets`"),
    ] {
        let result = replay(&format!("{{{entries}}}"), size);
        let said = text(&result.stderr);
        assert!(!result.status.success() && said.contains(expected), "{expected}: {said}");
        assert!(!output.exists());
    }
    fs::write(&input, u64::MAX.to_le_bytes()).unwrap();
    let mut command = tool();
    command.args(["replay", "--recipe", "lion", "--reference", "--input"]).arg(&input).arg("--output").arg(&output);
    assert!(text(&command.output().unwrap().stderr).contains("its header does not fit into its 8 bytes"));
}

#[test]
fn a_machine_without_a_session_is_no_error() {
    let result = tool().arg("adapters").env_remove("XDG_RUNTIME_DIR").output().unwrap();
    assert!(result.status.success());
    assert!(!text(&result.stderr).contains("XDG_RUNTIME_DIR"), "{}", text(&result.stderr));
}

#[test]
fn a_recipe_is_a_preset_or_a_file() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("mine.json");
    let recipe: wgpu_optim::Recipe = "mgup-adamw".parse().unwrap();
    fs::write(&file, recipe.to_json()).unwrap();
    let replay = |recipe: &str| {
        let output = folder.path().join("out.safetensors");
        let mut command = tool();
        command.args(["replay", "--reference", "--recipe", recipe]).current_dir(&folder);
        command.arg("--input").arg(fs::canonicalize(golden("mgup_adamw.safetensors")).unwrap());
        let result = command.arg("--output").arg(&output).output().unwrap();
        assert!(result.status.success(), "{}", text(&result.stderr));
        tensors(&output)
    };
    let found = replay("mgup-adamw");
    assert_eq!(found, replay("mine.json"));
    assert_ne!(found, replay("lion"));
    // A file of that name wins.
    fs::rename(&file, folder.path().join("lion")).unwrap();
    assert_eq!(found, replay("lion"));
}

#[test]
#[cfg(unix)]
fn the_output_is_replaced_with_its_permissions_and_nothing_beside_it_is_touched() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("other"), "other").unwrap();
    symlink("other", at("out.partial")).unwrap();
    fs::create_dir(at("there")).unwrap();
    symlink("there/out", at("link")).unwrap();
    let replay = |output: &str| {
        let mut command = tool();
        command.args(["replay", "--recipe", "lion", "--reference", "--input"]).arg(golden("lion.safetensors"));
        let result = command.arg("--output").arg(at(output)).output().unwrap();
        assert!(result.status.success(), "{}", text(&result.stderr));
    };
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
    replay("out");
    assert_eq!(mode("out"), mode("other"));
    fs::set_permissions(at("out"), PermissionsExt::from_mode(0o640)).unwrap();
    replay("out");
    assert_eq!(mode("out"), 0o640);
    replay("link");
    assert!(at("link").is_symlink() && !at("there/out").is_symlink());
    assert_eq!(tensors(&at("there/out")), tensors(&at("out")));
    assert_eq!(fs::read_to_string(at("other")).unwrap(), "other");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["link", "other", "out", "out.partial", "there"]);
    assert_eq!(fs::read_dir(at("there")).unwrap().count(), 1);
}

#[test]
fn bench_reports_in_json_what_its_users_read() {
    let output = run(&["bench", "--params", "100000", "--samples", "3", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["params"], 100_000);
    assert!(report["adapter"].as_str().is_some_and(|a| !a.is_empty()));
    assert!(report["copy"]["ns_per_param"].as_f64().is_some_and(|ns| ns > 0.0));
    let rows = report["recipes"].as_array().unwrap();
    for name in ["adamw", "mgup-adamw", "mgup-adamw-approximate", "lion", "grams"] {
        let row = rows.iter().find(|row| row["name"] == name).expect(name);
        assert!(row["ns_per_param"].as_f64().is_some_and(|ns| ns > 0.0));
        assert!(row["dispatches"].as_u64().is_some_and(|d| d > 0));
        // lavapipe has timestamps in encoders; other adapters may not.
        let has_none = row["gpu_ns_per_param"].is_null() && !report["adapter"].as_str().unwrap().contains("llvmpipe");
        assert!(has_none || row["gpu_ns_per_param"].as_f64().is_some_and(|ns| ns > 0.0));
        assert!(row["host_microseconds"].as_f64().is_some_and(|us| us > 0.0));
    }
    let bytes = |name: &str| rows.iter().find(|r| r["name"] == name).unwrap()["bytes_per_param"].as_f64().unwrap();
    assert_eq!((bytes("adamw"), bytes("lion"), bytes("grams")), (28.0, 20.0, 28.0));
    assert!(bytes("mgup-adamw") > bytes("mgup-adamw-approximate"));
}

#[test]
fn bench_measures_settings() {
    let recipes = "adamw,adamw+clip+skip+limit,adamw+scaler,adamw+accumulate,adamw+observe,adamw+bf16,adamw+average,\
                   adamw+bf16+stochastic,adamw+bf16+nearest,adamw+bf16+split,adamw+8bit";
    let output = run(&["bench", "--params", "50000", "--recipes", recipes, "--samples", "1", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let dispatches: Vec<_> =
        report["recipes"].as_array().unwrap().iter().map(|row| row["dispatches"].as_u64().unwrap()).collect();
    assert_eq!(dispatches, [1, 3, 3, 1, 1, 2, 2, 1, 1, 1, 1]);
}

#[test]
fn compiled_pipelines_are_kept_in_the_folder_of_the_environment() {
    let folder = TempDir::new().unwrap();
    let caches = folder.path().join("caches");
    for cached in [false, true, true] {
        let mut command = tool();
        command.env("WGPU_OPTIM_CACHE", &caches).args(["compile", "--recipes", "adamw", "--tensors", "100"]);
        if cached {
            command.arg("--cached");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        if cached && !caches.exists() && std::env::var_os("CI").is_none() {
            return eprintln!("skipped: the adapter has no pipeline caches");
        }
        assert_eq!(caches.exists(), cached);
    }
    // Other commands keep them as well.
    fs::remove_dir_all(&caches).unwrap();
    let arguments = ["bench", "--recipes", "adamw", "--params", "1000", "--samples", "1"];
    let output = tool().env("WGPU_OPTIM_CACHE", &caches).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(&caches).unwrap().count(), 1);
}

#[test]
fn bench_measures_matrices() {
    let arguments = ["bench", "--tensors", "96x200*3", "--recipes", "muon,mgup-adago", "--samples", "2"];
    let output = run(&[&arguments[..], &["--json", "--matmul", "registers"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for row in report["recipes"].as_array().unwrap() {
        assert!(row["gflops"].as_f64().is_some_and(|gflops| gflops > 0.0), "{row}");
        assert!(row["ratio_to_one_tensor"].is_null(), "{row}");
    }
    let output = run(&arguments);
    assert!(text(&output.stdout).contains("GFLOP/s in the products of Newton–Schulz"));
}

#[test]
fn bad_arguments_are_refused() {
    for (arguments, expected) in [
        (&["bench", "--params", "1000", "--recipes", "muon"][..], "muon cannot step these --params: "),
        (&["bench", "--matmul", "fast"], "--matmul"),
        (&["bench", "--params", "0"], "'--params <PARAMS>': expected a whole number from 1 to 4294901760"),
        (&["bench", "--params", "-1"], "invalid value '-1' for '--params <PARAMS>': expected a whole number"),
        (&["bench", "--recipes", "adamv"], "neither a preset nor a JSON recipe file"),
        (&["bench", "--recipes", "adamw+fast"], "unknown setting `fast`"),
        (&["bench", "--recipes", "adamw,adamw+observe0"], "`observe0`: expected a whole number from 1"),
        (&["bench", "--recipes", "adamw+observe-1"], "`observe-1`: expected a whole number from 1"),
        (&["bench", "--samples", "0"], "'--samples <SAMPLES>': expected a whole number from 1"),
        (&["bench", "--samples", "-1"], "invalid value '-1' for '--samples <SAMPLES>': expected a whole number"),
        (&["bench", "--tensors", "-1"], "invalid value '-1' for '--tensors <TENSORS>': `-1` is not a whole number"),
        (&["bench", "--tensors", "-1x2,3"], "`-1` is not a whole number of at least 1"),
        (&["bench", "--tensors", "4000000000x4000000000"], "adamw cannot step these --tensors: "),
        (&["replay"], "--recipe"),
        (&["fly"], "unrecognized subcommand"),
    ] {
        // All before an adapter is opened.
        let output = tool().args(arguments).env("WGPU_ADAPTER_NAME", "nonsense").output().unwrap();
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn compile_builds_the_kernels_of_both_launch_shapes() {
    for (shape, kernel) in [("cpu", "step/stream_exact "), ("gpu", "step/stream_exact_quarter ")] {
        let output = run(&["compile", "--recipes", "mgup-adamw,adamw", "--tensors", "5001", "--shape", shape]);
        let printed = text(&output.stdout);
        assert!(output.status.success(), "{printed}{}", text(&output.stderr));
        assert!(printed.contains(kernel) && printed.contains("7 kernels in "), "{printed}");
    }
    let found: serde_json::Value =
        serde_json::from_slice(&run(&["compile", "--recipes", "adamw", "--tensors", "8", "--json"]).stdout).unwrap();
    let kernel = &found["kernels"][0];
    assert_eq!((&kernel["kernel"], &kernel["failure"]), (&"step/stream".into(), &serde_json::Value::Null));
    assert!(kernel["milliseconds"].as_f64() > Some(0.0), "{found}");
}

/// `explain` needs no adapter: this one does not exist.
fn explain(arguments: &[&str]) -> Output {
    tool().arg("explain").args(arguments).env("WGPU_ADAPTER_NAME", "none of them").output().unwrap()
}

#[test]
fn explain_prints_every_dispatch_with_what_it_reads_and_writes() {
    let output = explain(&["mgup-adamw", "--params", "16777216"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    let row = printed.lines().find(|line| line.contains("step/stream_exact")).unwrap();
    for word in ["_quarter", " 16384 ", " 256 ", "grad", "exp_avg_sq", "→", "notes"] {
        assert!(row.contains(word), "{word}: {row}");
    }
    assert!(printed.contains("A step has 6 dispatches. "), "{printed}");

    let output = explain(&["mgup-adamw", "--params", "16777217"]);
    let printed = text(&output.stdout);
    assert_eq!(printed.matches("ends at once without a miss").count(), 7, "{printed}");
    assert!(printed.contains("A step has 13 dispatches, 7 of which end at once unless a bracket missed"), "{printed}");

    let output = explain(&["adamw+bf16+stochastic+average", "--params", "1048576"]);
    let kinds = "Bytes per parameter: parameters 2.00, gradients 2.00, state 8.00, averages 4.00, ";
    assert!(text(&output.stdout).contains(kinds), "{}", text(&output.stdout));
    let output = explain(&["adamw+bf16+split+8bit", "--params", "1048576"]);
    let kinds = "Bytes per parameter: parameters 2.00, gradients 2.00, state 2.00, masters 2.00, ";
    assert!(text(&output.stdout).contains(kinds), "{}", text(&output.stdout));
    let output = explain(&["cautious-lion+skip+observe", "--tensors", "gpt", "--limits", "webgpu"]);
    let printed = text(&output.stdout);
    assert!(printed.starts_with("cautious-lion+skip+observe: 148 tensors, 12597696 parameters"), "{printed}");
    for word in ["guard/guard", "step/score_mask", "in observed steps"] {
        assert!(printed.contains(word), "{word}: {printed}");
    }
}

#[test]
fn explain_prints_json_that_a_host_of_webgpu_can_follow() {
    let folder = TempDir::new().unwrap();
    let specs = folder.path().join("specs.json");
    fs::write(&specs, r#"[{"name": "w", "shape": [128, 512]}, {"name": "b", "shape": [9]}]"#).unwrap();
    let output = explain(&["mgup-muon", "--specs", specs.to_str().unwrap(), "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (buffers, kernels) = (json["buffers"].as_array().unwrap(), json["kernels"].as_array().unwrap());
    let dispatches = json["dispatches"].as_array().unwrap();
    assert_eq!(dispatches.len(), 30);
    for dispatch in dispatches {
        let kernel = &kernels[dispatch["kernel"].as_u64().unwrap() as usize];
        assert_eq!((&dispatch["entry_point"], &dispatch["lanes"]), (&kernel["entry_point"], &kernel["lanes"]));
        assert!(kernel["source"].as_str().unwrap().contains(kernel["entry_point"].as_str().unwrap()));
        assert!(dispatch["serial_rounds"].as_u64() > Some(0), "{dispatch}");
        assert!(dispatch["bytes"].is_u64() && dispatch["after_miss"].is_boolean(), "{dispatch}");
        assert_eq!(dispatch["workgroups"].as_array().unwrap().len(), 3, "{dispatch}");
        assert!(!dispatch["writes"].as_array().unwrap().is_empty(), "{dispatch}");
        for bound in dispatch["bindings"].as_array().unwrap() {
            let size = buffers[bound["buffer"].as_u64().unwrap() as usize]["size"].as_u64().unwrap();
            assert!(bound["offset"].as_u64().unwrap() + bound["size"].as_u64().unwrap() <= size, "{bound}");
        }
    }
}

#[test]
fn explain_prints_the_wgsl_of_a_kernel_and_refuses_what_there_is_not() {
    let output = explain(&["lion", "--wgsl", "step/stream"]);
    let printed = text(&output.stdout);
    assert!(printed.contains("fn stream(in: Invocation,") && printed.contains("sign(interpolated)"), "{printed}");
    for (arguments, words) in [
        (&["lion", "--wgsl", "select/prove"][..], "no kernel `select/prove` in this step; it has step/stream"),
        (&["adamw", "--params", "100000000", "--limits", "webgpu"], "max_buffer_size needed 400000000"),
        (&["adamv"], "neither a preset nor a JSON recipe file"),
        (&["adamw+clop"], "unknown setting `clop`"),
        (&["adamw", "--specs", "no/such.json"], "no/such.json"),
        (&["adamw", "--params", "0"], "--params"),
    ] {
        let output = explain(arguments);
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn a_new_optimizer_is_a_template_that_check_accepts() {
    let folder = TempDir::new().unwrap();
    let within = |arguments: &[&str]| tool().args(arguments).current_dir(&folder).output().unwrap();
    for (arguments, name) in
        [(&["new", "own_base"][..], "own_base"), (&["new", "own_policy", "--policy"], "own_policy")]
    {
        let output = within(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.contains(&format!("wgpu-optim check {name}.wgsl")), "{said}");
        let again = within(arguments);
        assert!(
            !again.status.success() && text(&again.stderr).contains("it already exists"),
            "{}",
            text(&again.stderr)
        );
        let file = format!("{name}.wgsl");
        let output = within(&["check", &file, "--params", "5000", "--steps", "3"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report = text(&output.stdout);
        let is_policy = name == "own_policy";
        let expected = if is_policy { "own-policy-adamw: valid" } else { "own-base: valid" };
        assert!(report.starts_with(expected), "{report}");
        for word in
            ["SPIR-V (Vulkan), MSL (Metal), HLSL (DirectX 12), GLSL (OpenGL)", "Not compared with the CPU", "adamw "]
        {
            assert!(report.contains(word), "{word}: {report}");
        }
        let json: serde_json::Value =
            serde_json::from_slice(&within(&["check", &file, "--no-run", "--json", "--params", "70000"]).stdout)
                .unwrap();
        assert_eq!(json["run"], serde_json::Value::Null);
        let plain = &json["policies"][0];
        let bytes = if is_policy { 28.0 } else { 20.0 };
        assert_eq!(
            (plain["dispatches"].as_u64(), plain["bytes_per_parameter"].as_f64()),
            (Some(1), Some(bytes)),
            "{json}"
        );
        assert_eq!(json["policies"].as_array().unwrap().len(), if is_policy { 1 } else { 6 });
        // As a recipe of other commands.
        let output = within(&["explain", &file, "--params", "100"]);
        assert!(text(&output.stdout).contains("A step has 1 dispatch."), "{}", text(&output.stderr));
    }
    let output = within(&["new", "Upper"]);
    assert!(!output.status.success() && text(&output.stderr).contains("`Upper` is not a name"));
    assert!(!folder.path().join("Upper.wgsl").exists());
}

#[test]
fn check_names_the_place_of_what_is_wrong_and_why_a_policy_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("own.wgsl");
    let path = path.to_str().unwrap();
    let update = "fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {\n    return Update(g, old);\n}\n";
    fs::write(path, format!("//@ base own\n{}", update.replace("(g,", "(dot(g),"))).unwrap();
    let output = run(&["check", path]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("own.wgsl:3:19: custom base `own`: the function `dot` is not available"), "{said}");
    assert!(said.ends_with("    3 |     return Update(dot(g), old);\n      |                   ^\n"), "{said}");

    fs::write(path, format!("//@ base own\n{update}")).unwrap();
    let output = run(&["check", path, "--no-run"]);
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.contains("mgup                 refused: recipe: `base` is `own`"),
        "{said}"
    );

    // Found on the GPU, and an error of the command.
    fs::write(path, format!("//@ base own\n{}", update.replace("(g,", "(1.0 / (g - g),"))).unwrap();
    let output = run(&["check", path, "--params", "100", "--steps", "2"]);
    assert!(
        !output.status.success() && text(&output.stdout).contains("NOT FINITE, first at 0"),
        "{}",
        text(&output.stdout)
    );

    let json = folder.path().join("own.json");
    fs::write(&json, r#"{"base": {"type": "custom", "file": "own.wgsl", "lr": 0.5}, "policy": {"type": "cautious"}}"#)
        .unwrap();
    let output = run(&["check", json.to_str().unwrap(), "--no-run"]);
    assert!(text(&output.stdout).starts_with("cautious-own: valid"), "{}", text(&output.stderr));
    assert!(text(&run(&["check", "no/such.wgsl"]).stderr).contains("cannot read no/such.wgsl"));
}
