//! Every kernel is valid WGSL, and naga can write it for every platform.

use std::process::Command;

use naga::back::pipeline_constants::process_overrides;
use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use wgpu_optim::base::{Base, CustomBase, SecondMoment};
use wgpu_optim::kernel::catalog::Kernel;
use wgpu_optim::matrix::Matmul;
use wgpu_optim::plan::layout::{Ownership, Plan, PlanLimits};
use wgpu_optim::policy::{CustomPolicy, Plain, Policy};
use wgpu_optim::{Average, NonFinite, ParamGroups, Precision, Program, Recipe, Rounding, StateFormat, TensorSpec};

use crate::few::few_recipes;

/// A kernel for every platform that has what it needs.
struct Translated {
    spirv: Vec<u32>,
    /// Text, and what the entry point is called in it.
    hlsl: Option<(String, String)>,
    glsl: Option<String>,
}

/// Every kernel of these recipes, with every setting that kernels know, for GPUs and for CPUs, and for all ways to multiply matrices.
fn all_kernels(recipes: Vec<(String, Recipe)>) -> Vec<Kernel> {
    let mut kernels: Vec<Kernel> = Vec::new();
    let mut add = |groups: ParamGroups, matmul: Matmul| {
        let specs = [
            TensorSpec::new("large", [130, 40]).with_components(40),
            TensorSpec::new("wide", [64, 160]),
            TensorSpec::new("small", [30, 40]),
            TensorSpec::new("vector", [5001]), // one coordinate at a time
        ];
        for specs in [&specs[..], &specs[1..]] {
            let plan = Plan::new(specs, &groups, Ownership::Caller, PlanLimits::WEBGPU).unwrap();
            for kernel in Program::all_kernels(&plan, matmul) {
                if !kernels.contains(&kernel) {
                    kernels.push(kernel);
                }
            }
        }
    };
    for (name, mut recipe) in recipes {
        let plain = ParamGroups::from(recipe);
        add(plain.clone(), Matmul::Tiles);
        add(plain.clone(), Matmul::Registers);
        if let Base::Adamw(adamw) = &mut recipe.base
            && !name.contains('(')
        {
            adamw.second_moment = SecondMoment::Row;
            add(recipe.into(), Matmul::Tiles);
        }
        // Each base corrects its scalars in its own way where steps may be skipped.
        if recipe.policy == Policy::from(Plain::default()) {
            add(plain.clone().with_non_finite(NonFinite::Skip), Matmul::Tiles);
        }
        // Settings concern what all policies share: those with the most kernels tell.
        if ["cautious-lion", "mgup-adamw", "mgup-adago", "mgup-lion-approximate"].contains(&name.as_str()) {
            let clipped = plain.clone().with_max_grad_norm(1.0).with_max_grad_value(1.0);
            let skipping = clipped.clone().with_non_finite(NonFinite::Skip).with_telemetry(1);
            let skipping = skipping.with_average(Average::default());
            let half_averages = plain.clone().with_average(Average::default().precision(Precision::Bf16));
            let settings = [
                skipping.clone(),
                skipping.clone().with_precision(Precision::F16),
                clipped.with_precision(Precision::Bf16).with_average(Average::default()),
                plain.clone().with_precision(Precision::Bf16).with_accumulation(2),
                skipping.clone().with_precision(Precision::Bf16).without_masters(Rounding::Stochastic { seed: 1 }),
                skipping.clone().with_precision(Precision::Bf16).with_split_masters(),
                half_averages.with_precision(Precision::Bf16).with_split_masters().with_state(StateFormat::EightBit),
            ];
            settings.into_iter().for_each(|groups| add(groups, Matmul::Tiles));
            if recipe.base.newton_schulz().is_some() {
                Matmul::ALL.into_iter().for_each(|matmul| add(plain.clone(), matmul));
            }
        }
    }
    // Texts of a program take the places of files.
    let text = |name: &str| {
        std::fs::read_to_string(format!("{}/tests/custom/{name}.wgsl", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    for name in ["adamw", "lion"] {
        let recipe = Recipe::from(CustomBase::new(&text(name)).unwrap()).mgup();
        add(ParamGroups::from(recipe).with_non_finite(NonFinite::Skip), Matmul::Tiles);
    }
    add(Recipe::lion(1e-3).with_policy(CustomPolicy::new(&text("grams")).unwrap()).into(), Matmul::Tiles);
    kernels
}

/// Whether a kernel is one of those that multiply matrices in a way that needs a feature.
fn needs(kernel: &Kernel, word: &str) -> bool {
    kernel.source.contains(word)
}

fn translate(kernel: &Kernel) -> Translated {
    let (source, name) = (&kernel.source, &kernel.name);
    let module =
        naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{name}:\n{}", e.emit_to_string(source)));
    // No capabilities: nothing beyond WebGPU's core, but where subgroups were asked for, on Vulkan.
    let (subgroups, halves) = (needs(kernel, "subgroupBroadcast"), needs(kernel, "enable f16;"));
    let capabilities = match (subgroups, halves) {
        (true, _) => Capabilities::SUBGROUP,
        (_, true) => Capabilities::SHADER_FLOAT16,
        _ => Capabilities::empty(),
    };
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    let info = validator.validate(&module).unwrap_or_else(|e| panic!("{name}:\n{}", e.emit_to_string(source)));
    let constants = kernel.constants.iter().map(|(name, value)| (name.clone(), *value)).collect();
    let (module, info) = process_overrides(&module, &info, None, &constants).unwrap();
    let entry_points: Vec<&str> = module.entry_points.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(entry_points, [kernel.entry_point.as_str()], "{name}");

    let options = spv::Options { lang_version: if subgroups { (1, 3) } else { (1, 1) }, ..Default::default() };
    let spirv = spv::write_vec(&module, &info, &options, None).unwrap_or_else(|e| panic!("{name} as SPIR-V: {e}"));
    if subgroups {
        return Translated { spirv, hlsl: None, glsl: None };
    }
    let options = msl::Options { fake_missing_bindings: true, ..Default::default() };
    msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|e| panic!("{name} as MSL: {e}"));
    let mut text = String::new();
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..Default::default() };
    let written = hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
        .write(&module, &info, None)
        .unwrap_or_else(|e| panic!("{name} as HLSL: {e}"));
    let entry_point = written.entry_point_names[0].as_ref().unwrap().clone();
    let hlsl = Some((text, entry_point));
    if halves {
        // GLSL ES has no f16.
        return Translated { spirv, hlsl, glsl: None };
    }
    let mut text = String::new();
    let options =
        glsl::Options { version: glsl::Version::Embedded { version: 310, is_webgl: false }, ..Default::default() };
    let pipeline = glsl::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: kernel.entry_point.clone(),
        multiview: None,
    };
    let policies = naga::proc::BoundsCheckPolicies::default();
    glsl::Writer::new(&mut text, &module, &info, &options, &pipeline, policies)
        .and_then(|mut writer| writer.write())
        .unwrap_or_else(|e| panic!("{name} as GLSL: {e}"));
    Translated { spirv, hlsl, glsl: Some(text) }
}

#[test]
fn every_kernel_translates_to_every_platform() {
    let kernels = all_kernels(few_recipes());
    println!("{} kernels", kernels.len());
    assert!(kernels.len() >= 150, "{} kernels", kernels.len());
    kernels.iter().for_each(|kernel| drop(translate(kernel)));
}

/// What a compiler says against its input, if anything.
fn complaint(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e} (scripts/test.sh installs it)"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (!output.status.success()).then(|| said.concat())
}

/// Writes a file for a compiler.
fn written(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// All recipes, if the environment has `WGPU_OPTIM_ALL_RECIPES`. This holds for the next test as well.
#[test]
#[ignore = "needs spirv-val and glslangValidator; scripts/test.sh installs them"]
fn spirv_val_and_glslang_accept_every_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spirv, mut glsl) = (0, Vec::new());
    for kernel in all_kernels(few_recipes()) {
        let (translated, name) = (translate(&kernel), &kernel.name);
        let path = written(&folder, "kernel.spv", bytemuck::cast_slice(&translated.spirv));
        let said = complaint("spirv-val", &["--target-env", "vulkan1.1", &path]);
        assert_eq!(said, None, "{name} as SPIR-V");
        spirv += 1;
        if let Some(text) = translated.glsl {
            let text = format!("{text}\n// {name}\n");
            glsl.push(written(&folder, &format!("{spirv}.comp"), text.as_bytes()));
        }
    }
    let paths: Vec<&str> = glsl.iter().map(String::as_str).collect();
    paths.chunks(64).for_each(|some| assert_eq!(complaint("glslangValidator", some), None));
    // They can complain: of one among many, too.
    let bad = written(&folder, "bad.comp", b"#version 310 es\nvoid main() { nonsense(); }\n");
    assert!(complaint("glslangValidator", &[paths[0], &bad, paths[1]]).is_some());
    let bad = written(&folder, "bad.spv", &[3; 64]);
    assert!(complaint("spirv-val", &[&bad]).is_some());
    println!("accepted: {spirv} kernels as SPIR-V, {} as GLSL", glsl.len());
}

#[test]
#[ignore = "needs DirectX's compiler in DXC_LIBRARY, and Python; scripts/test.sh installs them"]
fn dxc_compiles_every_kernel() {
    let library = std::env::var("DXC_LIBRARY").expect("DXC_LIBRARY is the path of libdxcompiler.so");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/dxc.py");
    let dxc = &|arguments: &[String]| {
        let arguments = arguments.iter().map(String::as_str);
        complaint("python3", &[script, &library].into_iter().chain(arguments).collect::<Vec<_>>())
    };
    let folder = tempfile::tempdir().unwrap();
    let mut hlsl = Vec::new();
    for kernel in all_kernels(few_recipes()) {
        let name = &kernel.name;
        if let Some((text, entry_point)) = translate(&kernel).hlsl {
            let text = format!("{text}\n// {name}\n");
            hlsl.extend([written(&folder, &format!("{}.hlsl", hlsl.len()), text.as_bytes()), entry_point]);
        }
    }
    // It takes a core a tenth of a second a kernel.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let shares = hlsl.chunks(2 * (hlsl.len() / 2).div_ceil(threads));
    std::thread::scope(|scope| {
        let running: Vec<_> = shares.map(|share| scope.spawn(move || dxc(share))).collect();
        running.into_iter().for_each(|share| assert_eq!(share.join().unwrap(), None));
    });
    // It can complain: of one among many, too.
    let bad = written(&folder, "bad.hlsl", b"[numthreads(1, 1, 1)] void main() { nonsense(); }\n");
    let three = [&hlsl[..2], &[bad, "main".to_owned()], &hlsl[2..4]].concat();
    assert!(dxc(&three).unwrap().contains("nonsense"));
    println!("compiled: {} kernels as HLSL", hlsl.len() / 2);
}

#[test]
fn every_file_opens_with_what_it_computes() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut files = 0;
    for folder in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.starts_with("// "), "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 15, "{files} files");
}
