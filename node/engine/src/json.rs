//! Reading the JSON objects of the actor API as Go's decoder does, and keeping the JSON that only passes through.
//!
//! Apps were written against Dapr, whose decoder ignores the case of keys, ignores unknown keys, lets the last of equal
//! keys win and reads `null` as "not given". `serde`'s derive does none of the first, so the few objects of the actor
//! API are read field by field. Values that pass through (`data`) stay text: numbers keep their digits, strings their
//! escapes; only white space between tokens goes.
//!
//! *Invariants.* No input panics or recurses without bound. Absent and `null` are told apart where it matters
//! ([`Fields::raw`]).

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a body is not the object it should be. The text follows Dapr's "failed deserializing HTTP body: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Syntax(String),
    #[error("field {field}: expected {expected}")]
    Field { field: &'static str, expected: &'static str },
}

/// The members of one JSON object, as text.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    members: Vec<(String, &'a str)>,
}

impl<'a> Fields<'a> {
    /// # Errors
    ///
    /// `body` is neither a JSON object nor `null` (which has no members).
    pub fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let syntax = |error: serde_json::Error| Error::Syntax(error.to_string());
        let mut reader = serde_json::Deserializer::from_slice(body);
        let members = reader.deserialize_option(Members).map_err(syntax)?;
        reader.end().map_err(syntax)?;
        Ok(Self { members })
    }

    /// The JSON text of a member; `Some("null")` when it is there and null.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        let found = |(key, value): &(String, &'a str)| key.eq_ignore_ascii_case(name).then_some(*value);
        self.members.iter().rev().find_map(found)
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The JSON text of a member that is there and not null.
    pub fn given(&self, name: &str) -> Option<&'a str> {
        self.raw(name).filter(|text| *text != "null")
    }

    /// A string member; absent and null are `None`.
    ///
    /// # Errors
    ///
    /// The member is something else.
    pub fn string(&self, field: &'static str) -> Result<Option<String>, Error> {
        self.typed(field, "a string")
    }

    /// A boolean member; absent and null are `None`.
    ///
    /// # Errors
    ///
    /// The member is something else.
    pub fn bool(&self, field: &'static str) -> Result<Option<bool>, Error> {
        self.typed(field, "a boolean")
    }

    /// A whole number; absent and null are `None`.
    ///
    /// # Errors
    ///
    /// The member is something else.
    pub fn integer(&self, field: &'static str) -> Result<Option<i64>, Error> {
        self.typed(field, "a whole number")
    }

    /// An array of strings; absent and null are empty.
    ///
    /// # Errors
    ///
    /// The member is something else.
    pub fn strings(&self, field: &'static str) -> Result<Vec<String>, Error> {
        Ok(self.typed(field, "an array of strings")?.unwrap_or_default())
    }

    /// An array of objects; absent and null are empty.
    ///
    /// # Errors
    ///
    /// The member is something else.
    pub fn objects(&self, field: &'static str) -> Result<Vec<Fields<'a>>, Error> {
        let expected = "an array of objects";
        let items: Vec<&'a RawValue> = self.typed(field, expected)?.unwrap_or_default();
        let object =
            |item: &'a RawValue| Fields::parse(item.get().as_bytes()).map_err(|_| Error::Field { field, expected });
        items.into_iter().map(object).collect()
    }

    /// An object member; absent and null are `None`.
    ///
    /// # Errors
    ///
    /// The member is something else.
    pub fn object(&self, field: &'static str) -> Result<Option<Fields<'a>>, Error> {
        let parse = |text: &'a str| Fields::parse(text.as_bytes());
        self.given(field).map(parse).transpose().map_err(|_| Error::Field { field, expected: "an object" })
    }

    fn typed<T: serde::Deserialize<'a>>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.given(field) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|_| Error::Field { field, expected })
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de str)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
            members.push((key, value.get()));
        }
        Ok(members)
    }
}

/// JSON text without white space between its tokens; nothing else changes. `text` must be valid JSON.
pub fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if matches!(c, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            in_string = c == '"';
        }
        out.push(c);
    }
    out
}

/// `text` as a JSON string, quotes included.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Fuzz body: any bytes as an object, and its members as every type. What is JSON stays so when it is compacted.
pub fn fuzz_json(data: &[u8]) {
    const FIELDS: [&str; 3] = ["data", "a", ""];
    let Ok(fields) = Fields::parse(data) else { return };
    for name in FIELDS {
        let _ = (fields.string(name), fields.bool(name), fields.integer(name), fields.strings(name));
        let _ = (fields.objects(name), fields.object(name));
        let Some(text) = fields.raw(name) else { continue };
        let short = compact(text);
        assert!(short.len() <= text.len() && compact(&short) == short);
        assert!(serde_json::from_str::<&RawValue>(&short).is_ok(), "{text} becomes {short}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_match_whatever_their_case_and_the_last_wins() {
        let fields = Fields::parse(br#" {"DueTime":"1s","duetime":"2s","x":{"dueTime":"3s"},"n":null} "#).unwrap();
        assert_eq!(fields.string("dueTime"), Ok(Some("2s".to_owned())));
        assert_eq!(fields.string("n"), Ok(None));
        assert_eq!(fields.raw("n"), Some("null"));
        assert_eq!(fields.raw("absent"), None);
        assert_eq!(fields.bool("x"), Err(Error::Field { field: "x", expected: "a boolean" }));
        assert!(fields.object("x").unwrap().unwrap().string("dueTime").unwrap().is_some());
    }

    #[test]
    fn only_objects_and_null_are_objects() {
        assert_eq!(Fields::parse(b"null").unwrap().raw("a"), None);
        for body in
            ["", "[]", "5", "\"x\"", "{", "{}}", "{} x", "{\"a\":}", "{\"a\":1,}", "{'a':1}", "{\"a\":\"\u{1}\"}"]
        {
            assert!(matches!(Fields::parse(body.as_bytes()), Err(Error::Syntax(_))), "{body}");
        }
        assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn deep_nesting_is_read_without_recursion() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
        let _ = Fields::parse(deep.as_bytes());
    }

    #[test]
    fn compact_drops_white_space_between_tokens_only() {
        let cases = [
            ("{ \"foo\": [ 12, 4 ] }", "{\"foo\":[12,4]}"),
            ("\t\r\n null ", "null"),
            (r#"{ "a b" : " \" x \\" , "c":1.50e+3 }"#, r#"{"a b":" \" x \\","c":1.50e+3}"#),
            (r#""\u00e9 é""#, r#""\u00e9 é""#),
        ];
        for (text, expected) in cases {
            assert_eq!(compact(text), expected);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Fields::parse(&data);
        }

        #[test]
        fn compact_keeps_the_value(text in "[\\[\\]{}:, \"a-c0-9\\\\]{0,40}") {
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&compact(&text)).unwrap(), value);
            }
        }
    }
}
