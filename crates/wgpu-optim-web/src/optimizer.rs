//! [`GpuOptimizer`] for pages.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use js_sys::Promise;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use wgpu_optim::{Cost, Error, GpuOptimizer as Core, Guarded, Selected, Telemetry, TensorSpec, TensorTelemetry};

use crate::gpu::Gpu;
use crate::js::{self, Thrown};
use crate::options::{self, OptimizerOptions};

/// Steps parameters on the GPU. It owns the buffers of parameters, gradients and state. You can read and write them, and bind
/// them in your own shaders.
#[wasm_bindgen]
pub struct GpuOptimizer {
    gpu: Gpu,
    held: Rc<Held>,
}

/// An optimizer, until it is disposed of.
struct Held {
    core: RefCell<Option<Core>>,
    /// Whether a step waits for the GPU.
    is_waiting: Cell<bool>,
}

#[wasm_bindgen]
impl Gpu {
    /// Makes an optimizer on this device.
    ///
    /// @throws As for `GpuOptimizer.create`.
    #[wasm_bindgen(js_name = createOptimizer)]
    pub async fn create_optimizer(
        &self,
        #[wasm_bindgen(unchecked_param_type = "OptimizerOptions")] options: JsValue,
    ) -> Result<GpuOptimizer, Thrown> {
        GpuOptimizer::on(self.clone(), &options).await
    }
}

#[wasm_bindgen]
impl GpuOptimizer {
    /// Opens a GPU and makes an optimizer on it. For more than one on a device, see `Gpu`.
    ///
    /// @throws As for `Gpu.open`; for tensors, recipes and settings that make no sense, naming the field; if memory does not suffice.
    pub async fn create(
        #[wasm_bindgen(unchecked_param_type = "OptimizerOptions")] options: JsValue,
    ) -> Result<GpuOptimizer, Thrown> {
        Self::on(Gpu::open(JsValue::UNDEFINED).await?, &options).await
    }

    /// Makes another optimizer on the same device, with parameters and state at zero. It reuses the compiled pipelines.
    ///
    /// @throws As for `create`.
    #[wasm_bindgen(unchecked_return_type = "Promise<GpuOptimizer>")]
    pub fn sibling(&self, #[wasm_bindgen(unchecked_param_type = "OptimizerOptions")] options: &JsValue) -> Promise {
        let gpu = self.gpu.clone();
        let begun = options::parse("options", options).and_then(|options: OptimizerOptions| {
            let groups = options.groups()?;
            self.with(|core| Ok(core.sibling(&options.specs(), groups)))
        });
        js::promise(begun.map(|sibling| async move { Ok(Self::hold(gpu, sibling.await?)) }))
    }

    /// The GPU that it runs on.
    #[wasm_bindgen(getter)]
    pub fn gpu(&self) -> Gpu {
        self.gpu.clone()
    }

    /// Its device.
    #[wasm_bindgen(getter, unchecked_return_type = "GPUDevice")]
    pub fn device(&self) -> JsValue {
        self.gpu.device()
    }

    /// Takes a step, after the work that you have submitted, with the gradients that are then in its buffers. The promise is
    /// pending only if hundreds of steps are ahead of the GPU. Await it before you submit more work.
    ///
    /// With `accumulation`, each call takes a micro-batch. The last of them also takes the step.
    ///
    /// @throws If the step before is still pending, because you did not await it.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn step(&self) -> Promise {
        if self.held.is_waiting.get() {
            let unawaited = "the step before still waits for the GPU: await every step before the next";
            return Promise::reject(&Thrown::new("not_awaited", unawaited).into());
        }
        match self.try_step() {
            Ok(true) => return Promise::resolve(&JsValue::UNDEFINED),
            Err(error) => return Promise::reject(&error.into()),
            Ok(false) => self.held.is_waiting.set(true),
        }
        let this = Self { gpu: self.gpu.clone(), held: self.held.clone() };
        wasm_bindgen_futures::future_to_promise(async move {
            let waited = this.step_when_possible().await;
            this.held.is_waiting.set(false);
            waited.map(|()| JsValue::UNDEFINED)
        })
    }

    /// The range of a buffer where a parameter lies.
    ///
    /// @throws If no tensor has this name.
    #[wasm_bindgen(unchecked_return_type = "TensorSlice")]
    pub fn param(&self, tensor: &str) -> Result<JsValue, Thrown> {
        self.with(|core| Ok(js::slice(core.param(tensor)?)))
    }

    /// The range of a buffer where the gradient of a parameter lies.
    ///
    /// @throws If no tensor has this name.
    #[wasm_bindgen(unchecked_return_type = "TensorSlice")]
    pub fn grad(&self, tensor: &str) -> Result<JsValue, Thrown> {
        self.with(|core| Ok(js::slice(core.grad(tensor)?)))
    }

    /// The range of a buffer where a state of a tensor lies. AdaGO's `accumulator` can be copied, not bound.
    ///
    /// @throws If no tensor or state has this name.
    #[wasm_bindgen(unchecked_return_type = "TensorSlice")]
    pub fn state(&self, tensor: &str, state: &str) -> Result<JsValue, Thrown> {
        self.with(|core| Ok(js::slice(core.state(tensor, state)?)))
    }

    /// The names of a tensor's states.
    ///
    /// @throws If no tensor has this name.
    #[wasm_bindgen(js_name = stateNames)]
    pub fn state_names(&self, tensor: &str) -> Result<Vec<String>, Thrown> {
        self.with(|core| Ok(core.state_names(tensor)?.map(str::to_owned).collect()))
    }

    /// The range of a buffer where the factors of a tensor's components lie: they multiply its learning rate.
    ///
    /// @throws If no tensor has this name, or it has no components.
    #[wasm_bindgen(unchecked_return_type = "TensorSlice")]
    pub fn rates(&self, tensor: &str) -> Result<JsValue, Thrown> {
        self.with(|core| Ok(js::slice(core.rates(tensor)?)))
    }

    /// The range of a buffer that holds the factor for the next loss: one f32, 1 without a `gradScaler`.
    ///
    /// @throws If the optimizer was disposed.
    #[wasm_bindgen(js_name = lossScale, unchecked_return_type = "TensorSlice")]
    pub fn loss_scale(&self) -> Result<JsValue, Thrown> {
        self.with(|core| Ok(js::slice(core.loss_scale())))
    }

    /// Writes a parameter.
    ///
    /// @throws If no tensor has this name, or another number of values.
    #[wasm_bindgen(js_name = writeParam)]
    pub fn write_param(&self, tensor: &str, values: &[f32]) -> Result<(), Thrown> {
        self.with(|core| Ok(core.write_param(tensor, values)?))
    }

    /// Writes a gradient.
    ///
    /// @throws If no tensor has this name, or another number of values.
    #[wasm_bindgen(js_name = writeGrad)]
    pub fn write_grad(&self, tensor: &str, values: &[f32]) -> Result<(), Thrown> {
        self.with(|core| Ok(core.write_grad(tensor, values)?))
    }

    /// Writes a state.
    ///
    /// @throws If no tensor or state has this name, or another number of values.
    #[wasm_bindgen(js_name = writeState)]
    pub fn write_state(&self, tensor: &str, state: &str, values: &[f32]) -> Result<(), Thrown> {
        self.with(|core| Ok(core.write_state(tensor, state, values)?))
    }

    /// Writes the factors of the learning rate of a tensor's components, ≥ 0. They are 1 at first.
    ///
    /// @throws If no tensor has this name, another number of components, or none; if a factor is negative or not finite.
    #[wasm_bindgen(js_name = writeRates)]
    pub fn write_rates(&self, tensor: &str, factors: &[f32]) -> Result<(), Thrown> {
        self.with(|core| Ok(core.write_rates(tensor, factors)?))
    }

    /// Reads a parameter, as it is when this is called.
    #[wasm_bindgen(js_name = readParam, unchecked_return_type = "Promise<Float32Array>")]
    pub fn read_param(&self, tensor: &str) -> Promise {
        js::promise(self.with(|core| Ok(js::floats(core.read_param(tensor)?))))
    }

    /// Reads a state, as it is when this is called.
    #[wasm_bindgen(js_name = readState, unchecked_return_type = "Promise<Float32Array>")]
    pub fn read_state(&self, tensor: &str, state: &str) -> Promise {
        js::promise(self.with(|core| Ok(js::floats(core.read_state(tensor, state)?))))
    }

    /// Reads what selection did to a tensor in the last step.
    #[wasm_bindgen(js_name = readSelected, unchecked_return_type = "Promise<Selected>")]
    pub fn read_selected(&self, tensor: &str) -> Promise {
        let begun = self.with(|core| Ok(core.read_selected(tensor)?));
        js::promise(begun.map(|read| async move { Ok(selected(read.await?)) }))
    }

    /// Reads what the guard of the last step found. The optimizer needs a `maxGradNorm`, `gradScaler` or `nonFinite`. With
    /// `nonFinite: "error"`, steps that were skipped since this was last read are an error.
    #[wasm_bindgen(js_name = readGuarded, unchecked_return_type = "Promise<Guarded>")]
    pub fn read_guarded(&self) -> Promise {
        let begun = self.with(|core| Ok(core.read_guarded()?));
        js::promise(begun.map(|read| async move { Ok(guarded(read.await?)) }))
    }

    /// The oldest observed step that was not fetched yet, if one has arrived. See `telemetry` of `OptimizerOptions`.
    ///
    /// @throws If it could not be read; with `nonFinite: "error"`, if steps were skipped.
    #[wasm_bindgen(js_name = takeTelemetry, unchecked_return_type = "Telemetry | undefined")]
    pub fn take_telemetry(&self) -> Result<JsValue, Thrown> {
        self.with(|core| Ok(core.take_telemetry().transpose()?.map_or(JsValue::UNDEFINED, telemetry)))
    }

    /// Sets all gradients to zero.
    ///
    /// @throws If the optimizer was disposed or the GPU lost.
    #[wasm_bindgen(js_name = zeroGrad)]
    pub fn zero_grad(&self) -> Result<(), Thrown> {
        self.with(|core| {
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            core.zero_grad(&mut encoder)?;
            self.gpu.queue.submit([encoder.finish()]);
            Ok(())
        })
    }

    /// Replaces parameters by their averages, for evaluation: with the option `average` all of them, otherwise those of schedule-free bases.
    /// Until `train`, steps and `setRecipe` are errors.
    ///
    /// @throws If the optimizer was disposed or the GPU lost.
    pub fn evaluate(&self) -> Result<(), Thrown> {
        self.with(|core| Ok(core.evaluate()?))
    }

    /// Brings back the parameters that `evaluate` has replaced, so that training can continue.
    ///
    /// @throws If the optimizer was disposed or the GPU lost.
    pub fn train(&self) -> Result<(), Thrown> {
        self.with(|core| Ok(core.train()?))
    }

    /// The learning rate of a group in the next step, schedule included.
    ///
    /// @throws If there is no such group.
    pub fn lr(&self, group: Option<f64>) -> Result<f64, Thrown> {
        let group = group.map_or(Ok(0), |group| whole("group", group))?;
        self.with(|core| Ok(core.lr(group as usize)?))
    }

    /// Sets the learning rate of a group, or of all of them, from the next step on. A schedule multiplies it.
    ///
    /// @throws If it is negative or not finite, or there is no such group.
    #[wasm_bindgen(js_name = setLr)]
    pub fn set_lr(&self, lr: f64, group: Option<f64>) -> Result<(), Thrown> {
        let group = group.map(|group| whole("group", group)).transpose()?;
        self.with(|core| {
            match group {
                Some(group) => core.set_group_lr(group as usize, lr)?,
                None => core.set_lr(lr)?,
            }
            Ok(())
        })
    }

    /// Sets all hyper-parameters of a group (default: the first) from the next step on. The recipe needs the same base, policy and
    /// selection as before.
    ///
    /// @throws If a value is out of range, if the recipe needs other kernels or buffers, or if the group does not exist.
    #[wasm_bindgen(js_name = setRecipe)]
    pub fn set_recipe(
        &self,
        #[wasm_bindgen(unchecked_param_type = "string | Recipe")] recipe: &JsValue,
        group: Option<f64>,
    ) -> Result<(), Thrown> {
        let (recipe, group) = (options::recipe(recipe)?, whole("group", group.unwrap_or(0.0))?);
        self.with(|core| Ok(core.set_recipe(group as usize, recipe)?))
    }

    /// Sets the weight of the next micro-batches in the mean of a step, such as their numbers of samples. 1 at first.
    ///
    /// @throws If it is not positive and finite, or without `accumulation`.
    #[wasm_bindgen(js_name = setMicroBatchWeight)]
    pub fn set_micro_batch_weight(&self, weight: f64) -> Result<(), Thrown> {
        self.with(|core| Ok(core.set_micro_batch_weight(weight)?))
    }

    /// The tensors, in the order in which they were given.
    ///
    /// @throws If the optimizer was disposed.
    #[wasm_bindgen(getter, unchecked_return_type = "{ name: string; shape: number[]; group: number }[]")]
    pub fn tensors(&self) -> Result<JsValue, Thrown> {
        let tensor = |spec: &TensorSpec| {
            let shape = js::array(spec.shape.iter().map(|&size| (size as f64).into()));
            js::object([("name", spec.name.as_str().into()), ("shape", shape), ("group", (spec.group as f64).into())])
        };
        self.with(|core| Ok(js::array(core.specs().map(tensor))))
    }

    /// The number of steps so far, including those that the GPU skipped.
    ///
    /// @throws If the optimizer was disposed.
    #[wasm_bindgen(getter)]
    pub fn steps(&self) -> Result<f64, Thrown> {
        self.with(|core| Ok(core.recorded_steps() as f64))
    }

    /// Sets the number of steps for bias corrections and schedules, for example after you restored state with `writeState`.
    ///
    /// @throws If it is not a whole number from 0 to 2³² − 1.
    #[wasm_bindgen(js_name = setSteps)]
    pub fn set_steps(&self, steps: f64) -> Result<(), Thrown> {
        let steps = whole("steps", steps)?;
        self.with(|core| {
            core.set_steps(steps);
            core.set_recorded_steps(steps);
            Ok(())
        })
    }

    /// What it costs: memory, and traffic and dispatches of a step.
    ///
    /// @throws If the optimizer was disposed.
    #[wasm_bindgen(getter, unchecked_return_type = "Cost")]
    pub fn cost(&self) -> Result<JsValue, Thrown> {
        self.with(|core| {
            let Cost { memory, traffic, dispatches, .. } = core.cost();
            let [memory, traffic, dispatches] = [memory, traffic, dispatches].map(|count| (count as f64).into());
            Ok(js::object([("memory", memory), ("traffic", traffic), ("dispatches", dispatches)]))
        })
    }

    /// Frees its memory on the GPU. Its slices cannot be used any more; disposing of it again does nothing.
    pub fn dispose(&self) {
        self.held.dispose();
    }
}

impl GpuOptimizer {
    async fn on(gpu: Gpu, options: &JsValue) -> Result<Self, Thrown> {
        gpu.check()?;
        let options: OptimizerOptions = options::parse("options", options)?;
        let core = Core::new(&gpu.device, &gpu.queue, &options.specs(), options.groups()?).await?;
        Ok(Self::hold(gpu, core))
    }

    fn hold(gpu: Gpu, core: Core) -> Self {
        let held = Held { core: RefCell::new(Some(core)), is_waiting: Cell::new(false) };
        Self { gpu, held: Rc::new(held) }
    }

    async fn step_when_possible(&self) -> Result<(), JsValue> {
        while !self.try_step()? {
            let queue = self.gpu.queue.as_webgpu().expect("the backend is WebGPU");
            JsFuture::from(queue.on_submitted_work_done()).await?;
        }
        Ok(())
    }

    /// Whether a step could be submitted, or the GPU has to come after first.
    fn try_step(&self) -> Result<bool, Thrown> {
        self.with(|core| match core.step() {
            Ok(_) => Ok(true),
            Err(Error::RingFull { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Core) -> Result<T, Thrown>) -> Result<T, Thrown> {
        self.gpu.check()?;
        match self.held.core.borrow_mut().as_mut() {
            Some(core) => act(core),
            None => Err(Thrown::new("disposed", "this optimizer was disposed of")),
        }
    }
}

impl Held {
    fn dispose(&self) {
        if let Some(core) = self.core.take() {
            core.destroy();
        }
    }
}

/// Also where the page disposes by `using`, or forgets to.
impl Drop for Held {
    fn drop(&mut self) {
        self.dispose();
    }
}

/// A number of JavaScript's that counts something; within what a double and a `usize` of wasm hold.
fn whole(what: &str, number: f64) -> Result<u64, Thrown> {
    match (0.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0 {
        true => Ok(number as u64),
        false => Err(Thrown::options(&format!("{what}: {number} is not a whole number from 0 to 2³² − 1"))),
    }
}

fn selected(found: Selected) -> JsValue {
    js::object([
        ("k", (found.k as f64).into()),
        ("count", (found.count as f64).into()),
        ("candidates", (found.candidates as f64).into()),
        ("missed", found.missed.into()),
    ])
}

fn guarded(found: Guarded) -> JsValue {
    js::object([
        ("gradNorm", found.grad_norm.into()),
        ("lossScale", found.loss_scale.into()),
        ("skipped", found.skipped.into()),
        ("skippedSteps", (found.skipped_steps as f64).into()),
    ])
}

fn telemetry(found: Telemetry) -> JsValue {
    let tensor = |tensor: TensorTelemetry| {
        js::object([
            ("name", tensor.name.into()),
            ("numel", (tensor.numel as f64).into()),
            ("k", (tensor.k as f64).into()),
            ("selected", (tensor.selected as f64).into()),
            ("threshold", tensor.threshold.map_or(JsValue::UNDEFINED, Into::into)),
            ("candidates", (tensor.candidates as f64).into()),
            ("missed", tensor.missed.into()),
            ("alignment", tensor.alignment.into()),
            ("gradNorm", tensor.grad_norm.into()),
            ("updateNorm", tensor.update_norm.into()),
            ("nonFinite", (tensor.non_finite as f64).into()),
        ])
    };
    js::object([
        ("step", (found.step as f64).into()),
        ("guarded", found.guarded.map_or(JsValue::UNDEFINED, guarded)),
        ("tensors", js::array(found.tensors.into_iter().map(tensor))),
    ])
}
