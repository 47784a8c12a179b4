//! Between the types the program works with and the records it stores.
//!
//! A record is a `callboard_proto::disk` message behind the version byte of the storage codec; so is what nodes send each
//! other, of `callboard_proto::raft`. Decoding is strict: a message that lacks what its meaning needs is
//! [`Error::Corrupt`], never filled with a default. Encoding cannot fail.
//!
//! Golden tests hold the bytes of every record; the `fuzz_*` functions feed any bytes to every decoder.

use bytes::Bytes;
use callboard_proto::{disk, raft};
use callboard_storage::Error;
use callboard_storage::codec::{self, NoPrevious, Record};
use prost::Message;

mod command;
mod follow;
mod log;
mod meta;
pub mod peer;
mod row;

#[cfg(test)]
mod golden_test;
#[cfg(test)]
mod wire_test;

/// A stored message; the one place that knows it as protobuf.
struct Body<M>(M);

macro_rules! records {
    ($module:ident { $($message:ident: $name:literal,)* }) => {$(
        impl Record for Body<$module::$message> {
            const NAME: &'static str = $name;
            const VERSION: u8 = 1;
            type Previous = NoPrevious;

            fn encode(&self, out: &mut Vec<u8>) {
                out.reserve(self.0.encoded_len());
                self.0.encode(out).expect("a vector has room");
            }

            fn decode(body: &[u8]) -> Result<Self, Error> {
                $module::$message::decode(body).map(Body).map_err(|error| corrupt($name, error))
            }

            fn migrate(previous: NoPrevious) -> Self {
                match previous {}
            }
        }

        impl Stored for $module::$message {
            const NAME: &'static str = $name;

            fn into_record(self) -> Bytes {
                codec::encode(&Body(self))
            }

            fn from_record(record: &[u8]) -> Result<Self, Error> {
                codec::decode::<Body<Self>>(record).map(|body| body.0)
            }
        }
    )*};
}

/// A message that is a record of its own.
pub trait Stored: Sized {
    const NAME: &'static str;
    fn into_record(self) -> Bytes;
    fn from_record(record: &[u8]) -> Result<Self, Error>;
}

records! { disk {
    LogEntry: "log entry",
    LogId: "log id",
    Vote: "vote",
    StoredMembership: "membership",
    Replica: "replica",
    ActorCommand: "actor command",
    Reminder: "reminder",
    DroppedFiring: "dropped firing",
    Ownership: "ownership",
    Clock: "clock",
    DroppedCount: "dropped count",
    LastWrite: "last write",
    ClusterRow: "cluster row",
    NodeRow: "node row",
    PartitionRow: "partition row",
    TypeRow: "type row",
    MetaGroupRow: "meta group row",
    MetaCopy: "meta copy",
    MetaCommand: "meta command",
    SnapshotChunk: "snapshot chunk",
}}

records! { raft {
    Message: "raft message",
    Answer: "raft answer",
    MetaUpdate: "meta update",
    MetaAnswer: "meta answer",
}}

/// A type of the program with a record to be stored as.
pub trait Storable: Sized {
    fn encode(&self) -> Bytes;
    fn decode(record: &[u8]) -> Result<Self, Error>;
}

/// Makes a type a [`Storable`] by a message that it is built from and checked out of.
macro_rules! stores {
    ($($ours:ty => $message:ident,)*) => {$(
        impl crate::convert::Storable for $ours {
            fn encode(&self) -> bytes::Bytes {
                use crate::convert::{Stored, ToDisk};
                let message: callboard_proto::disk::$message = self.to_disk();
                message.into_record()
            }

            fn decode(record: &[u8]) -> Result<Self, callboard_storage::Error> {
                use crate::convert::{FromDisk, Stored};
                let message = callboard_proto::disk::$message::from_record(record)?;
                Self::from_disk(message).map_err(|why| crate::convert::corrupt(callboard_proto::disk::$message::NAME, why))
            }
        }
    )*};
}
use stores;

/// Why a decoded message means nothing.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{what} is {value}")]
    OutOfRange { what: &'static str, value: i64 },
    #[error("{0}")]
    Inconsistent(String),
}

/// Conversions in both directions; traits of this crate, because neither side's types are.
pub trait ToDisk<M> {
    fn to_disk(&self) -> M;
}

pub trait FromDisk<M>: Sized {
    fn from_disk(message: M) -> Result<Self, Invalid>;
}

/// [`FromDisk`], from the message's side.
pub trait ReadAs: Sized {
    fn read<T: FromDisk<Self>>(self) -> Result<T, Invalid> {
        T::from_disk(self)
    }
}

impl<M: Message> ReadAs for M {}

/// A field that the message's meaning needs.
pub fn need<T>(what: &'static str, field: Option<T>) -> Result<T, Invalid> {
    field.ok_or(Invalid::Missing(what))
}

pub fn corrupt(what: &'static str, why: impl std::fmt::Display) -> Error {
    Error::Corrupt { what, why: why.to_string() }
}

/// Several records out of one fuzz input: the first byte of each piece is its length.
pub fn pieces(data: &[u8]) -> impl Iterator<Item = Bytes> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first()?;
        let (piece, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        Some(Bytes::copy_from_slice(piece))
    })
}

/// Any bytes are decoded or refused by every decoder, and what is decoded encodes to something that decodes to the same.
pub fn fuzz_records(data: &[u8]) {
    fn check<T: Storable + PartialEq + std::fmt::Debug>(data: &[u8]) {
        if let Ok(value) = T::decode(data) {
            let again = T::decode(&value.encode()).expect("an encoded record decodes");
            assert_eq!(again, value);
        }
    }
    check::<crate::type_config::Entry>(data);
    check::<crate::type_config::LogId>(data);
    check::<crate::type_config::Vote>(data);
    check::<crate::type_config::StoredMembership>(data);
    check::<row::ReplicaRecord>(data);
    check::<row::MetaCopyRecord>(data);
    check::<callboard_machine::partition::ActorCommand>(data);
    check::<callboard_machine::partition::Reminder>(data);
    check::<callboard_machine::partition::DroppedFiring>(data);
    check::<callboard_machine::partition::Ownership>(data);
    check::<row::ClockRecord>(data);
    check::<row::DroppedCount>(data);
    check::<callboard_machine::partition::LastWrite>(data);
    check::<row::Chunk>(data);
    check::<callboard_machine::meta::MetaCommand>(data);
    check::<callboard_machine::meta::MetaResponse>(data);
    check::<crate::meta_feed::MetaUpdate>(data);
    // What replicas say to each other is never said on: decoding is all that must not fail.
    drop(peer::decode_message(data));
    drop(peer::Told::decode(data));
    for table in 0..=u8::MAX {
        if let Ok(row) = meta::decode_row(table, data) {
            let (again, _, value) = meta::encode_row(&row);
            assert_eq!((again, meta::decode_row(again, &value).expect("an encoded row decodes")), (table, row));
        }
    }
}

pub use meta::{decode_row as decode_meta_row, encode_key as encode_meta_key, encode_row as encode_meta_row};
pub use row::{Chunk, ClockRecord, DroppedCount, MetaCopyRecord, ReplicaRecord};
