//! Every decoder of outside input under a bounded, repeatable dose of broken input.
//!
//! A fuzz body is a function `fuzz_…(&[u8])` beside its decoder: it feeds the decoder and asserts what must hold of
//! whatever comes out. Here each body gets its hand-written seeds (`fuzz/seeds/<name>/`), all their beginnings, and
//! mutations of them drawn from a fixed seed, so that every run has the same inputs. A body that panics or does not
//! come back fails its test with the input at hand. `make fuzz` runs the same bodies guided by coverage; this test also
//! holds that none of them is missing there, or here.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Inputs per body.
const INPUTS: usize = 2_000;
/// Longest input, in bytes.
const MAX_INPUT: usize = 4_096;
/// Beginnings of one seed.
const MAX_PREFIXES: usize = 64;
/// A body that takes this long for all its inputs hangs: they take a second.
const HANGS: Duration = Duration::from_secs(120);
/// Bytes that mean something to one grammar or another.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff/.%+-:;,=&?#|\"'\\{}[]<>()@$*~_ \t\r\n09aAzZeE";

type Body = fn(&[u8]);

/// One test per body, and the list of all: target of `fuzz/`, and body.
macro_rules! bodies {
    ($($target:ident: $body:path,)*) => {
        const BODIES: &[(&str, &str)] = &[$((stringify!($target), stringify!($body)),)*];

        mod no_input_breaks {
            $(#[test]
            fn $target() {
                super::drive(stringify!($target), $body, super::HANGS);
            })*
        }
    };
}

bodies! {
    storage_codec: callboard_storage::codec::fuzz_decode,
    storage_keyspace: callboard_storage::keyspace::fuzz_decode,
    raft_records: callboard_raft::fuzz_records,
    raft_snapshot: callboard_raft::fuzz_snapshot,
    raft_apply: callboard_raft::fuzz_apply,
    engine_quantity: callboard_engine::quantity::fuzz_quantity,
    engine_duration: callboard_engine::duration::fuzz_parse,
    engine_schedule: callboard_engine::schedule::fuzz_schedule,
    engine_reminder: callboard_engine::reminder::fuzz_request,
    engine_timer: callboard_engine::timer::fuzz_timer,
    engine_actor_config: callboard_engine::actor_config::fuzz_config,
    engine_json: callboard_engine::json::fuzz_json,
    engine_names: callboard_engine::names::fuzz_name,
    ingress_route: callboard::ingress::http::route::fuzz_route,
    ingress_transaction: callboard::ingress::http::actors::fuzz_transaction,
    ingress_admin_query: callboard::ingress::http::admin::fuzz_query,
    ingress_connection: callboard::ingress::server::fuzz_connection,
    ingress_upgrade: callboard::ingress::server::fuzz_upgrade,
    invoke_target: callboard::invoke::target::fuzz_target,
    invoke_method: callboard::invoke::method::fuzz_normalize,
    invoke_headers: callboard::invoke::fuzz_headers,
    invoke_url: callboard::invoke::fuzz_url,
    app_path: callboard::app::path::fuzz_path,
    app_answer: callboard::app::http1::fuzz_answer,
    trace_context: callboard::telemetry::trace::fuzz_context,
    host_opened: callboard::host::opened::fuzz_replay,
    resources: callboard::resources::fuzz_resources,
    cli_answer: callboard::cli::fuzz_answer,
    cli_run_file: callboard::cli::fuzz_run_file,
    bench_head: callboard::bench::fuzz_head,
}

/// Runs a body over all its inputs, on a thread of its own so that a hang is seen.
fn drive(target: &str, body: Body, patience: Duration) {
    let inputs = inputs(target);
    let current = Arc::new(Mutex::new(Vec::new()));
    let (running, ended) = mpsc::channel::<()>();
    let runner = std::thread::spawn({
        let current = current.clone();
        move || {
            let _running = running;
            for input in inputs {
                current.lock().expect("nobody panics with it").clone_from(&input);
                body(&input);
            }
        }
    });
    let outcome = ended.recv_timeout(patience);
    let input = || current.lock().expect("nobody panics with it").escape_ascii().to_string();
    match outcome {
        Ok(()) | Err(RecvTimeoutError::Timeout) => panic!("{target} does not come back from b\"{}\"", input()),
        Err(RecvTimeoutError::Disconnected) => {
            assert!(runner.join().is_ok(), "{target} panics at b\"{}\"", input());
        }
    }
}

/// The inputs of a body: its seeds, their beginnings, and mutations up to [`INPUTS`].
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let seeds = seeds(target);
    let prefixes = seeds.iter().flat_map(|seed| {
        let step = seed.len().div_ceil(MAX_PREFIXES).max(1);
        (0..seed.len()).step_by(step).map(|end| seed[..end].to_vec())
    });
    let mut inputs: Vec<Vec<u8>> = seeds.iter().cloned().chain(prefixes.take(INPUTS / 2)).collect();
    let mut rng = StdRng::seed_from_u64(0x00ca_11b0_a4d0);
    while inputs.len() < INPUTS {
        let mut input = seeds.choose(&mut rng).cloned().unwrap_or_default();
        for _ in 0..rng.random_range(1..=4) {
            mutate(&mut input, &seeds, &mut rng);
        }
        input.truncate(MAX_INPUT);
        inputs.push(input);
    }
    inputs
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut StdRng) {
    let (one, two) = (rng.random_range(0..=input.len()), rng.random_range(0..=input.len()));
    let (start, end) = (one.min(two), one.max(two));
    match rng.random_range(0..8) {
        0 | 1 if start < input.len() => input[start] ^= 1 << rng.random_range(0..8),
        2 if start < input.len() => input[start] = *TELLING.choose(rng).expect("some bytes"),
        3 => input.insert(start, *TELLING.choose(rng).expect("some bytes")),
        4 => input.truncate(start),
        5 => drop(input.drain(start..end)),
        6 => {
            let repeated = input[start..end].repeat(rng.random_range(1..=3));
            input.splice(end..end, repeated);
        }
        _ => {
            let Some(other) = seeds.choose(rng) else { return };
            let from = rng.random_range(0..=other.len());
            input.truncate(start);
            input.extend_from_slice(&other[from..]);
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// In the order of their names, which is the same everywhere.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut paths = listed(&folder().join("seeds").join(target));
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("read a seed")).collect()
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn every_body_has_seeds_and_a_target_of_its_own() {
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).expect("read fuzz/Cargo.toml");
    for (target, body) in BODIES {
        assert!(!seeds(target).is_empty(), "{target} has no seeds");
        assert!(manifest.contains(&format!("[[bin]]\nname = \"{target}\"\n")), "fuzz/Cargo.toml lacks {target}");
        let source = folder().join(format!("fuzz_targets/{target}.rs"));
        let source = std::fs::read_to_string(source).unwrap_or_else(|error| panic!("{target}: {error}"));
        assert!(source.contains(&format!("| {body}(data)")), "fuzz_targets/{target}.rs does not call {body}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), BODIES.len());
    assert_eq!(listed(&folder().join("seeds")).len(), BODIES.len());
}

#[test]
fn every_body_of_the_sources_is_driven() {
    fn count(folder: &Path) -> usize {
        let of = |path: PathBuf| match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => std::fs::read_to_string(&path).expect("read a source").matches("\npub fn fuzz_").count(),
            _ if path.is_dir() => count(&path),
            _ => 0,
        };
        listed(folder).into_iter().map(of).sum()
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let found: usize = ["proto", "storage", "raft", "node"].iter().map(|name| count(&root.join(name))).sum();
    assert_eq!(found, BODIES.len(), "a body is not listed here");
}

/// What a failed run of a body says.
fn broken(body: Body, patience: Duration) -> String {
    let failed = std::panic::catch_unwind(|| drive("storage_codec", body, patience)).expect_err("the body is broken");
    failed.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_body_that_panics_or_hangs_is_told_with_its_input() {
    let told = broken(|data| assert!(!data.starts_with(b"\x02"), "later version"), HANGS);
    assert!(told.starts_with("storage_codec panics at b\"\\x02"), "{told}");
    let hangs = |data: &[u8]| {
        while data.starts_with(b"\x02") {
            std::thread::park();
        }
    };
    let told = broken(hangs, Duration::from_secs(1));
    assert!(told.starts_with("storage_codec does not come back from b\"\\x02"), "{told}");
}

#[test]
fn two_runs_have_the_same_inputs() {
    let first = inputs("engine_duration");
    assert_eq!(first.len(), INPUTS);
    assert_eq!(first, inputs("engine_duration"));
}
