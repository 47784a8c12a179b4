//! Becoming the owner of a partition, and ceasing to be.
//!
//! One loop per partition: wait to lead, claim, seal, reign until the tenure ends, end the epoch's table for good, again.
//! Regained leadership always claims again. The reign begins only when every host has sealed the partition, or its lease
//! of an earlier owner must be over: instances of older epochs are refused from there on, and an actor whose old turn
//! still runs is held until it has ended, its drain time at most.
//!
//! A partition that is handed over ([`Owner::hand_over`]) stands still first. Its activations then live on: the next
//! owner finds them in the reports of the hosts and gives them tokens of its own epoch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use callboard_engine::Instant;
use callboard_engine::actor_config::TypeConfig;
use callboard_engine::drain::DrainConfig;
use callboard_engine::due::{self, DueTable};
use callboard_engine::guard::{Answers, SealReport, SealedActivation};
use callboard_engine::mailbox::{Drain, EpochToken, Limits as MailboxLimits, Mailboxes};
use callboard_raft::Tenure;
use callboard_types::{ActorKey, Epoch, FencingToken, NodeId, Timestamp};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{KeeperWakes, Owner, Reign, Table, mailbox_config};
use crate::clock;
use crate::host::Change;
use crate::tasks::Kind;

/// Between two attempts to claim.
const CLAIM_AGAIN: Duration = Duration::from_millis(50);
/// Between two attempts to seal a host that does not answer.
const SEAL_AGAIN: Duration = Duration::from_millis(50);
/// Reminders handed out and not yet resolved, per partition.
const PENDING_FIRINGS: usize = 4_096;

/// What a host answered to the seal.
type Sealed = Vec<(NodeId, SealReport)>;

impl Owner {
    /// Owns the partition whenever this replica leads it, until the node gives the replica up or stops.
    pub async fn run_until_retired(self: Arc<Self>) {
        let tasks = self.common.tasks.clone();
        let gone = self.gone.clone();
        tokio::select! {
            biased;
            () = tasks.stopping() => {}
            () = gone.cancelled() => {}
            () = self.own() => {}
        }
        if let Some(reign) = self.reign.write().take() {
            reign.end();
        }
    }

    async fn own(&self) {
        let mut leading = self.partition.leading();
        loop {
            if leading.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            // Who hands the partition over does not claim it again meanwhile.
            drop(self.handing.lock().await);
            if !*leading.borrow() {
                continue;
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
        let ended = {
            let tenure = tenure.clone();
            async move { tenure.ended().await }
        };
        tokio::pin!(ended);
        let reign = tokio::select! {
            biased;
            () = &mut ended => return,
            reign = self.begin(tenure) => reign,
        };
        tracing::debug!(partition = %self.id(), %epoch, "owns the partition");
        *self.reign.write() = Some(reign.clone());
        self.began.notify_waiters();
        tokio::select! {
            biased;
            () = &mut ended => tracing::info!(partition = %self.id(), %epoch, "no longer owns the partition"),
            () = reign.keep() => {}
        }
        *self.reign.write() = None;
        reign.end();
    }

    /// The reign of a fresh epoch: every host knows of it, and what they still have of older ones is taken care of.
    async fn begin(&self, tenure: Tenure) -> Arc<Reign> {
        let epoch = tenure.epoch();
        let answers = Answers::new(self.common.session, clock::monotonic());
        // Handed over by the epoch before this one, and by no other.
        let handed = self.handed.lock().take() == Some(epoch.0.saturating_sub(1));
        let change = if handed { Change::Planned } else { Change::Unplanned };
        let sealed = self.seal(epoch, change, &answers).await;
        let reign = Arc::new(self.reign_of(tenure, answers));
        if change == Change::Planned {
            reign.adopt(&sealed, Epoch(epoch.0 - 1)).await;
        }
        reign.hold(&sealed);
        reign
    }

    /// Asks every node, each until it answers or its lease of any earlier owner must be over.
    async fn seal(&self, epoch: Epoch, change: Change, answers: &Answers) -> Sealed {
        let (hosts, generation) = (&self.common.hosts, self.common.generation);
        let others = hosts.others();
        // After an unplanned change the former owner may have known hosts that this node does not: every lease is waited
        // for, whoever answers.
        let leases = match change {
            Change::Unplanned if !others.is_empty() => answers.silent_from(self.common.node),
            Change::Unplanned | Change::Planned => clock::monotonic(),
        };
        let seals = std::iter::once(self.common.node).chain(others).map(|host| async move {
            let patience = answers.silent_from(host).saturating_since(clock::monotonic());
            let answered = async {
                loop {
                    match hosts.seal(host, self.id(), generation, epoch, change).await {
                        Some(report) => return report,
                        None => tokio::time::sleep(SEAL_AGAIN).await,
                    }
                }
            };
            tokio::time::timeout(patience, answered).await.ok().map(|report| (host, report))
        });
        let sealed = join_all(seals).await.into_iter().flatten().collect();
        tokio::time::sleep(leases.saturating_since(clock::monotonic())).await;
        sealed
    }

    fn reign_of(&self, tenure: Tenure, answers: Answers) -> Reign {
        let common = &self.common;
        let base = EpochToken {
            cluster: common.cluster,
            generation: common.generation,
            partition: self.id(),
            epoch: tenure.epoch(),
        };
        let limits = MailboxLimits {
            activations: common.limits.activations,
            mailbox: common.limits.mailbox,
            ..MailboxLimits::default()
        };
        let table = Table {
            mailboxes: Mailboxes::new(base, limits),
            grants: HashMap::new(),
            due: DueTable::new(due::Limits { pending: PENDING_FIRINGS, ..due::Limits::default() }),
            last_call: 0,
            keeper_wakes: KeeperWakes { idle: Instant(0), due: Timestamp::MIN },
            answers,
            closing: false,
        };
        Reign {
            partition: self.partition.clone(),
            common: common.clone(),
            tenure,
            table: Mutex::new(table),
            keeper: Notify::new(),
            drained: Notify::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Word of the former owner, before it hands the partition to this node: everything stands still at its epoch.
    pub fn expect(&self, epoch: Epoch) {
        *self.handed.lock() = Some(epoch.0);
    }

    /// Hands the partition over: new calls wait, running turns end within their drain time, then `transfer` makes the
    /// other node the leader. Whoever waited is sent there. Turns that outlive their drain time are cut off; they run
    /// again at the next owner.
    ///
    /// `announce` tells the next owner that this epoch stands still, which lets its activations live on.
    pub async fn hand_over<R>(
        &self,
        announce: impl AsyncFnOnce(Epoch),
        transfer: impl Future<Output = R>,
    ) -> Result<R, super::Error> {
        let handing = self.handing.clone().lock_owned().await;
        let reign = self.reign()?;
        if reign.stand_still().await {
            announce(reign.tenure.epoch()).await;
        }
        let result = transfer.await;
        // If it failed, the epoch may still be good: those who were stopped go on.
        reign.go_on();
        drop(handing);
        Ok(result)
    }
}

impl Reign {
    /// The epoch is over: whoever waits is sent back to look for the next owner; running turns count for nothing.
    pub(super) fn end(&self) {
        let mut table = self.table.lock();
        table.mailboxes.end_all();
        table.grants.clear();
    }

    /// Activations that the former owner handed over live on under tokens of this epoch.
    async fn adopt(self: &Arc<Self>, sealed: &Sealed, former: Epoch) {
        for (host, report) in sealed {
            let is_former = |token: &FencingToken| token.epoch == former && token.partition == self.id();
            let handed = report.activations.iter().filter(|one| one.token.as_ref().is_some_and(is_former));
            let tokens: Vec<_> = handed.filter_map(|one| self.adopt_one(*host, one)).collect();
            if !tokens.is_empty() {
                // One that does not live on is opened again by its next turn.
                self.common.hosts.retoken(*host, &tokens).await;
            }
        }
    }

    fn adopt_one(&self, host: NodeId, one: &SealedActivation) -> Option<(ActorKey, FencingToken, FencingToken)> {
        let from = one.token?;
        let config = self.common.hosts.type_config(&one.actor)?;
        let mut table = self.table.lock();
        let number = table.mailboxes.adopt(&one.actor, host, mailbox_config(config), one.idle_deadline).ok()?;
        Some((one.actor.clone(), from, table.mailboxes.token(number)))
    }

    /// Turns of older epochs that still run: their actors wait for them.
    fn hold(self: &Arc<Self>, sealed: &Sealed) {
        for (host, turn) in
            sealed.iter().flat_map(|(host, report)| report.running.iter().map(move |turn| (*host, turn)))
        {
            if self.table.lock().mailboxes.hold(&turn.actor, turn.chain.clone()).is_ok() {
                let waits = self.clone().release_when_quiet(host, turn.actor.clone());
                self.common.tasks.spawn(Kind::Work, "hold", waits);
            }
        }
    }

    /// A turn of an older epoch still runs in the app: its actor waits for it, as long as a move would.
    async fn release_when_quiet(self: Arc<Self>, host: NodeId, actor: ActorKey) {
        let config = self.common.hosts.type_config(&actor);
        let drain = DrainConfig::new(config.map(|config| config.drain_timeout), None);
        self.common.hosts.quiet_within(host, &actor, drain.timeout).await;
        let effects = self.table.lock().mailboxes.release(clock::monotonic(), &actor);
        self.carry_out(effects);
    }

    /// Stops starts and waits for what runs, each turn its type's drain time at most. False: something had to be cut off.
    async fn stand_still(self: &Arc<Self>) -> bool {
        let began = clock::monotonic();
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            let limit = {
                let mut table = self.table.lock();
                if table.mailboxes.quiesce() == Drain::Drained {
                    return true;
                }
                table.mailboxes.running().map(|turn| self.drain_time(&turn.actor)).max().unwrap_or_default()
            };
            let left = began.saturating_add(limit).saturating_since(clock::monotonic());
            if tokio::time::timeout(left, drained).await.is_err() {
                tracing::info!(partition = %self.id(), "turns outlive their drain time: they are cut off and run again at the next owner");
                self.cut.cancel();
                return false;
            }
        }
    }

    fn drain_time(&self, actor: &ActorKey) -> Duration {
        match self.common.hosts.type_config(actor) {
            Some(TypeConfig { drain_rebalanced: false, .. }) => Duration::ZERO,
            Some(config) => config.drain_timeout,
            None => DrainConfig::new(None, None).timeout,
        }
    }

    /// The hand-over came to nothing, or to its end: calls that were stopped start, or learn that they must look on.
    fn go_on(self: &Arc<Self>) {
        let effects = self.table.lock().mailboxes.resume(clock::monotonic());
        self.carry_out(effects);
    }
}
