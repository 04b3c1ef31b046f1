//! Tensors that grow, shrink and change their order keep what they are to keep.

use crate::common::{self, Gpu, gpus};
use wgpu_optim::base::Adafactor;
use wgpu_optim::{
    Average, GpuOptimizer, GradScaler, LrSchedule, ParamGroups, Precision, Recipe, Rows, TensorSlice, TensorSpec,
    verify, wgpu,
};

const WIDTH: usize = 14;

fn specs(rows: usize) -> [TensorSpec; 2] {
    [TensorSpec::new("splats", [rows, WIDTH]).with_components(WIDTH), TensorSpec::new("scale", [33])]
}

fn groups(recipe: Recipe) -> ParamGroups {
    ParamGroups::from(recipe)
        .with_schedule(LrSchedule::linear(50, 0.1))
        .with_grad_scaler(GradScaler::default())
        .with_average(Average::moving(0.9))
}

fn build(gpu: &Gpu, rows: usize, groups: ParamGroups) -> GpuOptimizer {
    let optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(rows), groups).unwrap();
    let rates: Vec<f32> = (0..WIDTH).map(|i| 1.0 / (i + 1) as f32).collect();
    optimizer.write_rates("splats", &rates).unwrap();
    optimizer
}

fn run(optimizer: &mut GpuOptimizer, rows: usize, range: std::ops::Range<u64>) {
    for t in range {
        for spec in specs(rows) {
            let mut grad = verify::grads(spec.numel() as usize, t);
            grad.iter_mut().for_each(|g| *g *= 65_536.0);
            if t == 3 {
                grad[0] = f32::INFINITY;
            }
            optimizer.write_grad(&spec.name, &grad).unwrap();
        }
        optimizer.step().unwrap();
    }
}

fn read(optimizer: &GpuOptimizer, name: &str) -> Vec<(String, Vec<f32>)> {
    let mut all = vec![("param".to_owned(), optimizer.read_param_blocking(name).unwrap())];
    for state in optimizer.state_names(name).unwrap() {
        all.push((state.to_owned(), optimizer.read_state_blocking(name, state).unwrap()));
    }
    all
}

fn index(gpu: &Gpu, rows: &[u32]) -> wgpu::Buffer {
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4 * rows.len() as u64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(rows));
    buffer
}

#[test]
fn rows_are_gathered_with_their_state() {
    for gpu in gpus() {
        for recipe in ["mgup-adamw", "lion"] {
            for precision in [Precision::F32, Precision::Bf16] {
                let recipe: Recipe = recipe.parse().unwrap();
                let mut old = build(&gpu, 300, groups(recipe).with_precision(precision));
                run(&mut old, 300, 1..6);
                old.set_lr(3e-3).unwrap();
                // Turned round, one split in two, one new, one beyond all.
                let mut rows: Vec<u32> = (0..300).rev().collect();
                rows.extend([7, 7 | Rows::PARAMETERS_ONLY, Rows::NONE, 300]);
                let buffer = index(&gpu, &rows);
                let chosen = [("splats", Rows::Gather(TensorSlice::whole(&buffer)))];
                let mut new = old.resized_blocking(&specs(rows.len()), &chosen).unwrap();
                assert_eq!(new.lr(0).unwrap(), old.lr(0).unwrap());
                assert_eq!(new.recorded_steps(), 5);
                assert_eq!(
                    new.read_guarded_blocking().unwrap().loss_scale,
                    old.read_guarded_blocking().unwrap().loss_scale
                );
                for name in ["splats", "scale"] {
                    assert_eq!(new.read_steps_blocking(name).unwrap(), 4);
                }
                assert!(read(&new, "scale") == read(&old, "scale"), "{}", gpu.name);
                for ((what, before), (_, after)) in read(&old, "splats").iter().zip(read(&new, "splats")) {
                    for (row, &from) in after.chunks_exact(WIDTH).zip(&rows) {
                        let split = from & Rows::PARAMETERS_ONLY != 0;
                        let is_state = !matches!(what.as_str(), "param" | "master" | "average");
                        let from = (from & !Rows::PARAMETERS_ONLY) as usize;
                        let expected = match from < 300 && !(split && is_state) {
                            true => &before[WIDTH * from..][..WIDTH],
                            false => &[0.0; WIDTH],
                        };
                        assert_eq!(row, expected, "{}: {what}, row {from}", gpu.name);
                    }
                }
                let stored = common::read(&gpu, new.param("splats").unwrap().buffer);
                let masters = new.read_param_blocking("splats").unwrap();
                let offset = new.param("splats").unwrap().offset as usize;
                let expected = precision.encode(&masters);
                assert!(stored[offset..][..expected.len()] == expected, "{}", gpu.name);
                run(&mut new, rows.len(), 6..8);
            }
        }
    }
}

#[test]
fn states_of_rows_are_gathered_and_those_of_columns_stay() {
    for gpu in gpus() {
        let recipe = Recipe::from(Adafactor::new(1e-2));
        let mut old = build(&gpu, 300, groups(recipe));
        run(&mut old, 300, 1..4);
        let rows: Vec<u32> = (0..200).rev().collect();
        let buffer = index(&gpu, &rows);
        let chosen = [("splats", Rows::Gather(TensorSlice::whole(&buffer)))];
        let new = old.resized_blocking(&specs(rows.len()), &chosen).unwrap();
        let state = |of: &GpuOptimizer, name| of.read_state_blocking("splats", name).unwrap();
        let before = state(&old, "row_var");
        let gathered: Vec<f32> = rows.iter().map(|&row| before[row as usize]).collect();
        assert!(gathered.iter().any(|&moment| moment > 0.0) && state(&new, "row_var") == gathered, "{}", gpu.name);
        assert_eq!(state(&new, "col_var"), state(&old, "col_var"), "{}", gpu.name);
    }
}

#[test]
fn what_is_kept_goes_on_as_before() {
    for gpu in gpus() {
        // The same rows and ten new ones: the old ones do not notice.
        let groups = || {
            ParamGroups::from(Recipe::adamw(1e-2)).with_schedule(LrSchedule::linear(50, 0.1)).with_max_grad_norm(1e9)
        };
        let (mut old, mut same) = (build(&gpu, 100, groups()), build(&gpu, 100, groups()));
        let step = |optimizer: &mut GpuOptimizer, t: u64, rows: usize| {
            let mut grad = verify::grads(100 * WIDTH, t);
            grad.resize(rows * WIDTH, 1.0);
            optimizer.write_grad("splats", &grad).unwrap();
            optimizer.write_grad("scale", &verify::grads(33, t)).unwrap();
            optimizer.step().unwrap();
        };
        (1..4).for_each(|t| step(&mut old, t, 100));
        (1..6).for_each(|t| step(&mut same, t, 100));
        let mut new = old.resized_blocking(&specs(110), &[]).unwrap();
        (4..6).for_each(|t| step(&mut new, t, 110));
        for ((what, found), (_, expected)) in read(&new, "splats").iter().zip(read(&same, "splats")) {
            assert!(found[..100 * WIDTH] == expected, "{}: {what}", gpu.name);
            assert!(found[100 * WIDTH..].iter().all(|&x| x != 0.0), "{}: {what}", gpu.name);
        }
        assert!(read(&new, "scale") == read(&same, "scale"), "{}", gpu.name);

        let shrunk = old.resized_blocking(&specs(40), &[("scale", Rows::Reset)]).unwrap();
        assert_eq!(
            shrunk.read_state_blocking("splats", "exp_avg").unwrap(),
            old.read_state_blocking("splats", "exp_avg").unwrap()[..40 * WIDTH]
        );
        assert!(shrunk.read_state_blocking("scale", "exp_avg").unwrap().iter().all(|&x| x == 0.0));
        assert_eq!((shrunk.steps("scale").unwrap(), shrunk.steps("splats").unwrap()), (0, 3));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let gpu = &gpus()[0];
    let old = build(gpu, 10, groups(Recipe::adamw(1e-2)));
    let short = index(gpu, &[0; 4]);
    let gather = [("splats", Rows::Gather(TensorSlice::whole(&short)))];
    let wider = [TensorSpec::new("splats", [10, 7]), TensorSpec::new("scale", [33])];
    for (result, words) in [
        (old.resized_blocking(&specs(5), &gather), "16 bytes given, 20 needed"),
        (old.resized_blocking(&wider, &[]), "shape [10, 14] cannot become [10, 7]"),
        (old.resized_blocking(&specs(5), &[("none", Rows::Keep)]), "no tensor is named `none`"),
        (old.resized_blocking(&specs(5)[..1], &[("scale", Rows::Keep)]), "no tensor is named `scale`"),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn half_a_step_is_carried_too() {
    let gpu = &gpus()[0];
    let groups = || ParamGroups::from(Recipe::adamw(1e-2)).with_accumulation(2);
    let (mut old, mut same) = (build(gpu, 10, groups()), build(gpu, 10, groups()));
    for optimizer in [&mut old, &mut same] {
        optimizer.write_grad("splats", &verify::grads(10 * WIDTH, 1)).unwrap();
        optimizer.step().unwrap();
    }
    let mut new = old.resized_blocking(&specs(12), &[]).unwrap();
    assert_eq!(new.micro_batches(), 1);
    for (optimizer, rows) in [(&mut new, 12), (&mut same, 10)] {
        let mut grad = verify::grads(10 * WIDTH, 2);
        grad.resize(rows * WIDTH, 0.0);
        optimizer.write_grad("splats", &grad).unwrap();
        optimizer.step().unwrap();
        assert_eq!(optimizer.recorded_steps(), 1);
    }
    let [found, expected] = [&new, &same].map(|o| o.read_param_blocking("splats").unwrap());
    assert!(found[..10 * WIDTH] == expected);
}

#[test]
fn a_skipped_step_before_does_not_lose_the_parameters() {
    let gpu = &gpus()[0];
    let groups = groups(Recipe::adamw(1e-2)).with_precision(Precision::Bf16);
    let mut old = build(gpu, 10, groups);
    // The third step overflows.
    run(&mut old, 10, 1..4);
    assert!(old.read_guarded_blocking().unwrap().skipped);
    let new = old.resized_blocking(&specs(12), &[]).unwrap();
    assert!(!new.read_guarded_blocking().unwrap().skipped);
    let [before, after] = [&old, &new].map(|optimizer| {
        let slice = optimizer.param("splats").unwrap();
        common::read(gpu, slice.buffer)[slice.offset as usize..][..2 * 10 * WIDTH].to_vec()
    });
    assert!(before == after && before.iter().any(|&byte| byte != 0));
}

#[test]
fn tensors_that_begin_later_have_bias_corrections_of_their_own() {
    type Twin = wgpu_optim::reference::Tensor<f32>;
    for gpu in gpus() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.safetensors");
        let recipe: Recipe = "mgup-adamw".parse().unwrap();
        let spec = |name: &str, n: usize| TensorSpec::new(name, [n]);
        let twin = |n: usize| Twin::new(recipe, vec![0.0; n]).unwrap();
        let step = |optimizer: &mut GpuOptimizer, twins: &mut [(&str, Twin)], t: u64| {
            for (name, twin) in twins {
                let grad = verify::grads(twin.param.len(), t);
                optimizer.write_grad(name, &grad).unwrap();
                twin.step(&grad);
            }
            optimizer.step().unwrap();
        };
        let compare = |optimizer: &GpuOptimizer, twins: &[(&str, Twin)]| {
            for (name, twin) in twins {
                assert_eq!(optimizer.steps(name).unwrap(), twin.steps, "{name}");
                let found = optimizer.read_param_blocking(name).unwrap();
                let wrong = found.iter().zip(&twin.param).filter(|(a, b)| (**a - **b).abs() > 2e-6 + 1e-5 * b.abs());
                assert!(wrong.count() <= 1, "{}: {name} at {}", gpu.name, twin.steps);
            }
        };
        let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &[spec("b", 5000)], recipe).unwrap();
        let mut twins = vec![("b", twin(5000))];
        for t in 1..10 {
            match t {
                4 => {
                    let specs = [spec("a", 300), spec("b", 5000), spec("c", 9000)];
                    optimizer = optimizer.resized_blocking(&specs, &[]).unwrap();
                    twins.extend([("a", twin(300)), ("c", twin(9000))]);
                }
                7 => {
                    let specs = [spec("a", 300), spec("b", 5000), spec("c", 9000)];
                    optimizer = optimizer.resized_blocking(&specs, &[("a", Rows::Reset)]).unwrap();
                    *twins.iter_mut().find(|(name, _)| *name == "a").unwrap() = ("a", twin(300));
                }
                8 => {
                    optimizer.save(&path).unwrap();
                    optimizer = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
                }
                _ => {}
            }
            step(&mut optimizer, &mut twins, t);
        }
        compare(&optimizer, &twins);
        // With equal counts again, all share the scalars of their group.
        optimizer.set_steps(3);
        twins.iter_mut().for_each(|(_, twin)| twin.steps = 3);
        step(&mut optimizer, &mut twins, 10);
        compare(&optimizer, &twins);
    }
}
