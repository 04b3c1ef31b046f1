//! Every base × policy × size against the CPU twin, on every adapter.

mod common;

use wgpu_optim::verify;

#[test]
fn every_recipe_at_every_size_follows_the_cpu() {
    let mut failures = Vec::new();
    for gpu in common::gpus() {
        let mut runner = verify::Runner::new(&gpu.device, &gpu.queue);
        for case in verify::cases() {
            let outcome = pollster::block_on(runner.run(&case, case.recipe)).unwrap();
            println!(
                "{}: {} at {:?}: error {:.1e}, {} uncertain{}",
                gpu.name,
                case.name,
                case.shape,
                outcome.max_error,
                outcome.uncertain,
                outcome.failure.as_ref().map(|f| format!(": FAILED: {f}")).unwrap_or_default()
            );
            if let Some(failure) = outcome.failure {
                failures.push(format!("{}: {} at {:?}: {failure}", gpu.name, case.name, case.shape));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_comparison_notices_what_differs() {
    let fails = |actual: &[f32], expected: &[f32]| verify::compare(actual, expected, None).1;
    assert_eq!(fails(&[1.0, 2.0], &[1.0, 2.0]), None);
    assert_eq!(fails(&[1.0, 2.0001], &[1.0, 2.0]).unwrap(), "at 1: 2.0001 instead of 2");
    assert!(fails(&[f32::NAN], &[1.0]).is_some() && fails(&[1.0], &[f32::NAN]).is_some());
    assert!(fails(&[0.0], &[f32::INFINITY]).is_some() && fails(&[1.0], &[1.0, 1.0]).is_some());
}
