//! Checks custom texts with the device's compiler.

use super::scope;
use crate::error::{Error, Result, ensure};
use crate::recipe::groups::ParamGroups;

/// Compiles the texts of custom bases and policies on the device, for hosts without naga.
///
/// # Errors
/// Returns [`Error::Custom`] with the first error of the compiler, or [`Error::Gpu`] with any other error of the device.
pub(super) async fn check(device: &wgpu::Device, groups: &ParamGroups) -> Result<()> {
    for definition in groups.recipes().iter().flat_map(|recipe| recipe.definitions()) {
        let source = wgpu::ShaderSource::Wgsl(definition.alone().into());
        let label = Some("wgpu-optim.custom");
        let create = || device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
        let (module, error) = scope::errors(device, scope::ALL, create);
        let (info, error) = (module.get_compilation_info().await, error.await);
        let is_error =
            |message: &&wgpu::CompilationMessage| message.message_type == wgpu::CompilationMessageType::Error;
        if let Some(wgpu::CompilationMessage { message, location, .. }) = info.messages.iter().find(is_error) {
            return Err(definition.complaint((location.map(|location| location.offset as usize), message.clone())));
        }
        ensure!(error.is_none(), Error::Gpu(error.map_or(String::new(), |error| error.to_string())));
    }
    Ok(())
}
