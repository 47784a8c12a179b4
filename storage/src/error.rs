//! How storage fails: almost always fatally. A store that cannot write, or reads what it cannot understand, has no answer
//! that a caller could use; only a directory that another process holds is the operator's to resolve.

use callboard_types::Class;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk or RocksDB failed.
    #[error("{action}: {source}")]
    Io { action: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// A record cannot be read: unknown version, or bytes that are not what they should be.
    #[error("unreadable {what}: {why}")]
    Corrupt { what: &'static str, why: String },
    /// Another process holds the directory.
    #[error("{path} is in use by another process{holder}")]
    Locked { path: String, holder: String },
    /// The log writer has ended; nothing more is accepted.
    #[error("the log writer has stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn io(action: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::Io { action, source: source.into() }
    }

    pub(crate) fn corrupt(what: &'static str, why: impl Into<String>) -> Self {
        Error::Corrupt { what, why: why.into() }
    }

    pub fn class(&self) -> Class {
        match self {
            Error::Io { .. } | Error::Corrupt { .. } | Error::Stopped => Class::Fatal,
            Error::Locked { .. } => Class::Rejected,
        }
    }
}
