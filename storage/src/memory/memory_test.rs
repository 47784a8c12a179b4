//! The power switch, and the shared promises.

use super::*;
use crate::conformance::{self, Engine};
use crate::keyspace;

#[derive(Default)]
struct InMemory(Memory);

impl Engine for InMemory {
    fn open(&mut self) -> Stores {
        self.0.open()
    }

    fn crash(&mut self, _stores: Stores) {
        self.0.crash();
    }
}

#[test]
fn the_memory_engine_keeps_every_promise() {
    for case in conformance::CASES {
        println!("{}", case.name);
        (case.run)(&mut InMemory::default());
    }
}

fn append(index: u64) -> (GroupId, LogWrite) {
    (GroupId::Meta, LogWrite::Append { entries: vec![LogEntry { index, bytes: Bytes::from_static(b"entry") }] })
}

fn last(stores: &Stores) -> Option<u64> {
    stores.log.last(GroupId::Meta).unwrap().map(|entry| entry.index)
}

#[test]
fn handles_of_before_a_crash_are_cut_off() {
    let memory = Memory::new();
    let before = memory.open();
    before.log.commit(&[append(1)]).unwrap();
    memory.crash();
    assert!(before.log.commit(&[append(2)]).is_err());
    assert!(before.log.last(GroupId::Meta).is_err());
    assert!(before.state.write(StateBatch::default()).is_err());
    assert!(before.state.get(Table::System, &keyspace::clock(1)).is_err());
    assert!(before.state.flush().is_err());
    assert_eq!(last(&memory.open()), Some(1));
}

#[test]
fn each_fault_leaves_on_disk_what_it_says() {
    let cases = [
        (CommitFault::SyncFailsLost, Some(1)),
        (CommitFault::SyncFailsKept, Some(2)),
        (CommitFault::CrashBefore, Some(1)),
        (CommitFault::CrashAfter, Some(2)),
    ];
    for (fault, expected) in cases {
        let memory = Memory::new();
        memory.plan_faults(FaultPlan::from([(2, fault)]));
        let stores = memory.open();
        stores.log.commit(&[append(1)]).unwrap();
        assert!(stores.log.commit(&[append(2)]).is_err(), "{fault:?}");
        assert_eq!(last(&memory.open()), expected, "{fault:?}");
        let cut_off = stores.log.last(GroupId::Meta).is_err();
        assert_eq!(cut_off, matches!(fault, CommitFault::CrashBefore | CommitFault::CrashAfter), "{fault:?}");
    }
}

#[test]
fn a_commit_that_is_held_is_not_on_disk_when_the_machine_crashes() {
    let memory = Memory::new();
    memory.hold_commits();
    let stores = memory.open();
    let committing = std::thread::spawn(move || stores.log.commit(&[append(1)]));
    memory.await_commit(1);
    memory.crash();
    assert!(committing.join().unwrap().is_err());
    assert_eq!(last(&memory.open()), None);
}
