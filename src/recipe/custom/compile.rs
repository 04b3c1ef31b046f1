//! Checks a text with naga. In a browser, the browser's own compiler checks it instead.
#![cfg(not(target_arch = "wasm32"))]

use std::error::Error;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{Expression, MathFunction, ScalarKind};

/// Checks a text with naga.
///
/// # Errors
/// Returns naga's message, with the offset in bytes that it is about, if known.
pub(super) fn compile(text: &str) -> Result<(), (Option<usize>, String)> {
    let start = |span: Option<naga::Span>| span.and_then(naga::Span::to_range).map(|range| range.start);
    let parsed = naga::front::wgsl::parse_str(text);
    let module =
        parsed.map_err(|error| (start(error.labels().next().map(|(span, _)| span)), error.message().to_owned()))?;
    let validated = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
    let info = validated.map_err(|error| {
        // The innermost error says what is wrong. The outer errors say where.
        let inner = std::iter::successors(Some(error.as_inner() as &dyn Error), |&error| error.source()).last();
        let message = inner.map_or(String::new(), ToString::to_string);
        // Some messages of naga name its own handles and flags.
        let message = match message {
            _ if message.starts_with("The `return` expression") => {
                "the function must return a value of its return type".to_owned()
            }
            _ if message.contains("Capabilities::") => "a type that not every GPU supports".to_owned(),
            message => message,
        };
        (start(error.spans().last().map(|(span, _)| *span)), message)
    })?;
    // These expressions are valid, but naga fails when it writes them for Vulkan or DirectX 12.
    for (handle, function) in module.functions.iter() {
        for (at, expression) in function.expressions.iter() {
            let kind = |of: naga::Handle<Expression>| info[handle][of].ty.inner_with(&module.types).scalar_kind();
            let wrong = match *expression {
                Expression::Math { fun: MathFunction::Sign, arg, .. } if kind(arg) == Some(ScalarKind::Uint) => {
                    "`sign` of an unsigned number"
                }
                Expression::As { kind: ScalarKind::Bool, convert: None, .. } => "`bitcast` to bool",
                _ => continue,
            };
            let message = format!("{wrong} is not available on every GPU");
            return Err((start(Some(function.expressions.get_span(at))), message));
        }
    }
    Ok(())
}
