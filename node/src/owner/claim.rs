//! Becoming the owner of a partition, and ceasing to be.
//!
//! One loop per partition: wait to lead, claim, reign until the tenure ends, end the epoch's mailboxes for good, again.
//! Regained leadership always claims again. The reign begins only when every host has sealed the partition: instances
//! of older epochs are refused from there on, and an actor whose old turn still runs is held until it has ended.

use std::sync::Arc;
use std::time::Duration;

use callboard_engine::due::DueTable;
use callboard_engine::mailbox::{EpochToken, Limits as MailboxLimits, Mailboxes};
use callboard_engine::{Instant, due};
use callboard_raft::Tenure;
use callboard_types::{ActorKey, Timestamp};

use super::{KeeperWakes, Owner, Reign};
use crate::clock;
use crate::tasks::Kind;

/// Between two attempts to claim.
const CLAIM_AGAIN: Duration = Duration::from_millis(50);
/// Reminders handed out and not yet resolved, per partition. Above the mailbox limit, so that one stuck actor cannot
/// hold all of them.
const PENDING_FIRINGS: usize = 4_096;

impl Owner {
    /// Owns the partition whenever this replica leads it, until the tasks stop.
    pub async fn run(self: Arc<Self>) {
        let tasks = self.common.tasks.clone();
        let mut leading = self.partition.leading();
        loop {
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                led = leading.wait_for(|leads| *leads) => if led.is_err() { return },
            }
            match self.partition.claim(rand::random(), clock::wall(), self.common.max_clock_offset).await {
                Ok(tenure) => self.reign(tenure).await,
                Err(error) => {
                    tracing::debug!(partition = %self.id(), %error, "claim failed");
                    tokio::time::sleep(CLAIM_AGAIN).await;
                }
            }
            if tasks.is_stopping() {
                return;
            }
        }
    }

    async fn reign(self: &Arc<Self>, tenure: Tenure) {
        let epoch = tenure.epoch();
        let common = &self.common;
        let sealed = common.host.seal(self.id(), common.generation, epoch);
        let base = EpochToken { cluster: common.cluster, generation: common.generation, partition: self.id(), epoch };
        let limits = MailboxLimits {
            activations: common.limits.activations,
            mailbox: common.limits.mailbox,
            ..MailboxLimits::default()
        };
        let mut reign = Reign {
            tenure: tenure.clone(),
            mailboxes: Mailboxes::new(base, limits),
            grants: Default::default(),
            due: DueTable::new(due::Limits { pending: PENDING_FIRINGS, ..due::Limits::default() }),
            last_call: 0,
            keeper_wakes: KeeperWakes { idle: Instant(0), due: Timestamp::MIN },
        };
        for turn in sealed.running {
            if reign.mailboxes.hold(&turn.actor, turn.chain).is_ok() {
                common.tasks.spawn(Kind::Work, "hold", self.clone().release_when_quiet(turn.actor));
            }
        }
        tracing::debug!(partition = %self.id(), %epoch, "owns the partition");
        *self.reign.lock() = Some(reign);
        self.began.notify_waiters();
        self.keeper.notify_one();
        tokio::select! {
            biased;
            () = common.tasks.stopping() => {}
            () = tenure.ended() => tracing::info!(partition = %self.id(), %epoch, "no longer owns the partition"),
        }
        self.end();
    }

    /// The epoch is over: whoever waits is sent back to look for the next owner; running turns count for nothing.
    fn end(&self) {
        let ended = self.reign.lock().take();
        if let Some(mut reign) = ended {
            reign.mailboxes.end_all();
            // Dropping the grants tells the waiting calls.
        }
    }

    /// A turn of an older epoch still runs in the app: its actor waits for it.
    async fn release_when_quiet(self: Arc<Self>, actor: ActorKey) {
        self.common.host.quiet_within(&actor, self.common.limits.turn).await;
        let effects = self.with_reign(|reign| reign.mailboxes.release(clock::monotonic(), &actor));
        if let Ok(effects) = effects {
            self.carry_out(effects);
        }
    }
}
