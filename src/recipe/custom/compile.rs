//! Checks a text with naga. In a browser, the browser's compiler does.
#![cfg(not(target_arch = "wasm32"))]

use std::error::Error;

use naga::valid::{Capabilities, ValidationFlags, Validator};

/// Checks a text.
///
/// # Errors
/// What naga says, and the byte that it says it about.
pub(super) fn compile(text: &str) -> Result<(), (Option<usize>, String)> {
    let start = |span: Option<naga::Span>| span.and_then(naga::Span::to_range).map(|range| range.start);
    let parsed = naga::front::wgsl::parse_str(text);
    let module =
        parsed.map_err(|error| (start(error.labels().next().map(|(span, _)| span)), error.message().to_owned()))?;
    let validated = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
    validated.map(drop).map_err(|error| {
        // The innermost words say what is wrong, the outer ones where.
        let inner = std::iter::successors(Some(error.as_inner() as &dyn Error), |&error| error.source()).last();
        let message = inner.map_or(String::new(), ToString::to_string);
        // Words of naga that name its own handles and flags.
        let message = match message {
            _ if message.starts_with("The `return` expression") => {
                "a value of another type than the function returns".to_owned()
            }
            _ if message.contains("Capabilities::") => "a type that not every GPU has".to_owned(),
            message => message,
        };
        (start(error.spans().last().map(|(span, _)| *span)), message)
    })
}
