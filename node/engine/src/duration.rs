//! The time grammar: what a due time, a period, a ttl or a duration flag may look like, and what it means.
//!
//! The grammar is the union of what Dapr accepts on timers and on reminders and of what its SDKs send:
//!
//! | form | dueTime, ttl | period |
//! |---|---|---|
//! | Go duration: `1h2m3s4ms`, `1.5h`, `24h0m1s250ms0µs` (U+00B5 or U+03BC), `-1m`, `0` | yes | yes |
//! | ISO 8601 duration: `P1Y2M3W4DT5H6M7.5S`, lower case too, units in any order, `P` and `PT` are zero | yes | yes |
//! | `Rn/` before an ISO 8601 duration; `Rn` or `Rn/` alone (no interval) | no | yes, n > 0 |
//! | RFC 3339 instant, with or without a fraction of a second | yes | no |
//! | empty | none | none |
//!
//! Years and months are calendar lengths; days and weeks are 24 and 168 hours, which in UTC they always are. A fraction
//! of a year must be whole months, a month has no fraction.
//!
//! *Invariants.* No text makes a function here panic or loop beyond its length; no result is earlier than the text
//! says (sub-microsecond remainders round up, since instants are whole microseconds).
//!
//! *Deliberately absent:* Dapr's habit of skipping unknown characters inside an ISO duration, which turns a typing
//! error into a period of zero; a clock; cron expressions.

use std::time::Duration;

use callboard_types::Timestamp;
use chrono::{DateTime, Months};

/// Longest text that is looked at, in bytes. Longer ones are not time texts.
pub const MAX_TIME_TEXT: usize = 256;

/// How much of a refused text an error repeats, in characters.
const SHOWN: usize = 64;

const NANOS_PER_MICRO: i128 = 1_000;
const NANOS_PER_MILLI: i128 = 1_000_000;
const NANOS_PER_SEC: i128 = 1_000_000_000;
const NANOS_PER_MINUTE: i128 = 60 * NANOS_PER_SEC;
const NANOS_PER_HOUR: i128 = 60 * NANOS_PER_MINUTE;
const NANOS_PER_DAY: i128 = 24 * NANOS_PER_HOUR;
const NANOS_PER_WEEK: i128 = 7 * NANOS_PER_DAY;

/// Why a text is not in the grammar. The texts are Dapr's; callers put their context in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a duration (of a period, a flag, a configuration field).
    #[error("unsupported duration format: {0}")]
    Duration(String),
    /// Neither an instant nor a duration (of a due time or ttl).
    #[error("unsupported time/duration format: {0}")]
    Time(String),
    /// `Rn` where only one instant makes sense.
    #[error("repetitions are not allowed")]
    Repetitions,
    /// `R0`.
    #[error("has zero repetitions")]
    ZeroRepetitions,
}

impl Error {
    fn duration(text: &str) -> Self {
        Error::Duration(shown(text))
    }

    fn time(text: &str) -> Self {
        Error::Time(shown(text))
    }
}

/// A Go duration: nanoseconds, possibly negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignedNanos(pub i64);

impl SignedNanos {
    /// `None` when negative.
    pub fn to_duration(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

/// A length of time: calendar months, then an exact part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval {
    months: u32,
    /// Negative only when it comes from a Go duration; then `months` is 0.
    nanos: i128,
}

impl Interval {
    pub const ZERO: Interval = Interval { months: 0, nanos: 0 };

    pub fn from_duration(span: Duration) -> Self {
        Self { months: 0, nanos: i128::try_from(span.as_nanos()).unwrap_or(i128::MAX) }
    }

    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether its length depends on where in the calendar it begins.
    pub fn is_calendar(self) -> bool {
        self.months != 0
    }

    /// The same length in whole microseconds, rounded up: repeated addition then never drifts below the text.
    pub fn round_up(self) -> Self {
        Self { months: self.months, nanos: ceil_micros(self.nanos).saturating_mul(NANOS_PER_MICRO) }
    }

    /// `count` of it in a row; `None` on overflow.
    pub fn times(self, count: u64) -> Option<Self> {
        let months = u64::from(self.months).checked_mul(count).and_then(|m| u32::try_from(m).ok())?;
        Some(Self { months, nanos: self.nanos.checked_mul(i128::from(count))? })
    }

    /// `base` plus this: months first (the day is kept, or becomes the last of a shorter month), then the exact part.
    /// `None` when the result is not a representable instant.
    pub fn after(self, base: Timestamp) -> Option<Timestamp> {
        let moved = if self.months == 0 {
            base.as_micros()
        } else {
            let date = DateTime::from_timestamp_micros(base.as_micros())?;
            date.checked_add_months(Months::new(self.months))?.timestamp_micros()
        };
        let micros = i64::try_from(ceil_micros(self.nanos)).ok()?;
        moved.checked_add(micros).map(Timestamp)
    }

    /// As Go prints it; `None` when it has months or is negative.
    pub fn go_text(self) -> Option<String> {
        if self.is_calendar() {
            return None;
        }
        u128::try_from(self.nanos).ok().map(format_nanos)
    }
}

/// What a due time or ttl says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    At(Timestamp),
    In(Interval),
}

impl When {
    /// The instant, seen from `base`; `None` when it is not representable.
    pub fn from(self, base: Timestamp) -> Option<Timestamp> {
        match self {
            When::At(instant) => Some(instant),
            When::In(interval) => interval.after(base),
        }
    }
}

/// What a period says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub interval: Interval,
    /// Total number of firings, at least 1; `None`: no limit.
    pub repeats: Option<u64>,
}

/// Parses a due time or a ttl. Empty is `None`.
pub fn parse_when(text: &str) -> Result<Option<When>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_TIME_TEXT {
        return Err(Error::time(text));
    }
    if let Some(instant) = parse_instant(text) {
        return Ok(Some(When::At(instant)));
    }
    match parse_period(text) {
        Ok(Some(Period { interval, repeats: None })) => Ok(Some(When::In(interval))),
        Ok(Some(Period { interval: _, repeats: Some(_) })) | Err(Error::ZeroRepetitions | Error::Repetitions) => {
            Err(Error::Repetitions)
        }
        Ok(None) | Err(Error::Duration(_) | Error::Time(_)) => Err(Error::time(text)),
    }
}

/// Parses a period. Empty is `None`; `Rn` without a duration is an interval of zero.
pub fn parse_period(text: &str) -> Result<Option<Period>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_TIME_TEXT || !text.starts_with(['R', 'r']) {
        return parse_interval(text).map(|interval| Some(Period { interval, repeats: None }));
    }
    let (count, rest) = text[1..].split_once('/').unwrap_or((&text[1..], ""));
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::duration(text));
    }
    let repeats: u64 = count.parse().map_err(|_| Error::duration(text))?;
    let interval =
        if rest.is_empty() { Interval::ZERO } else { parse_iso(rest).ok_or_else(|| Error::duration(text))? };
    if repeats == 0 {
        return Err(Error::ZeroRepetitions);
    }
    Ok(Some(Period { interval, repeats: Some(repeats) }))
}

/// Parses an ISO 8601 or a Go duration, without repetitions.
pub fn parse_interval(text: &str) -> Result<Interval, Error> {
    if text.len() > MAX_TIME_TEXT {
        return Err(Error::duration(text));
    }
    if text.starts_with(['P', 'p']) {
        return parse_iso(text).ok_or_else(|| Error::duration(text));
    }
    parse_go(text).map(|SignedNanos(nanos)| Interval { months: 0, nanos: i128::from(nanos) })
}

/// Parses a Go duration: one or more decimal numbers with a unit (`ns us µs ms s m h`), an optional sign, or `0`.
pub fn parse_go(text: &str) -> Result<SignedNanos, Error> {
    if text.len() > MAX_TIME_TEXT {
        return Err(Error::duration(text));
    }
    go_nanos(text).map(SignedNanos).ok_or_else(|| Error::duration(text))
}

/// As [`parse_go`], refusing negative lengths: flags and configuration.
pub fn parse_go_duration(text: &str) -> Result<Duration, Error> {
    parse_go(text)?.to_duration().ok_or_else(|| Error::duration(text))
}

/// A duration exactly as Go prints it: `1h0m0s`, `1m30s`, `1.5s`, `500ms`, `100µs`, `1ns`, `0s`.
pub fn format_go(span: Duration) -> String {
    format_nanos(span.as_nanos())
}

fn format_nanos(nanos: u128) -> String {
    const SEC: u128 = 1_000_000_000;
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..SEC => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let minutes = nanos / SEC / 60;
            let seconds = decimal(nanos % (60 * SEC), SEC);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` without trailing zeros; `unit` is a power of ten.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    format!("{whole}.{}", format!("{fraction:0width$}").trim_end_matches('0'))
}

fn parse_instant(text: &str) -> Option<Timestamp> {
    let date = DateTime::parse_from_rfc3339(text).ok()?;
    let micros = date.timestamp().checked_mul(1_000_000)?;
    micros.checked_add(i64::from(date.timestamp_subsec_nanos().div_ceil(1_000))).map(Timestamp)
}

fn go_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = Number::split(rest, &['.'])?;
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let unit = match &after[..end] {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => NANOS_PER_MICRO,
            "ms" => NANOS_PER_MILLI,
            "s" => NANOS_PER_SEC,
            "m" => NANOS_PER_MINUTE,
            "h" => NANOS_PER_HOUR,
            _ => return None,
        };
        total = total.checked_add(number.scaled(unit)?)?;
        rest = &after[end..];
    }
    i64::try_from(if negative { total.checked_neg()? } else { total }).ok()
}

/// `P…` without repetitions; `None` when it is not one.
fn parse_iso(text: &str) -> Option<Interval> {
    let mut rest = text.strip_prefix(['P', 'p'])?;
    let mut in_time = false;
    let (mut months, mut nanos): (i128, i128) = (0, 0);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(['T', 't']) {
            if in_time {
                return None;
            }
            in_time = true;
            rest = after;
            continue;
        }
        let (number, after) = Number::split(rest, &['.', ','])?;
        let unit = after.chars().next()?.to_ascii_uppercase();
        match (in_time, unit) {
            (false, 'Y') => months = months.checked_add(number.scaled_exactly(12)?)?,
            (false, 'M') => months = months.checked_add(number.scaled_exactly(1)?)?,
            (false, 'W') => nanos = nanos.checked_add(number.scaled(NANOS_PER_WEEK)?)?,
            (false, 'D') => nanos = nanos.checked_add(number.scaled(NANOS_PER_DAY)?)?,
            (true, 'H') => nanos = nanos.checked_add(number.scaled(NANOS_PER_HOUR)?)?,
            (true, 'M') => nanos = nanos.checked_add(number.scaled(NANOS_PER_MINUTE)?)?,
            (true, 'S') => nanos = nanos.checked_add(number.scaled(NANOS_PER_SEC)?)?,
            _ => return None,
        }
        rest = &after[1..];
    }
    Some(Interval { months: u32::try_from(months).ok()?, nanos })
}

/// A decimal number: `whole + fraction / 10^digits`.
struct Number {
    whole: i128,
    fraction: i128,
    digits: u32,
}

impl Number {
    /// Digits of a fraction that can matter: an exact part of nanoseconds has no use for more.
    const FRACTION_DIGITS: usize = 18;

    /// Takes a number off the front; `None` when there is none. One of its parts may be empty (`.5s`, `5.s`).
    fn split<'a>(text: &'a str, points: &[char]) -> Option<(Number, &'a str)> {
        let end = digits_end(text);
        let whole_text = &text[..end];
        let mut rest = &text[end..];
        let mut fraction_text = "";
        if let Some(after) = rest.strip_prefix(points) {
            let end = digits_end(after);
            fraction_text = &after[..end];
            rest = &after[end..];
        }
        if whole_text.is_empty() && fraction_text.is_empty() {
            return None;
        }
        let whole = if whole_text.is_empty() { 0 } else { i128::from(whole_text.parse::<u64>().ok()?) };
        let kept = &fraction_text[..fraction_text.len().min(Self::FRACTION_DIGITS)];
        let fraction = if kept.is_empty() { 0 } else { kept.parse().ok()? };
        Some((Number { whole, fraction, digits: u32::try_from(kept.len()).ok()? }, rest))
    }

    /// The number times `unit`, what is below one unit of the result cut off.
    fn scaled(&self, unit: i128) -> Option<i128> {
        let fraction = self.fraction.checked_mul(unit)? / 10_i128.pow(self.digits);
        self.whole.checked_mul(unit)?.checked_add(fraction)
    }

    /// The number times `unit`; `None` when that is not whole.
    fn scaled_exactly(&self, unit: i128) -> Option<i128> {
        let product = self.fraction.checked_mul(unit)?;
        if product % 10_i128.pow(self.digits) != 0 {
            return None;
        }
        self.scaled(unit)
    }
}

fn digits_end(text: &str) -> usize {
    text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len())
}

fn ceil_micros(nanos: i128) -> i128 {
    nanos.div_euclid(NANOS_PER_MICRO) + i128::from(nanos.rem_euclid(NANOS_PER_MICRO) != 0)
}

/// A refused text, cut to a length that a log line bears.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Fuzz body: every parser on arbitrary bytes; what parses has a lawful result.
pub fn fuzz_parse(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let base = Timestamp::from_secs(1_700_000_000);
    if let Ok(SignedNanos(nanos)) = parse_go(&text)
        && let Some(span) = SignedNanos(nanos).to_duration()
    {
        assert_eq!(parse_go(&format_go(span)), Ok(SignedNanos(nanos)), "printing and parsing agree");
    }
    if let Ok(interval) = parse_interval(&text) {
        let later = interval.after(base);
        assert!(interval.is_negative() || later.is_none_or(|later| later >= base), "{text}: {later:?}");
    }
    if let Ok(Some(period)) = parse_period(&text) {
        assert_ne!(period.repeats, Some(0));
    }
    if let Ok(Some(when)) = parse_when(&text) {
        let _ = when.from(Timestamp::MAX);
        let _ = when.from(Timestamp::MIN);
    }
}

#[cfg(test)]
#[path = "duration/grammar_test.rs"]
mod tests;
