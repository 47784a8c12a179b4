//! The wire and the disk: every message that leaves the memory of one process.
//!
//! Definitions live in `wire/*.proto` and are compiled at build time. `contracts.txt` is the golden copy of every field
//! number; a test holds the definitions to it, so that a number is never given a second meaning. Conversions to the
//! types that the program works with stand with those types, not here: a message that arrives from outside is
//! checked where its meaning is known.

/// Records of the two stores of a node, and the chunks of a snapshot.
pub mod disk {
    pub use v1::*;

    /// Named as the package, since other packages refer to it so.
    #[allow(clippy::doc_markdown, clippy::large_enum_variant)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/callboard.disk.v1.rs"));
    }
}

/// What nodes ask of each other about actors.
#[allow(clippy::large_enum_variant)]
pub mod calls {
    include!(concat!(env!("OUT_DIR"), "/callboard.calls.v1.rs"));
}

/// Links between nodes.
pub mod peer {
    include!(concat!(env!("OUT_DIR"), "/callboard.peer.v1.rs"));
}

/// Messages between the replicas of a group.
pub mod raft {
    pub use v1::*;

    #[allow(clippy::doc_markdown, clippy::large_enum_variant)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/callboard.raft.v1.rs"));
    }
}

#[cfg(test)]
mod contracts_test;
