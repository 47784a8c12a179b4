//! Whether this node can serve: a lease is held and a command goes through a log, here or at an owner it can reach.
//!
//! The app has no part in it, and neither has what the answer is used for. One partition stands for all: another one at
//! each look, so that a part that is stuck shows in some of the answers.

use std::time::Duration;

use callboard_types::PartitionId;

use super::Actors;
use crate::clock;
use crate::owner::Error as OwnerError;

/// Another partition is tried after this long.
const TRY: Duration = Duration::from_millis(700);

/// What has been shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// This node owns the partition, and its log moves.
    Owned(PartitionId),
    /// The partition's owner, which this node reaches, has shown the same.
    Reached(PartitionId),
}

impl Actors {
    /// A partition that has shown that it is served, or why none has within `patience`.
    pub async fn prove(&self, patience: Duration) -> Result<Proof, OwnerError> {
        let until = clock::monotonic().saturating_add(patience);
        loop {
            let error = match self.prove_once(until.min(clock::monotonic().saturating_add(TRY))).await {
                Ok(proof) => return Ok(proof),
                Err(error) => error,
            };
            if clock::monotonic() >= until {
                return Err(error);
            }
            tokio::time::sleep(super::LOOK_AGAIN).await;
        }
    }

    async fn prove_once(&self, until: callboard_engine::Instant) -> Result<Proof, OwnerError> {
        let reigns = self.inner.owners.reigns();
        let chance = rand::random::<u32>();
        let Some(reign) = reigns.get(chance as usize % reigns.len().max(1)) else {
            let partition = PartitionId(chance % self.inner.partitions.max(1));
            return self.prove_at_owner(partition, until).await.map(|()| Proof::Reached(partition));
        };
        let left = until.saturating_since(clock::monotonic());
        match tokio::time::timeout(left, reign.prove()).await {
            Ok(proof) => proof.map(|()| Proof::Owned(reign.id())),
            Err(_) => Err(OwnerError::Unknown(format!("the log of partition {} does not move", reign.id()).into())),
        }
    }
}
