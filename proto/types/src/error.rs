//! What a failure means for the caller, apart from its text.

/// What may have happened, and so what the caller does next. Carried on the wire beside the code; never read from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Invalid, not found, precondition failed: nothing happened, and the same request never succeeds by repetition.
    Rejected,
    /// The wrong node was asked: nothing happened; look up the owner and try there.
    Redirected,
    /// Full, draining or without quorum: nothing happened; back off and try again.
    Busy,
    /// Sent or proposed, and no answer: it may have happened. Only a repeat with the same request id is safe.
    Unknown,
    /// The epoch or token is superseded: the sender stops acting under it.
    Fenced,
    /// Disk or invariant broken: the node ends.
    Fatal,
}
