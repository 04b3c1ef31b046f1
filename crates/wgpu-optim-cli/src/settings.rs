//! Recipes with settings on the command line, as in `mgup-adamw+clip+skip`.

use std::ffi::OsStr;
use std::path::Path;

use wgpu_optim::{Average, GradScaler, NonFinite, ParamGroups, Precision, Rounding, StateFormat};

use crate::numbers::whole;
use crate::recipes;

/// Reads a preset or a recipe file, with settings after its name. Returns the groups with that whole name.
pub fn named(text: &str) -> Result<(String, ParamGroups), String> {
    // A file's name may have a plus sign.
    let whole_text = Path::new(text).is_file();
    let mut parts = text.split(|c| c == '+' && !whole_text);
    let (_, recipe) = recipes::named(OsStr::new(parts.next().unwrap_or_default()))?;
    let groups = parts.try_fold(ParamGroups::from(recipe), |groups, setting| {
        Ok(match setting {
            "clip" => groups.with_max_grad_norm(1.0),
            "limit" => groups.with_max_grad_value(1.0),
            "skip" => groups.with_non_finite(NonFinite::Skip),
            "scaler" => groups.with_grad_scaler(GradScaler::default().interval(1 << 20)),
            "accumulate" => groups.with_accumulation(2),
            "f16" => groups.with_precision(Precision::F16),
            "average" => groups.with_average(Average::default()),
            "split" => groups.with_split_masters(),
            "8bit" => groups.with_state(StateFormat::EightBit),
            "nearest" => groups.without_masters(Rounding::Nearest),
            "stochastic" => groups.without_masters(Rounding::Stochastic { seed: 0 }),
            "bf16" => groups.with_precision(Precision::Bf16),
            other if other.starts_with("observe") => {
                let every = &other["observe".len()..];
                let number =
                    || whole(1..=u32::MAX.into())(every).map_err(|e| format!("`{other}`: {e} after `observe`"));
                groups.with_telemetry(if every.is_empty() { 1 } else { number()? })
            }
            other => {
                return Err(format!(
                    "unknown setting `{other}`; known are clip, limit, skip, scaler, observe, accumulate, average, 8bit, f16, bf16, and after bf16 split, nearest and stochastic"
                ));
            }
        })
    })?;
    groups.validate().map_err(|e| e.to_string())?;
    Ok((text.to_owned(), groups))
}
