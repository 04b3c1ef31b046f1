//! Every kernel is valid WGSL, and naga can write it for every platform.

use std::process::Command;

use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use wgpu_optim::kernel::{Kernel, all_kernels};
use wgpu_optim::matrix::Matmul;

/// A kernel for every platform that has what it needs.
struct Translated {
    spirv: Vec<u32>,
    /// Text, and what the entry point is called in it.
    hlsl: Option<(String, String)>,
    glsl: Option<String>,
}

fn translate(kernel: Kernel) -> Translated {
    let source = kernel.source();
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|e| panic!("{kernel:?}:\n{}", e.emit_to_string(&source)));
    // No capabilities: nothing beyond WebGPU's core, but where subgroups were asked for, on Vulkan.
    let subgroups = kernel.matmul() == Some(Matmul::Subgroups);
    let halves = kernel.matmul() == Some(Matmul::TilesF16);
    let capabilities = match (subgroups, halves) {
        (true, _) => Capabilities::SUBGROUP,
        (_, true) => Capabilities::SHADER_FLOAT16,
        _ => Capabilities::empty(),
    };
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{kernel:?}:\n{}", e.emit_to_string(&source)));
    let entry_points: Vec<&str> = module.entry_points.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(entry_points, [kernel.entry_point()], "{kernel:?}");

    let options =
        spv::Options { lang_version: if subgroups { (1, 3) } else { (1, 1) }, ..Default::default() };
    let spirv = spv::write_vec(&module, &info, &options, None)
        .unwrap_or_else(|e| panic!("{kernel:?} as SPIR-V: {e}"));
    if subgroups {
        return Translated { spirv, hlsl: None, glsl: None };
    }
    let options = msl::Options { fake_missing_bindings: true, ..Default::default() };
    msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|e| panic!("{kernel:?} as MSL: {e}"));
    let mut text = String::new();
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..Default::default() };
    let written = hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
        .write(&module, &info, None)
        .unwrap_or_else(|e| panic!("{kernel:?} as HLSL: {e}"));
    let entry_point = written.entry_point_names[0].as_ref().unwrap().clone();
    let hlsl = Some((text, entry_point));
    if halves {
        // GLSL ES has no f16.
        return Translated { spirv, hlsl, glsl: None };
    }
    let mut text = String::new();
    let options = glsl::Options {
        version: glsl::Version::Embedded { version: 310, is_webgl: false },
        ..Default::default()
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: kernel.entry_point().to_owned(),
        multiview: None,
    };
    let policies = naga::proc::BoundsCheckPolicies::default();
    glsl::Writer::new(&mut text, &module, &info, &options, &pipeline, policies)
        .and_then(|mut writer| writer.write())
        .unwrap_or_else(|e| panic!("{kernel:?} as GLSL: {e}"));
    Translated { spirv, hlsl, glsl: Some(text) }
}

#[test]
fn every_kernel_translates_to_every_platform() {
    let kernels = all_kernels();
    assert!(kernels.len() >= 67, "{} kernels", kernels.len());
    kernels.into_iter().for_each(|kernel| drop(translate(kernel)));
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

#[test]
#[ignore = "needs spirv-val and glslangValidator; scripts/test.sh installs them"]
fn spirv_val_and_glslang_accept_every_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spirv, mut glsl) = (0, Vec::new());
    for kernel in all_kernels() {
        let translated = translate(kernel);
        let path = written(&folder, "kernel.spv", bytemuck::cast_slice(&translated.spirv));
        let said = complaint("spirv-val", &["--target-env", "vulkan1.1", &path]);
        assert_eq!(said, None, "{kernel:?} as SPIR-V");
        spirv += 1;
        if let Some(text) = translated.glsl {
            let text = format!("{text}\n// {kernel:?}\n");
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
    for kernel in all_kernels() {
        if let Some((text, entry_point)) = translate(kernel).hlsl {
            let text = format!("{text}\n// {kernel:?}\n");
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
    for folder in ["", "lib", "base", "matrix", "policy"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
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
