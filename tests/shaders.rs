//! Every kernel is valid WGSL, and naga can write it for every platform.

use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use wgpu_optim::kernel::all_kernels;
use wgpu_optim::matrix::Matmul;

#[test]
fn every_kernel_translates_to_every_platform() {
    let kernels = all_kernels();
    assert!(kernels.len() >= 67, "{} kernels", kernels.len());
    for kernel in kernels {
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

        spv::write_vec(&module, &info, &spv::Options::default(), None)
            .unwrap_or_else(|e| panic!("{kernel:?} as SPIR-V: {e}"));
        if subgroups {
            continue;
        }
        let options = msl::Options { fake_missing_bindings: true, ..Default::default() };
        msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
            .unwrap_or_else(|e| panic!("{kernel:?} as MSL: {e}"));
        let mut text = String::new();
        let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..Default::default() };
        hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
            .write(&module, &info, None)
            .unwrap_or_else(|e| panic!("{kernel:?} as HLSL: {e}"));
        if halves {
            // GLSL ES has no f16.
            continue;
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
        glsl::Writer::new(
            &mut text,
            &module,
            &info,
            &options,
            &pipeline,
            naga::proc::BoundsCheckPolicies::default(),
        )
        .and_then(|mut writer| writer.write())
        .unwrap_or_else(|e| panic!("{kernel:?} as GLSL: {e}"));
    }
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
