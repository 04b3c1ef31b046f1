//! The pipeline: a picture on the GPU, and Gaussians that an optimizer fits to it.
//!
//! `shaders/fit.wgsl` says what is computed. A step is five dispatches of the demo's own, which end with gradients in the
//! optimizer's buffers, and then the optimizer's dispatches, all in one encoder.

use anyhow::{Result, ensure};
use wgpu_optim::{Error, GpuOptimizer, Recipe, TensorSpec, wgpu};

use crate::adapters::build;

/// A side of the tiles that `render` works on; `TILE` in the shader.
const TILE: u32 = 16;
/// Gaussians of a workgroup of `begin` and `project`; `LANES` in the shader.
const LANES: u32 = 32;
/// Bytes of a `Gaussian` of the shader.
const GAUSSIAN: u64 = 48;

/// A picture to fit, and the pipelines that do it.
pub struct Picture {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pub width: u32,
    pub height: u32,
    pub gaussians: u32,
    config: wgpu::Buffer,
    target: wgpu::Buffer,
    begin: wgpu::ComputePipeline,
    /// The stages of a step, in order.
    stages: [wgpu::ComputePipeline; 5],
}

/// A fit in progress.
pub struct Fit<'a> {
    picture: &'a Picture,
    pub optimizer: GpuOptimizer,
    errors: wgpu::Buffer,
    history: wgpu::Buffer,
    /// For each stage, its bindings and workgroups.
    stages: [(wgpu::BindGroup, [u32; 2]); 5],
}

impl Picture {
    /// The demo's own scene.
    pub fn scene(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        [width, height]: [u32; 2],
        gaussians: u32,
        seed: u32,
    ) -> Self {
        let module = |name, text: &'static str| {
            device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(name),
                source: wgpu::ShaderSource::Wgsl(text.into()),
            })
        };
        let pipeline = |module: &wgpu::ShaderModule, entry| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: None,
                module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
        };
        let fit = module("fit", concat!(include_str!("shaders/picture.wgsl"), include_str!("shaders/fit.wgsl")));
        let scene = module("scene", concat!(include_str!("shaders/picture.wgsl"), include_str!("shaders/scene.wgsl")));
        let picture = Self {
            width,
            height,
            gaussians,
            config: buffer(device, "config", 16, wgpu::BufferUsages::UNIFORM),
            target: buffer(device, "target", 16 * u64::from(width * height), wgpu::BufferUsages::STORAGE),
            begin: pipeline(&fit, "begin"),
            stages: ["project", "list", "render", "sum_loss", "gradient"].map(|entry| pipeline(&fit, entry)),
            device: device.clone(),
            queue: queue.clone(),
        };
        queue.write_buffer(&picture.config, 0, bytemuck::bytes_of(&[width, height, gaussians, seed]));
        let draw = pipeline(&scene, "draw");
        let all = [picture.config.as_entire_binding(), picture.target.as_entire_binding()];
        let group = picture.bind(&draw, &all, &[0, 1]);
        picture.submit(&draw, &group, [width.div_ceil(TILE), height.div_ceil(TILE)]);
        picture
    }

    /// Replaces its pixels: red, green and blue from 0 to 1, and a value that is not used.
    pub fn set(&self, pixels: &[[f32; 4]]) {
        assert_eq!(pixels.len() as u32, self.width * self.height, "a color for each pixel");
        self.queue.write_buffer(&self.target, 0, bytemuck::cast_slice(pixels));
    }

    /// Its pixels.
    pub fn pixels(&self) -> Result<Vec<[f32; 4]>> {
        read(&self.device, &self.queue, &self.target)
    }

    /// Begins a fit of at most so many steps.
    pub fn fit(&self, recipe: Recipe, steps: u32) -> Result<Fit<'_>> {
        let tiles = [self.width.div_ceil(TILE), self.height.div_ceil(TILE)];
        let lists = 4 * u64::from(tiles[0] * tiles[1]) * (1 + u64::from(self.gaussians));
        let most = self.device.limits().max_storage_buffer_binding_size;
        ensure!(
            lists <= most,
            "{} Gaussians on {} × {} pixels need a binding of {lists} bytes, and this GPU has at most {most}; use fewer Gaussians \
             (--gaussians) or pixels (--size)",
            self.gaussians,
            self.width,
            self.height
        );
        let n = self.gaussians as usize;
        let specs =
            [TensorSpec::new("position", [n, 2]), TensorSpec::new("shape", [n, 3]), TensorSpec::new("color", [n, 3])];
        let optimizer = build(&self.device, &self.queue, &specs, recipe)?;
        let storage = wgpu::BufferUsages::STORAGE;
        let errors = buffer(&self.device, "errors", self.target.size(), storage);
        let gaussians = buffer(&self.device, "gaussians", GAUSSIAN * u64::from(self.gaussians), storage);
        let lists = buffer(&self.device, "lists", lists, storage);
        let history = buffer(&self.device, "history", 4 * (1 + u64::from(steps)), storage);

        // By binding.
        let all = [
            self.config.as_entire_binding(),
            self.target.as_entire_binding(),
            errors.as_entire_binding(),
            optimizer.param("position")?.binding(),
            optimizer.param("shape")?.binding(),
            optimizer.param("color")?.binding(),
            optimizer.grad("position")?.binding(),
            optimizer.grad("shape")?.binding(),
            optimizer.grad("color")?.binding(),
            gaussians.as_entire_binding(),
            lists.as_entire_binding(),
            history.as_entire_binding(),
        ];
        let lanes = [self.gaussians.div_ceil(LANES), 1];
        let begin = self.bind(&self.begin, &all, &[0, 1, 3, 4, 5, 11]);
        self.submit(&self.begin, &begin, lanes);
        let [project, list, render, sum_loss, gradient] = &self.stages;
        let stages = [
            (self.bind(project, &all, &[0, 3, 4, 5, 9]), lanes),
            (self.bind(list, &all, &[0, 9, 10]), tiles),
            (self.bind(render, &all, &[0, 1, 2, 9, 10]), tiles),
            (self.bind(sum_loss, &all, &[0, 2, 11]), [1, 1]),
            (self.bind(gradient, &all, &[0, 2, 6, 7, 8, 9]), [self.gaussians, 1]),
        ];
        Ok(Fit { picture: self, errors, history, stages, optimizer })
    }

    /// A group of the bindings that a pipeline uses.
    fn bind(
        &self,
        pipeline: &wgpu::ComputePipeline,
        all: &[wgpu::BindingResource<'_>],
        used: &[usize],
    ) -> wgpu::BindGroup {
        let entry = |&i: &usize| wgpu::BindGroupEntry { binding: i as u32, resource: all[i].clone() };
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &used.iter().map(entry).collect::<Vec<_>>(),
        })
    }

    fn submit(&self, pipeline: &wgpu::ComputePipeline, group: &wgpu::BindGroup, [x, y]: [u32; 2]) {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(x, y, 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }
}

impl Fit<'_> {
    /// Renders, differentiates, and takes a step.
    pub fn step(&mut self) -> Result<(), Error> {
        let picture = self.picture;
        let mut encoder = picture.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for (pipeline, (group, [x, y])) in picture.stages.iter().zip(&self.stages) {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*x, *y, 1);
        }
        drop(pass);
        self.optimizer.record(&mut encoder)?;
        picture.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// The loss before each of the steps that were taken.
    pub fn losses(&self) -> Result<Vec<f32>> {
        let words: Vec<u32> = read(&self.picture.device, &self.picture.queue, &self.history)?;
        Ok(words[1..=words[0] as usize].iter().map(|&word| f32::from_bits(word)).collect())
    }

    /// The picture as it was before the last step.
    pub fn pixels(&self) -> Result<Vec<[f32; 4]>> {
        let errors: Vec<[f32; 4]> = read(&self.picture.device, &self.picture.queue, &self.errors)?;
        let target = self.picture.pixels()?;
        Ok(target.iter().zip(errors).map(|(t, e)| [t[0] + e[0], t[1] + e[1], t[2] + e[2], 1.0]).collect())
    }
}

fn buffer(device: &wgpu::Device, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size,
        usage: usage | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

fn read<T: bytemuck::Pod>(device: &wgpu::Device, queue: &wgpu::Queue, from: &wgpu::Buffer) -> Result<Vec<T>> {
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("staging"),
        size: from.size(),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(from, 0, &staging, 0, from.size());
    queue.submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |_| ());
    device.poll(wgpu::PollType::wait_indefinitely())?;
    Ok(bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..)?))
}
