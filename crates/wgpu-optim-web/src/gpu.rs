//! [`Gpu`]: a device that optimizers and pages share.

use std::sync::{Arc, OnceLock};

use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wgpu_optim::verify::Runner;
use wgpu_optim::{Requirements, wgpu};

use crate::js::{self, Thrown};
use crate::options::{self, GpuOptions, VerifyOptions};

/// A GPU device for optimizers and your own shaders. It is created here, with the limits that optimizers need.
#[wasm_bindgen]
#[derive(Clone)]
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    lost: Arc<OnceLock<String>>,
}

const NO_WEBGPU: &str = "this browser has no WebGPU, or the page is not from https or localhost: use a current Chrome, Edge, \
     Safari or Firefox";
const NO_ADAPTER: &str =
    "WebGPU found no GPU: it may be switched off or blocked for its driver (chrome://gpu says why)";

#[wasm_bindgen]
impl Gpu {
    /// Opens a GPU.
    ///
    /// @throws If the browser has no WebGPU or no GPU, or the GPU lacks a limit or feature.
    pub async fn open(
        #[wasm_bindgen(unchecked_optional_param_type = "GpuOptions")] options: JsValue,
    ) -> Result<Gpu, Thrown> {
        let options: GpuOptions = options::parse("options", &options)?;
        let property = |of: &JsValue, name: &str| Reflect::get(of, &name.into()).unwrap_or_default();
        if property(&property(&js_sys::global(), "navigator"), "gpu").is_falsy() {
            return Err(Thrown::new("no_webgpu", NO_WEBGPU));
        }
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let wanted = wgpu::RequestAdapterOptions {
            power_preference: options.power_preference(),
            ..wgpu::RequestAdapterOptions::default()
        };
        let adapter = instance.request_adapter(&wanted).await.map_err(|_| Thrown::new("no_adapter", NO_ADAPTER))?;
        let has = adapter.limits();
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("wgpu-optim"),
                required_features: Requirements::optional_features(adapter.features()) | options.features()?,
                required_limits: options.raise(Requirements::webgpu().device_limits(&has)?)?,
                ..wgpu::DeviceDescriptor::default()
            })
            .await?;
        let lost = Arc::new(OnceLock::new());
        let told = lost.clone();
        device.set_device_lost_callback(move |why, message| {
            told.get_or_init(|| reason(why, message));
        });
        Ok(Self { device, queue, lost })
    }

    /// The device: make pipelines and buffers of your own with it, and submit to its queue.
    #[wasm_bindgen(getter, unchecked_return_type = "GPUDevice")]
    pub fn device(&self) -> JsValue {
        self.device.as_webgpu().expect("the backend is WebGPU").into()
    }

    /// Why the device was lost, or undefined. The promise `device.lost` tells when.
    #[wasm_bindgen(getter)]
    pub fn lost(&self) -> Option<String> {
        self.lost.get().cloned()
    }

    /// Runs recipes on this GPU and on a CPU reference in this module, and returns the differences.
    ///
    /// @throws If a recipe cannot be run; a wrong result is part of the verdicts.
    #[wasm_bindgen(unchecked_return_type = "Promise<Verdict[]>")]
    pub fn verify(
        &self,
        #[wasm_bindgen(unchecked_optional_param_type = "VerifyOptions")] options: JsValue,
        #[wasm_bindgen(js_name = onVerdict, unchecked_optional_param_type = "(verdict: Verdict) => void")]
        on_verdict: JsValue,
    ) -> Promise {
        let gpu = self.clone();
        wasm_bindgen_futures::future_to_promise(async move {
            gpu.run_cases(&options, on_verdict.dyn_ref::<Function>()).await
        })
    }
}

impl Gpu {
    /// Refuses to go on with a device that is gone: nothing would happen, without a word.
    pub(crate) fn check(&self) -> Result<(), Thrown> {
        match self.lost.get() {
            Some(reason) => Err(Thrown::new("device_lost", &format!("the GPU was lost: {reason}; open it again"))),
            None => Ok(()),
        }
    }

    async fn run_cases(&self, options: &JsValue, on_verdict: Option<&Function>) -> Result<JsValue, JsValue> {
        let options: VerifyOptions = options::parse("options", options)?;
        let mut runner = Runner::new(&self.device, &self.queue);
        let mut verdicts = Vec::new();
        for case in options.cases()? {
            self.check()?;
            let outcome = runner.run(&case, case.recipe).await.map_err(Thrown::from)?;
            let verdict = js::object([
                ("recipe", case.name.into()),
                ("shape", js::array(case.shape.iter().map(|&size| size.into()))),
                ("maxError", outcome.max_error.into()),
                ("uncertain", outcome.uncertain.into()),
                ("failure", outcome.failure.map_or(JsValue::UNDEFINED, Into::into)),
            ]);
            if let Some(callback) = on_verdict {
                callback.call1(&JsValue::UNDEFINED, &verdict)?;
            }
            verdicts.push(verdict);
        }
        Ok(js::array(verdicts))
    }
}

fn reason(why: wgpu::DeviceLostReason, message: String) -> String {
    let why = match why {
        wgpu::DeviceLostReason::Destroyed => "it was destroyed",
        _ => "its driver or its process failed",
    };
    if message.is_empty() { why.to_owned() } else { format!("{why} ({message})") }
}
