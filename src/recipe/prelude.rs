//! What the files of bases, policies and settings have in common: derives, rules and helpers of the CPU twins.

pub(crate) use derive_setters::Setters;
pub(crate) use num_traits::Float;
pub(crate) use serde::{Deserialize, Serialize};
pub(crate) use smart_default::SmartDefault;

pub(crate) use super::float::{
    add_square, counted_norm, flushed, grad_norm, real, second_moment, sign, within_squares,
};
pub(crate) use super::ranges::*;
pub(crate) use crate::error::{Error, Result, ensure};
