//! Sizes as Kubernetes writes them: `4Mi`, `1k` = 1000, `1Ki` = 1024, `1.5Gi`, `1e3`, `500m`.
//!
//! A number, then one suffix: binary (`Ki Mi Gi Ti Pi Ei`), decimal (`n u m k M G T P E`) or an exponent (`e3`, `E3`).
//! The result is whole bytes, rounded up, since a size of half a byte is a size of one.
//!
//! *Deliberately absent:* negative sizes, and Go's habit of keeping the spelling.

/// Longest text that is looked at, in bytes.
const MAX_TEXT: usize = 64;

/// Digits of a fraction that can matter: one unit of `Ei` is below 10^19.
const FRACTION_DIGITS: usize = 19;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {0:?}")]
    Format(String),
    #[error("a size cannot be negative: {0:?}")]
    Negative(String),
    #[error("a size must be below 16 Ei: {0:?}")]
    TooLarge(String),
}

/// Parses a size in bytes.
///
/// # Errors
///
/// Not a quantity, negative, or not below 2^64.
pub fn parse(text: &str) -> Result<u64, Error> {
    let shown = || text.chars().take(MAX_TEXT).collect::<String>();
    if text.len() > MAX_TEXT {
        return Err(Error::Format(shown()));
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let scale = Scale::parse(suffix).ok_or_else(|| Error::Format(shown()))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(Error::Format(shown()));
    }
    if negative && number.bytes().any(|b| b.is_ascii_digit() && b != b'0') {
        return Err(Error::Negative(shown()));
    }
    scale.apply(whole, fraction).ok_or_else(|| Error::TooLarge(shown()))
}

#[derive(Clone, Copy)]
enum Scale {
    /// Times 2^n.
    Binary(u32),
    /// Times 10^n.
    Decimal(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Scale> {
        Some(match suffix {
            "" => Scale::Decimal(0),
            "Ki" => Scale::Binary(10),
            "Mi" => Scale::Binary(20),
            "Gi" => Scale::Binary(30),
            "Ti" => Scale::Binary(40),
            "Pi" => Scale::Binary(50),
            "Ei" => Scale::Binary(60),
            "n" => Scale::Decimal(-9),
            "u" => Scale::Decimal(-6),
            "m" => Scale::Decimal(-3),
            "k" => Scale::Decimal(3),
            "M" => Scale::Decimal(6),
            "G" => Scale::Decimal(9),
            "T" => Scale::Decimal(12),
            "P" => Scale::Decimal(15),
            "E" => Scale::Decimal(18),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?;
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                Scale::Decimal(exponent.parse().ok()?)
            }
        })
    }

    /// `whole.fraction` times the scale, rounded up; `None` when it does not fit.
    fn apply(self, whole: &str, fraction: &str) -> Option<u64> {
        let beyond = fraction.get(FRACTION_DIGITS..).unwrap_or("");
        let kept = &fraction[..fraction.len() - beyond.len()];
        let digits = format!("{whole}{kept}");
        let digits = digits.trim_start_matches('0');
        let mantissa: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        // What the kept digits leave out counts as one unit of the last kept place: enough to round up.
        let mantissa = mantissa.checked_add(u128::from(beyond.bytes().any(|b| b != b'0')))?;
        if mantissa == 0 {
            return Some(0);
        }
        let places = i32::try_from(kept.len()).ok()?;
        let (mantissa, exponent) = match self {
            Scale::Binary(bits) => (mantissa.checked_mul(1 << bits)?, -places),
            Scale::Decimal(power) => (mantissa, power.checked_sub(places)?),
        };
        let value = if exponent >= 0 {
            mantissa.checked_mul(10_u128.checked_pow(exponent.unsigned_abs())?)?
        } else {
            10_u128.checked_pow(exponent.unsigned_abs()).map_or(1, |divisor| mantissa.div_ceil(divisor))
        };
        u64::try_from(value).ok()
    }
}

/// Fuzz body: no text panics.
pub fn fuzz_quantity(data: &[u8]) {
    let _ = parse(&String::from_utf8_lossy(data));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_mean_what_kubernetes_says() {
        let cases: &[(&str, u64)] = &[
            ("0", 0),
            ("4Mi", 4 << 20),
            ("4Ki", 4096),
            ("1k", 1_000),
            ("1Ki", 1_024),
            ("1M", 1_000_000),
            ("2G", 2_000_000_000),
            ("1.5Gi", 3 << 29),
            (".5Ki", 512),
            ("5.", 5),
            ("+7", 7),
            ("-0", 0),
            ("1e3", 1_000),
            ("1E3", 1_000),
            ("1e+3", 1_000),
            ("15e-1", 2),
            ("1E", 1_000_000_000_000_000_000),
            ("1Ei", 1 << 60),
            ("15Ei", 15 << 60),
            ("100m", 1),
            ("1001m", 2),
            ("1n", 1),
            ("1e-99", 1),
            ("0e99", 0),
            ("1.0000000000000000000000001", 2),
            ("18446744073709551615", u64::MAX),
            ("007k", 7_000),
        ];
        for &(text, bytes) in cases {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        let long = "1".repeat(MAX_TEXT + 1);
        for text in [
            "", "k", "-", ".", "1.2.3", "1K", "1ki", "1KB", "4 Mi", " 4Mi", "4Mi ", "1e", "1e+", "1e3k", "0x10", "++1",
            "1mi", "é", &long,
        ] {
            assert!(matches!(parse(text), Err(Error::Format(_))), "{text}");
        }
        assert!(matches!(parse("-1"), Err(Error::Negative(_))));
        for text in ["16Ei", "18446744073709551616", "1e20", "1e999", "99E"] {
            assert!(matches!(parse(text), Err(Error::TooLarge(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in prop_oneof![any::<String>(), "[+-]?[0-9.]{0,30}(e[+-]?[0-9]{0,12}|[KMGTPEnumk]?i?)"]) {
            fuzz_quantity(text.as_bytes());
        }

        #[test]
        fn whole_numbers_are_exact(n in any::<u32>()) {
            prop_assert_eq!(parse(&n.to_string()), Ok(u64::from(n)));
            prop_assert_eq!(parse(&format!("{n}Ki")), Ok(u64::from(n) << 10));
            prop_assert_eq!(parse(&format!("{n}k")), Ok(u64::from(n) * 1_000));
        }
    }
}
