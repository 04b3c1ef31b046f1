// ρ = ρ∞ − 2 t β2^t / c2 decides whether, and how far, a step divides by √v + ε.

import package::lib::complement::complement;
import package::tables::Scalars;

fn corrected(uncorrected: Scalars) -> Scalars {
    var s = uncorrected;
    let t = f32(s.t);
    let y = -t * s.ln_beta2;
    // 2 / y (y / (eʸ − 1)) as a series where the difference would cancel; `rho_start` is what ρ has at t = 0.
    let early = s.rho_start + t * (1.0 - y / 6.0 + y * y * y / 360.0 * (1.0 - y * y / 42.0));
    let late = s.rho_end - 2.0 * t * exp(-y) / complement(-y);
    let rho = select(early, late, y > 1.0);
    let rectified = sqrt((rho - 4.0) * (rho - 2.0) * s.rho_end / ((s.rho_end - 4.0) * (s.rho_end - 2.0) * rho));
    let adapted = sqrt(complement(-y)) * rectified;
    s.adaptive = select(0u, 1u, rho > 5.0);
    s.step = s.lr / complement(t * s.ln_beta1) * select(1.0, adapted, rho > 5.0);
    return s;
}
