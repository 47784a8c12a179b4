//! What a stored value looks like: one version byte, then the body.
//!
//! A [`Record`] names its version and the record it replaced. [`decode`] reads the version byte and walks back along
//! [`Record::Previous`] to the record that wrote it, then forward through [`Record::migrate`], so every older format stays
//! readable for as long as its type is in the chain. A version above the newest known one is an error that says so:
//! a store written by a newer program is never guessed at.
//!
//! Values of actor state are the exception to "body": they carry their expiry up front at a fixed place, so that a
//! compaction can judge a row without decoding the rest of it.
//!
//! Absent on purpose: the bodies themselves. Their layout belongs to whoever owns the record.

use bytes::{BufMut, Bytes};
use callboard_types::Timestamp;

use crate::Error;

/// A stored value with a version.
pub trait Record: Sized {
    /// What an error calls it.
    const NAME: &'static str;
    /// 1 for the first format; one more with every change of the body.
    const VERSION: u8;
    /// The record one version older, or [`NoPrevious`].
    type Previous: Record;

    /// Appends the body, without the version byte.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads the body of exactly [`Record::VERSION`].
    fn decode(body: &[u8]) -> Result<Self, Error>;
    /// Makes this record of the one before it.
    fn migrate(previous: Self::Previous) -> Self;

    /// Reads the body of `version`, this one or any older.
    #[doc(hidden)]
    fn decode_version(version: u8, body: &[u8], newest: u8) -> Result<Self, Error> {
        if version == Self::VERSION {
            return Self::decode(body);
        }
        Self::Previous::decode_version(version, body, newest).map(Self::migrate)
    }
}

/// Ends the chain of [`Record::Previous`].
#[derive(Debug)]
pub enum NoPrevious {}

impl Record for NoPrevious {
    const NAME: &'static str = "record";
    const VERSION: u8 = 0;
    type Previous = NoPrevious;

    fn encode(&self, _out: &mut Vec<u8>) {
        match *self {}
    }

    fn decode(_body: &[u8]) -> Result<Self, Error> {
        Err(Error::corrupt(Self::NAME, "version 0"))
    }

    fn migrate(previous: NoPrevious) -> Self {
        previous
    }

    fn decode_version(version: u8, _body: &[u8], newest: u8) -> Result<Self, Error> {
        Err(Error::corrupt(Self::NAME, format!("version {version}; this program reads up to {newest}")))
    }
}

/// The version byte and the body.
pub fn encode<R: Record>(record: &R) -> Bytes {
    let mut out = vec![R::VERSION];
    record.encode(&mut out);
    out.into()
}

/// Reads a record of this version or any older.
pub fn decode<R: Record>(bytes: &[u8]) -> Result<R, Error> {
    let Some((&version, body)) = bytes.split_first() else {
        return Err(Error::corrupt(R::NAME, "empty"));
    };
    R::decode_version(version, body, R::VERSION).map_err(|error| named(R::NAME, error))
}

/// An error of the end of the chain speaks of the record that was asked for.
fn named(what: &'static str, error: Error) -> Error {
    match error {
        Error::Corrupt { why, .. } => Error::Corrupt { what, why },
        other @ (Error::Io { .. } | Error::Locked { .. } | Error::Stopped) => other,
    }
}

const STATE_VERSION: u8 = 1;
const NO_EXPIRY: u8 = 0;
const EXPIRY: u8 = 1;
/// Version, flag, instant.
const EXPIRY_HEADER: usize = 2 + 8;

/// The row of one actor state key: version, flag, expiry if the flag says so, then the value as given.
pub fn encode_state_value(expires_at: Option<Timestamp>, value: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(EXPIRY_HEADER + value.len());
    out.put_u8(STATE_VERSION);
    match expires_at {
        None => out.put_u8(NO_EXPIRY),
        Some(at) => {
            out.put_u8(EXPIRY);
            out.put_i64(at.as_micros());
        }
    }
    out.put_slice(value);
    out.into()
}

/// The expiry and the value, which shares `row`'s memory.
pub fn decode_state_value(row: &Bytes) -> Result<(Option<Timestamp>, Bytes), Error> {
    let (expires_at, header) = state_header(row)?;
    Ok((expires_at, row.slice(header..)))
}

/// The expiry alone.
pub fn state_value_expiry(row: &[u8]) -> Result<Option<Timestamp>, Error> {
    state_header(row).map(|(expires_at, _)| expires_at)
}

fn state_header(row: &[u8]) -> Result<(Option<Timestamp>, usize), Error> {
    const NAME: &str = "state value";
    match row {
        [STATE_VERSION, NO_EXPIRY, ..] => Ok((None, 2)),
        [STATE_VERSION, EXPIRY, rest @ ..] => match rest.first_chunk::<8>() {
            Some(micros) => Ok((Some(Timestamp::from_micros(i64::from_be_bytes(*micros))), EXPIRY_HEADER)),
            None => Err(Error::corrupt(NAME, "cut off in the expiry")),
        },
        [STATE_VERSION, flag, ..] => Err(Error::corrupt(NAME, format!("flag {flag}"))),
        [] | [STATE_VERSION] => Err(Error::corrupt(NAME, "cut off")),
        [version, ..] => {
            Err(Error::corrupt(NAME, format!("version {version}; this program reads up to {STATE_VERSION}")))
        }
    }
}

/// Any bytes are decoded or refused, and what is decoded encodes to the same bytes.
pub fn fuzz_decode(data: &[u8]) {
    let row = Bytes::copy_from_slice(data);
    if let Ok((expires_at, value)) = decode_state_value(&row) {
        assert_eq!(encode_state_value(expires_at, &value), row);
        assert_eq!(state_value_expiry(&row).ok(), Some(expires_at));
    }
}

#[cfg(test)]
#[path = "codec/codec_test.rs"]
mod tests;
