//! What is stored, as the owner reads it: linearizable, without a round trip.
//!
//! Everything that was acknowledged has applied on this replica before it was acknowledged, so a read is as fresh as
//! any while this replica owns the partition. It is asked whether it does before the read and after it: the second
//! question closes the gap of a pause in between.

use callboard_machine::partition::{Command, Reminder, Response, StateValue};
use callboard_raft::{ActorQuery, ActorRow, ProposeError, Reader, StateRow};
use callboard_types::{ActorKey, Timestamp};

use super::{Error, Reign};
use crate::calls::scan::{List, Page, ReminderRow, Rows, Scan};
use crate::clock;

/// Where a scan goes on: after this actor and key or name.
pub type After = (ActorKey, String);

/// State keys that a listing names per actor.
const KEYS_LISTED: usize = 1_000;
/// Rows read at a time for a page.
const STEP: usize = 64;
/// Bytes of a page. One row may be larger; it is then the only one.
const PAGE_BYTES: usize = 4 << 20;

impl Reign {
    /// One key of one actor. A point read: made in place.
    pub fn state(&self, actor: &ActorKey, key: &str) -> Result<Option<StateValue>, Error> {
        self.tenure.check()?;
        let value = self.partition.reader().state(actor, key, clock::wall()).map_err(storage)?;
        self.tenure.check()?;
        Ok(value)
    }

    pub fn reminder(&self, actor: &ActorKey, name: &str) -> Result<Option<Reminder>, Error> {
        self.tenure.check()?;
        let reminder = self.partition.reader().reminder(actor, name).map_err(storage)?;
        self.tenure.check()?;
        Ok(reminder)
    }

    /// Reminders of one actor, or of all.
    pub async fn scan_reminders(
        &self,
        of: Option<ActorKey>,
        after: Option<After>,
        limit: usize,
    ) -> Result<Vec<(ActorKey, String, Reminder)>, Error> {
        self.scan(move |reader| reader.scan_reminders(of.as_ref(), after.as_ref(), limit)).await
    }

    /// One page of a list over all actors of the partition; none is woken.
    pub async fn list(&self, scan: &Scan) -> Result<Page, Error> {
        let scan = scan.clone();
        self.scan(move |reader| page(reader, &scan, clock::wall())).await
    }

    /// Shows that this node owns the partition and that its log moves: the lease holds, and a command that changes
    /// nothing has gone through the log.
    pub async fn prove(&self) -> Result<(), Error> {
        self.tenure.check()?;
        match self.partition.propose(Command::Noop { epoch: self.tenure.epoch() }).await {
            Ok(Response::Done) => Ok(self.tenure.check()?),
            Ok(Response::Fenced { .. }) | Err(ProposeError::NotReady { .. }) => Err(Error::NotServing(self.id())),
            Ok(Response::Claimed { .. } | Response::Rejected(_)) => {
                Err(Error::Unknown("the log answered another command".into()))
            }
            Err(ProposeError::Unknown) => Err(Error::Unknown("no answer from the partition's log".into())),
            Err(ProposeError::Stopped(_)) => Err(Error::Unknown("the partition's log has stopped".into())),
        }
    }

    /// A read of many rows, on a thread that may wait for the disk.
    pub(super) async fn scan<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<R, callboard_storage::Error> + Send + 'static,
    ) -> Result<R, Error> {
        self.tenure.check()?;
        let reader = self.partition.reader();
        let rows = tokio::task::spawn_blocking(move || read(&reader)).await;
        let rows = rows.map_err(|error| Error::Storage(error.to_string()))?.map_err(storage)?;
        self.tenure.check()?;
        Ok(rows)
    }
}

fn storage(error: callboard_storage::Error) -> Error {
    Error::Storage(error.to_string())
}

fn page(reader: &Reader, scan: &Scan, now: Timestamp) -> Result<Page, callboard_storage::Error> {
    let limit = scan.limit;
    let (rows, more) = match &scan.list {
        List::State { after } => {
            let read = |last: Option<&StateRow>, step| {
                let last = last.map(|row| (row.actor.clone(), row.key.clone()));
                reader.scan_state(None, last.as_ref().or(after.as_ref()), step, now)
            };
            let size = |row: &StateRow| actor_size(&row.actor) + row.key.len() + row.value.value.len();
            let (rows, more) = filled(limit, read, size)?;
            (Rows::State(rows), more)
        }
        List::Actors { wanted, after } => {
            let read = |last: Option<&ActorRow>, step| {
                let query = ActorQuery {
                    namespace: &wanted.namespace,
                    actor_type: wanted.actor_type.as_deref(),
                    id_prefix: &wanted.id_prefix,
                    after: last.map(|row| &row.actor).or(after.as_ref()),
                    limit: step,
                    keys_per_actor: KEYS_LISTED,
                };
                reader.scan_actors(&query, now)
            };
            let size = |row: &ActorRow| actor_size(&row.actor) + row.keys.iter().map(String::len).sum::<usize>();
            let (rows, more) = filled(limit, read, size)?;
            (Rows::Actors(rows), more)
        }
        List::Reminders { after } => {
            let read = |last: Option<&ReminderRow>, step| {
                let last = last.map(|(actor, name, _)| (actor.clone(), name.clone()));
                reader.scan_reminders(None, last.as_ref().or(after.as_ref()), step)
            };
            let size = |(actor, name, reminder): &ReminderRow| {
                actor_size(actor) + name.len() + reminder.spec.data.as_ref().map_or(0, |data| data.len())
            };
            let (rows, more) = filled(limit, read, size)?;
            (Rows::Reminders(rows), more)
        }
        // A partition keeps few, of bounded texts.
        List::Dropped => (Rows::Dropped(reader.dropped(limit)?), false),
    };
    Ok(Page { rows, more })
}

/// Bytes of a key, and about what a row takes beside its texts.
fn actor_size(actor: &ActorKey) -> usize {
    actor.namespace.len() + actor.actor_type.len() + actor.actor_id.len() + 64
}

/// The first `limit` of the rows that `read` gives behind a row, so many at a time, as far as there is room for them, and
/// whether there may be more.
fn filled<R, E>(
    limit: usize,
    read: impl Fn(Option<&R>, usize) -> Result<Vec<R>, E>,
    size: impl Fn(&R) -> usize,
) -> Result<(Vec<R>, bool), E> {
    let mut rows: Vec<R> = Vec::new();
    let mut bytes = 0;
    loop {
        let step = STEP.min(limit - rows.len());
        if step == 0 {
            return Ok((rows, false));
        }
        let found = read(rows.last(), step)?;
        let is_last = found.len() < step;
        for row in found {
            bytes += size(&row);
            if bytes > PAGE_BYTES && !rows.is_empty() {
                return Ok((rows, true));
            }
            rows.push(row);
        }
        if is_last {
            return Ok((rows, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are their own sizes, numbered from 1 on.
    fn page_of(sizes: &[usize], after: usize, limit: usize) -> (Vec<usize>, bool) {
        let all: Vec<_> = sizes.iter().copied().enumerate().collect();
        let read = |last: Option<&(usize, usize)>, step: usize| {
            let from = last.map_or(after, |(at, _)| at + 1);
            Ok::<_, ()>(all[from..].iter().copied().take(step).collect())
        };
        let (rows, more) = filled(limit, read, |(_, size)| *size).unwrap();
        (rows.into_iter().map(|(at, _)| at).collect(), more)
    }

    #[test]
    fn a_page_ends_at_its_limit_or_with_the_last_row() {
        let sizes = [1; STEP * 2 + 5];
        assert_eq!(page_of(&sizes, 0, STEP + 1), ((0..=STEP).collect(), false));
        assert_eq!(page_of(&sizes, 0, 1_000), ((0..sizes.len()).collect(), false));
        assert_eq!(page_of(&sizes, 0, 0), (vec![], false));
        assert_eq!(page_of(&[], 0, 10), (vec![], false));
    }

    #[test]
    fn large_rows_are_left_for_another_page_and_none_is_left_out() {
        let (half, whole) = (PAGE_BYTES / 2, PAGE_BYTES);
        assert_eq!(page_of(&[half, half, 1], 0, 10), (vec![0, 1], true));
        assert_eq!(page_of(&[half, half, 1], 2, 10), (vec![2], false));
        assert_eq!(page_of(&[whole * 3, 1], 0, 10), (vec![0], true), "one that is too large comes alone");
        assert_eq!(page_of(&[whole * 3, 1], 1, 10), (vec![1], false));
        assert_eq!(page_of(&[whole * 3], 0, 1), (vec![0], false));
    }
}
