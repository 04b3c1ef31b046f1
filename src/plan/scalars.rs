//! What the host says to the kernels: the scalars of a step, and the tables' first contents.

use bytemuck::NoUninit;

use super::layout::Plan;
use crate::kernel::tables::{Header, NsTriples, STRIDE, Scalars};
use crate::plan::stage::Stage;
use crate::recipe::Recipe;
use crate::recipe::base::Corrects;
use crate::recipe::groups::ParamGroups;
use crate::recipe::guard::NonFinite;

impl Scalars {
    /// The scalars of a step `t` of this recipe, one of the groups' or a fallback, its gradients multiplied by `grad_scale`.
    pub(crate) fn new(recipe: &Recipe, t: u64, groups: &ParamGroups, grad_scale: f64) -> Self {
        // Where steps may be skipped, the GPU knows t, and corrects the scalars itself.
        let skips = groups.gradients().skips;
        let scalars = recipe.base.scalars(if skips { u64::MAX } else { t });
        let Corrects { step, decay, eps } = scalars.corrects;
        // 0 has no logarithm; its powers are 0 all the same.
        let ln = |beta: f64| beta.max(1e-300).ln() as f32;
        let scaler = groups.grad_scaler();
        let (alpha, gamma) = recipe.policy.factors();
        let words: NsTriples = std::array::from_fn(|at| std::array::from_fn(|of| scalars.words[4 * at + of] as f32));
        let ns = recipe.base.newton_schulz().map_or(words, |ns| {
            std::array::from_fn(|iteration| {
                let [a, b, c] = ns.coefficients.of(iteration).map(|c| c as f32);
                [a, b, c, 0.0]
            })
        });
        Self {
            step: scalars.step as f32,
            decay: scalars.decay as f32,
            beta1: scalars.betas[0] as f32,
            one_minus_beta1: scalars.rests[0] as f32,
            beta2: scalars.betas[1] as f32,
            one_minus_beta2: scalars.rests[1] as f32,
            eps: scalars.eps as f32,
            alpha: alpha as f32,
            gamma: gamma as f32,
            max_grad_norm: groups.max_grad_norm().unwrap_or(0.0) as f32,
            // A sample may repeat from there on, and bias corrections are long 1.
            t: t.min(u32::MAX.into()) as u32,
            count_normalizer: u32::from(recipe.policy.count_normalizer()),
            lr: recipe.base.lr() as f32,
            clip: scalars.clip as f32,
            min_step: scalars.min_step as f32,
            accumulator_init: (scalars.accumulator_init as f32).powi(2),
            grad_scale: grad_scale as f32,
            max_grad_value: groups.max_grad_value.unwrap_or(f64::from(f32::MAX)) as f32,
            ln_beta1: ln(scalars.betas[0]),
            ln_beta2: ln(scalars.betas[1]),
            corrects: u32::from(step) | u32::from(decay) << 1 | u32::from(eps) << 2,
            skips: u32::from(groups.non_finite() != NonFinite::Propagate),
            growth: scaler.map_or(1.0, |scaler| scaler.growth) as f32,
            backoff: scaler.map_or(1.0, |scaler| scaler.backoff) as f32,
            growth_interval: scaler.map_or(0, |scaler| scaler.interval),
            penalty: scalars.penalty as f32,
            cautious_decay: u32::from(recipe.base.has_cautious_decay()),
            power: scalars.power as f32,
            lr_decay: scalars.lr_decay as f32,
            weight1: scalars.blend[0] as f32,
            weight2: scalars.blend[1] as f32,
            ln_momentum_decay: scalars.ln_momentum_decay as f32,
            adaptive: u32::from(scalars.adaptive),
            rho_end: scalars.rho[0] as f32,
            rho_start: scalars.rho[1] as f32,
            beta3: scalars.beta3 as f32,
            one_minus_beta3: (1.0 - scalars.beta3) as f32,
            ln_beta3: ln(scalars.beta3),
            largest_rest: scalars.largest_rest as f32,
            max_step: scalars.max_step as f32,
            ns,
        }
    }
}

impl Header {
    /// The header before the first step.
    pub(crate) fn new(groups: &ParamGroups) -> Self {
        let loss_scale = groups.grad_scaler().map_or(1.0, |scaler| scaler.init as f32);
        Self {
            loss_scale,
            norm_factor: 1.0,
            unscale: 1.0 / loss_scale,
            broken: u32::MAX,
            weight: 1.0,
            ..Self::default()
        }
    }
}

/// The table of tensors before the first step: the header, then an entry each.
pub(crate) fn tensors(plan: &Plan, groups: &ParamGroups) -> Vec<u8> {
    let entries: Vec<_> = plan.tensors.iter().map(|tensor| tensor.entry).collect();
    [bytemuck::bytes_of(&Header::new(groups)), bytemuck::cast_slice(&entries)].concat()
}

/// The table of grids: one per stage.
pub(crate) fn grids(stages: &[Stage]) -> Vec<u8> {
    let mut bytes = UniformBytes::default();
    stages.iter().for_each(|stage| bytes.push(&stage.grid));
    bytes.0
}

/// Uniforms, each at a multiple of the alignment of dynamic offsets.
#[derive(Debug, Clone, Default)]
pub(crate) struct UniformBytes(pub Vec<u8>);

impl UniformBytes {
    /// Adds a uniform.
    pub(crate) fn push<T: NoUninit>(&mut self, uniform: &T) {
        self.0.extend(bytemuck::bytes_of(uniform));
        self.0.resize(self.0.len().next_multiple_of(STRIDE as usize), 0);
    }
}
