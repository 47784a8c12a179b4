//! What happens in a partition without a caller: idle actors are deactivated, due reminders fire.
//!
//! One keeper per reign sleeps until the next of both and does a bounded amount at a time. Those who make something due
//! earlier than it thinks wake it; a call to an active actor never does, since it can only make idleness later.

use std::sync::Arc;
use std::time::Duration;

use callboard_engine::Instant;
use callboard_engine::activation::EndReason;
use callboard_engine::due::{DueEntry, DueKey, Firing, ReminderId, Scan};
use callboard_engine::mailbox::Deactivation;
use callboard_raft::DueCursor;
use callboard_types::{ActorKey, NodeId, Timestamp};

use super::{KeeperWakes, Reign};
use crate::clock;
use crate::tasks::Kind;

/// Deactivations and firings begun at a time.
const BATCH: usize = 256;
/// The keeper looks again at least this often: wall clocks are stepped.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What one look found.
struct Look {
    idle: Vec<Deactivation>,
    due: Vec<Firing>,
    refill: Option<Scan>,
    sleep: Duration,
}

impl Reign {
    /// Keeps the partition until it is dropped with the reign.
    pub(super) async fn keep(self: &Arc<Self>) {
        let mut app = self.common.hosts.local().app();
        let mut sights = self.common.hosts.sights();
        loop {
            let look = self.look();
            for deactivation in look.idle {
                self.spawn_deactivation(deactivation);
            }
            for firing in look.due {
                self.common.tasks.spawn(Kind::Work, "reminder", self.clone().fire(firing));
            }
            if let Some(scan) = look.refill {
                self.refill(scan).await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.keeper.notified() => {}
                changed = app.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.unpark();
                }
                changed = sights.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.leave_withdrawn_hosts();
                    self.unpark();
                }
                () = tokio::time::sleep(look.sleep) => {}
            }
        }
    }

    /// Types may be hosted that were not.
    fn unpark(&self) {
        let hosts = &self.common.hosts;
        self.table.lock().due.unpark(|namespace, name| hosts.hosts_type(namespace, name));
    }

    /// Activations on other nodes that no longer host their type end there.
    fn leave_withdrawn_hosts(self: &Arc<Self>) {
        let hosts = &self.common.hosts;
        self.deactivate_all(EndReason::Withdrawn, |actor, host| {
            host.is_some_and(|host| !hosts.is_local(host) && !hosts.hosts(host, actor))
        });
    }

    fn look(&self) -> Look {
        let (now, wall) = (clock::monotonic(), clock::wall());
        // Occurrences for which nobody could be asked stay where they are, in the log.
        let hosts_any = self.common.hosts.any();
        let fires = hosts_any && self.tenure.check().is_ok();
        let mut table = self.table.lock();
        let fires = fires && !table.closing;
        let idle = table.mailboxes.expire(now, BATCH);
        let (due, refill) = match fires {
            true => (table.due.take_due(wall, BATCH), table.due.wants_refill()),
            false => (Vec::new(), None),
        };
        let next_idle = table.mailboxes.next_idle_deadline().unwrap_or(Instant::MAX);
        let next_due = if fires { table.due.next_due().unwrap_or(Timestamp::MAX) } else { Timestamp::MAX };
        table.keeper_wakes = KeeperWakes { idle: next_idle, due: next_due };
        let more = idle.len() == BATCH || due.len() == BATCH;
        let until = next_idle.saturating_since(now).min(next_due.saturating_since(wall)).min(LOOK_AGAIN);
        Look { idle, due, refill, sleep: if more { Duration::ZERO } else { until } }
    }

    /// Brings the next part of the due-time index into memory.
    async fn refill(&self, scan: Scan) {
        let reader = self.partition.reader();
        let after = scan.after.as_ref().map(|key| DueCursor {
            due: key.due,
            actor: key.id.actor.clone(),
            name: key.id.name.to_string(),
        });
        let limit = scan.limit;
        let rows = tokio::task::spawn_blocking(move || reader.scan_due(after.as_ref(), limit)).await;
        let error = match rows {
            Ok(Ok(rows)) => {
                let exhausted = rows.len() < limit;
                let entries = rows.into_iter().map(|due| DueEntry {
                    key: DueKey {
                        due: due.cursor.due,
                        id: ReminderId { actor: due.cursor.actor, name: due.cursor.name.into() },
                    },
                    generation: due.reminder.generation,
                    occurrence: due.reminder.occurrence,
                });
                self.table.lock().due.refill(entries.collect(), exhausted);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.table.lock().due.refill_failed();
        tracing::error!(partition = %self.id(), error, "the reminders that are due cannot be read");
        tokio::time::sleep(LOOK_AGAIN).await;
    }

    /// Ends the activations that `selects` names, those in a turn after it.
    pub fn deactivate_all(self: &Arc<Self>, reason: EndReason, selects: impl Fn(&ActorKey, Option<NodeId>) -> bool) {
        let begun = self.table.lock().mailboxes.deactivate_all(clock::monotonic(), reason, selects);
        for deactivation in begun {
            self.spawn_deactivation(deactivation);
        }
    }
}
