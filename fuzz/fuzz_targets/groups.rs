//! Any text as the JSON of parameter groups: refused, or planned, scheduled, written and read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgpu_optim::plan::layout::{Ownership, Plan, PlanLimits};
use wgpu_optim::{GradScaler, LrSchedule, NonFinite, ParamGroups, Precision, Recipe, Requirements, TensorSpec};

fn seeds() -> impl Iterator<Item = Vec<u8>> {
    let two = || ParamGroups::from(vec![Recipe::adamw(1e-3).mgup(), Recipe::muon(1e-2)]);
    let schedules = [
        LrSchedule::constant(),
        LrSchedule::cosine(100, 0.1).with_warmup(10),
        LrSchedule::linear(100, 0.0),
        LrSchedule::step(10, 0.5),
        LrSchedule::stable(100, 10, 0.1),
    ];
    let groups = schedules.into_iter().map(move |schedule| two().with_schedule(schedule));
    let all = groups.chain([
        two().with_max_grad_norm(1.0).with_max_grad_value(2.0).with_grad_scaler(GradScaler::default()),
        two().with_accumulation(4).with_precision(Precision::Bf16).with_telemetry(100),
        two().with_non_finite(NonFinite::Skip).allow_no_matrices(),
    ]);
    all.map(|groups| serde_json::to_vec(&groups).unwrap())
}

fuzz_target!(init: wgpu_optim_fuzz::seed(seeds()), |text: &[u8]| {
    let Ok(groups) = serde_json::from_slice::<ParamGroups>(text) else { return };
    let specs = [TensorSpec::new("a", [5000]), TensorSpec::new("b", [3, 4]).in_group(1)];
    let limits = PlanLimits { binding: 128 << 20, buffer: 256 << 20 };
    let plan = Plan::new(&specs, &groups, Ownership::Arenas, limits);
    let _ = Plan::new(&specs, &groups, Ownership::Caller, limits);
    let _ = Plan::new(&specs, &groups, Ownership::Stateless, limits);
    assert_eq!(Requirements::new(&specs, groups.clone()).is_ok(), plan.is_ok());
    if groups.validate().is_err() {
        assert!(plan.is_err());
        return;
    }
    let again = serde_json::to_vec(&groups).unwrap();
    assert_eq!(serde_json::from_slice::<ParamGroups>(&again).unwrap(), groups);
    for schedule in groups.schedules() {
        for step in [0, 1, 2, 10, 1000, u64::MAX / 2, u64::MAX] {
            let factor = schedule.factor(step);
            assert!(factor.is_finite() && factor >= 0.0, "{factor} at {step}");
        }
    }
});
