//! Finds a GPU by the environment variables of wgpu programs: `WGPU_BACKEND`, `WGPU_ADAPTER_NAME` and `WGPU_POWER_PREF`.
//!
//! Optimizers accept any device. This module is for programs that do not have one yet.
//!
//! ```no_run
//! use wgpu_optim::matrix::Matmul;
//! use wgpu_optim::{Requirements, adapter, wgpu};
//!
//! # async fn open() -> Result<(), Box<dyn std::error::Error>> {
//! for adapter in adapter::all(&adapter::instance()).await {
//!     println!("{}", adapter::describe(&adapter.get_info()));
//! }
//! let (_instance, adapter) = adapter::from_env().await?;
//! let limits = Requirements::webgpu().device_limits(&adapter.limits())?;
//! let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
//! let (device, queue) = adapter.request_device(&descriptor).await?;
//! println!("Muon multiplies by {:?}", adapter::matmul(&device));
//! println!("Steps are launched as {:?}", adapter::launch_shape(&device));
//! for way in Matmul::ALL {
//!     println!("{way:?}: {}", adapter::supports(&device, way));
//! }
//! # Ok(()) }
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use wgpu::PowerPreference::HighPerformance;

use super::readback::staging;
use super::submissions::lock;
use crate::error::{Error, Result, ensure};
use crate::recipe::launch::LaunchShape;
use crate::recipe::matrix::Matmul;

/// An instance for the backends that `WGPU_BACKEND` names (all by default), without a display.
///
/// # Panics
/// Where wgpu was built without a backend for this platform: with neither the feature `backends` nor one of wgpu's own.
pub fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env())
}

/// The adapter that the environment chooses. Among the backends in `WGPU_BACKEND` (default: all), it is the first whose name contains
/// `WGPU_ADAPTER_NAME`, ignoring case. Without that variable, wgpu chooses by `WGPU_POWER_PREF` (default: high performance).
///
/// # Errors
/// [`Error::NoAdapter`] names what was searched for and which adapters exist, or the part of `WGPU_BACKEND` that is not a backend.
pub async fn from_env() -> Result<(wgpu::Instance, wgpu::Adapter)> {
    let reason = "wgpu was built without a backend for this platform: enable the feature `backends` of wgpu-optim, \
                  or one of wgpu's own";
    ensure!(!wgpu::Instance::enabled_backend_features().is_empty(), Error::NoAdapter(reason.to_owned()));
    if let Some(value) = std::env::var_os("WGPU_BACKEND") {
        check_backends(&value.to_string_lossy())?;
    }
    let instance = instance();
    let adapter = match std::env::var("WGPU_ADAPTER_NAME") {
        Ok(name) if !name.is_empty() => by_name(&instance, &name).await?,
        _ => {
            let power_preference = wgpu::PowerPreference::from_env().unwrap_or(HighPerformance);
            let options = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
            instance.request_adapter(&options).await.map_err(|_| none_at_all())?
        }
    };
    Ok((instance, adapter))
}

/// Refuses a value of `WGPU_BACKEND` of which wgpu would leave out a part, or all.
fn check_backends(value: &str) -> Result<()> {
    let unknown = value.split(',').find(|name| wgpu::Backends::from_comma_list(name).is_empty());
    let Some(unknown) = unknown else { return Ok(()) };
    let what = match value.trim() {
        "" => "WGPU_BACKEND is empty".to_owned(),
        _ => format!("WGPU_BACKEND is `{value}`, and no backend is named `{}`", unknown.trim()),
    };
    Err(Error::NoAdapter(format!("{what}; give vulkan, metal, dx12 or gl, several separated by commas, or unset it")))
}

/// Every adapter of the backends that `WGPU_BACKEND` names. Empty in a browser, which does not list its adapters.
pub async fn all(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    instance.enumerate_adapters(wgpu::Backends::all()).await
}

/// Finds out whether a device is still there. wgpu drops the work of a lost one without a word, or ends the process, and the
/// callback that would tell belongs to whoever made the device.
#[derive(Debug)]
#[doc(hidden)]
pub struct Probe {
    device: wgpu::Device,
    buffer: Mutex<wgpu::Buffer>,
}

impl Probe {
    /// A probe, of 4 bytes.
    pub fn new(device: &wgpu::Device) -> Self {
        Self { device: device.clone(), buffer: Mutex::new(staging(device, "wgpu-optim.probe", 4)) }
    }

    /// Refuses a device that is gone. In a browser, where the answer would take a while, it finds nothing.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn check(&self) -> Result<()> {
        if cfg!(target_arch = "wasm32") {
            return Ok(());
        }
        let buffer = lock(&self.buffer);
        let is_there = Arc::new(AtomicBool::new(true));
        let found = is_there.clone();
        // A buffer of a device that was lost before is invalid, which is an error besides.
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        buffer.map_async(wgpu::MapMode::Read, .., move |mapped| {
            found.store(mapped.is_ok(), Ordering::Relaxed);
        });
        // The answer comes when the device is polled; failing, that says nothing more.
        let _ = self.device.poll(wgpu::PollType::Poll);
        let is_there = is_there.load(Ordering::Relaxed);
        if is_there {
            buffer.unmap();
        }
        drop(scope.pop());
        ensure!(is_there, Error::DeviceLost { adapter: describe(&self.device.adapter_info()) });
        Ok(())
    }

    pub(crate) fn buffer(&self) -> wgpu::Buffer {
        lock(&self.buffer).clone()
    }
}

/// An adapter in words: name, backend, kind and driver.
pub fn describe(info: &wgpu::AdapterInfo) -> String {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    };
    let driver = [&info.driver[..], &info.driver_info].join(" ");
    let driver = if driver == " " { String::new() } else { format!(", {}", driver.trim()) };
    format!("{} ({}, {kind}{driver})", info.name, info.backend)
}

/// The default way to compute matrix products on a device: [`Matmul::Tiles`] on GPUs, [`Matmul::Subgroups`] or [`Matmul::Registers`] on
/// CPUs.
pub fn matmul(device: &wgpu::Device) -> Matmul {
    match device.adapter_info().device_type {
        wgpu::DeviceType::Cpu if supports(device, Matmul::Subgroups) => Matmul::Subgroups,
        wgpu::DeviceType::Cpu => Matmul::Registers,
        _ => Matmul::Tiles,
    }
}

/// The default launch shape of a device: [`LaunchShape::Cpu`] on CPUs, [`LaunchShape::Gpu`] on others.
pub fn launch_shape(device: &wgpu::Device) -> LaunchShape {
    match device.adapter_info().device_type {
        wgpu::DeviceType::Cpu => LaunchShape::Cpu,
        _ => LaunchShape::Gpu,
    }
}

/// Whether a device can compute matrix products in this way.
pub fn supports(device: &wgpu::Device, matmul: Matmul) -> bool {
    let info = device.adapter_info();
    let has = |feature| device.features().contains(feature);
    let sizes = [info.subgroup_min_size, info.subgroup_max_size];
    match matmul {
        Matmul::Registers | Matmul::Tiles | Matmul::SmallTiles | Matmul::LargeTiles => true,
        Matmul::Subgroups => has(wgpu::Features::SUBGROUP) && sizes == [8, 8],
        Matmul::TilesF16 => has(wgpu::Features::SHADER_F16),
    }
}

async fn by_name(instance: &wgpu::Instance, name: &str) -> Result<wgpu::Adapter> {
    let wanted = name.to_lowercase();
    let mut adapters = all(instance).await;
    if let Some(found) = adapters.iter().position(|adapter| adapter.get_info().name.to_lowercase().contains(&wanted)) {
        return Ok(adapters.swap_remove(found));
    }
    ensure!(!adapters.is_empty(), none_at_all());
    let names: Vec<_> = adapters.iter().map(|adapter| describe(&adapter.get_info())).collect();
    let there_are = format!("which no adapter's name contains; there are: {}", names.join("; "));
    Err(Error::NoAdapter(format!("WGPU_ADAPTER_NAME is `{name}`, {there_are}")))
}

fn none_at_all() -> Error {
    let backends = std::env::var("WGPU_BACKEND").map_or(String::new(), |b| format!(" for WGPU_BACKEND={b}"));
    let driver = match std::env::var("WGPU_BACKEND").as_deref() {
        Ok("gl") => "OpenGL with EGL (Debian and Ubuntu: apt-get install libegl1 libgl1-mesa-dri)",
        _ => {
            "a Vulkan driver for your GPU, or a software one (Debian and Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers)"
        }
    };
    let unset = if backends.is_empty() { "" } else { ", or unset WGPU_BACKEND" };
    Error::NoAdapter(format!("no GPU adapter was found{backends}; install {driver}{unset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_does_not_exist_is_named() {
        for value in ["vulkan", "vk,gl", "GL, dx12"] {
            check_backends(value).unwrap();
        }
        for (value, words) in [
            ("", "WGPU_BACKEND is empty; give vulkan"),
            (" ", "WGPU_BACKEND is empty"),
            ("vulcan", "`vulcan`, and no backend is named `vulcan`; give vulkan, metal"),
            ("gl, opengles", "`gl, opengles`, and no backend is named `opengles`"),
            ("gl,", "and no backend is named ``"),
        ] {
            let message = check_backends(value).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
