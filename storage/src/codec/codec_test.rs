//! Golden bytes, and reading what an older or a newer program wrote.

use proptest::prelude::*;

use super::*;

#[derive(Debug, PartialEq)]
struct First {
    count: u8,
}

#[derive(Debug, PartialEq)]
struct Second {
    count: u16,
    name: String,
}

#[derive(Debug, PartialEq)]
struct Third {
    count: u16,
    name: String,
    seen: bool,
}

impl Record for First {
    const NAME: &'static str = "visit";
    const VERSION: u8 = 1;
    type Previous = NoPrevious;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.count);
    }

    fn decode(body: &[u8]) -> Result<Self, Error> {
        match body {
            [count] => Ok(First { count: *count }),
            other => Err(Error::corrupt(Self::NAME, format!("{} bytes", other.len()))),
        }
    }

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }
}

impl Record for Second {
    const NAME: &'static str = "visit";
    const VERSION: u8 = 2;
    type Previous = First;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.count);
        out.put_slice(self.name.as_bytes());
    }

    fn decode(body: &[u8]) -> Result<Self, Error> {
        let (count, name) = body.split_first_chunk::<2>().ok_or(Error::corrupt(Self::NAME, "cut off"))?;
        Ok(Second { count: u16::from_be_bytes(*count), name: String::from_utf8_lossy(name).into_owned() })
    }

    fn migrate(previous: First) -> Self {
        Second { count: previous.count.into(), name: "unknown".into() }
    }
}

impl Record for Third {
    const NAME: &'static str = "visit";
    const VERSION: u8 = 3;
    type Previous = Second;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.seen.into());
        out.put_u16(self.count);
        out.put_slice(self.name.as_bytes());
    }

    fn decode(body: &[u8]) -> Result<Self, Error> {
        let (seen, rest) = body.split_first().ok_or(Error::corrupt(Self::NAME, "cut off"))?;
        let Second { count, name } = Second::decode(rest)?;
        Ok(Third { count, name, seen: *seen != 0 })
    }

    fn migrate(previous: Second) -> Self {
        Third { count: previous.count, name: previous.name, seen: false }
    }
}

#[test]
fn a_record_is_its_version_byte_and_its_body() {
    assert_eq!(&encode(&First { count: 7 })[..], [1, 7]);
    assert_eq!(&encode(&Second { count: 258, name: "ab".into() })[..], [2, 1, 2, b'a', b'b']);
    assert_eq!(&encode(&Third { count: 258, name: "ab".into(), seen: true })[..], [3, 1, 1, 2, b'a', b'b']);
}

#[test]
fn every_older_version_is_read_through_all_versions_after_it() {
    let unknown = || "unknown".to_owned();
    assert_eq!(decode::<Third>(&[1, 7]).unwrap(), Third { count: 7, name: unknown(), seen: false });
    assert_eq!(decode::<Third>(&[2, 0, 7, b'x']).unwrap(), Third { count: 7, name: "x".into(), seen: false });
    assert_eq!(decode::<Second>(&[1, 7]).unwrap(), Second { count: 7, name: unknown() });
}

#[test]
fn a_newer_version_is_refused_by_name_and_number() {
    let error = decode::<Second>(&[3, 1, 0, 7]).unwrap_err().to_string();
    assert_eq!(error, "unreadable visit: version 3; this program reads up to 2");
    assert_eq!(decode::<Second>(&[]).unwrap_err().to_string(), "unreadable visit: empty");
    assert_eq!(
        decode::<Second>(&[0]).unwrap_err().to_string(),
        "unreadable visit: version 0; this program reads up to 2"
    );
}

#[test]
fn state_values_have_these_bytes() {
    assert_eq!(&encode_state_value(None, b"42")[..], [1, 0, b'4', b'2']);
    assert_eq!(
        &encode_state_value(Some(Timestamp::from_micros(0x0102_0304_0506_0708)), b"42")[..],
        [1, 1, 1, 2, 3, 4, 5, 6, 7, 8, b'4', b'2']
    );
}

#[test]
fn a_state_value_that_is_cut_off_or_foreign_is_refused() {
    for row in [&[][..], &[1], &[1, 2, 3], &[1, 1, 0, 0, 0, 0, 0, 0, 0], &[2, 0, 1]] {
        assert!(decode_state_value(&Bytes::copy_from_slice(row)).is_err(), "{row:?}");
    }
}

proptest! {
    #[test]
    fn a_state_value_reads_back_as_written(expires_at: Option<i64>, value: Vec<u8>) {
        let expires_at = expires_at.map(Timestamp::from_micros);
        let row = encode_state_value(expires_at, &value);
        prop_assert_eq!(state_value_expiry(&row).unwrap(), expires_at);
        prop_assert_eq!(decode_state_value(&row).unwrap(), (expires_at, Bytes::from(value)));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(data: Vec<u8>, flag in 0u8..3, body: Vec<u8>) {
        fuzz_decode(&data);
        let mut row = vec![1, flag];
        row.extend(body);
        fuzz_decode(&row);
    }
}
