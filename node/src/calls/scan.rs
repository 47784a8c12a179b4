//! Rows of one partition, asked of its owner: what is asked, what comes back, and both as messages.
//!
//! One answer is bounded in rows and in bytes, so that it fits a message whatever the values are: a page that says
//! [`Page::more`] ends where there was no room, and is asked again from there. What is listed locally goes by the same
//! value, so that a list does not depend on where the owners are.

use bytes::Bytes;
use callboard_machine::partition::{DroppedFiring, Reminder, StateValue};
use callboard_proto::calls as wire;
use callboard_raft::{ActorRow, MAX_SCAN, StateRow, Storable};
use callboard_types::{ActorKey, PartitionId, Timestamp};

use super::convert::{Invalid, get_actor, malformed, need, put_actor};
use crate::owner::reads::After;

/// What is asked of a partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    pub list: List,
    pub limit: usize,
}

/// Rows of one kind, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum List {
    /// By actor and key.
    State { after: Option<After> },
    /// By actor.
    Actors { wanted: Wanted, after: Option<ActorKey> },
    /// By actor and name.
    Reminders { after: Option<After> },
    /// Firings that were given up, the latest first.
    Dropped,
}

/// Which actors are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub namespace: String,
    pub actor_type: Option<String>,
    pub id_prefix: String,
}

/// A reminder, by its actor and name.
pub type ReminderRow = (ActorKey, String, Reminder);

/// What a partition answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub rows: Rows,
    /// There are further rows, for which there was no room.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    State(Vec<StateRow>),
    Actors(Vec<ActorRow>),
    Reminders(Vec<ReminderRow>),
    Dropped(Vec<DroppedFiring>),
}

/// A row that lists are made of.
pub trait Listed: Sized {
    /// `None`: rows of another kind.
    fn take(rows: Rows) -> Option<Vec<Self>>;

    /// The list behind this row.
    fn list_behind(&self, list: &List) -> List;
}

impl Listed for StateRow {
    fn take(rows: Rows) -> Option<Vec<Self>> {
        if let Rows::State(rows) = rows { Some(rows) } else { None }
    }

    fn list_behind(&self, _list: &List) -> List {
        List::State { after: Some((self.actor.clone(), self.key.clone())) }
    }
}

impl Listed for ActorRow {
    fn take(rows: Rows) -> Option<Vec<Self>> {
        if let Rows::Actors(rows) = rows { Some(rows) } else { None }
    }

    fn list_behind(&self, list: &List) -> List {
        match list {
            List::Actors { wanted, .. } => List::Actors { wanted: wanted.clone(), after: Some(self.actor.clone()) },
            other @ (List::State { .. } | List::Reminders { .. } | List::Dropped) => other.clone(),
        }
    }
}

impl Listed for ReminderRow {
    fn take(rows: Rows) -> Option<Vec<Self>> {
        if let Rows::Reminders(rows) = rows { Some(rows) } else { None }
    }

    fn list_behind(&self, _list: &List) -> List {
        List::Reminders { after: Some((self.0.clone(), self.1.clone())) }
    }
}

impl Listed for DroppedFiring {
    fn take(rows: Rows) -> Option<Vec<Self>> {
        if let Rows::Dropped(rows) = rows { Some(rows) } else { None }
    }

    fn list_behind(&self, _list: &List) -> List {
        List::Dropped
    }
}

pub fn put_scan(partition: PartitionId, scan: &Scan) -> wire::Scan {
    use wire::scan::List as Asked;
    let nothing = wire::Nothing {};
    let (list, after) = match &scan.list {
        List::State { after } => (Asked::State(nothing), after.as_ref().map(put_place)),
        List::Actors { wanted, after } => {
            let Wanted { namespace, actor_type, id_prefix } = wanted.clone();
            let after = after.as_ref().map(|actor| wire::Place { actor: Some(put_actor(actor)), key: String::new() });
            (Asked::Actors(wire::ListActors { namespace, actor_type, id_prefix }), after)
        }
        List::Reminders { after } => (Asked::Reminders(nothing), after.as_ref().map(put_place)),
        List::Dropped => (Asked::Dropped(nothing), None),
    };
    wire::Scan { partition: partition.0, limit: scan.limit as u64, after, list: Some(list) }
}

/// The limit is no more than a scan ever gives, whatever was asked for.
pub fn get_scan(message: wire::Scan) -> Result<(PartitionId, Scan), Invalid> {
    use wire::scan::List as Asked;
    let after = message.after.map(get_place).transpose()?;
    let list = match need("list", message.list)? {
        Asked::State(wire::Nothing {}) => List::State { after },
        Asked::Actors(wire::ListActors { namespace, actor_type, id_prefix }) => {
            List::Actors { wanted: Wanted { namespace, actor_type, id_prefix }, after: after.map(|(actor, _)| actor) }
        }
        Asked::Reminders(wire::Nothing {}) => List::Reminders { after },
        Asked::Dropped(wire::Nothing {}) => List::Dropped,
    };
    let limit = usize::try_from(message.limit).unwrap_or(MAX_SCAN).min(MAX_SCAN);
    Ok((PartitionId(message.partition), Scan { list, limit }))
}

fn put_place((actor, key): &After) -> wire::Place {
    wire::Place { actor: Some(put_actor(actor)), key: key.clone() }
}

/// A place need not be a row's: it may stand before the first actor of a type.
fn get_place(place: wire::Place) -> Result<After, Invalid> {
    let actor = need("actor", place.actor)?;
    Ok((ActorKey::new(actor.namespace, actor.actor_type, actor.actor_id), place.key))
}

pub fn put_page(page: Page) -> wire::Scanned {
    let mut message = wire::Scanned { more: page.more, ..wire::Scanned::default() };
    match page.rows {
        Rows::State(rows) => {
            let row = |row: StateRow| wire::ScannedState {
                actor: Some(put_actor(&row.actor)),
                key: row.key,
                value: row.value.value,
                expires_at: row.value.expires_at.map(Timestamp::as_micros),
            };
            message.state = rows.into_iter().map(row).collect();
        }
        Rows::Actors(rows) => {
            let row = |row: ActorRow| wire::ScannedActor {
                actor: Some(put_actor(&row.actor)),
                keys: row.keys,
                more_keys: row.more_keys,
                reminders: row.reminders as u64,
            };
            message.actors = rows.into_iter().map(row).collect();
        }
        Rows::Reminders(rows) => {
            let row = |(actor, name, reminder): ReminderRow| wire::ScannedReminder {
                actor: Some(put_actor(&actor)),
                name,
                reminder: reminder.encode(),
            };
            message.reminders = rows.into_iter().map(row).collect();
        }
        Rows::Dropped(rows) => message.dropped = rows.iter().map(Storable::encode).collect(),
    }
    message
}

/// Rows of the kind that `list` asked for; others in the message are not looked at.
pub fn get_page(list: &List, message: wire::Scanned) -> Result<Page, Invalid> {
    let rows = match list {
        List::State { .. } => {
            let row = |row: wire::ScannedState| {
                let expires_at = row.expires_at.map(Timestamp::from_micros);
                Ok(StateRow {
                    actor: get_actor(row.actor)?,
                    key: row.key,
                    value: StateValue { value: row.value, expires_at },
                })
            };
            Rows::State(message.state.into_iter().map(row).collect::<Result<_, Invalid>>()?)
        }
        List::Actors { .. } => {
            let row = |row: wire::ScannedActor| {
                Ok(ActorRow {
                    actor: get_actor(row.actor)?,
                    keys: row.keys,
                    more_keys: row.more_keys,
                    reminders: usize::try_from(row.reminders).unwrap_or(usize::MAX),
                })
            };
            Rows::Actors(message.actors.into_iter().map(row).collect::<Result<_, Invalid>>()?)
        }
        List::Reminders { .. } => {
            let row =
                |row: wire::ScannedReminder| Ok((get_actor(row.actor)?, row.name, stored("reminder", &row.reminder)?));
            Rows::Reminders(message.reminders.into_iter().map(row).collect::<Result<_, Invalid>>()?)
        }
        List::Dropped => {
            let rows = message.dropped.iter().map(|record| stored("dropped firing", record));
            Rows::Dropped(rows.collect::<Result<_, Invalid>>()?)
        }
    };
    Ok(Page { rows, more: message.more })
}

fn stored<T: Storable>(what: &'static str, record: &Bytes) -> Result<T, Invalid> {
    T::decode(record).map_err(malformed(what))
}

#[cfg(test)]
mod tests {
    use callboard_machine::partition::ReminderSpec;
    use callboard_types::FailurePolicy;
    use prost::Message;

    use super::*;

    fn actor() -> ActorKey {
        ActorKey::new("ns", "Cat", "felix")
    }

    fn crossed(scan: &Scan) -> (PartitionId, Scan) {
        let bytes = put_scan(PartitionId(7), scan).encode_to_vec();
        get_scan(wire::Scan::decode(&*bytes).expect("a message")).expect("it means something")
    }

    #[test]
    fn every_question_arrives_as_it_was_asked() {
        let wanted = Wanted { namespace: "ns".into(), actor_type: Some("Cat".into()), id_prefix: "f".into() };
        let start = (ActorKey::new("ns", "", ""), String::new());
        for list in [
            List::State { after: None },
            List::State { after: Some((actor(), "k".into())) },
            List::State { after: Some(start) },
            List::Actors { wanted: wanted.clone(), after: None },
            List::Actors { wanted: Wanted { actor_type: None, ..wanted }, after: Some(actor()) },
            List::Reminders { after: Some((actor(), "r".into())) },
            List::Dropped,
        ] {
            let scan = Scan { list, limit: 100 };
            assert_eq!(crossed(&scan), (PartitionId(7), scan));
        }
    }

    #[test]
    fn no_more_is_read_than_a_scan_gives_whatever_is_asked_for() {
        let scan = Scan { list: List::Dropped, limit: usize::MAX };
        assert_eq!(crossed(&scan).1.limit, MAX_SCAN);
    }

    #[test]
    fn every_row_arrives_as_it_was_sent() {
        let state = |expires_at| StateRow {
            actor: actor(),
            key: "k".into(),
            value: StateValue { value: Bytes::from_static(b"{}"), expires_at },
        };
        let reminder = Reminder {
            spec: ReminderSpec {
                data: Some(Bytes::from_static(b"1")),
                due_time: "1s".into(),
                period: "2s".into(),
                ttl: String::new(),
                repeats: None,
                expires_at: None,
                policy: FailurePolicy::Drop,
            },
            generation: 3,
            occurrence: 4,
            due: Timestamp::from_secs(9),
            registered: Timestamp::from_secs(1),
            dropped: 2,
        };
        let firing = DroppedFiring {
            actor: actor(),
            name: "r".into(),
            generation: 1,
            occurrence: 2,
            due: Timestamp::from_secs(3),
            dropped_at: Timestamp::from_secs(4),
            reason: "500".into(),
        };
        let wanted = Wanted { namespace: "ns".into(), actor_type: None, id_prefix: String::new() };
        let listed = ActorRow { actor: actor(), keys: vec!["a".into(), "b".into()], more_keys: true, reminders: 5 };
        for (list, rows) in [
            (List::State { after: None }, Rows::State(vec![state(None), state(Some(Timestamp::from_secs(8)))])),
            (List::Actors { wanted, after: None }, Rows::Actors(vec![listed])),
            (List::Reminders { after: None }, Rows::Reminders(vec![(actor(), "r".into(), reminder)])),
            (List::Dropped, Rows::Dropped(vec![firing])),
        ] {
            for more in [false, true] {
                let page = Page { rows: rows.clone(), more };
                let bytes = put_page(page.clone()).encode_to_vec();
                let message = wire::Scanned::decode(&*bytes).expect("a message");
                assert_eq!(get_page(&list, message).expect("it means something"), page);
            }
        }
    }

    #[test]
    fn a_row_without_its_actor_makes_the_page_refused() {
        let row = wire::ScannedState { key: "k".into(), ..wire::ScannedState::default() };
        let message = wire::Scanned { state: vec![row], ..wire::Scanned::default() };
        assert!(get_page(&List::State { after: None }, message).is_err());
        assert!(get_scan(wire::Scan::default()).is_err(), "nor is a question that asks nothing");
    }
}
