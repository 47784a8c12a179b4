//! Several nodes on one machine, each the sidecar of an app in the test's own process.
//!
//! Every app answers an actor call with its own place in the cluster, and does on the word `relay` what an SDK would do
//! inside a turn: it sends the request that it was given to its own node ([`Cluster::relay`]). What reached which app is
//! on one clock, so that turns of one actor can be compared over all apps ([`Cluster::overlaps`], [`Cluster::moved`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

use crate::app::{App, Call, Reply};
use crate::http::{Session, request};
use crate::node::{Node, Setup};
use crate::wait::{PATIENCE, eventually};

/// Groups move a few at a time, so all of them take longer than one event does.
const SETTLING: Duration = Duration::from_secs(90);
/// Of one attempt, where the next one may find another owner. Longer than any call may wait for the loss of a node.
const ATTEMPT: Duration = Duration::from_secs(10);

pub struct Member {
    pub node: Node,
    pub app: App,
    storage: bool,
}

pub struct Cluster {
    members: Vec<Member>,
    /// Which node was killed when: a turn that it had under way has no effect.
    killed: Vec<(usize, Instant)>,
    _place: SemaphorePermit<'static>,
}

/// Clusters that run at a time: leases and elections need their share of the machine.
static PLACES: Semaphore = Semaphore::const_new(1);

/// What a node answered to the request that an app relayed.
#[derive(Debug)]
pub struct Relayed {
    pub status: u16,
    pub text: String,
}

impl Cluster {
    /// This many nodes whose apps host the same types, every partition where it belongs.
    pub async fn of(count: usize, types: &[&str]) -> Self {
        Self::each(&vec![json!({ "entities": types }); count]).await
    }

    /// A node for each of these configurations of apps; their app ids are `app-0`, `app-1`...
    pub async fn each(configs: &[Value]) -> Self {
        let place = PLACES.acquire().await.expect("the places are never closed");
        let mut cluster = Self { members: Vec::new(), killed: Vec::new(), _place: place };
        for config in configs {
            cluster.join(config.clone()).await;
        }
        cluster.settled().await;
        cluster
    }

    /// Another node, which joins those that are there; the answer is its place.
    pub async fn join(&mut self, config: Value) -> usize {
        let at = self.members.len();
        let storage = config["entities"].as_array().is_some_and(|types| !types.is_empty());
        let app = App::configured(config).await;
        let mut setup = Setup::new(&format!("app-{at}")).app(&app);
        if let Some(first) = self.members.first() {
            setup = setup.arg(format!("--join={}", first.node.peer()));
        }
        let own = SocketAddr::from(([127, 0, 0, 1], setup.http_port()));
        app.on("/actors/", move |call| act(at, own, call));
        self.members.push(Member { node: setup.ready().await, app, storage });
        at
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn node(&self, at: usize) -> &Node {
        &self.members[at].node
    }

    pub fn node_mut(&mut self, at: usize) -> &mut Node {
        &mut self.members[at].node
    }

    pub fn app(&self, at: usize) -> &App {
        &self.members[at].app
    }

    /// `kill -9` of one node; its app lives on.
    pub fn kill(&mut self, at: usize) -> Instant {
        let now = Instant::now();
        self.killed.push((at, now));
        self.members[at].node.kill();
        now
    }

    /// `kill -9` of all nodes, one right after the other.
    pub fn kill_all(&mut self) {
        for at in 0..self.len() {
            self.kill(at);
        }
    }

    /// Starts all of them on their data, at the same time.
    pub async fn restart_all(&mut self) {
        join_all(self.members.iter_mut().map(|member| member.node.restart_ready())).await;
    }

    /// Waits until every group is where the table wants it and every partition has an owner, as each node says.
    pub async fn settled(&self) {
        let storage = self.members.iter().filter(|member| member.storage).count();
        let voters = if storage < 3 { 1 } else { 3 };
        for member in &self.members {
            let mut last = Value::Null;
            let begun = Instant::now();
            while !is_settled(&last, storage, voters) {
                assert!(begun.elapsed() < SETTLING, "the partitions do not come to rest: {last:#}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                let answer = member.node.get("/cluster/v1/partitions").within(ATTEMPT).try_send().await;
                last = answer.map_or(Value::Null, |answer| answer.expect(200).json());
            }
        }
    }

    /// Lets the app of an actor send a request to its own node, inside a turn; the call goes through `entrance`.
    pub async fn relay(&self, entrance: usize, actor: (&str, &str), verb: &str, path: &str, body: Value) -> Relayed {
        let (kind, id) = actor;
        let asked = relaying(verb, path, body);
        let path = format!("/v1.0/actors/{kind}/{id}/method/relay");
        relayed(&self.node(entrance).post(&path).json(&asked).send().await.expect(200).json())
    }

    /// Calls actors of a type through the given nodes until each has answered, from `since` on; the longest wait.
    pub async fn all_answer(&self, entrances: &[usize], kind: &str, ids: &[String], since: Instant) -> Duration {
        let each = ids.iter().enumerate().map(async |(n, id)| {
            let to = self.node(entrances[n % entrances.len()]).http();
            let path = format!("/v1.0/actors/{kind}/{id}/method/who");
            let mut last = String::new();
            loop {
                match request(to, "POST", &path).within(ATTEMPT).try_send().await {
                    Ok(answer) if answer.status == 200 => return since.elapsed(),
                    Ok(answer) => last = format!("{} {}", answer.status, answer.text()),
                    Err(error) => last = format!("{last}; {error}"),
                }
                assert!(since.elapsed() < PATIENCE, "{kind} {id} does not answer through {to}: {last}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        join_all(each).await.into_iter().max().unwrap_or_default()
    }

    /// Everything that the apps got for actors of this type, in order of arrival: place of the app, and the request.
    pub fn seen(&self, kind: &str) -> BTreeMap<String, Vec<(usize, Call)>> {
        let prefix = format!("/actors/{kind}/");
        let mut seen: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (at, member) in self.members.iter().enumerate() {
            for call in member.app.calls_to(&prefix) {
                let id = call.path[prefix.len()..].split('/').next().unwrap_or_default().to_owned();
                seen.entry(id).or_default().push((at, call));
            }
        }
        for calls in seen.values_mut() {
            calls.sort_by_key(|(_, call)| call.begun);
        }
        seen
    }

    /// Turns of one actor that were under way at the same time, in whichever apps.
    pub fn overlaps(&self, kind: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (id, calls) in self.seen(kind) {
            let mut until: Option<(usize, Instant)> = None;
            for (at, call) in calls {
                // Without an end its caller is gone, and with it whatever the turn does.
                let Some(ended) = call.ended else { continue };
                if self.killed.iter().any(|(node, when)| *node == at && call.begun <= *when && ended >= *when) {
                    continue;
                }
                if let Some((other, until)) = until.filter(|(_, until)| call.begun < *until) {
                    let by = until - call.begun;
                    found.push(format!(
                        "{id}: {} {} of app {at} began {by:?} before app {other} was done",
                        call.method, call.path
                    ));
                }
                until = until.filter(|(_, until)| *until > ended).or(Some((at, ended)));
            }
        }
        found
    }

    /// Turns of an actor in one app while another one still had it: nobody had told that one to let it go.
    pub fn moved(&self, kind: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (id, calls) in self.seen(kind) {
            let mut living: Option<usize> = None;
            for (at, call) in calls {
                match (call.method.as_str(), living) {
                    ("DELETE", _) => living = living.filter(|host| *host != at),
                    (_, Some(host)) if host != at => {
                        found.push(format!("{id}: {} at app {at}, lives at app {host}", call.path))
                    }
                    (_, _) => living = Some(at),
                }
            }
        }
        found
    }

    /// Compares what each actor reads with what its writer was told, through every node that is given.
    pub async fn check(&self, entrances: &[usize], kind: &str, told: &[Told]) -> Vec<String> {
        let each = told.iter().enumerate().map(async |(n, told)| {
            let to = self.node(entrances[n % entrances.len()]).http();
            told.compare(to, kind).await
        });
        join_all(each).await.concat()
    }
}

fn is_settled(answer: &Value, storage: usize, voters: usize) -> bool {
    let at_rest = |row: &Value| {
        let replicas = row["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
        let voting = replicas.iter().filter(|replica| replica["seat"] == "voter").count();
        // The first one is where the table wants the leader.
        let first = replicas.first().map(|replica| &replica["id"]);
        row["version"] == row["settled"] && voting == voters && Some(&row["leader"]["id"]) == first
    };
    let rows = answer["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let replicas = rows.iter().filter_map(|row| row["replicas"].as_array()).flatten();
    let nodes: BTreeSet<_> = replicas.filter_map(|replica| replica["id"].as_str()).collect();
    let leaders: BTreeSet<_> = rows.iter().filter_map(|row| row["leader"]["id"].as_str()).collect();
    nodes.len() == storage
        && leaders.len() == storage
        && rows.iter().all(|row| at_rest(row) && !row["owner"].is_null())
        && at_rest(&answer["meta"])
        && answer["silent"].as_array().is_some_and(Vec::is_empty)
}

/// What an app does in a turn.
async fn act(at: usize, own: SocketAddr, call: Call) -> Reply {
    if !call.path.ends_with("/method/relay") {
        return Reply::ok().body(at.to_string());
    }
    let asked = call.json();
    let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
    let mut outgoing = request(own, &text("verb"), &text("path"));
    if !asked["body"].is_null() {
        outgoing = outgoing.json(&asked["body"]);
    }
    if let Some(chain) = call.header("dapr-reentrancy-id") {
        outgoing = outgoing.header("dapr-reentrancy-id", chain);
    }
    let (status, text) = match outgoing.try_send().await {
        Ok(answer) => (answer.status, answer.text()),
        Err(error) => (0, error.to_string()),
    };
    Reply::ok().json(&json!({ "at": at, "status": status, "text": text }))
}

/// The body of a call that has its app send this request.
pub fn relaying(verb: &str, path: &str, body: Value) -> Value {
    json!({ "verb": verb, "path": path, "body": body })
}

fn relayed(answer: &Value) -> Relayed {
    let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let text = answer["text"].as_str().unwrap_or_default().to_owned();
    Relayed { status: status.unwrap_or_else(|| panic!("no answer of a relay: {answer}")), text }
}

/// What a writer was told. Transaction n gives the keys `a`, `b` and `k<n>` of its actor the value n.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub actor: String,
    pub attempted: u64,
    pub acknowledged: BTreeSet<u64>,
}

impl Told {
    pub fn fresh(writers: usize) -> Vec<Self> {
        (0..writers).map(|n| Self { actor: format!("writer-{n}"), ..Self::default() }).collect()
    }

    async fn compare(&self, to: SocketAddr, kind: &str) -> Vec<String> {
        let Self { actor, attempted, acknowledged } = self;
        let mut session = Session::new(to);
        let mut read = async |key: &str| {
            let path = format!("/v1.0/actors/{kind}/{actor}/state/{key}");
            let answer = session.send(request(to, "GET", &path)).await;
            let answer = answer.unwrap_or_else(|error| panic!("{path} through {to}: {error}"));
            match answer.status {
                200 => Some(answer.json().as_u64().unwrap_or_else(|| panic!("{path}: {}", answer.text()))),
                204 => None,
                other => panic!("{path} through {to}: status {other}: {}", answer.text()),
            }
        };
        let mut wrong = Vec::new();
        let (a, b) = (read("a").await, read("b").await);
        if a != b {
            wrong.push(format!("{actor}: a and b are {a:?} and {b:?}"));
        }
        let newest = a.unwrap_or(0);
        if newest > *attempted || acknowledged.last().is_some_and(|last| newest < *last) {
            wrong.push(format!(
                "{actor}: {newest} is there, {attempted} attempted, {:?} acknowledged",
                acknowledged.last()
            ));
        }
        for n in acknowledged {
            let value = read(&format!("k{n}")).await;
            if value != Some(*n) {
                wrong.push(format!("{actor}: k{n} was acknowledged and is {value:?}"));
            }
        }
        wrong
    }
}

/// Writers at work, each through one of the given nodes.
pub struct Writers {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Told>>,
}

impl Writers {
    pub fn start(cluster: &Cluster, entrances: &[usize], kind: &'static str, told: Vec<Told>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = told.into_iter().enumerate().map(|(n, told)| {
            let to = cluster.node(entrances[n % entrances.len()]).http();
            tokio::spawn(write(to, kind, told, stop.clone()))
        });
        Self { writers: writers.collect(), stop }
    }

    /// Lets each finish its last call.
    pub async fn stop(self) -> Vec<Told> {
        self.stop.store(true, Ordering::SeqCst);
        let ended = join_all(self.writers).await;
        ended.into_iter().map(|told| told.expect("a writer does not panic")).collect()
    }
}

async fn write(to: SocketAddr, kind: &str, mut told: Told, stop: Arc<AtomicBool>) -> Told {
    let actor = told.actor.clone();
    let mut session = Session::new(to);
    while !stop.load(Ordering::SeqCst) {
        let n = told.attempted + 1;
        told.attempted = n;
        let upsert = |key: &str| json!({"operation": "upsert", "request": {"key": key, "value": n}});
        let operations = json!([upsert("a"), upsert(&format!("k{n}")), upsert("b")]);
        let asked = relaying("PUT", &format!("/v1.0/actors/{kind}/{actor}/state"), operations);
        let path = format!("/v1.0/actors/{kind}/{actor}/method/relay");
        // Anything else is no acknowledgement: it may be there or not.
        if let Ok(answer) = session.send(request(to, "POST", &path).json(&asked)).await
            && answer.status == 200
            && relayed(&answer.json()).status == 204
        {
            told.acknowledged.insert(n);
        }
    }
    told
}

pub fn acknowledged(told: &[Told]) -> usize {
    told.iter().map(|told| told.acknowledged.len()).sum()
}

/// This many ids.
pub fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// Waits until an actor's writer has got further than transaction `before`.
pub async fn until_written(cluster: &Cluster, entrance: usize, kind: &str, actor: &str, before: u64) {
    let what = format!("{actor} is written to");
    eventually(PATIENCE, &what, async || {
        let answer = cluster.node(entrance).get_state(kind, actor, "a").await;
        (answer.status == 200 && answer.json().as_u64().is_some_and(|newest| newest > before)).then_some(())
    })
    .await;
}
