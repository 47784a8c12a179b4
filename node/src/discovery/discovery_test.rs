//! Registered nodes are seen while they live, one of many forms at a time, and only the user's own folder is used.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use callboard_types::{ClusterId, NodeId, Timestamp};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// Set for a test that runs as another process.
const FOLDER: &str = "CALLBOARD_TEST_DISCOVERY";

fn entry(node: u64) -> Entry {
    Entry {
        node: NodeId(node),
        name: format!("cat-{node}"),
        pid: std::process::id(),
        started: Timestamp(node as i64),
        peer: vec![format!("127.0.0.1:{node}")],
        cluster: None,
    }
}

fn files(local: &Local) -> usize {
    std::fs::read_dir(local.folder.path()).unwrap().count()
}

#[test]
fn nodes_are_seen_in_the_order_of_their_ids_while_they_are_registered() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    assert_eq!(local.peers(), []);
    let second = local.register(&entry(2)).unwrap();
    let _first = local.register(&entry(1)).unwrap();
    assert_eq!(local.peers(), [entry(1), entry(2)]);
    drop(second);
    assert_eq!(local.peers(), [entry(1)]);
    assert_eq!(files(&local), 1);
}

#[test]
fn clusters_do_not_see_each_other() {
    let base = tempfile::tempdir().unwrap();
    let one = Local::below(base.path(), "one").unwrap();
    let _registered = one.register(&entry(1)).unwrap();
    assert_eq!(Local::below(base.path(), "two").unwrap().peers(), []);
}

#[test]
fn a_changed_entry_takes_the_place_of_the_older_one() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    let mut registered = local.register(&entry(1)).unwrap();
    let joined = Entry { cluster: Some(ClusterId(9)), ..entry(1) };
    registered.update(&joined).unwrap();
    assert_eq!(local.peers(), [joined]);
    assert_eq!(files(&local), 1);
}

#[test]
fn a_node_that_changes_its_entry_all_the_time_is_seen_in_every_look() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    let mut registered = local.register(&entry(1)).unwrap();
    let over = AtomicBool::new(false);
    let seen: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                registered.update(&entry(1)).unwrap();
            }
        });
        let seen = (0..2_000).map(|_| local.peers().len()).collect();
        over.store(true, Ordering::Relaxed);
        seen
    });
    assert!(seen.iter().all(|count| *count == 1), "{} of 2000", seen.iter().filter(|count| **count == 1).count());
}

#[test]
fn of_two_processes_of_one_node_the_younger_is_seen() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    let younger = Entry { started: Timestamp(9), ..entry(1) };
    let _registered = [&younger, &entry(1)].map(|entry| local.register(entry).unwrap());
    assert_eq!(local.peers(), [younger]);
}

#[test]
fn many_nodes_that_come_and_go_at_once_never_remove_each_other() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    std::thread::scope(|scope| {
        for node in 1..=6 {
            let local = local.clone();
            scope.spawn(move || {
                for _ in 0..60 {
                    let registered = local.register(&entry(node)).unwrap();
                    assert!(local.peers().contains(&entry(node)));
                    drop(registered);
                }
            });
        }
    });
    assert_eq!((local.peers(), files(&local)), (vec![], 0));
}

#[test]
fn files_that_are_no_entries_are_left_alone() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    for name in ["README", "x.json", "young.part"] {
        std::fs::write(local.folder.path().join(name), "{").unwrap();
    }
    assert_eq!(local.peers(), []);
    assert_eq!(files(&local), 3);
}

#[test]
fn what_was_begun_long_ago_and_never_finished_is_removed() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    let part = std::fs::File::create(local.folder.path().join("old.part")).unwrap();
    part.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(local.peers(), []);
    assert_eq!(files(&local), 0);
}

/// Another process that runs `test` of this module with the folder given to it, until it is killed.
fn child(test: &str, base: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", &format!("discovery::discovery_test::{test}")])
        .env(FOLDER, base)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.map(Result::unwrap).find_map(|line| Some(line.split_once("READY ")?.1.to_owned())).unwrap();
    (child, said)
}

/// Says so on stdout, and stays until stdin ends.
fn ready(text: &str) {
    println!("\nREADY {text}");
    std::io::stdin().lines().for_each(drop);
}

#[test]
#[ignore = "a part of the next test, in a process of its own"]
fn holds_an_entry() {
    let Some(base) = std::env::var_os(FOLDER) else { return };
    let local = Local::below(Path::new(&base), "default").unwrap();
    let _registered = local.register(&entry(2)).unwrap();
    ready("entry");
}

#[test]
fn the_entry_of_a_killed_process_is_ignored_and_removed() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    let _own = local.register(&entry(1)).unwrap();
    let (mut child, _) = child("holds_an_entry", base.path());
    let seen = local.peers();
    assert_eq!(seen.iter().map(|entry| entry.pid).collect::<Vec<_>>(), [std::process::id(), child.id()]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(local.peers(), [entry(1)]);
    assert_eq!(files(&local), 1);
}

#[test]
#[ignore = "a part of the next test, in a process of its own"]
fn forms() {
    let Some(base) = std::env::var_os(FOLDER) else { return };
    let local = Local::below(Path::new(&base), "default").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.block_on(local.forming(PATIENCE)).unwrap();
    ready("forming");
}

#[tokio::test]
async fn a_killed_process_leaves_the_forming_to_the_next() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    let (mut child, _) = child("forms", base.path());
    let refused = local.forming(Duration::from_millis(60)).await.unwrap_err();
    assert!(matches!(&refused, Error::StillForming { by, .. } if *by == child.id().to_string()), "{refused}");
    let next = local.forming(PATIENCE);
    let end = async {
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let (guard, ()) = tokio::join!(next, end);
    guard.unwrap();
}

#[tokio::test]
async fn one_of_many_makes_the_cluster_and_the_others_find_it() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    let made = AtomicUsize::new(0);
    let nodes = (1..=5).map(|node| {
        let (local, made) = (local.clone(), &made);
        async move {
            let mut registered = local.register(&entry(node)).unwrap();
            let guard = local.forming(PATIENCE).await.unwrap();
            let known = local.peers().into_iter().find_map(|peer| peer.cluster);
            // Making a cluster takes a while, in which the others get their chance to do wrong.
            tokio::task::yield_now().await;
            let cluster = known.unwrap_or_else(|| ClusterId(100 + made.fetch_add(1, Ordering::Relaxed) as u128));
            registered.update(&Entry { cluster: Some(cluster), ..entry(node) }).unwrap();
            drop(guard);
            (registered, cluster)
        }
    });
    let done = futures_util::future::join_all(nodes).await;
    assert_eq!(made.load(Ordering::Relaxed), 1);
    assert!(done.iter().all(|(_, cluster)| *cluster == ClusterId(100)));
}

#[tokio::test]
async fn a_watcher_hears_of_nodes_that_come_and_go() {
    let base = tempfile::tempdir().unwrap();
    let local = Local::below(base.path(), "default").unwrap();
    let tasks = Tasks::new();
    let mut seen = local.watch(&tasks);
    assert!(seen.borrow_and_update().is_empty());
    let registered = local.register(&entry(1)).unwrap();
    let next = tokio::time::timeout(PATIENCE, seen.wait_for(|nodes| !nodes.is_empty())).await;
    assert_eq!(**next.unwrap().unwrap(), [entry(1)]);
    drop(registered);
    tokio::time::timeout(PATIENCE, seen.wait_for(|nodes| nodes.is_empty())).await.unwrap().unwrap();
    tasks.join().await;
}

#[test]
fn only_the_user_can_enter_the_folder_even_if_it_was_open_before() {
    let base = tempfile::tempdir().unwrap();
    let open = base.path().join("run");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let local = Local::below(&open, "default").unwrap();
    for folder in [open.as_path(), local.folder.path()] {
        assert_eq!(std::fs::metadata(folder).unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_link_or_a_file_in_place_of_the_folder_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), base.path().join("link")).unwrap();
    let refused = Local::below(&base.path().join("link"), "default").unwrap_err();
    assert!(matches!(refused, Error::NoFolder { .. }), "{refused}");
    std::fs::write(base.path().join("file"), "").unwrap();
    assert!(Local::below(&base.path().join("file"), "default").is_err());
}

#[test]
fn a_folder_of_another_user_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let theirs = base.path().join("run");
    std::fs::create_dir(&theirs).unwrap();
    // Only the superuser can give a folder away; anybody else owns none of `/proc/1`.
    let foreign = match std::os::unix::fs::chown(&theirs, Some(12_345), None) {
        Ok(()) => theirs,
        Err(_) => PathBuf::from("/proc/1"),
    };
    let refused = Local::below(&foreign, "default").unwrap_err();
    assert!(matches!(refused, Error::Foreign { .. }), "{refused}");
}

#[test]
fn a_name_that_would_lead_elsewhere_is_refused() {
    let base = tempfile::tempdir().unwrap();
    for name in ["", ".", "..", "../x", "a/b", ".hidden", "a b", &"x".repeat(65)] {
        assert!(matches!(Local::below(base.path(), name), Err(Error::Name(_))), "{name:?}");
    }
    for name in ["default", "Prod-2_b.c", &"x".repeat(64)] {
        assert!(Local::below(base.path(), name).is_ok(), "{name:?}");
    }
}
