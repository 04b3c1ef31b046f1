//! A program's `serial_rounds` are no guess: its kernels count the loops in which a lane loads from storage, while the test executes it as
//! any host of WebGPU could.

use crate::common::{self, Gpu};
use std::collections::BTreeMap;
use wgpu::util::DeviceExt;
use wgpu_optim::matrix::Matmul;
use wgpu_optim::program::{Binding, Bound, Dispatch, Kernel, Usage, When};
use wgpu_optim::{LaunchShape, ParamGroups, PlanLimits, Program, Recipe, TensorSpec, verify, wgpu};

/// A group that kernels bind little of, and a number that they do not bind.
const COUNTER: (u32, u32) = (3, 9);

/// A text whose lanes count: in a loop that loads, once per round. Loops around such loops do not count.
fn counting(kernel: &Kernel) -> String {
    let names: Vec<_> = kernel.bindings.iter().filter(|bound| bound.group > 0).map(|bound| &bound.name).collect();
    let lines: Vec<&str> = kernel.source.lines().collect();
    // What is only written does not make a lane wait.
    let loads = |line: &str| {
        names.iter().any(|name| {
            line.match_indices(&format!("{name}[")).any(|(at, _)| {
                let before = &line[..at];
                let writes = before.trim().is_empty() || before.ends_with("atomicStore(&");
                let is_unused =
                    ["Add", "Or", "Min"].iter().any(|change| before.ends_with(&format!("atomic{change}(&")));
                !writes && (!is_unused || before.contains(" = "))
            })
        })
    };
    let end = |begin: usize| {
        let indent = lines[begin].len() - lines[begin].trim_start().len();
        begin + lines[begin..].iter().position(|line| *line == format!("{}}}", " ".repeat(indent))).expect("it ends")
    };
    let is_loop =
        |line: &str| line.ends_with('{') && (line.trim_start().starts_with("for (") || line.trim() == "loop {");
    let functions: BTreeMap<&str, (usize, usize)> = (0..lines.len())
        .filter(|&at| lines[at].starts_with("fn ") && lines[at].ends_with('{'))
        .map(|at| (lines[at][3..].split('(').next().expect("it has a name"), (at, end(at))))
        .collect();
    let calls = |line: &str, known: &[&str]| known.iter().any(|name| line.contains(&format!("{name}(")));
    // Functions that load, and those of them that do so in a loop, also through others.
    let (mut loading, mut looping): (Vec<&str>, Vec<&str>) = Default::default();
    for _ in 0..functions.len() {
        for (&name, &(first, last)) in &functions {
            let body = || lines[first + 1..last].iter();
            if !loading.contains(&name) && body().any(|line| loads(line) || calls(line, &loading)) {
                loading.push(name);
            }
            let loops = (first + 1..last).filter(|&at| is_loop(lines[at]));
            let mut bodies = loops.map(|at| &lines[at + 1..end(at)]);
            let has_loop = bodies.any(|body| body.iter().any(|line| loads(line) || calls(line, &loading)));
            if !looping.contains(&name) && (has_loop || body().any(|line| calls(line, &looping))) {
                looping.push(name);
            }
        }
    }
    let counts = |at: usize| {
        let body = &lines[at + 1..end(at)];
        let has_inner = (at + 1..end(at))
            .filter(|&inner| is_loop(lines[inner]))
            .any(|inner| lines[inner + 1..end(inner)].iter().any(|line| loads(line) || calls(line, &loading)));
        let through_calls = body.iter().any(|line| calls(line, &looping));
        !has_inner && !through_calls && body.iter().any(|line| loads(line) || calls(line, &loading))
    };
    let mut text = format!(
        "@group({}) @binding({}) var<storage, read_write> most_rounds: atomic<u32>;\nvar<private> own_rounds: u32;\n",
        COUNTER.0, COUNTER.1
    );
    for (at, line) in lines.iter().enumerate() {
        text += line;
        text += "\n";
        if is_loop(line) && counts(at) {
            text += "own_rounds += 1u;\natomicMax(&most_rounds, own_rounds);\n";
        }
    }
    text
}

/// What a group of a kernel binds, and the counter.
fn layout(gpu: &Gpu, kernel: &Kernel, group: u32) -> wgpu::BindGroupLayout {
    let entry = |binding: u32, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let of = |bound: &Binding| {
        let read_only = kernel.source.contains(&format!("var<storage, read> {}:", bound.name));
        entry(
            bound.binding,
            match bound.is_uniform {
                true => wgpu::BufferBindingType::Uniform,
                false => wgpu::BufferBindingType::Storage { read_only },
            },
        )
    };
    let mut entries: Vec<_> = kernel.bindings.iter().filter(|bound| bound.group == group).map(of).collect();
    if group == COUNTER.0 {
        entries.push(entry(COUNTER.1, wgpu::BufferBindingType::Storage { read_only: false }));
    }
    gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}

/// Executes the program once and returns the most rounds that a lane of each dispatch has counted.
fn execute(gpu: &Gpu, program: &Program, contents: &[(&str, Vec<u32>)]) -> Vec<u32> {
    let Gpu { device, queue, .. } = gpu;
    let buffers: Vec<wgpu::Buffer> = program
        .buffers
        .iter()
        .map(|buffer| {
            let given = contents.iter().find(|(label, _)| buffer.label == *label).map(|(_, words)| words);
            let mut words = given.unwrap_or(&buffer.contents).clone();
            words.resize(buffer.size as usize / 4, 0);
            let usage = match buffer.usage {
                Usage::Uniform => wgpu::BufferUsages::UNIFORM,
                _ => wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM,
            };
            let contents = bytemuck::cast_slice(&words);
            device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: Some(&buffer.label), contents, usage })
        })
        .collect();
    let steps: Vec<&Dispatch> = program.step().filter(|dispatch| dispatch.when == When::Step).collect();
    let counters: Vec<wgpu::Buffer> = steps
        .iter()
        .map(|_| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            })
        })
        .collect();
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for (dispatch, counter) in steps.iter().zip(&counters) {
        let kernel = &program.kernels[dispatch.kernel];
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&kernel.name),
            source: wgpu::ShaderSource::Wgsl(counting(kernel).into()),
        });
        let groups: [wgpu::BindGroupLayout; 4] = std::array::from_fn(|group| layout(gpu, kernel, group as u32));
        let constants: Vec<_> = kernel.constants.iter().map(|(name, &value)| (name.as_str(), value)).collect();
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&kernel.name),
            layout: Some(&device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &groups.each_ref().map(Some),
                immediate_size: 0,
            })),
            module: &module,
            entry_point: Some(&kernel.entry_point),
            compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, ..Default::default() },
            cache: None,
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        for (group, layout) in (0..).zip(&groups) {
            let bound = dispatch.bindings.iter().filter(|bound| bound.group == group);
            let resource = |bound: &Bound| wgpu::BufferBinding {
                buffer: &buffers[bound.buffer],
                offset: bound.offset,
                size: wgpu::BufferSize::new(bound.size),
            };
            let entry = |binding: u32, buffer| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(buffer),
            };
            let mut entries: Vec<_> = bound.map(|bound| entry(bound.binding, resource(bound))).collect();
            if group == COUNTER.0 {
                entries.push(entry(COUNTER.1, counter.as_entire_buffer_binding()));
            }
            let bound = device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries });
            pass.set_bind_group(group, &bound, &[]);
        }
        let [x, y, z] = dispatch.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
    queue.submit([encoder.finish()]);
    counters.iter().map(|counter| bytemuck::pod_read_unaligned(&common::read(gpu, counter))).collect()
}

/// The scalars of a first step, by their names. What a recipe does not use stays 0.
fn scalars(program: &Program) -> Vec<u32> {
    let known = [
        ("step", 1e-3f32),
        ("beta1", 0.9),
        ("one_minus_beta1", 0.1),
        ("beta2", 0.999),
        ("one_minus_beta2", 1e-3),
        ("eps", 1e-8),
        ("alpha", 2.0),
        ("gamma", 0.5),
        ("max_grad_norm", 1.0),
        ("grad_scale", 1.0),
        ("max_grad_value", f32::MAX),
    ];
    let word = |name: &String| match name.as_str() {
        "t" => 1,
        name => known.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| value.to_bits()),
    };
    program.scalars.iter().map(word).collect()
}

#[test]
fn kernels_make_the_rounds_that_their_program_states() {
    let (rows, numel) = (777, 777 * 1287);
    let specs = [TensorSpec::new("w", [rows, numel / rows])];
    let with_rows = Recipe::adamw(1e-3).to_json().replacen("\"lr\"", "\"second_moment\": \"row\", \"lr\"", 1);
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    // One storage buffer more than kernels bind.
    let limits = wgpu::Limits { max_storage_buffers_per_shader_stage: 9, ..wgpu::Limits::default() };
    for gpu in common::gpus_with(limits) {
        for (name, clips) in [
            ("adamw", false),
            ("mgup-adamw", true),
            ("mgup-adamw-approximate", false),
            ("cautious-lion", false),
            ("rows", false),
        ] {
            for shape in LaunchShape::ALL {
                let recipe = if name == "rows" { Recipe::from_json(&with_rows) } else { name.parse() };
                let groups = ParamGroups::from(recipe.unwrap()).with_launch_shape(shape);
                let groups = if clips { groups.with_max_grad_norm(1.0) } else { groups };
                let program = Program::new(&specs, groups, PlanLimits::WEBGPU, Matmul::Tiles).unwrap();
                let contents = [
                    ("wgpu-optim.arena.param", bits(verify::params(numel))),
                    ("wgpu-optim.arena.grad", bits(verify::grads(numel, 1))),
                    ("wgpu-optim.scalars", scalars(&program)),
                ];
                let counted = execute(&gpu, &program, &contents);
                for (dispatch, &counted) in program.step().zip(&counted) {
                    let (what, stated) = (&program.kernels[dispatch.kernel].name, dispatch.serial_rounds);
                    let what = format!("{}, {name}, {shape:?}, {what}: counted {counted}, stated {stated}", gpu.name);
                    println!("{what}");
                    // A round may load twice, because one load says where the other is; outside of loops there are a few.
                    let counted = u64::from(counted);
                    assert!(counted <= stated && stated <= 3 * counted + 5, "{what}");
                }
            }
        }
    }
}
