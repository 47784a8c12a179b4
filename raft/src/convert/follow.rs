//! What nodes tell each other of the meta log: its updates, and what a proposal was answered.

use std::sync::Arc;

use bytes::Bytes;
use callboard_machine::meta::{MetaCommand, MetaRejection, MetaResponse};
use callboard_proto::raft;
use callboard_storage::Error;
use callboard_types::{GroupId, NodeId, ReplicaId};

use super::meta::{decode_row, encode_row};
use super::{Invalid, ReadAs, Storable, Stored, ToDisk, corrupt, need};
use crate::meta_feed::MetaUpdate;

impl Storable for MetaUpdate {
    fn encode(&self) -> Bytes {
        use raft::meta_update::Update;
        let update = match self {
            MetaUpdate::Entries { after, entries, upto } => Update::Entries(raft::MetaEntries {
                after: *after,
                upto: *upto,
                entries: entries
                    .iter()
                    .map(|(index, command)| raft::MetaEntry { index: *index, command: Some(command.to_disk()) })
                    .collect(),
            }),
            MetaUpdate::Snapshot { index, rows } => {
                let row = |row| {
                    let (table, _, row) = encode_row(row);
                    raft::MetaRow { table: table.into(), row }
                };
                Update::Snapshot(raft::MetaSnapshot { index: *index, rows: rows.iter().map(row).collect() })
            }
        };
        raft::MetaUpdate { update: Some(update) }.into_record()
    }

    fn decode(record: &[u8]) -> Result<Self, Error> {
        use raft::meta_update::Update;
        const WHAT: &str = "meta update";
        let update = raft::MetaUpdate::from_record(record)?;
        match need("update", update.update).map_err(|why| corrupt(WHAT, why))? {
            Update::Entries(update) => {
                let entry = |entry: raft::MetaEntry| {
                    Ok((entry.index, Arc::new(need("command", entry.command)?.read::<MetaCommand>()?)))
                };
                let entries = update.entries.into_iter().map(entry).collect::<Result<Vec<_>, Invalid>>();
                let entries = entries.map_err(|why| corrupt(WHAT, why))?;
                let (after, upto) = (update.after, update.upto);
                let indexes = entries.iter().map(|(index, _)| *index);
                let rising: Vec<u64> = std::iter::once(after).chain(indexes).collect();
                if rising.windows(2).any(|pair| pair[0] >= pair[1]) || rising.last().is_some_and(|last| *last > upto) {
                    return Err(corrupt(WHAT, "its indexes are out of order"));
                }
                Ok(MetaUpdate::Entries { after, entries, upto })
            }
            Update::Snapshot(raft::MetaSnapshot { index, rows }) => {
                let row = |row: raft::MetaRow| match u8::try_from(row.table) {
                    Ok(table) => decode_row(table, &row.row),
                    Err(_) => Err(corrupt(WHAT, format!("table {}", row.table))),
                };
                Ok(MetaUpdate::Snapshot { index, rows: rows.into_iter().map(row).collect::<Result<_, _>>()? })
            }
        }
    }
}

impl Storable for MetaResponse {
    fn encode(&self) -> Bytes {
        use raft::meta_answer::Answer;
        let answer = match self {
            MetaResponse::Done => Answer::Done(raft::Nothing {}),
            MetaResponse::Rejected(rejection) => Answer::Rejected(rejection_out(rejection)),
        };
        raft::MetaAnswer { answer: Some(answer) }.into_record()
    }

    fn decode(record: &[u8]) -> Result<Self, Error> {
        use raft::meta_answer::Answer;
        let answer = raft::MetaAnswer::from_record(record)?;
        match need("answer", answer.answer).map_err(|why| corrupt("meta answer", why))? {
            Answer::Done(raft::Nothing {}) => Ok(MetaResponse::Done),
            Answer::Rejected(rejection) => {
                rejection_in(rejection).map(MetaResponse::Rejected).map_err(|why| corrupt("meta answer", why))
            }
        }
    }
}

fn rejection_out(rejection: &MetaRejection) -> raft::MetaRejection {
    use raft::meta_rejection::Kind;
    let of = |kind: Kind| raft::MetaRejection { kind: kind.into(), ..Default::default() };
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    match rejection {
        MetaRejection::AlreadyBootstrapped => of(Kind::AlreadyBootstrapped),
        MetaRejection::NotBootstrapped => of(Kind::NotBootstrapped),
        MetaRejection::InvalidSetting(why) => raft::MetaRejection { text: why.clone(), ..of(Kind::InvalidSetting) },
        MetaRejection::UnknownPartition(partition) => {
            let group = GroupId::Partition(*partition).to_u32();
            raft::MetaRejection { group, ..of(Kind::UnknownPartition) }
        }
        MetaRejection::UnknownNode(node) => raft::MetaRejection { node: node.0, ..of(Kind::UnknownNode) },
        MetaRejection::StaleTable { given, stored } => {
            raft::MetaRejection { given: *given, stored: *stored, ..of(Kind::StaleTable) }
        }
        MetaRejection::ReplicaCount { given, max } => {
            raft::MetaRejection { given: count(*given), stored: count(*max), ..of(Kind::ReplicaCount) }
        }
        MetaRejection::NoVoter => of(Kind::NoVoter),
        MetaRejection::NodeTwice(node) => raft::MetaRejection { node: node.0, ..of(Kind::NodeTwice) },
        MetaRejection::NotStorage(node) => raft::MetaRejection { node: node.0, ..of(Kind::NotStorage) },
        MetaRejection::ReplicaNotFresh { given, next } => {
            raft::MetaRejection { given: given.0, stored: *next, ..of(Kind::ReplicaNotFresh) }
        }
        MetaRejection::NodeInUse { node, group } => {
            raft::MetaRejection { node: node.0, group: group.to_u32(), ..of(Kind::NodeInUse) }
        }
        MetaRejection::NotPlaced { group, given, stored } => {
            raft::MetaRejection { group: group.to_u32(), given: *given, stored: *stored, ..of(Kind::NotPlaced) }
        }
        MetaRejection::GenerationFalls { given, stored } => {
            raft::MetaRejection { given: *given, stored: *stored, ..of(Kind::GenerationFalls) }
        }
        MetaRejection::TooMany { what, limit } => {
            raft::MetaRejection { text: what.to_string(), stored: count(*limit), ..of(Kind::TooMany) }
        }
        MetaRejection::InvalidName { what, limit } => {
            raft::MetaRejection { text: what.to_string(), stored: count(*limit), ..of(Kind::InvalidName) }
        }
    }
}

fn rejection_in(rejection: raft::MetaRejection) -> Result<MetaRejection, Invalid> {
    use raft::meta_rejection::Kind;
    let raft::MetaRejection { kind, text, given, stored, node, group } = rejection;
    let out_of_range = Invalid::OutOfRange { what: "rejection", value: kind.into() };
    let Ok(kind) = Kind::try_from(kind) else { return Err(out_of_range) };
    let (node, group) = (NodeId(node), GroupId::from_u32(group));
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Ok(match kind {
        Kind::Unspecified => return Err(out_of_range),
        Kind::AlreadyBootstrapped => MetaRejection::AlreadyBootstrapped,
        Kind::NotBootstrapped => MetaRejection::NotBootstrapped,
        Kind::InvalidSetting => MetaRejection::InvalidSetting(text),
        Kind::UnknownPartition => match group {
            GroupId::Partition(partition) => MetaRejection::UnknownPartition(partition),
            GroupId::Meta => return Err(Invalid::Missing("partition")),
        },
        Kind::UnknownNode => MetaRejection::UnknownNode(node),
        Kind::StaleTable => MetaRejection::StaleTable { given, stored },
        Kind::ReplicaCount => MetaRejection::ReplicaCount { given: count(given), max: count(stored) },
        Kind::NoVoter => MetaRejection::NoVoter,
        Kind::NodeTwice => MetaRejection::NodeTwice(node),
        Kind::NotStorage => MetaRejection::NotStorage(node),
        Kind::ReplicaNotFresh => MetaRejection::ReplicaNotFresh { given: ReplicaId(given), next: stored },
        Kind::NodeInUse => MetaRejection::NodeInUse { node, group },
        Kind::NotPlaced => MetaRejection::NotPlaced { group, given, stored },
        Kind::GenerationFalls => MetaRejection::GenerationFalls { given, stored },
        Kind::TooMany => MetaRejection::TooMany { what: text.into(), limit: count(stored) },
        Kind::InvalidName => MetaRejection::InvalidName { what: text.into(), limit: count(stored) },
    })
}
