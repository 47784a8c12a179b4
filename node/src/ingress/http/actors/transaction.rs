//! The body of a state transaction: rows of JSON into operations. Pure.

use std::time::Duration;

use callboard_engine::json::{self, Fields};
use callboard_machine::partition::ActorOp;
use callboard_types::Timestamp;
use serde_json::value::RawValue;

/// Why a body is no transaction.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an array.
    #[error(transparent)]
    NotRows(#[from] serde_json::Error),
    #[error(transparent)]
    Malformed(#[from] json::Error),
    #[error("operation is empty")]
    NoOperation,
    #[error("operation type {0} not supported")]
    Unsupported(String),
    #[error("request data is empty")]
    NoRequest,
    #[error("missing key")]
    NoKey,
    #[error("value for ttlInSeconds is not an integer: {0}")]
    Ttl(String),
}

impl Error {
    /// Whether it is not even of the shape of a transaction.
    pub fn is_malformed(&self) -> bool {
        match self {
            Error::NotRows(_) | Error::Malformed(_) => true,
            Error::NoOperation | Error::Unsupported(_) | Error::NoRequest | Error::NoKey | Error::Ttl(_) => false,
        }
    }
}

/// The operations of a transaction, in order.
///
/// # Errors
///
/// The first row that is malformed; where none is, the first that lacks something.
pub fn operations(body: &[u8], now: Timestamp) -> Result<Vec<ActorOp>, Error> {
    let rows: Vec<&RawValue> = serde_json::from_slice(body)?;
    let mut ops = Vec::with_capacity(rows.len());
    let mut lacking = None;
    for row in rows {
        match operation(row, now) {
            Ok(op) => ops.push(op),
            Err(error) if error.is_malformed() => return Err(error),
            Err(error) => lacking = lacking.or(Some(error)),
        }
    }
    lacking.map_or(Ok(ops), Err)
}

fn operation(row: &RawValue, now: Timestamp) -> Result<ActorOp, Error> {
    let fields = Fields::parse(row.get().as_bytes())?;
    let operation = fields.string("operation")?.unwrap_or_default();
    if operation.is_empty() {
        return Err(Error::NoOperation);
    }
    let request =
        fields.raw("request").filter(|request| *request != "null").map(|request| Fields::parse(request.as_bytes()));
    let request = request.transpose()?;
    let key = |request: Option<&Fields<'_>>| -> Result<String, Error> {
        let key = request.ok_or(Error::NoRequest)?.string("key")?.unwrap_or_default();
        if key.is_empty() { Err(Error::NoKey) } else { Ok(key) }
    };
    match operation.as_str() {
        "upsert" => {
            let key = key(request.as_ref())?;
            let request = request.ok_or(Error::NoRequest)?;
            // A value that is left out is stored as null (Python's None).
            let value = json::compact(request.raw("value").unwrap_or("null"));
            Ok(ActorOp::Upsert { key, value: value.into(), expires_at: expiry(&request, now)? })
        }
        "delete" => Ok(ActorOp::Delete { key: key(request.as_ref())? }),
        _unknown => Err(Error::Unsupported(operation)),
    }
}

/// `metadata.ttlInSeconds`, an integer or a string with one: not positive means none.
fn expiry(request: &Fields<'_>, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let Some(metadata) = request.raw("metadata").filter(|metadata| *metadata != "null") else { return Ok(None) };
    let metadata = Fields::parse(metadata.as_bytes())?;
    let Some(ttl) = metadata.raw("ttlInSeconds").filter(|ttl| *ttl != "null") else { return Ok(None) };
    let seconds: i64 = if ttl.starts_with('"') {
        let text = metadata.string("ttlInSeconds")?.unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map_err(|_| Error::Ttl(text.chars().take(64).collect()))?
    } else {
        let wrong = json::Error::Field { field: "ttlInSeconds", expected: "an integer or a string with one" };
        ttl.parse().map_err(|_| wrong)?
    };
    Ok(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(|s| now.saturating_add(Duration::from_secs(s))))
}

/// Fuzz body: a state transaction. What is stored has a key and is JSON, and expires in the future if at all.
pub fn fuzz_transaction(data: &[u8]) {
    let now = Timestamp::from_secs(1);
    for row in serde_json::from_slice::<Vec<&RawValue>>(data).unwrap_or_default() {
        match operation(row, now) {
            Ok(ActorOp::Upsert { key, value, expires_at }) => {
                assert!(!key.is_empty() && expires_at.is_none_or(|at| at > now));
                assert!(serde_json::from_slice::<&RawValue>(&value).is_ok());
            }
            Ok(ActorOp::Delete { key }) => assert!(!key.is_empty()),
            Ok(other) => panic!("a transaction has no {other:?}"),
            Err(_refused) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ActorOp, String> {
        let raw = RawValue::from_string(text.to_owned()).expect("JSON");
        operation(&raw, Timestamp::from_secs(100)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_upsert_keeps_the_value_as_compact_json() {
        let op = parse(r#"{"operation":"upsert","request":{"key":"k","value":{ "a" : 1.50, "b":"\u00e9" }}}"#);
        let ActorOp::Upsert { key, value, expires_at } = op.expect("an operation") else { panic!("an upsert") };
        assert_eq!((key.as_str(), &value[..], expires_at), ("k", &br#"{"a":1.50,"b":"\u00e9"}"#[..], None));
    }

    #[test]
    fn a_value_left_out_is_null_and_one_of_a_delete_is_ignored() {
        let op = parse(r#"{"operation":"upsert","request":{"key":"k"}}"#).expect("an operation");
        assert_eq!(op, ActorOp::Upsert { key: "k".into(), value: "null".into(), expires_at: None });
        let op = parse(r#"{"operation":"delete","request":{"key":"k","value":{"old":1}}}"#).expect("an operation");
        assert_eq!(op, ActorOp::Delete { key: "k".into() });
    }

    #[test]
    fn ttl_is_whole_seconds_and_not_positive_means_none() {
        let with = |ttl: &str| {
            parse(&format!(
                r#"{{"operation":"upsert","request":{{"key":"k","value":1,"metadata":{{"ttlInSeconds":{ttl}}}}}}}"#
            ))
        };
        let expiry = |op: Result<ActorOp, String>| {
            let ActorOp::Upsert { expires_at, .. } = op.expect("an operation") else { panic!("an upsert") };
            expires_at
        };
        assert_eq!(expiry(with("\"5\"")), Some(Timestamp::from_secs(105)));
        assert_eq!(expiry(with("5")), Some(Timestamp::from_secs(105)));
        assert_eq!(expiry(with("\"0\"")), None);
        assert_eq!(expiry(with("\"-1\"")), None);
        assert_eq!(expiry(with(&format!("\"{}\"", i64::MAX))), Some(Timestamp::MAX));
        assert!(with("\"soon\"").unwrap_err().contains("soon"));
    }

    #[test]
    fn a_ttl_that_is_neither_a_string_nor_an_integer_makes_the_request_malformed() {
        for ttl in ["{}", "[]", "[5]", "true", "1.5", "1e2", "99999999999999999999"] {
            let text = format!(
                r#"{{"operation":"upsert","request":{{"key":"k","value":1,"metadata":{{"ttlInSeconds":{ttl}}}}}}}"#
            );
            let raw = RawValue::from_string(text).expect("JSON");
            let refused = operation(&raw, Timestamp::from_secs(100));
            assert!(matches!(refused, Err(Error::Malformed(_))), "{ttl}: {refused:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(parse(r#"{"request":{"key":"k"}}"#).unwrap_err(), "operation is empty");
        assert_eq!(parse(r#"{"operation":"upsert"}"#).unwrap_err(), "request data is empty");
        assert_eq!(parse(r#"{"operation":"upsert","request":{"value":1}}"#).unwrap_err(), "missing key");
        assert_eq!(parse(r#"{"operation":"merge","request":{}}"#).unwrap_err(), "operation type merge not supported");
    }

    #[test]
    fn what_is_malformed_is_said_before_what_is_missing() {
        let refused = |body: &str| operations(body.as_bytes(), Timestamp::from_secs(100)).unwrap_err();
        let (lacks, malformed) = (r#"{"operation":"upsert","request":{}}"#, r#"{"operation":[]}"#);
        assert!(matches!(refused(&format!("[{lacks},{malformed}]")), Error::Malformed(_)));
        assert!(matches!(refused(&format!(r#"[{lacks},{{"operation":"merge"}}]"#)), Error::NoKey));
        assert!(refused("{}").is_malformed());
        assert!(!refused("[null]").is_malformed());
    }
}
