//! State that outlives a process, ours and Burn's.

use burn::optim::ModuleOptimizer;
use wgpu_optim::Recipe;
use wgpu_optim_burn::{GpuModuleOptimizer, RecipeOptimizer};

use crate::common::{Mlp, autodiff, bits, custom, gpu, gradients, peers, read, recipes};

fn run(optim: &mut GpuModuleOptimizer, mut model: Mlp, steps: std::ops::Range<u64>) -> Mlp {
    for t in steps {
        // One parameter steps less often, so that counts differ.
        let without: &[&str] = if t == 2 { &["first.bias"] } else { &[] };
        let grads = gradients(&model, t, without);
        model = optim.step(1e-2, model, grads);
    }
    model
}

#[test]
fn resuming_equals_going_on_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (name, recipe) in recipes() {
        let mut straight = GpuModuleOptimizer::new(gpu(), recipe);
        let model = run(&mut straight, Mlp::new(&autodiff()), 1..4);
        let file = folder.path().join(format!("{name}.bpk"));
        straight.save(&file).unwrap();
        let mut resumed = GpuModuleOptimizer::new(gpu(), recipe).load(&file).unwrap();
        // Saved again before it has stepped, nothing is lost.
        let loaded = GpuModuleOptimizer::new(gpu(), recipe).load(&file).unwrap();
        let bytes = loaded.into_bytes().unwrap();
        let mut again = GpuModuleOptimizer::new(gpu(), recipe).from_bytes(bytes).unwrap();
        let expected = bits(&run(&mut straight, model.clone(), 4..7));
        assert_eq!(bits(&run(&mut resumed, model.clone(), 4..7)), expected, "{}: {name}", gpu().adapter);
        assert_eq!(bits(&run(&mut again, model, 4..7)), expected, "{}: {name}", gpu().adapter);
    }
}

#[test]
fn a_model_built_anew_finds_its_state_by_path() {
    let recipe = Recipe::adamw(1e-2).mgup();
    let mut straight = GpuModuleOptimizer::new(gpu(), recipe);
    let model = run(&mut straight, Mlp::new(&autodiff()), 1..4);
    let mut resumed = GpuModuleOptimizer::new(gpu(), recipe).from_bytes(straight.into_bytes().unwrap()).unwrap();
    // The same values under ids of their own.
    let mut other = Mlp::new(&autodiff());
    let values: Vec<_> = read(&model);
    struct Load(std::vec::IntoIter<crate::common::Values>);
    impl burn::module::ModuleMapper for Load {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<burn::tensor::Tensor<D>>,
        ) -> burn::module::Param<burn::tensor::Tensor<D>> {
            let values = self.0.next().unwrap().values;
            param.map(|old| {
                let data = burn::tensor::TensorData::new(values, old.shape());
                burn::tensor::Tensor::from_data(data, &old.device()).require_grad()
            })
        }
    }
    other = burn::module::Module::map(other, &mut Load(values.into_iter()));
    assert_ne!(read(&other)[0].id, read(&model)[0].id);
    let expected = bits(&run(&mut straight, model, 4..7));
    assert_eq!(bits(&run(&mut resumed, other, 4..7)), expected);
}

fn assert_close(a: &Mlp, b: &Mlp) {
    for (a, b) in read(a).iter().zip(read(b)) {
        for (x, y) in a.values.iter().zip(&b.values) {
            assert!((x - y).abs() <= 1e-6 + 1e-5 * y.abs(), "{}: {x}, {y}", a.path);
        }
    }
}

#[test]
fn burns_records_and_ours_are_interchangeable() {
    // Burn's RMSprop also keeps what it divides by. A cautious decay differs from Burn's where the momentum is 0.
    let left_out = ["rmsprop", "cautious decay"];
    for (name, recipe, mut theirs) in peers().into_iter().filter(|(name, ..)| !left_out.contains(name)) {
        println!("{name}");
        let mut drop_in = ModuleOptimizer::from(RecipeOptimizer::new(gpu(), recipe));
        let mut ours = GpuModuleOptimizer::new(gpu(), recipe);
        let model = Mlp::new(&autodiff());
        let step = |optim: &mut ModuleOptimizer, model: Mlp, t| {
            let grads = gradients(&model, t, &[]);
            optim.step(1e-2, model, grads)
        };
        let mut a = run(&mut ours, model.clone(), 3..6);
        let mut b = (3..6).fold(model.clone(), |model, t| step(&mut theirs, model, t));
        let mut c = (3..6).fold(model, |model, t| step(&mut drop_in, model, t));
        assert_close(&a, &b);
        assert_eq!(bits(&a), bits(&c), "one recipe, either way in");
        // Each goes on with another's state.
        let (x, y, z) = (ours.to_record().unwrap(), theirs.to_record(), drop_in.to_record());
        let mut theirs = theirs.load_record(x);
        let mut drop_in = drop_in.load_record(y);
        let mut ours = ours.load_record(z).unwrap();
        for t in 6..9 {
            a = step(&mut theirs, a, t);
            b = step(&mut drop_in, b, t);
            c = run(&mut ours, c, t..t + 1);
        }
        assert_close(&a, &b);
        assert_close(&a, &c);
    }
}

#[test]
fn a_custom_base_steps_and_keeps_its_record_either_way_in() {
    let recipe = custom();
    let drop_in = ModuleOptimizer::from(RecipeOptimizer::new(gpu(), recipe));
    let mut ours = GpuModuleOptimizer::new(gpu(), recipe);
    let mut a = run(&mut ours, Mlp::new(&autodiff()), 3..5);
    let mut b = a.clone();
    let mut drop_in = drop_in.load_record(ours.to_record().unwrap());
    for t in 5..8 {
        a = run(&mut ours, a, t..t + 1);
        let grads = gradients(&b, t, &[]);
        b = drop_in.step(1e-2, b, grads);
    }
    assert_eq!(bits(&a), bits(&b));
    let mut ours = ours.load_record(drop_in.to_record()).unwrap();
    a = run(&mut ours, a, 8..9);
    let grads = gradients(&b, 8, &[]);
    b = drop_in.step(1e-2, b, grads);
    assert_eq!(bits(&a), bits(&b));
}

#[test]
fn records_that_do_not_fit_are_refused_with_the_reason() {
    let model = || Mlp::new(&autodiff());
    let mut adamw = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-3));
    let first = run(&mut adamw, model(), 1..2);
    let record = adamw.into_bytes().unwrap();
    let refused = |optim: GpuModuleOptimizer, model: Mlp| {
        let mut optim = optim.from_bytes(record.clone()).unwrap();
        let before = bits(&model);
        let grads = gradients(&model, 1, &[]);
        let refused = optim.try_step(1e-3, model, grads).unwrap_err();
        assert_eq!(bits(&refused.model), before);
        assert_eq!(optim.to_record().unwrap().len(), 10, "the record is still there");
        refused.error.to_string()
    };
    let error = refused(GpuModuleOptimizer::new(gpu(), Recipe::lion(1e-3)), first.clone());
    assert!(
        error.contains("has the state momentum.moment_1, momentum.moment_2, but its recipe needs momentum"),
        "{error}"
    );
    let mut other = first;
    let weight = burn::tensor::Tensor::<2>::ones([10, 130], &autodiff());
    other.second.weight = burn::module::Param::initialized(other.second.weight.id, weight);
    let error = refused(GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-3)), other);
    assert!(error.contains("has shape [130, 10], but the parameter [10, 130]"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.bpk");
    std::fs::write(&file, &record[..record.len() / 2]).unwrap();
    for path in [file, folder.path().join("none.bpk")] {
        let error = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-3)).load(path).err().unwrap();
        assert!(error.to_string().starts_with("optimizer record: "), "{error}");
    }
}
