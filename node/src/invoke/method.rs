//! Method names: what may be in one, and its normal form. Pure.
//!
//! A method is a path below the app's root (invocation) or below the actor's `method/` (actors). It is decoded once
//! before it comes here. `#`, `?`, NUL and control characters are refused, because they would change which path the
//! app is asked for; `.` and `..` are resolved and can never climb out. Everything else passes as it is.

use std::fmt::Write;

/// Why a method is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    #[error("method contains forbidden character: {0}")]
    Forbidden(String),
    #[error("method contains control character at position {position}: {method}")]
    Control { position: usize, method: String },
}

/// The normal form of a method given as text.
pub fn normalize(method: &str) -> Result<String, MethodError> {
    let bytes = normalize_bytes(method.as_bytes())?;
    // Cutting at slashes keeps UTF-8 whole.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The normal form of a method given as bytes, which need not be UTF-8.
pub fn normalize_bytes(method: &[u8]) -> Result<Vec<u8>, MethodError> {
    if method.iter().any(|byte| matches!(byte, b'#' | b'?' | 0)) {
        return Err(MethodError::Forbidden(quote(method)));
    }
    if let Some(position) = method.iter().position(|byte| *byte < 0x20 || *byte == 0x7f) {
        return Err(MethodError::Control { position, method: quote(method) });
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in method.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    Ok(segments.join(&b'/'))
}

/// Quotes as Go's `%q` does: escapes for quotes, backslashes, control characters and bytes that are not UTF-8.
fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\u{7}' => quoted.push_str("\\a"),
                '\u{8}' => quoted.push_str("\\b"),
                '\u{c}' => quoted.push_str("\\f"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\u{b}' => quoted.push_str("\\v"),
                letter if (letter as u32) < 0x20 || letter == '\u{7f}' => {
                    // Writing to a String does not fail.
                    let _ = write!(quoted, "\\x{:02x}", letter as u32);
                }
                letter => quoted.push(letter),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

/// Fuzz body: what is accepted is its own normal form, and nothing in it climbs or ends a path.
pub fn fuzz_normalize(data: &[u8]) {
    let Ok(normal) = normalize_bytes(data) else { return };
    assert!(normal.is_empty() || normal.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b"..")));
    assert!(!normal.iter().any(|byte| matches!(byte, b'#' | b'?' | 0x7f | 0..0x20)));
    assert_eq!(normalize_bytes(&normal).as_ref(), Ok(&normal));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_slashes_are_resolved_and_never_climb() {
        for (method, normal) in [
            ("a/../b", "b"),
            ("./a", "a"),
            ("a//b", "a/b"),
            ("../../x", "x"),
            ("..", ""),
            ("", ""),
            ("/", ""),
            ("/a/b/", "a/b"),
            ("admin/../public", "public"),
            ("../../../../secret", "secret"),
            ("a/..b", "a/..b"),
        ] {
            assert_eq!(normalize(method).as_deref(), Ok(normal), "{method}");
        }
    }

    #[test]
    fn odd_but_harmless_characters_pass() {
        for method in ["%", "\"", "*", "\\", ";", "ü", "a b", "a:b@c"] {
            assert_eq!(normalize(method).as_deref(), Ok(method));
        }
        assert_eq!(normalize_bytes(b"\xff").as_deref(), Ok(&b"\xff"[..]));
    }

    #[test]
    fn characters_that_would_change_the_target_are_refused() {
        for (method, text) in [
            ("a#b", r#"method contains forbidden character: "a#b""#),
            ("a?b", r#"method contains forbidden character: "a?b""#),
            ("a\0b", r#"method contains forbidden character: "a\x00b""#),
            ("ab\r", r#"method contains control character at position 2: "ab\r""#),
            ("\x7f", r#"method contains control character at position 0: "\x7f""#),
            ("x\"\x01", r#"method contains control character at position 2: "x\"\x01""#),
        ] {
            assert_eq!(normalize(method).unwrap_err().to_string(), text);
        }
    }
}
