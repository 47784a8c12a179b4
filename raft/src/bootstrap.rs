//! Forming a cluster of one, step by step, each of them repeatable.
//!
//! A step looks at what is already there and does what is missing: the replica of the meta group, its first membership,
//! the commands that make the cluster, and then for each partition its placement, its replica, its first membership and
//! the record of that. A crash between any two is continued by running all steps again.
//!
//! A partition's group is initialised by the node that the table gives it to, once: a replica that has a membership is
//! left alone.

use std::sync::Arc;

use callboard_machine::meta::{MetaCommand, MetaResponse, MetaState, NodeRecord, Placement, Settings};
use callboard_types::{ClusterId, GroupId, NodeId, PartitionId, ReplicaId, Timestamp};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{ProposeError, StartError};
use crate::groups::Inner;
use crate::replica::Replica;

/// The replica that forms the meta group. Later ones get ids that were never used.
const FIRST_META_REPLICA: u64 = 1;
/// Partitions that are being made at once.
const PARTITIONS_AT_ONCE: usize = 8;

/// Nothing is left for [`run`] to do on `node`.
pub fn is_complete(state: &MetaState, node: NodeId) -> bool {
    let Some(settings) = &state.settings else { return false };
    let all = (0..settings.partitions).map(|number| state.partitions.get(&PartitionId(number)));
    state.nodes.contains_key(&node)
        && all.into_iter().all(|record| record.is_some_and(|record| record.version > 0 && record.initialized))
}

pub async fn run(inner: &Inner, settings: Settings, node: NodeRecord, now: Timestamp) -> Result<(), StartError> {
    let _one = inner.forming.lock().await;
    let meta = match inner.meta_replica() {
        Some(replica) => replica,
        None => inner.create_replica(GroupId::Meta, FIRST_META_REPLICA).await?,
    };
    form(&meta).await?;
    make_cluster(inner, settings, now).await?;
    commit(inner, MetaCommand::PutNode { node: inner.node(), record: node }).await?;
    place_all(inner).await?;
    let state = inner.meta_state();
    stream::iter(state.partitions.keys().copied())
        .map(|partition| open_partition(inner, partition))
        .buffer_unordered(PARTITIONS_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// Makes the replica a group of one that leads.
async fn form(replica: &Arc<Replica>) -> Result<(), StartError> {
    replica.initialize().await?;
    replica.lead_alone().await
}

async fn make_cluster(inner: &Inner, settings: Settings, now: Timestamp) -> Result<(), StartError> {
    if let Some(made) = &inner.meta_state().settings {
        if made.name != settings.name {
            return Err(StartError::Mismatch(format!("it is of cluster {}, not {}", made.name, settings.name)));
        }
        return Ok(());
    }
    let cluster = ClusterId(rand::random());
    commit(inner, MetaCommand::Bootstrap { cluster, settings, now }).await
}

/// Places every partition that has no place here. One after the other, since each takes the next replica id.
async fn place_all(inner: &Inner) -> Result<(), StartError> {
    let unplaced: Vec<PartitionId> = {
        let state = inner.meta_state();
        state.partitions.iter().filter(|(_, record)| record.version == 0).map(|(partition, _)| *partition).collect()
    };
    for partition in unplaced {
        let replica = ReplicaId(inner.meta_state().next_replica);
        let replicas = vec![Placement { node: inner.node(), replica }];
        commit(inner, MetaCommand::Place { partition, version: 1, replicas }).await?;
    }
    Ok(())
}

async fn open_partition(inner: &Inner, partition: PartitionId) -> Result<(), StartError> {
    let state = inner.meta_state();
    let Some(record) = state.partitions.get(&partition) else { return Ok(()) };
    let Some(placed) = record.replicas.iter().find(|placed| placed.node == inner.node()) else { return Ok(()) };
    let replica = match inner.partition(partition) {
        Some(held) => held.replica().clone(),
        None => inner.create_replica(GroupId::Partition(partition), placed.replica.0).await?,
    };
    if !record.initialized {
        form(&replica).await?;
        commit(inner, MetaCommand::GroupInitialized { partition }).await?;
    }
    Ok(())
}

async fn commit(inner: &Inner, command: MetaCommand) -> Result<(), StartError> {
    let failed = |why: String| StartError::Raft { group: GroupId::Meta, why };
    match inner.propose_meta(command).await {
        Ok(MetaResponse::Done) => Ok(()),
        Ok(MetaResponse::Rejected(rejection)) => Err(failed(rejection.to_string())),
        Err(error @ (ProposeError::NotReady(_) | ProposeError::Unknown | ProposeError::Stopped(_))) => {
            Err(failed(error.to_string()))
        }
    }
}
