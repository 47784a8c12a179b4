//! The power cut: what `kill -9` cannot show, because the kernel keeps pages that were never synced.
//!
//! A library written for this (`shim/power.c`) is preloaded into the node and writes down, as it happens, how many bytes of
//! each file a completed sync covered and which folder entries a completed sync of the folder covered. After
//! `kill -9` the test takes away everything else, and the node must find every acknowledged transaction in what is left.
//!
//! The model, which is the strictest the standard allows for files that are only appended to:
//! - bytes behind the length at the last completed `fsync`/`fdatasync` of their file are gone; `sync_file_range` counts
//!   for nothing; a file never synced is empty;
//! - creations, renames and removals after the last completed sync of their folder have not happened: they are undone in
//!   reverse order, removed and replaced files come back;
//! - folders themselves, once made, stay.
//!
//! Overwriting in the middle of a file is not modelled: the logs of this product only grow.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use callboard_tests::app::App;
use callboard_tests::node::{Node, Setup};
use callboard_tests::wait::PATIENCE;

use crate::ledger::{KIND, Ledger, Load, Verdict, acknowledged, check, fresh, work_for_a_while};
use crate::{ROUNDS, dose};

const WRITERS: usize = 16;

/// The preloaded library and the folder of its record.
struct Shim {
    library: PathBuf,
    folder: PathBuf,
    /// File -> length that was durable before this round.
    durable: HashMap<u64, u64>,
}

impl Shim {
    fn build(home: &Path) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/power.c");
        let library = home.join("power.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .output()
            .expect("a C compiler named `cc` is needed for the power cut");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self { library, folder: home.join("power"), durable: HashMap::new() }
    }

    /// Starts a new record: what is on disk has survived.
    fn begin(&mut self, data: &Path) {
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(self.folder.join("kept")).expect("make the record's folder");
        self.durable = files(data)
            .into_iter()
            .map(|path| fs::metadata(path).expect("a file"))
            .map(|found| (found.ino(), found.len()))
            .collect();
    }

    fn preload(&self, setup: Setup) -> Setup {
        let data = setup.data();
        setup
            .env("LD_PRELOAD", self.library.to_string_lossy())
            .env("POWER_LOG", self.folder.join("log").to_string_lossy())
            .env("POWER_KEEP", self.folder.join("kept").to_string_lossy())
            .env("POWER_ROOT", data.to_string_lossy())
    }

    /// Takes away what a power cut may take; gives the number of bytes and of entries.
    fn cut(&self, data: &Path) -> (u64, usize) {
        let record = fs::read_to_string(self.folder.join("log")).expect("the library has written a record");
        let events: Vec<Vec<&str>> = record.lines().map(|line| line.split('\t').collect()).collect();
        let mut synced = self.durable.clone();
        let mut folders: HashMap<u64, u64> = HashMap::new();
        for event in &events {
            let number = |at: usize| event[at].parse::<u64>().expect("a number");
            match event[0] {
                "C" => {
                    // An inode may have belonged to a file that is gone.
                    synced.insert(number(3), 0);
                }
                "T" => {
                    let length = synced.entry(number(1)).or_default();
                    *length = (*length).min(number(2));
                }
                "S" => {
                    let length = synced.entry(number(1)).or_default();
                    *length = (*length).max(number(2));
                }
                "D" => {
                    let covered = folders.entry(number(1)).or_default();
                    *covered = (*covered).max(number(2));
                }
                "R" | "U" => {}
                other => panic!("{other:?} in the record"),
            }
        }
        let mut entries = events.iter().filter(|event| ["C", "R", "U"].contains(&event[0])).collect::<Vec<_>>();
        entries.sort_by_key(|event| event[1].parse::<u64>().expect("a number"));
        let mut undone = 0;
        for event in entries.into_iter().rev() {
            let (seq, folder) =
                (event[1].parse::<u64>().expect("a number"), event[2].parse::<u64>().expect("a number"));
            if folders.get(&folder).is_some_and(|covered| *covered >= seq) {
                continue;
            }
            undone += 1;
            undo(event);
        }
        let mut bytes = 0;
        for path in files(data) {
            let found = fs::metadata(&path).expect("a file");
            let keep = synced.get(&found.ino()).copied().unwrap_or(0);
            if found.len() > keep {
                bytes += found.len() - keep;
                fs::File::options().write(true).open(&path).expect("open a file").set_len(keep).expect("cut a file");
            }
        }
        (bytes, undone)
    }
}

/// Makes one change of a folder unhappened. What later changes took away meanwhile stays away.
fn undo(event: &[&str]) {
    let restore = |backup: &str, to: &str| {
        if backup != "-" {
            let _ = fs::remove_file(to);
            fs::hard_link(backup, to).expect("bring a file back");
        }
    };
    match event[0] {
        "C" => {
            let _ = fs::remove_file(event[4]);
        }
        "R" => {
            if Path::new(event[4]).exists() {
                fs::rename(event[4], event[3]).expect("rename back");
            }
            restore(event[5], event[4]);
        }
        _ => restore(event[4], event[3]),
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let kind = fs::symlink_metadata(&path).expect("a file").file_type();
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            found.push(path);
        }
    }
    found
}

struct Round {
    told: u64,
    bytes: u64,
    undone: usize,
    verdict: Verdict,
}

/// Load, death, the cut, and what is found afterwards.
async fn round(node: &mut Node, shim: &mut Shim, ledgers: &mut Vec<Ledger>) -> Round {
    let before = acknowledged(ledgers);
    let load = Load::start(node, std::mem::take(ledgers));
    work_for_a_while().await;
    node.kill();
    *ledgers = load.stop().await;
    let told = acknowledged(ledgers) - before;
    let (bytes, undone) = shim.cut(&node.data());
    shim.begin(&node.data());
    node.restart_ready().await;
    let verdict = check(node, ledgers).await;
    Round { told, bytes, undone, verdict }
}

async fn start(setup: Setup, app: &App) -> (Node, Shim) {
    let mut shim = Shim::build(setup.home());
    shim.begin(&setup.data());
    let node = shim.preload(setup.app(app)).ready().await;
    (node, shim)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_every_acknowledged_transaction_is_there_whole() {
    let rounds = dose(ROUNDS, 2);
    let app = App::hosting(&[KIND]).await;
    let (mut node, mut shim) = start(Setup::default(), &app).await;
    let mut ledgers = fresh(WRITERS);
    for n in 1..=rounds {
        if n % 3 == 2 {
            // An orderly end flushes the state and lets the log be purged: the cut then meets files of both kinds.
            node.terminate();
            assert!(node.wait_end(PATIENCE).await.success());
            node.restart_ready().await;
        }
        let round = round(&mut node, &mut shim, &mut ledgers).await;
        assert!(round.told > 0, "no transaction was acknowledged in round {n}");
        assert!(round.verdict.is_clean(), "round {n}: {:#?}", round.verdict);
        let (told, bytes, undone) = (round.told, round.bytes, round.undone);
        println!(
            "round {n}/{rounds}: {told} transactions acknowledged; {bytes} bytes and {undone} entries cut; all there"
        );
    }
}

/// The same procedure finds loss when there is loss to find: the node is set up in order, ended, and only then run
/// without syncing, so that it comes back and lacks nothing but what was acknowledged since.
#[tokio::test(flavor = "multi_thread")]
async fn without_syncing_a_power_cut_loses_acknowledged_transactions() {
    let app = App::hosting(&[KIND]).await;
    let (mut node, mut shim) = start(Setup::default(), &app).await;
    node.terminate();
    assert!(node.wait_end(PATIENCE).await.success());
    node.change(|setup| setup.arg("--unsafe-no-sync"));
    node.restart_ready().await;
    let mut ledgers = fresh(WRITERS);
    let round = round(&mut node, &mut shim, &mut ledgers).await;
    println!("{} transactions acknowledged; {} bytes and {} entries cut", round.told, round.bytes, round.undone);
    println!("lost: {:#?}", round.verdict.lost.iter().take(3).collect::<Vec<_>>());
    assert!(!round.verdict.lost.is_empty(), "nothing is lost without syncing: this procedure could not find loss");
}

/// The first start has made the store in the node's name: the name must not go while the store stays.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_in_its_first_run_the_node_is_the_same_one() {
    let app = App::hosting(&[KIND]).await;
    let (mut node, mut shim) = start(Setup::default(), &app).await;
    let identity = |node: &Node| ["node", "cluster"].map(|file| fs::read_to_string(node.data().join(file)).ok());
    let before = identity(&node);
    node.kill();
    shim.cut(&node.data());
    shim.begin(&node.data());
    assert!(before.iter().all(Option::is_some));
    assert_eq!(identity(&node), before);
    node.restart_ready().await;
}

/// The log loses everything, the votes of its groups among it, and what the state has stored stays: the node comes back with
/// that, and says what is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_was_never_synced_comes_back_with_its_state() {
    let app = App::hosting(&[KIND]).await;
    for _ in 0..dose(ROUNDS, 2) {
        let (mut node, mut shim) = start(Setup::default().arg("--unsafe-no-sync"), &app).await;
        let load = Load::start(&node, fresh(WRITERS));
        work_for_a_while().await;
        node.kill();
        load.stop().await;
        let (bytes, _) = shim.cut(&node.data());
        assert!(bytes > 0, "nothing was cut");
        shim.begin(&node.data());
        node.restart_ready().await;
        node.wait_log("the end of a log is lost", PATIENCE).await;
        node.call(KIND, "anybody", "anything").await.expect(200);
    }
}
