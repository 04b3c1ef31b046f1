//! A host that shares no code with this crate executes a step: Python, through wgpu-py.

use std::path::{Path, PathBuf};
use std::process::Command;

use wgpu_optim::{GpuOptimizer, LaunchShape, ParamGroups, Recipe, StateFormat, TensorSpec, adapter, verify};

/// The interpreter that has wgpu-py: `scripts/test.sh` installs it.
fn python() -> Option<PathBuf> {
    std::env::var_os("WGPU_OPTIM_PYTHON").map(PathBuf::from)
}

#[test]
fn a_step_in_python_has_the_same_bits() {
    let Some(python) = python() else {
        println!("skipped: WGPU_OPTIM_PYTHON names no interpreter with wgpu-py");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let specs = [("a", vec![64, 48]), ("b", vec![4097]), ("c", vec![70_003]), ("d", vec![7])]
        .map(|(name, shape)| TensorSpec::new(name, shape));
    std::fs::write(path("specs.json"), serde_json::to_string(&specs).unwrap()).unwrap();
    let (_instance, adapter) = pollster::block_on(adapter::from_env()).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();

    for recipe in [Recipe::adamw(1e-2).mgup(), Recipe::adamw(1e-2).mgup().with_state(StateFormat::EightBit)] {
        // This crate's own steps, and what they begin with.
        let groups = ParamGroups::from(recipe).with_launch_shape(LaunchShape::Cpu);
        let mut optimizer = GpuOptimizer::new_blocking(&device, &queue, &specs, groups).unwrap();
        let mut input = Vec::new();
        for spec in &specs {
            let params = verify::params(spec.numel() as usize);
            optimizer.write_param(&spec.name, &params).unwrap();
            input.extend(params);
        }
        for t in 1..4 {
            for spec in &specs {
                let grads = verify::grads(spec.numel() as usize, t);
                optimizer.write_grad(&spec.name, &grads).unwrap();
                input.extend(grads);
            }
            optimizer.step().unwrap();
        }
        let read = |name: &str| optimizer.read_param_blocking(name).unwrap();
        let mut expected: Vec<f32> = specs.iter().flat_map(|spec| read(&spec.name)).collect();
        let states = if recipe.state == StateFormat::F32 { &["exp_avg", "exp_avg_sq"][..] } else { &[] };
        for (spec, state) in specs.iter().flat_map(|spec| states.iter().map(move |state| (spec, state))) {
            expected.extend(optimizer.read_state_blocking(&spec.name, state).unwrap());
        }

        // The same as data.
        std::fs::write(path("recipe.json"), recipe.to_json()).unwrap();
        let input: Vec<u8> = input.into_iter().flat_map(f32::to_le_bytes).collect();
        std::fs::write(path("input.bin"), input).unwrap();
        let explained = Command::new(env!("CARGO_BIN_EXE_wgpu-optim"))
            .args(["explain", path("recipe.json").to_str().unwrap(), "--specs", path("specs.json").to_str().unwrap()])
            .args(["--limits", "webgpu", "--shape", "cpu", "--json", "--run", "3"])
            .output()
            .unwrap();
        assert!(explained.status.success(), "{}", String::from_utf8_lossy(&explained.stderr));
        std::fs::write(path("program.json"), explained.stdout).unwrap();
        let output = Command::new(&python)
            .arg(root.join("examples/python/step.py"))
            .arg(path("program.json"))
            .args([Path::new("--input"), &path("input.bin"), Path::new("--output"), &path("output.bin")])
            .env("WGPU_ADAPTER_NAME", adapter.get_info().name)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let found = std::fs::read(path("output.bin")).unwrap();
        let expected: Vec<u8> = expected.into_iter().flat_map(f32::to_le_bytes).collect();
        let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "{recipe} {:?}: a byte of the parameters, or of states in f32", recipe.state);
        let numel: u64 = specs.iter().map(TensorSpec::numel).sum();
        let bytes = 2 * recipe.state.bytes() * numel;
        assert!(found.len() as u64 >= 4 * numel + bytes, "parameters, then states");
    }
}
