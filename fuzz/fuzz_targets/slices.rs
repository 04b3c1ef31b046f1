//! Any ranges of a caller's buffers: they are refused and nothing changes, or they are stepped and nothing else changes.
#![no_main]

use std::cell::RefCell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wgpu_optim::{Error, GpuOptimizer, ParamGroups, Recipe, TensorBuffers, TensorSlice, wgpu};
use wgpu_optim_fuzz::{device, specs};

const WORDS: usize = 1024;
/// Every word, before a step.
const VALUE: f32 = 1.0;

#[derive(Debug, Arbitrary)]
struct Input {
    tensors: [(Range, Range); 2],
    lr: Option<f64>,
    left_out: Option<bool>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Range {
    offset: Offset,
    size: Size,
    /// In the other buffer: a gradient among the parameters, or a parameter among the gradients.
    is_elsewhere: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Offset {
    Aligned(u8),
    Any(u64),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Size {
    Own,
    Vectors,
    Any(u64),
}

impl Range {
    fn slice<'a>(self, own: &'a wgpu::Buffer, other: &'a wgpu::Buffer, numel: u64) -> TensorSlice<'a> {
        let buffer = if self.is_elsewhere { other } else { own };
        let offset = match self.offset {
            Offset::Aligned(i) => 256 * u64::from(i % 18),
            Offset::Any(x) => x,
        };
        let size = match self.size {
            Size::Own => 4 * numel,
            Size::Vectors => 4 * numel.next_multiple_of(4),
            Size::Any(x) => x,
        };
        TensorSlice { buffer, offset, size }
    }
}

struct World {
    device: wgpu::Device,
    queue: wgpu::Queue,
    params: wgpu::Buffer,
    grads: wgpu::Buffer,
    staging: wgpu::Buffer,
    optimizer: GpuOptimizer,
}

impl World {
    fn new() -> Self {
        use wgpu::BufferUsages as Usages;
        let (device, queue) = device();
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * WORDS as u64,
                usage,
                mapped_at_creation: false,
            })
        };
        let storage = Usages::STORAGE | Usages::COPY_SRC | Usages::COPY_DST;
        let groups = ParamGroups::from(vec![Recipe::adamw(1e-2).mgup(), Recipe::lion(1e-2)]);
        let mut optimizer = GpuOptimizer::for_buffers_blocking(&device, &queue, &specs(), groups).unwrap();
        let params = buffer(storage);
        let grads = buffer(storage);
        let staging = buffer(Usages::MAP_READ | Usages::COPY_DST);
        // Drivers compile at the first step, which is not to be an input's time.
        let at = |buffer, i: u64, numel| TensorSlice { buffer, offset: 256 * i, size: 4 * numel };
        let numels = specs().map(|spec| spec.numel());
        let given =
            [0, 1].map(|i| TensorBuffers::new(at(&params, i as u64, numels[i]), at(&grads, i as u64, numels[i])));
        optimizer.step_with(&given).unwrap();
        Self { params, grads, staging, device, queue, optimizer }
    }

    /// The words of both buffers.
    fn words(&self) -> [Vec<f32>; 2] {
        [&self.params, &self.grads].map(|buffer| {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, 0, &self.staging, 0, buffer.size());
            self.queue.submit([encoder.finish()]);
            self.staging.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
            self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            let values = bytemuck::pod_collect_to_vec(&self.staging.get_mapped_range(..).unwrap());
            self.staging.unmap();
            values
        })
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

fuzz_target!(init: WORLD.with_borrow(|_| ()), |input: Input| {
    WORLD.with_borrow_mut(|world| {
        for buffer in [&world.params, &world.grads] {
            world.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&[VALUE; WORDS]));
        }
        let numels = specs().map(|spec| spec.numel());
        let mut given = [0, 1].map(|i| {
            let (param, grad) = input.tensors[i];
            let param = param.slice(&world.params, &world.grads, numels[i]);
            let buffers = TensorBuffers::new(param, grad.slice(&world.grads, &world.params, numels[i]));
            Some(input.lr.map_or(buffers, |lr| buffers.with_lr(lr)))
        });
        if let Some(second) = input.left_out {
            given[usize::from(second)] = None;
        }
        let counts = |optimizer: &GpuOptimizer| specs().map(|spec| optimizer.steps(&spec.name).unwrap());
        let before = counts(&world.optimizer);
        let result = world.optimizer.step_with(&given);
        let after = world.words();
        match result {
            Ok(_) => {
                for (buffer, words) in [&world.params, &world.grads].into_iter().zip(&after) {
                    let is_param = |i: usize| {
                        given.iter().flatten().any(|given| {
                            let end = given.param.offset.saturating_add(given.param.size);
                            given.param.buffer == buffer && (given.param.offset..end).contains(&(4 * i as u64))
                        })
                    };
                    assert!(
                        (0..WORDS).all(|i| is_param(i) || words[i] == VALUE),
                        "a word that is no parameter's changed"
                    );
                }
                for (i, given) in given.iter().enumerate() {
                    let stepped = u64::from(given.is_some());
                    assert_eq!(counts(&world.optimizer)[i], before[i] + stepped);
                    let Some(given) = given.filter(|_| input.lr.is_none()) else { continue };
                    let words = &after[usize::from(given.param.buffer == &world.grads)];
                    let first = given.param.offset as usize / 4;
                    let own = &words[first..first + numels[i] as usize];
                    assert!(own.iter().all(|&word| word < VALUE), "a coordinate was not stepped");
                }
            }
            Err(error) => {
                assert!(matches!(error, Error::Slice { .. } | Error::Recipe { .. }), "{error}");
                assert!(after.iter().flatten().all(|&word| word == VALUE), "{error}");
                assert_eq!(counts(&world.optimizer), before);
            }
        }
    });
});
