//! Bytes that sort as the values they stand for.
//!
//! Numbers are big-endian, signed ones with the sign bit flipped. A text inside a key is escaped (0x00 becomes
//! 0x00 0xFF) and ended by 0x00 0x01. So no text can run into the part behind it, a shorter text sorts before its
//! extensions, and, unlike with a length up front, all texts that begin alike stand together: a scan by prefix is one
//! range. Each value has exactly one encoding; anything else is refused when read.

use std::ops::Range;

use bytes::Bytes;
use callboard_types::{ActorKey, Timestamp};

use crate::Error;

const ESCAPE: u8 = 0x00;
const ESCAPED_NUL: u8 = 0xFF;
const END: u8 = 0x01;
const SIGN: u64 = 1 << 63;

/// Puts a key together, part by part.
#[derive(Debug)]
pub struct KeyBuilder(Vec<u8>);

impl KeyBuilder {
    pub fn new() -> Self {
        Self(Vec::with_capacity(64))
    }

    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn time(self, value: Timestamp) -> Self {
        self.u64(value.as_micros().cast_unsigned() ^ SIGN)
    }

    /// A whole text: what follows is another part.
    pub fn text(self, text: &str) -> Self {
        let mut key = self.text_prefix(text);
        key.0.extend([ESCAPE, END]);
        key
    }

    /// The beginning of a text: every text that starts so has a key that starts so.
    pub fn text_prefix(mut self, prefix: &str) -> Self {
        for &byte in prefix.as_bytes() {
            self.0.push(byte);
            if byte == ESCAPE {
                self.0.push(ESCAPED_NUL);
            }
        }
        self
    }

    pub fn actor(self, actor: &ActorKey) -> Self {
        self.text(&actor.namespace).text(&actor.actor_type).text(&actor.actor_id)
    }

    /// The last part of a key: nothing follows, so it needs no end mark.
    pub fn tail(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn finish(self) -> Bytes {
        self.0.into()
    }

    /// Every key that starts with what has been built.
    pub fn range(self) -> Range<Bytes> {
        let end = successor(&self.0);
        self.finish()..end
    }
}

/// The least key above every key that starts with `prefix`.
///
/// There is none when the prefix is all 0xFF. No key continues such a prefix with another 0xFF (what follows a number is
/// a small tag or a text, and UTF-8 has no such byte), so one more 0xFF is above them all.
fn successor(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    match end.iter().rposition(|&byte| byte != 0xFF) {
        Some(last) => {
            end.truncate(last + 1);
            end[last] += 1;
        }
        None => end.push(0xFF),
    }
    end.into()
}

/// The least key above `key`: where a scan goes on after it.
pub fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Takes a key apart, part by part.
#[derive(Debug)]
pub struct KeyParser<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> KeyParser<'a> {
    pub fn new(what: &'static str, key: &'a [u8]) -> Self {
        Self { what, rest: key }
    }

    pub fn u8(&mut self) -> Result<u8, Error> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        self.chunk().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Error> {
        self.chunk().map(u64::from_be_bytes)
    }

    pub fn time(&mut self) -> Result<Timestamp, Error> {
        self.u64().map(|bits| Timestamp::from_micros((bits ^ SIGN).cast_signed()))
    }

    /// The tag that tells one kind of row from another in the same table.
    pub fn tag(&mut self, expected: u8) -> Result<(), Error> {
        match self.u8()? {
            found if found == expected => Ok(()),
            found => Err(self.corrupt(format!("tag {found} where {expected} belongs"))),
        }
    }

    pub fn text(&mut self) -> Result<String, Error> {
        let mut text = Vec::new();
        loop {
            match *self.rest {
                [ESCAPE, END, ..] => {
                    self.rest = &self.rest[2..];
                    return self.utf8(text);
                }
                [ESCAPE, ESCAPED_NUL, ..] => {
                    text.push(0);
                    self.rest = &self.rest[2..];
                }
                [ESCAPE, other, ..] => return Err(self.corrupt(format!("escape {other:#04x}"))),
                [ESCAPE] | [] => return Err(self.corrupt("cut off in a text")),
                [byte, ..] => {
                    text.push(byte);
                    self.rest = &self.rest[1..];
                }
            }
        }
    }

    pub fn actor(&mut self) -> Result<ActorKey, Error> {
        Ok(ActorKey::new(self.text()?, self.text()?, self.text()?))
    }

    pub fn tail(self) -> &'a [u8] {
        self.rest
    }

    pub fn tail_text(self) -> Result<String, Error> {
        self.utf8(self.rest.to_vec())
    }

    pub fn end(self) -> Result<(), Error> {
        match self.rest {
            [] => Ok(()),
            rest => Err(self.corrupt(format!("{} bytes too many", rest.len()))),
        }
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let Some((chunk, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.corrupt("cut off"));
        };
        self.rest = rest;
        Ok(*chunk)
    }

    fn utf8(&self, text: Vec<u8>) -> Result<String, Error> {
        String::from_utf8(text).map_err(|_| self.corrupt("a text that is not UTF-8"))
    }

    fn corrupt(&self, why: impl Into<String>) -> Error {
        Error::corrupt(self.what, why)
    }
}
