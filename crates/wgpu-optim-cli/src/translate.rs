//! Translates kernels into the shading languages of all platforms, as wgpu does.

use anyhow::{Context, Result};
use naga::back::pipeline_constants::process_overrides;
use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use wgpu_optim::program::Kernel;

/// The shading languages, each with its platform.
pub const LANGUAGES: [(&str, &str); 4] =
    [("SPIR-V", "Vulkan"), ("MSL", "Metal"), ("HLSL", "DirectX 12"), ("GLSL", "OpenGL")];

/// Translates a kernel into each of [`LANGUAGES`], with only the core features of WebGPU.
pub fn translate(kernel: &Kernel) -> Result<()> {
    let name = &kernel.name;
    let module = naga::front::wgsl::parse_str(&kernel.source).with_context(|| name.clone())?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    let info = validator.validate(&module).with_context(|| name.clone())?;
    let constants = kernel.constants.iter().map(|(name, value)| (name.clone(), *value)).collect();
    let (module, info) = process_overrides(&module, &info, None, &constants).with_context(|| name.clone())?;

    spv::write_vec(&module, &info, &spv::Options::default(), None).with_context(|| format!("{name} as SPIR-V"))?;
    let options = msl::Options { lang_version: (2, 3), fake_missing_bindings: true, ..Default::default() };
    let own = msl::PipelineOptions::default();
    msl::write_string(&module, &info, &options, &own).with_context(|| format!("{name} as MSL"))?;
    let mut text = String::new();
    let (options, own) = (hlsl::Options::default(), hlsl::PipelineOptions::default());
    let written = hlsl::Writer::new(&mut text, &options, &own).write(&module, &info, None);
    written.with_context(|| format!("{name} as HLSL"))?;
    let mut text = String::new();
    let version = glsl::Version::Embedded { version: 310, is_webgl: false };
    let options = glsl::Options { version, ..Default::default() };
    let entry_point = kernel.entry_point.clone();
    let own = glsl::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point, multiview: None };
    let policies = naga::proc::BoundsCheckPolicies::default();
    let writer = glsl::Writer::new(&mut text, &module, &info, &options, &own, policies);
    writer.and_then(|mut writer| writer.write()).with_context(|| format!("{name} as GLSL"))?;
    Ok(())
}
