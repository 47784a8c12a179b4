//! The cluster itself, below `/cluster/v1/`: who is in it, where its partitions are, and taking this node out.
//!
//! | request | answer |
//! |---|---|
//! | `GET status` | the whole in a few numbers, and what to know about it |
//! | `GET nodes` | every registered node: where, what for, how it is, what it holds |
//! | `GET partitions` | every partition: owner and epoch, leader, replicas, how far each of them is |
//! | `GET moves` | partitions on their way: from where, to where, since when this node knows of it |
//! | `GET ready` | 204 when a lease is held and a command goes through a log, here or at an owner this node reaches; else 503 and why |
//! | `POST drain?wait=` | this node hands over all it holds; 200 when it holds nothing, 202 and what is left when `wait` seconds are over |
//! | `POST leave?wait=` | the same, after which the node is no more of the cluster and stops |
//!
//! Any node answers for the cluster. What is not known is `null`; nodes that are up and do not answer are named.

use std::sync::Arc;
use std::time::Duration;

use callboard_machine::meta::Role;
use callboard_raft::ReplicaRole;
use callboard_types::{GroupId, NodeId};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Query, rfc3339};
use crate::cluster::leaving::{Error, Holding};
use crate::cluster::status::{GroupLine, MoveLine, NodeLine, NodeState, ReplicaLine, Seat, Survey, group_name};
use crate::ingress::http::body::Body;
use crate::ingress::http::error::{ApiError, Code, json as json_answer, no_content};
use crate::node::{Node, Phase};

/// How long `ready` tries, before it says no.
const READY_PATIENCE: Duration = Duration::from_secs(2);
/// How long drain and leave are waited for unless asked otherwise, and at most. They go on when nobody waits.
const WAIT: Duration = Duration::from_secs(300);
const MAX_WAIT: Duration = Duration::from_secs(3_600);

pub async fn status(node: &Arc<Node>) -> Response<Body> {
    let survey = node.cluster.survey().await;
    let summary = survey.summary();
    let settings = survey.state.settings.as_ref();
    json_answer(
        json!({
            "cluster": survey.state.cluster.map(|id| id.to_string()),
            "name": settings.map(|settings| &settings.name),
            "generation": survey.state.generation,
            "node": named(&survey, survey.me),
            "version": env!("CARGO_PKG_VERSION"),
            "nodes": {
                "storage": summary.storage, "gateways": summary.gateways,
                "up": summary.up, "leaving": summary.leaving, "down": summary.down,
            },
            "partitions": {
                "total": summary.partitions,
                "unowned": summary.unowned.iter().copied().map(group_json).collect::<Vec<_>>(),
                "withoutQuorum": summary.without_quorum.iter().copied().map(group_json).collect::<Vec<_>>(),
            },
            "replicas": settings.map(|settings| settings.replicas),
            "moves": summary.moves,
            "mayFail": summary.may_fail,
            "notes": survey.notes(&summary),
        })
        .to_string(),
    )
}

pub async fn nodes(node: &Arc<Node>) -> Response<Body> {
    let survey = node.cluster.survey().await;
    let summary = survey.summary();
    let lines: Vec<_> = survey.nodes().iter().map(node_json).collect();
    let answer = json!({
        "nodes": lines, "storageNodes": summary.storage, "mayFail": summary.may_fail, "notes": survey.notes(&summary),
    });
    json_answer(answer.to_string())
}

pub async fn partitions(node: &Arc<Node>) -> Response<Body> {
    let survey = node.cluster.survey().await;
    let lines: Vec<_> = survey.partitions().iter().map(|line| group_line_json(&survey, line)).collect();
    let silent: Vec<_> = survey.silent.iter().map(|node| named(&survey, *node)).collect();
    let meta = group_line_json(&survey, &survey.meta());
    json_answer(json!({ "partitions": lines, "meta": meta, "silent": silent }).to_string())
}

pub async fn moves(node: &Arc<Node>) -> Response<Body> {
    let survey = node.cluster.survey().await;
    let lines: Vec<_> = survey.moves().iter().map(|line| move_json(&survey, line)).collect();
    json_answer(json!({ "moves": lines }).to_string())
}

pub async fn ready(node: &Arc<Node>) -> Result<Response<Body>, ApiError> {
    let no = |why: String| ApiError::new(Code::Unavailable, why).retry_after(Duration::from_secs(1));
    match *node.phase.borrow() {
        Phase::Starting => return Err(no("the node is starting".to_owned())),
        Phase::Draining => return Err(no("the node is stopping".to_owned())),
        Phase::Outbound | Phase::Ready => {}
    }
    match node.actors.prove(READY_PATIENCE).await {
        Ok(_) => Ok(no_content()),
        Err(error) => Err(no(error.to_string())),
    }
}

pub async fn drain(node: &Arc<Node>, query: &Query) -> Result<Response<Body>, ApiError> {
    let wait = wait(query)?;
    node.cluster.begin_drain().await.map_err(refused)?;
    let holding = node.cluster.drained(wait).await;
    Ok(progress(&holding, holding.is_empty()))
}

pub async fn leave(node: &Arc<Node>, query: &Query) -> Result<Response<Body>, ApiError> {
    let wait = wait(query)?;
    node.cluster.begin_leave(node.shutdown.graceful.clone()).await.map_err(refused)?;
    let holding = node.cluster.drained(wait).await;
    Ok(progress(&holding, holding.left))
}

fn wait(query: &Query) -> Result<Duration, ApiError> {
    match query.get("wait").filter(|text| !text.is_empty()) {
        None => Ok(WAIT),
        Some(text) => {
            let wait = text.parse().ok().map(Duration::from_secs).filter(|wait| *wait <= MAX_WAIT);
            wait.ok_or_else(|| {
                ApiError::bad_request(format_args!("wait is a number of seconds from 0 to {}", MAX_WAIT.as_secs()))
            })
        }
    }
}

fn progress(holding: &Holding, done: bool) -> Response<Body> {
    let Holding { held, led, placed, left } = holding;
    let answer = json!({ "done": done, "held": held, "led": led, "placed": placed, "left": left });
    let mut response = json_answer(answer.to_string());
    if !done {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    response
}

fn refused(error: Error) -> ApiError {
    let code = match error {
        Error::Last | Error::Rejected(_) => Code::Conflict,
        Error::Unregistered | Error::NoLeader(_) => Code::Unavailable,
    };
    ApiError::new(code, error.to_string())
}

fn named(survey: &Survey, node: NodeId) -> Value {
    json!({ "id": node.to_string(), "name": survey.name(node) })
}

/// A partition is its number.
fn group_json(group: GroupId) -> Value {
    match group {
        GroupId::Meta => Value::from(group_name(group)),
        GroupId::Partition(partition) => Value::from(partition.0),
    }
}

fn node_json(line: &NodeLine) -> Value {
    json!({
        "id": line.node.to_string(), "name": line.name, "zone": line.zone, "address": line.address,
        "role": match line.role { Role::Storage => "storage", Role::Gateway => "gateway" },
        "state": match line.state { NodeState::Up => "up", NodeState::Leaving => "leaving", NodeState::Down => "down" },
        "this": line.is_this,
        "app": line.app.as_ref().map(|app| json!({ "id": &*app.id, "healthy": app.healthy })),
        "types": line.types, "leads": line.leads, "holds": line.holds, "version": line.version,
    })
}

fn group_line_json(survey: &Survey, line: &GroupLine) -> Value {
    let replica = |replica: &ReplicaLine| {
        json!({
            "id": replica.node.to_string(), "name": survey.name(replica.node), "replica": replica.replica.0,
            "wanted": replica.wanted.map(seat), "seat": replica.seat.map(seat),
            "role": replica.role.map(role), "applied": replica.applied,
        })
    };
    json!({
        "partition": group_json(line.group),
        "owner": line.owner.map(|node| named(survey, node)), "epoch": line.epoch.map(|epoch| epoch.0),
        "leader": line.leader.map(|node| named(survey, node)),
        "replicas": line.replicas.iter().map(replica).collect::<Vec<_>>(),
        "version": line.version, "settled": line.settled,
        "lastLog": line.last_log, "applied": line.applied,
        "leaseAgeMs": line.lease_age.map(|age| age.as_secs_f64() * 1e3),
    })
}

fn move_json(survey: &Survey, line: &MoveLine) -> Value {
    let side = |side: &Vec<(NodeId, Seat)>| -> Vec<_> {
        let one = |(node, at): &(NodeId, Seat)| json!({ "id": node.to_string(), "name": survey.name(*node), "seat": seat(*at) });
        side.iter().map(one).collect()
    };
    json!({
        "partition": group_json(line.group), "version": line.version, "settled": line.settled,
        "from": line.from.as_ref().map(side), "to": line.to.as_ref().map(side),
        "since": line.since.map(rfc3339),
    })
}

fn seat(seat: Seat) -> &'static str {
    match seat {
        Seat::Voter => "voter",
        Seat::Learner => "learner",
    }
}

fn role(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Leader => "leader",
        ReplicaRole::Candidate => "candidate",
        ReplicaRole::Follower => "follower",
        ReplicaRole::Learner => "learner",
    }
}
