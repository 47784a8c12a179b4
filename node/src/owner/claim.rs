//! Becoming the owner of a partition, and ceasing to be.
//!
//! One loop per partition: wait to lead, claim, reign until the tenure ends, end the epoch's table for good, again.
//! Regained leadership always claims again. The reign begins only when every host has sealed the partition: instances
//! of older epochs are refused from there on, and an actor whose old turn still runs is held until it has ended, its
//! drain time at most.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use callboard_engine::Instant;
use callboard_engine::drain::DrainConfig;
use callboard_engine::due::{self, DueTable};
use callboard_engine::guard::SealedTurn;
use callboard_engine::mailbox::{EpochToken, Limits as MailboxLimits, Mailboxes};
use callboard_raft::Tenure;
use callboard_types::{ActorKey, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{KeeperWakes, Owner, Reign, Table};
use crate::clock;
use crate::tasks::Kind;

/// Between two attempts to claim.
const CLAIM_AGAIN: Duration = Duration::from_millis(50);
/// Reminders handed out and not yet resolved, per partition.
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
                Ok(tenure) => self.rule(tenure).await,
                Err(error) => {
                    tracing::debug!(partition = %self.id(), %error, "claim failed");
                    tokio::time::sleep(CLAIM_AGAIN).await;
                }
            }
        }
    }

    /// One epoch, from its claim to its end.
    async fn rule(&self, tenure: Tenure) {
        let epoch = tenure.epoch();
        let (reign, held) = self.begin(tenure.clone());
        for turn in held {
            self.common.tasks.spawn(Kind::Work, "hold", reign.clone().release_when_quiet(turn.actor));
        }
        tracing::debug!(partition = %self.id(), %epoch, "owns the partition");
        *self.reign.write() = Some(reign.clone());
        self.began.notify_waiters();
        tokio::select! {
            biased;
            () = self.common.tasks.stopping() => {}
            () = tenure.ended() => tracing::info!(partition = %self.id(), %epoch, "no longer owns the partition"),
            () = reign.keep() => {}
        }
        *self.reign.write() = None;
        reign.end();
    }

    /// The table of a fresh epoch, and the turns of older ones that still run.
    fn begin(&self, tenure: Tenure) -> (Arc<Reign>, Vec<SealedTurn>) {
        let (common, epoch) = (&self.common, tenure.epoch());
        let sealed = common.host.seal(self.id(), common.generation, epoch);
        let base = EpochToken { cluster: common.cluster, generation: common.generation, partition: self.id(), epoch };
        let limits = MailboxLimits {
            activations: common.limits.activations,
            mailbox: common.limits.mailbox,
            ..MailboxLimits::default()
        };
        let mut mailboxes = Mailboxes::new(base, limits);
        let held = sealed.running.into_iter().filter(|turn| mailboxes.hold(&turn.actor, turn.chain.clone()).is_ok());
        let held = held.collect();
        let table = Table {
            mailboxes,
            grants: HashMap::new(),
            due: DueTable::new(due::Limits { pending: PENDING_FIRINGS, ..due::Limits::default() }),
            last_call: 0,
            keeper_wakes: KeeperWakes { idle: Instant(0), due: Timestamp::MIN },
            closing: false,
        };
        let reign = Reign {
            partition: self.partition.clone(),
            common: common.clone(),
            tenure,
            table: Mutex::new(table),
            keeper: Notify::new(),
        };
        (Arc::new(reign), held)
    }
}

impl Reign {
    /// The epoch is over: whoever waits is sent back to look for the next owner; running turns count for nothing.
    fn end(&self) {
        let mut table = self.table.lock();
        table.mailboxes.end_all();
        table.grants.clear();
    }

    /// A turn of an older epoch still runs in the app: its actor waits for it, as long as a move would.
    async fn release_when_quiet(self: Arc<Self>, actor: ActorKey) {
        let config = self.common.host.type_config(&actor.actor_type);
        let drain = DrainConfig::new(config.map(|config| config.drain_timeout), None);
        self.common.host.quiet_within(&actor, drain.timeout).await;
        let effects = self.table.lock().mailboxes.release(clock::monotonic(), &actor);
        self.carry_out(effects);
    }
}
