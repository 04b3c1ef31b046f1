//! Splits WGSL into tokens with their places.

/// A place in a text. Lines and columns count from 1, and columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub line: usize,
    pub column: usize,
}

/// The place of an error in a text, and its message.
pub(super) type Refused = (Place, String);

impl Place {
    pub(crate) const FIRST: Self = Self { line: 1, column: 1 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Word,
    Number,
    Sign,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub kind: TokenKind,
    pub text: &'a str,
    pub at: Place,
}

/// The tokens of a text without its comments, and its declarations.
pub(super) struct Tokens<'a> {
    pub code: Vec<Token<'a>>,
    /// The place of each comment that begins with `//@`, and the rest of its line.
    pub declared: Vec<(Place, &'a str)>,
}

/// Signs of several characters. Longer signs come before their prefixes.
const SIGNS: [&str; 20] = [
    "<<=", ">>=", "->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=",
    "++",
];

/// Splits a text into tokens.
///
/// # Errors
/// Returns the place of a character that is not allowed outside comments, or of a comment that does not end.
pub(super) fn tokens(text: &str) -> Result<Tokens<'_>, Refused> {
    let (mut code, mut declared) = (Vec::new(), Vec::new());
    let (mut rest, mut at) = (text, Place::FIRST);
    while let Some(first) = rest.chars().next() {
        let begin = at;
        let take = |kind, len| (Some(kind), len);
        let (kind, len) = match first {
            _ if rest.starts_with("//") => {
                let line = rest.lines().next().unwrap_or_default();
                declared.extend(line.strip_prefix("//@").map(|declaration| (begin, declaration.trim())));
                (None, line.len())
            }
            _ if rest.starts_with("/*") => {
                (None, block_comment(rest).ok_or_else(|| (begin, "this comment does not end".to_owned()))?)
            }
            _ if first.is_ascii_whitespace() => (None, 1),
            'a'..='z' | 'A'..='Z' | '_' => take(TokenKind::Word, word(rest)),
            '0'..='9' => take(TokenKind::Number, number(rest)),
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => take(TokenKind::Number, number(rest)),
            '!'..='~' => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
                take(TokenKind::Sign, if rest.starts_with("--") { 2 } else { sign.map_or(1, |sign| sign.len()) })
            }
            _ => return Err((begin, format!("`{}` is only allowed in comments", first.escape_default()))),
        };
        let (taken, left) = rest.split_at(len);
        if let Some(kind) = kind {
            code.push(Token { kind, text: taken, at: begin });
        }
        for c in taken.chars() {
            at = match c {
                '\n' => Place { line: at.line + 1, column: 1 },
                _ => Place { column: at.column + 1, ..at },
            };
        }
        rest = left;
    }
    Ok(Tokens { code, declared })
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The length of a number: its digits, its point, its suffix, and the sign of its exponent.
fn number(text: &str) -> usize {
    let (bytes, is_hex) = (text.as_bytes(), text.starts_with("0x") || text.starts_with("0X"));
    let belongs = |at: usize| match bytes[at] {
        b'+' | b'-' => matches!((bytes[at - 1], is_hex), (b'e' | b'E', false) | (b'p' | b'P', true)),
        byte => byte.is_ascii_alphanumeric() || byte == b'.',
    };
    (1..bytes.len()).find(|&at| !belongs(at)).unwrap_or(bytes.len())
}

/// The length of a block comment. Block comments nest. `None` if the comment does not end.
fn block_comment(text: &str) -> Option<usize> {
    let (mut depth, mut at, bytes) = (0usize, 0, text.as_bytes());
    loop {
        match bytes.get(at..at + 2)? {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return Some(at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_split_into_tokens_with_places() {
        let text = "//@ base a\nlet x1=-1.5e-3f+.5; /* a /* b */ c */ y>>=0x1.8p+1-2u;\t// é\nz--";
        let Tokens { code, declared } = tokens(text).unwrap();
        let all: Vec<_> = code.iter().map(|token| token.text).collect();
        let expected =
            ["let", "x1", "=", "-", "1.5e-3f", "+", ".5", ";", "y", ">>=", "0x1.8p+1", "-", "2u", ";", "z", "--"];
        assert_eq!(all, expected);
        assert_eq!(declared, [(Place { line: 1, column: 1 }, "base a")]);
        assert_eq!(code[8].at, Place { line: 2, column: 39 });
        assert_eq!(code[14].at, Place { line: 3, column: 1 });
    }

    #[test]
    fn invalid_characters_and_comments_are_refused_with_their_place() {
        let refused = |text| tokens(text).err().unwrap();
        assert_eq!(refused("let β = 1;").0, Place { line: 1, column: 5 });
        assert_eq!(refused("\n /* /* */"), (Place { line: 2, column: 2 }, "this comment does not end".to_owned()));
    }
}
