//! Any bytes as a checkpoint, or as the header or metadata of one: refused, and then nothing has changed, or loaded.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tempfile::TempDir;
use wgpu_optim::{Checkpoint, Error, GpuOptimizer, GradScaler, LrSchedule, ParamGroups, Recipe};
use wgpu_optim_fuzz::{bits, device, seed, specs};

/// Of as many kinds of entries as a file can have: matrices and rows, an accumulator, rates, sums, a scaler.
fn groups() -> ParamGroups {
    let rows = r#"{"base": {"type": "adamw", "second_moment": "row"}, "policy": {"type": "cautious"}}"#;
    ParamGroups::from(vec!["mgup-adago".parse().unwrap(), Recipe::from_json(rows).unwrap()])
        .with_schedule(LrSchedule::cosine(100, 0.1))
        .with_max_grad_norm(1.0)
        .with_grad_scaler(GradScaler::default())
        .with_accumulation(2)
}

struct World {
    dir: TempDir,
    optimizer: GpuOptimizer,
    bits: (Vec<u32>, u64, Vec<u64>),
    whole: Vec<u8>,
    header: Value,
    data: usize,
}

impl World {
    fn new() -> Self {
        let (device, queue) = device();
        let specs = specs().map(|spec| if spec.name == "b" { spec.with_components(5) } else { spec });
        let mut optimizer = GpuOptimizer::new_blocking(&device, &queue, &specs, groups()).unwrap();
        for spec in &specs {
            let n = spec.numel() as usize;
            optimizer.write_param(&spec.name, &vec![0.5; n]).unwrap();
            optimizer.write_grad(&spec.name, &(0..n).map(|i| i as f32 - 3.0).collect::<Vec<_>>()).unwrap();
        }
        // A step, and half of the next one.
        (0..3).for_each(|_| drop(optimizer.step().unwrap()));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("whole");
        optimizer.save(&path).unwrap();
        let whole = std::fs::read(path).unwrap();
        let data = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&whole[8..data]).unwrap();
        let bits = bits(&optimizer);
        Self { dir, optimizer, bits, whole, header, data }
    }

    fn file(&self, kind: u8, bytes: &[u8]) -> Vec<u8> {
        let with_header =
            |header: &[u8]| [&(header.len() as u64).to_le_bytes(), header, &self.whole[self.data..]].concat();
        match kind % 3 {
            0 => bytes.to_vec(),
            1 => with_header(bytes),
            _ => {
                let mut header = self.header.clone();
                header["__metadata__"]["optimizer"] = String::from_utf8_lossy(bytes).into();
                with_header(header.to_string().as_bytes())
            }
        }
    }

    fn seeds(&self) -> [Vec<u8>; 3] {
        let about = self.header["__metadata__"]["optimizer"].as_str().unwrap().as_bytes();
        [[&[0], &self.whole[..]].concat(), [&[1], &self.whole[8..self.data]].concat(), [&[2], about].concat()]
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

fuzz_target!(init: WORLD.with_borrow(|world| seed(world.seeds())), |input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    WORLD.with_borrow_mut(|world| {
        let path = world.dir.path().join("input");
        std::fs::write(&path, world.file(kind, bytes)).unwrap();
        let mut file = match Checkpoint::open(&path) {
            Ok(file) => file,
            Err(error) => return assert!(matches!(error, Error::Checkpoint { .. }), "{error}"),
        };
        let _ = (file.groups(), file.specs().len(), file.extra().len());
        for (name, shape) in file.params() {
            if let Ok(values) = file.read_param(&name) {
                assert_eq!(values.len(), shape.iter().product::<usize>());
            }
        }
        let before = bits(&world.optimizer);
        match world.optimizer.load_from(&mut file) {
            Ok(()) => {
                for spec in specs() {
                    let [held, read] =
                        [world.optimizer.read_param_blocking(&spec.name), file.read_param(&spec.name)]
                            .map(|values| values.unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>());
                    assert_eq!(held, read, "{}", spec.name);
                }
                world.optimizer.step().unwrap();
                world.optimizer.load(world.dir.path().join("whole")).unwrap();
                assert_eq!(bits(&world.optimizer), world.bits);
            }
            Err(error) => {
                assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
                assert_eq!(bits(&world.optimizer), before, "{error}");
            }
        }
    });
});
