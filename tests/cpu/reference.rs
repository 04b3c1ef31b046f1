//! The CPU reference against formulas written out by hand, and its selection against sorting.

use proptest::prelude::*;
use wgpu_optim::policy::Plain;
use wgpu_optim::reference::{self, key, top_k};
use wgpu_optim::{Policy, Recipe, policy, verify};

#[test]
fn two_steps_of_adamw_by_hand() {
    let (lr, wd) = (0.1, 0.2);
    let mut tensor = reference::Tensor::new(Recipe::adamw(lr).weight_decay(wd), vec![1.0_f64]).unwrap();
    let (mut theta, mut m, mut v) = (1.0, 0.0, 0.0);
    for (t, g) in [(1, 0.5_f64), (2, -0.25)] {
        tensor.step(&[g]);
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        let rate = lr * (1.0 - 0.999f64.powi(t)).sqrt() / (1.0 - 0.9f64.powi(t));
        theta = (1.0 - rate * wd) * theta - rate * m / (v.sqrt() + 1e-8);
    }
    assert!((tensor.param[0] - theta).abs() < 1e-15, "{} instead of {theta}", tensor.param[0]);
}

#[test]
fn one_step_of_lion_by_hand() {
    let mut tensor = reference::Tensor::new(Recipe::lion(0.5), vec![1.0_f64, 1.0, 1.0]).unwrap();
    tensor.step(&[0.3, -2.0, 0.0]);
    assert_eq!(tensor.param, [0.5, 1.5, 1.0]);
    assert!((tensor.state("exp_avg").unwrap()[1] + 0.02).abs() < 1e-15);
}

#[test]
fn the_policies_by_hand() {
    let scores = [0.4_f64, -0.1, 0.0, 0.2, -0.3, f64::NAN];
    let of = |name: &str| reference::phi(&name.parse::<Recipe>().unwrap().policy, &scores, 1).0;
    assert_eq!(of("adamw"), [1.0; 6]);
    assert_eq!(of("cautious-adamw"), [3.0, 0.0, 0.0, 3.0, 0.0, 0.0]);
    assert_eq!(of("mgup-adamw"), [2.0, 0.5, 2.0, 2.0, 0.5, 0.5]);
    assert_eq!(of("cautious-mgup-adamw"), [2.0, 0.5, 0.5, 2.0, 0.5, 0.5]);
    assert_eq!(of("grams"), [1.0, -1.0, 0.0, 1.0, -1.0, 0.0]);
    let count = Policy::from(policy::Cautious::default().normalizer(policy::Normalizer::Count));
    assert_eq!(reference::phi(&count, &scores, 1).0, [2.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
}

#[test]
fn keys_keep_the_order_of_scores() {
    let scores = [f32::NEG_INFINITY, f32::MIN, -1.0, -f32::MIN_POSITIVE, 0.0, f32::MIN_POSITIVE, 1.0, f32::INFINITY];
    for pair in scores.windows(2) {
        assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
    }
    for zero in [-0.0, 1e-45, -1e-40, f32::MIN_POSITIVE / 2.0] {
        assert_eq!(key(zero), key(0.0));
    }
    for nan in [f32::NAN, -f32::NAN] {
        assert!(key(nan) < key(f32::NEG_INFINITY));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn top_k_is_what_sorting_selects(values in prop::collection::vec(-4i8..4, 1..200), share in 0.0..1.0f64) {
        let scores: Vec<f32> = values.iter().map(|&v| f32::from(v) / 4.0).collect();
        let k = (share * scores.len() as f64) as usize;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let mut expected = vec![false; scores.len()];
        order[..k].iter().for_each(|&i| expected[i] = true);
        prop_assert_eq!(top_k(&scores, k), expected);
    }
}

/// The largest gradients, of either sign, leave every state and parameter finite. Fails if MAdam or Adan squares a difference of gradients
/// that are not limited.
#[test]
fn optimizers_go_on_after_the_largest_gradients() {
    for (name, recipe) in verify::recipes() {
        if recipe.base.newton_schulz().is_some() || recipe.policy != Plain::default().into() || name.starts_with("sgd")
        {
            continue;
        }
        for large in [1.5e19f32, 3e38] {
            let mut tensor = reference::Tensor::new(recipe, vec![1.0f32; 2]).unwrap();
            for grad in [large, -large, large] {
                tensor.step(&[grad, 1.0]);
            }
            for _ in 0..3 {
                tensor.step(&[1.0, 1.0]);
            }
            let finite = tensor.states.iter().flatten().chain(&tensor.param).all(|value| value.is_finite());
            assert!(finite, "{name}: {:?} {:?}", tensor.states, tensor.param);
        }
    }
}
