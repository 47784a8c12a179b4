//! What a reader shows and what it hides.

use callboard_machine::partition::{Claim, Response};
use callboard_types::ReplicaId;

use super::*;
use crate::{ActorQuery, DueCursor};

const MINUTE: Duration = Duration::from_secs(60);

async fn apply(partition: &Partition, tenure: &Tenure, actor: ActorKey, ops: Vec<ActorOp>) {
    let response = partition.propose(command(tenure.epoch(), actor, ops)).await.unwrap();
    assert_eq!(response, Response::Done);
}

fn expiring(key: &str, at: Timestamp) -> ActorOp {
    ActorOp::Upsert { key: key.to_owned(), value: Bytes::from_static(b"fish"), expires_at: Some(at) }
}

fn query<'a>(actor_type: Option<&'a str>, id_prefix: &'a str, after: Option<&'a ActorKey>) -> ActorQuery<'a> {
    ActorQuery { namespace: "default", actor_type, id_prefix, after, limit: 10, keys_per_actor: 2 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_value_never_reappears() {
    let groups = start_in(&Memory::new(), 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    let end = NOW.saturating_add(MINUTE);
    apply(&partition, &tenure, actor("tom"), vec![expiring("food", end), upsert("name", "tom")]).await;
    let reader = partition.reader();
    assert!(reader.state(&actor("tom"), "food", NOW).unwrap().is_some());
    assert_eq!(reader.state(&actor("tom"), "food", end).unwrap(), None);
    // A proposer whose clock is past the end has been here; a reader whose clock is behind sees it nevertheless.
    let later = Command::Actor(ActorCommand {
        epoch: tenure.epoch(),
        actor: actor("kim"),
        write: None,
        now: end,
        ops: vec![upsert("food", "milk")],
    });
    partition.propose(later).await.unwrap();
    assert_eq!(reader.clock().unwrap(), end);
    assert_eq!(reader.state(&actor("tom"), "food", NOW).unwrap(), None);
    let keys: Vec<_> = reader.scan_state(None, None, 9, NOW).unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, ["food", "name"]);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_page_through_everything_once() {
    let groups = start_in(&Memory::new(), 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    let end = NOW.saturating_add(MINUTE);
    for id in ["a", "b", "c"] {
        let keys = (0..70).map(|n| format!("key-{n:02}"));
        // Every second value has expired: a page is filled from behind them.
        let ops = keys.enumerate().map(|(n, key)| if n % 2 == 0 { upsert(&key, "x") } else { expiring(&key, end) });
        let reminders = (0..5).map(|n| put_reminder(&format!("r{n}"), NOW.saturating_add(MINUTE * (5 - n))));
        apply(&partition, &tenure, actor(id), ops.chain(reminders).collect()).await;
    }
    let reader = partition.reader();
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = reader.scan_state(None, after.as_ref(), 10, end).unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.actor.clone(), last.key.clone()));
        seen.extend(page.into_iter().map(|row| (row.actor.actor_id.to_string(), row.key)));
    }
    assert_eq!(seen.len(), 3 * 35);
    assert!(seen.is_sorted());
    assert_eq!(reader.scan_state(Some(&actor("b")), None, 99, end).unwrap().len(), 35);

    let (mut after, mut names) = (None, Vec::new());
    loop {
        let page = reader.scan_reminders(None, after.as_ref(), 4).unwrap();
        let Some((actor, name, _)) = page.last() else { break };
        after = Some((actor.clone(), name.clone()));
        names.extend(page.into_iter().map(|(actor, name, _)| (actor.actor_id.to_string(), name)));
    }
    assert_eq!(names.len(), 15);
    assert!(names.is_sorted());
    assert_eq!(reader.scan_reminders(Some(&actor("b")), None, 99).unwrap().len(), 5);

    let (mut after, mut due): (Option<DueCursor>, _) = (None, Vec::new());
    loop {
        let page = reader.scan_due(after.as_ref(), 4).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.cursor.clone());
        due.extend(page.into_iter().map(|due| {
            assert_eq!(due.reminder.due, due.cursor.due);
            due.cursor
        }));
    }
    assert_eq!(due.len(), 15);
    assert!(due.is_sorted());
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_due_index_follows_every_change_of_a_reminder() {
    let groups = start_in(&Memory::new(), 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    let at = |minutes| NOW.saturating_add(MINUTE * minutes);
    let due = || {
        let due = partition.reader().scan_due(None, 99).unwrap();
        due.into_iter().map(|due| (due.cursor.name, due.cursor.due)).collect::<Vec<_>>()
    };
    apply(&partition, &tenure, actor("tom"), vec![put_reminder("feed", at(1)), put_reminder("wash", at(2))]).await;
    assert_eq!(due(), [("feed".to_owned(), at(1)), ("wash".to_owned(), at(2))]);
    apply(&partition, &tenure, actor("tom"), vec![put_reminder("feed", at(3))]).await;
    assert_eq!(due(), [("wash".to_owned(), at(2)), ("feed".to_owned(), at(3))]);
    let wash = partition.reader().reminder(&actor("tom"), "wash").unwrap().unwrap();
    let (generation, occurrence) = (wash.generation, wash.occurrence);
    let fired = ActorOp::ReminderFired { name: "wash".to_owned(), generation, occurrence, next: Some(at(4)) };
    apply(&partition, &tenure, actor("tom"), vec![fired]).await;
    assert_eq!(due(), [("feed".to_owned(), at(3)), ("wash".to_owned(), at(4))]);
    let dropped = ActorOp::ReminderDropped {
        name: "wash".to_owned(),
        generation,
        occurrence: occurrence + 1,
        next: None,
        reason: "no".to_owned(),
    };
    apply(&partition, &tenure, actor("tom"), vec![dropped]).await;
    assert_eq!(due(), [("feed".to_owned(), at(3))]);
    let given_up = partition.reader().dropped(9).unwrap();
    assert_eq!(given_up.iter().map(|firing| firing.name.as_str()).collect::<Vec<_>>(), ["wash"]);
    apply(&partition, &tenure, actor("tom"), vec![ActorOp::DeleteActor]).await;
    assert_eq!(due(), []);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_are_listed_with_what_they_have() {
    let groups = start_in(&Memory::new(), 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    let end = NOW.saturating_add(MINUTE);
    let dog = ActorKey::new("default", "dog", "rex");
    let many = (0..500).map(|n| upsert(&format!("key-{n:04}"), "x")).collect();
    apply(&partition, &tenure, actor("many"), many).await;
    apply(&partition, &tenure, actor("meg"), vec![put_reminder("feed", end), put_reminder("wash", end)]).await;
    apply(&partition, &tenure, actor("mia"), vec![expiring("food", end)]).await;
    apply(&partition, &tenure, actor("tom"), vec![upsert("food", "fish"), put_reminder("feed", end)]).await;
    apply(&partition, &tenure, dog.clone(), vec![upsert("food", "bone")]).await;
    apply(&partition, &tenure, ActorKey::new("other", "cat", "eve"), vec![upsert("food", "fish")]).await;
    let reader = partition.reader();
    let (seen_many, seen_tom) = (actor("many"), actor("tom"));
    let list = |query, now| {
        let rows = reader.scan_actors(&query, now).unwrap();
        let row =
            |row: crate::ActorRow| (row.actor.actor_id.to_string(), row.keys.join(","), row.more_keys, row.reminders);
        rows.into_iter().map(row).collect::<Vec<_>>()
    };
    let row = |id: &str, keys: &str, more, reminders| (id.to_owned(), keys.to_owned(), more, reminders);
    let many = row("many", "key-0000,key-0001", true, 0);
    let (meg, mia) = (row("meg", "", false, 2), row("mia", "food", false, 0));
    let (tom, rex) = (row("tom", "food", false, 1), row("rex", "food", false, 0));
    let all = [many.clone(), meg.clone(), mia.clone(), tom.clone(), rex.clone()];
    assert_eq!(list(query(None, "", None), NOW), all);
    assert_eq!(list(query(None, "", None), end), [many.clone(), meg.clone(), tom.clone(), rex.clone()]);
    assert_eq!(list(query(Some("cat"), "m", None), NOW), [many, meg.clone(), mia.clone()]);
    assert_eq!(list(query(Some("cat"), "", Some(&seen_many)), NOW), [meg, mia, tom]);
    assert_eq!(list(query(None, "", Some(&seen_tom)), NOW), [rex]);
    assert_eq!(list(query(Some("bird"), "", None), NOW), []);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_listed_by_their_beginning_whatever_their_type() {
    let groups = start_in(&Memory::new(), 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    for actor_type in ["bird", "cat", "dog", "eel"] {
        for id in ["a", "m", "m\0x", "m1", "m2", "n", "z"] {
            // Types without the beginning, with it in one table, and with it in both.
            let has = match (actor_type, id.starts_with('m')) {
                ("bird", true) => continue,
                ("cat", true) => vec![upsert("food", "fish")],
                ("dog", true) => vec![put_reminder("feed", NOW)],
                (_, _) => vec![upsert("food", "fish"), put_reminder("feed", NOW)],
            };
            apply(&partition, &tenure, ActorKey::new("default", actor_type, id), has).await;
        }
    }
    apply(&partition, &tenure, ActorKey::new("other", "cat", "m"), vec![upsert("food", "fish")]).await;
    let reader = partition.reader();
    let list = |prefix: &str| {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let rows =
                reader.scan_actors(&ActorQuery { limit: 2, ..query(None, prefix, after.as_ref()) }, NOW).unwrap();
            let Some(last) = rows.last() else { return seen };
            after = Some(last.actor.clone());
            seen.extend(rows.into_iter().map(|row| format!("{}/{}", row.actor.actor_type, row.actor.actor_id)));
        }
    };
    let of = |types: &[&str], ids: &[&str]| {
        types.iter().flat_map(|kind| ids.iter().map(move |id| format!("{kind}/{id}"))).collect::<Vec<_>>()
    };
    assert_eq!(list("m"), of(&["cat", "dog", "eel"], &["m", "m\0x", "m1", "m2"]));
    assert_eq!(list("m\0"), of(&["cat", "dog", "eel"], &["m\0x"]));
    assert_eq!(list("z"), of(&["bird", "cat", "dog", "eel"], &["z"]));
    assert_eq!(list("a"), of(&["bird", "cat", "dog", "eel"], &["a"]));
    for none in ["A", "b", "zz", "m3"] {
        assert_eq!(list(none), Vec::<String>::new(), "{none}");
    }
    assert_eq!(list("").len(), 3 + 3 * 7);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_are_told_in_order_and_after_their_rows() {
    let memory = Memory::new();
    let seen = Arc::new(Seen::default());
    let groups = Groups::open_with(config(), eager(), memory.open(), seen.clone(), Arc::new(NoPeers)).await.unwrap();
    groups.bootstrap(settings(1), node_record(), NOW).await.unwrap();
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    apply(&partition, &tenure, actor("tom"), vec![put_reminder("feed", NOW)]).await;
    apply(&partition, &tenure, actor("tom"), vec![ActorOp::DeleteReminder { name: "feed".to_owned() }]).await;
    let claimed = Effect::Claimed {
        claim: Claim { node: NODE, replica: ReplicaId(1), nonce: 1, now: NOW, max_clock_offset_micros: 1_000_000 },
        epoch: Epoch(1),
    };
    let effects: Vec<_> = seen.all().into_iter().map(|(_, effect)| effect).collect();
    assert_eq!(effects[0], claimed);
    assert!(matches!(&effects[1..], [Effect::ReminderSet { .. }, Effect::ReminderGone { .. }]), "{effects:?}");
    groups.shutdown().await;
}
