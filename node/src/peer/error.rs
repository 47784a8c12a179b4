//! What a failed call means: may it be made again?
//!
//! The question is answered by where the call was when it failed. While its frame stood in this node's own queue
//! nothing can have happened, and the call is `NotSent`. From the moment the frame was handed to the stream nobody here
//! knows how far it came, and without an answer the call is `Lost` or `TimedOut`. A refusal is an answer: its class
//! tells.

use bytes::Bytes;
use callboard_proto::peer as wire;
use callboard_types::Class;

/// Longest text of a failure on the wire, in bytes.
const TEXT: usize = 1 << 10;
/// Code of the transport's own failures.
pub const TRANSPORT: u32 = 0;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No byte of the call left this node's own queue: it is safe to make it again.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It was handed to the link, and the link ended without an answer: it may have happened.
    #[error("lost: {0}")]
    Lost(String),
    /// It was handed to the link, and no answer came in time: it may have happened.
    #[error("no answer in time")]
    TimedOut,
    /// The answer is a failure, of the handler or of the transport itself.
    #[error("refused: {0}")]
    Refused(Failure),
}

impl PeerError {
    pub fn class(&self) -> Class {
        match self {
            PeerError::NotSent(_) => Class::Busy,
            PeerError::Lost(_) | PeerError::TimedOut => Class::Unknown,
            PeerError::Refused(failure) => failure.class,
        }
    }

    /// Nothing can have happened on the other node, and the same call may succeed later.
    pub fn is_safe_to_retry(&self) -> bool {
        match self.class() {
            Class::Busy => true,
            // Redirected is safe too, but not there.
            Class::Rejected | Class::Redirected | Class::Unknown | Class::Fenced | Class::Fatal => false,
        }
    }
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({class:?}, {code})")]
pub struct Failure {
    pub class: Class,
    /// [`TRANSPORT`] is the transport's own; others are agreed between the two ends of the kind.
    pub code: u32,
    /// For people. Cut to 1 KiB on the wire.
    pub text: String,
    /// For the caller. May be as large as a body.
    pub detail: Bytes,
}

impl Failure {
    pub fn new(class: Class, code: u32, text: impl Into<String>) -> Self {
        Self { class, code, text: text.into(), detail: Bytes::new() }
    }

    pub(super) fn transport(class: Class, text: impl Into<String>) -> Self {
        Self::new(class, TRANSPORT, text)
    }

    /// The failure without its detail, which travels as a body.
    pub(super) fn to_wire(&self) -> wire::Failure {
        let class = match self.class {
            Class::Rejected => wire::Class::Rejected,
            Class::Redirected => wire::Class::Redirected,
            Class::Busy => wire::Class::Busy,
            Class::Unknown => wire::Class::Unknown,
            Class::Fenced => wire::Class::Fenced,
            Class::Fatal => wire::Class::Fatal,
        };
        wire::Failure { class: class.into(), code: self.code, text: self.text[..cut(&self.text)].to_owned() }
    }

    pub(super) fn from_wire(head: wire::Failure, detail: Bytes) -> Self {
        let class = match head.class() {
            wire::Class::Rejected => Class::Rejected,
            wire::Class::Redirected => Class::Redirected,
            wire::Class::Busy => Class::Busy,
            wire::Class::Fenced => Class::Fenced,
            // The other node's disk is not ours: all that is known here is that it may have happened.
            wire::Class::Unknown | wire::Class::Fatal | wire::Class::Unspecified => Class::Unknown,
        };
        Self { class, code: head.code, text: head.text, detail }
    }
}

/// Where a text ends that fits.
fn cut(text: &str) -> usize {
    text.floor_char_boundary(TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_certainly_did_not_happen_is_safe_to_retry() {
        let refused = |class| PeerError::Refused(Failure::new(class, 1, "x"));
        for (error, class, safe) in [
            (PeerError::NotSent(String::new()), Class::Busy, true),
            (refused(Class::Busy), Class::Busy, true),
            (PeerError::Lost(String::new()), Class::Unknown, false),
            (PeerError::TimedOut, Class::Unknown, false),
            (refused(Class::Unknown), Class::Unknown, false),
            (refused(Class::Rejected), Class::Rejected, false),
            (refused(Class::Redirected), Class::Redirected, false),
            (refused(Class::Fenced), Class::Fenced, false),
        ] {
            assert_eq!((error.class(), error.is_safe_to_retry()), (class, safe), "{error}");
        }
    }

    #[test]
    fn a_failure_survives_the_wire() {
        for class in [Class::Rejected, Class::Redirected, Class::Busy, Class::Unknown, Class::Fenced] {
            let failure = Failure { class, code: 7, text: "no".to_owned(), detail: Bytes::from_static(b"owner") };
            assert_eq!(Failure::from_wire(failure.to_wire(), failure.detail.clone()), failure);
        }
    }

    #[test]
    fn a_fatal_failure_of_another_node_is_unknown_here() {
        let failure = Failure::new(Class::Fatal, 1, "disk");
        assert_eq!(Failure::from_wire(failure.to_wire(), Bytes::new()).class, Class::Unknown);
        let strange = wire::Failure { class: 99, code: 1, text: String::new() };
        assert_eq!(Failure::from_wire(strange, Bytes::new()).class, Class::Unknown);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let failure = Failure::new(Class::Busy, 1, format!("{}é", "x".repeat(TEXT - 1)));
        assert_eq!(failure.to_wire().text.len(), TEXT - 1);
    }
}
