//! WGSL without what only readers need. A page downloads the kernels, so on the web they are shortened when the crate is compiled.

/// A WGSL text, shortened on the web.
macro_rules! wgsl {
    ($text:expr) => {{
        #[cfg(target_arch = "wasm32")]
        const TEXT: &str = {
            use crate::kernel::compact::{compact, text};
            const LEN: usize = compact($text, &mut [0; $text.len()]);
            const BYTES: [u8; LEN] = {
                let mut bytes = [0; LEN];
                compact($text, &mut bytes);
                bytes
            };
            text(&BYTES)
        };
        #[cfg(not(target_arch = "wasm32"))]
        const TEXT: &str = $text;
        TEXT
    }};
}
pub(crate) use wgsl;

/// Writes the lines of a text without comments, without empty lines, without spaces after commas, and with one space of indentation
/// in the place of four. Returns how many bytes that takes.
#[cfg_attr(not(any(test, target_arch = "wasm32")), expect(dead_code))]
pub(crate) const fn compact(text: &str, to: &mut [u8]) -> usize {
    let from = text.as_bytes();
    let (mut begin, mut len) = (0, 0);
    while begin < from.len() {
        let mut line = begin;
        while line < from.len() && from[line] != b'\n' {
            line += 1;
        }
        let mut end = begin;
        while end < line && !(from[end] == b'/' && end + 1 < line && from[end + 1] == b'/') {
            end += 1;
        }
        while end > begin && from[end - 1] == b' ' {
            end -= 1;
        }
        let mut at = begin;
        while at < end && from[at] == b' ' {
            if (at - begin).is_multiple_of(4) {
                to[len] = b' ';
                len += 1;
            }
            at += 1;
        }
        while at < end {
            to[len] = from[at];
            let is_followed = from[at] == b',' && at + 1 < end && from[at + 1] == b' ';
            (at, len) = (at + if is_followed { 2 } else { 1 }, len + 1);
        }
        if end > begin {
            to[len] = b'\n';
            len += 1;
        }
        begin = line + 1;
    }
    len
}

/// The text of what [`compact`] writes.
#[cfg(target_arch = "wasm32")]
pub(crate) const fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a line was cut within a character"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_empty_lines_and_most_of_the_indentation_are_left_out() {
        let text =
            "// θ ← θ'\n\nimport a::{b, c};\n\nfn f() {    // twice\n    if x {\n        y / 2.0;\n    }\n}\n//\n";
        let mut bytes = [0; 100];
        let len = compact(text, &mut bytes);
        assert_eq!(std::str::from_utf8(&bytes[..len]), Ok("import a::{b,c};\nfn f() {\n if x {\n  y / 2.0;\n }\n}\n"));
    }
}
