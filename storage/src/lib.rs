//! RocksDB and nothing else: the two stores of a node, and the thread that commits to the log.
//!
//! The **log** is synced: votes, entries, truncations of every group, in order, one batch and one sync at a time
//! ([`LogWriter`]). The **state** has no write-ahead log of its own: what a flush has not reached is replayed from
//! the log. They are two instances because RocksDB's single write queue makes state writes wait behind synced log
//! writes (measured: 2 to 8 times slower in one instance).
//!
//! [`rocks`] is what a node runs on, [`memory`] what a test crashes; [`conformance`] holds both to the same promises.
//! Every key is built in [`keyspace`], every value carries the version byte of [`codec`].

pub mod codec;
pub mod conformance;
pub mod engine;
pub mod error;
pub mod keyspace;
pub mod memory;
pub mod rocks;
pub mod writer;

pub use codec::{NoPrevious, Record};
pub use engine::{LogDb, LogEntry, LogSlot, LogWrite, Pair, StateBatch, StateDb, StateView, Stores, Table};
pub use error::Error;
pub use memory::{CommitFault, FaultPlan, Memory};
pub use rocks::{OpenOptions, open};
pub use writer::{Done, LogWriter, OnFatal, WriterConfig, WriterStats};
