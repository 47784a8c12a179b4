//! `status`, `nodes`, `partitions`, `drain` and `leave`: the cluster itself, asked of any node.
//!
//! Drain and leave are of the node that is asked. They go on by themselves; the command only tells of them, and may be
//! interrupted and given again.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use http::StatusCode;
use serde_json::{Map, Value};

use super::table::{self, cell};
use super::{Errands, Form};
use crate::cli::client::{Endpoint, Request};

/// How long one request waits for a drain to end, before what is left is told.
const WAIT_SECONDS: u64 = 2;
/// Between two tries to reach a node that was reached before.
const AGAIN: Duration = Duration::from_millis(500);
/// Tries in a row.
const TRIES: u32 = 20;

type Object = Map<String, Value>;

pub async fn status(errands: &Errands<'_>, form: Form, out: &mut impl Write) -> anyhow::Result<u8> {
    let answer = get(errands, "/cluster/v1/status").await?;
    if form == Form::Json {
        return json(&answer, out);
    }
    for line in status_lines(&answer) {
        writeln!(out, "{line}")?;
    }
    notes(&answer, out)?;
    Ok(0)
}

pub async fn nodes(errands: &Errands<'_>, form: Form, out: &mut impl Write) -> anyhow::Result<u8> {
    let answer = get(errands, "/cluster/v1/nodes").await?;
    if form == Form::Json {
        return json(&answer, out);
    }
    let titles = ["NAME", "ID", "STATE", "ROLE", "ZONE", "ADDRESS", "APP", "TYPES", "LEADS", "HOLDS", "VERSION"];
    let rows: Vec<_> = table::rows_of(&answer, "nodes").iter().map(node_row).collect();
    table::print(out, &titles, &rows)?;
    writeln!(out, "\n* the node that answers. {}", may_fail(&answer))?;
    notes(&answer, out)?;
    Ok(0)
}

pub async fn partitions(errands: &Errands<'_>, form: Form, out: &mut impl Write) -> anyhow::Result<u8> {
    let answer = get(errands, "/cluster/v1/partitions").await?;
    if form == Form::Json {
        return json(&answer, out);
    }
    let titles = ["PARTITION", "OWNER", "EPOCH", "LEADER", "VOTERS", "LEARNERS", "MOVING", "APPLIED", "LEASE"];
    let mut rows: Vec<_> = table::rows_of(&answer, "partitions").iter().map(partition_row).collect();
    rows.extend(answer.get("meta").and_then(Value::as_object).map(partition_row));
    table::print(out, &titles, &rows)?;
    let silent = table::rows_of(&answer, "silent");
    if !silent.is_empty() {
        writeln!(out, "\nUp, but silent when asked: {}", names(&silent))?;
    }
    Ok(0)
}

/// What a node is asked to do about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Drain,
    Leave,
}

impl Way {
    const fn path(self) -> &'static str {
        match self {
            Way::Drain => "/cluster/v1/drain",
            Way::Leave => "/cluster/v1/leave",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Way::Drain => "Drained: the node holds nothing. A restart brings it back.",
            Way::Leave => "The node has left the cluster, and stops.",
        }
    }
}

/// Asks again and again, and tells what is left whenever that changes.
pub async fn go(errands: &Errands<'_>, way: Way, form: Form, out: &mut impl Write) -> anyhow::Result<u8> {
    let endpoint = errands.endpoint()?;
    let mut told = None;
    loop {
        let (status, answer) = step(&endpoint, way, errands.token(), told.is_some()).await?;
        if status == StatusCode::OK {
            match form {
                Form::Json => json(&answer, out)?,
                Form::Table => writeln!(out, "{}", way.done()).map(|()| 0)?,
            };
            return Ok(0);
        }
        let left = progress(&answer);
        if told.as_ref() != Some(&left) {
            // A closed stderr has no reader to miss it.
            let _ = writeln!(std::io::stderr(), "{left}");
            told = Some(left);
        }
    }
}

/// One request. A node that is busy, or was there before, is asked again.
async fn step(endpoint: &Endpoint, way: Way, token: Option<&str>, begun: bool) -> anyhow::Result<(StatusCode, Object)> {
    let mut tries = 0;
    loop {
        let request = Request {
            method: "POST".into(),
            path: format!("{}?wait={WAIT_SECONDS}", way.path()),
            ..Request::default()
        };
        let outcome = endpoint.ask(request.token(token)).await;
        tries += 1;
        match outcome {
            Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE && tries < TRIES => {}
            Ok(answer) => {
                let status = answer.status;
                return Ok((status, object(&answer.ok()?)?));
            }
            Err(error) if !begun => return Err(error),
            Err(error) if tries >= TRIES => {
                let what = if way == Way::Leave { "; it may have left by now: ask another node" } else { "" };
                bail!("the node no longer answers: {error:#}{what}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn get(errands: &Errands<'_>, path: &str) -> anyhow::Result<Object> {
    object(&errands.endpoint()?.ask(Request::get(path).token(errands.token())).await?.ok()?)
}

fn object(body: &[u8]) -> anyhow::Result<Object> {
    serde_json::from_slice(body).context("the node's answer is not JSON")
}

fn json(answer: &Object, out: &mut impl Write) -> anyhow::Result<u8> {
    writeln!(out, "{}", serde_json::to_string_pretty(answer)?)?;
    Ok(0)
}

fn notes(answer: &Object, out: &mut impl Write) -> anyhow::Result<()> {
    for note in answer.get("notes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        writeln!(out, "Note: {note}.")?;
    }
    Ok(())
}

fn status_lines(answer: &Object) -> Vec<String> {
    let at = |path: &[&str]| {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(answer.get(*first)?, |value, name| value.get(*name))
    };
    let text = |path: &[&str]| cell(at(path));
    let unowned = at(&["partitions", "unowned"]).and_then(|list| Some(list.as_array()?.len())).unwrap_or(0);
    let total = at(&["partitions", "total"]).and_then(|total| total.as_u64()).unwrap_or(0);
    vec![
        format!("Cluster     {} ({}), generation {}", text(&["name"]), text(&["cluster"]), text(&["generation"])),
        format!("Answered by {} ({}), version {}", text(&["node", "name"]), text(&["node", "id"]), text(&["version"])),
        format!(
            "Nodes       {} up, {} leaving, {} down; storage {}, gateways {}",
            text(&["nodes", "up"]),
            text(&["nodes", "leaving"]),
            text(&["nodes", "down"]),
            text(&["nodes", "storage"]),
            text(&["nodes", "gateways"]),
        ),
        format!(
            "Partitions  {total}, {} with an owner; {} groups on their way",
            total.saturating_sub(unowned as u64),
            text(&["moves"])
        ),
        may_fail(answer),
    ]
}

fn may_fail(answer: &Object) -> String {
    match answer.get("mayFail").and_then(Value::as_u64).unwrap_or(0) {
        0 => "No storage node may fail at this moment without loss of service.".to_owned(),
        1 => "One storage node may fail at this moment, whichever, without loss of service.".to_owned(),
        more => format!("{more} storage nodes may fail at this moment, whichever, without loss of service."),
    }
}

fn node_row(node: &Object) -> Vec<String> {
    let text = |name: &str| cell(node.get(name));
    let mark = if node.get("this") == Some(&Value::Bool(true)) { "*" } else { "" };
    let app = node.get("app").and_then(Value::as_object).map(|app| {
        let health = if app.get("healthy") == Some(&Value::Bool(true)) { "" } else { " (unhealthy)" };
        format!("{}{health}", cell(app.get("id")))
    });
    vec![
        format!("{}{mark}", text("name")),
        text("id"),
        text("state"),
        text("role"),
        text("zone"),
        text("address"),
        app.unwrap_or_default(),
        text("types"),
        text("leads"),
        text("holds"),
        text("version"),
    ]
}

fn partition_row(partition: &Object) -> Vec<String> {
    let name = |field: &str| cell(partition.get(field).and_then(|node| node.get("name")));
    let replicas = table::rows_of(partition, "replicas");
    let seated = |seat: &str| {
        let of_seat: Vec<_> =
            replicas.iter().filter(|replica| replica.get("seat") == Some(&Value::from(seat))).cloned().collect();
        names(&of_seat)
    };
    let number = |field: &str| partition.get(field).and_then(Value::as_u64).unwrap_or(0);
    let moving = number("settled") < number("version");
    let lease = partition.get("leaseAgeMs").and_then(Value::as_f64);
    vec![
        cell(partition.get("partition")),
        name("owner"),
        cell(partition.get("epoch")),
        name("leader"),
        seated("voter"),
        seated("learner"),
        if moving { "yes".to_owned() } else { String::new() },
        cell(partition.get("applied")),
        lease.map(|lease| format!("{lease:.0} ms")).unwrap_or_default(),
    ]
}

fn names(nodes: &[Object]) -> String {
    nodes.iter().map(|node| cell(node.get("name"))).collect::<Vec<_>>().join(", ")
}

fn progress(answer: &Object) -> String {
    let number = |field: &str| answer.get(field).and_then(Value::as_u64).unwrap_or(0);
    format!("{} replicas left, {} of them leading", number("held").max(number("placed")), number("led"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Object {
        object(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_status_says_what_may_fail() {
        let status = answer(
            r#"{"cluster":"c1","name":"shop","generation":0,"node":{"id":"a","name":"n1"},"version":"1","moves":2,
                "nodes":{"storage":3,"gateways":1,"up":3,"leaving":0,"down":1},"mayFail":1,
                "partitions":{"total":16,"unowned":[3]},"notes":[]}"#,
        );
        let lines = status_lines(&status);
        assert_eq!(
            lines,
            [
                "Cluster     shop (c1), generation 0",
                "Answered by n1 (a), version 1",
                "Nodes       3 up, 0 leaving, 1 down; storage 3, gateways 1",
                "Partitions  16, 15 with an owner; 2 groups on their way",
                "One storage node may fail at this moment, whichever, without loss of service.",
            ]
        );
        assert!(may_fail(&answer("{}")).starts_with("No storage node"));
    }

    #[test]
    fn a_node_that_answers_and_one_that_is_sick_are_marked() {
        let row = node_row(&answer(
            r#"{"id":"a","name":"n1","zone":"","address":"h:1","role":"storage","state":"up","this":true,
                "app":{"id":"shop","healthy":false},"types":["Cat","Dog"],"leads":5,"holds":16,"version":null}"#,
        ));
        assert_eq!(row, ["n1*", "a", "up", "storage", "", "h:1", "shop (unhealthy)", "Cat, Dog", "5", "16", ""]);
    }

    #[test]
    fn a_partition_shows_who_votes_and_what_is_not_known_stays_empty() {
        let row = partition_row(&answer(
            r#"{"partition":3,"owner":{"id":"a","name":"n1"},"epoch":5,"leader":null,"version":2,"settled":1,
                "replicas":[{"name":"n1","seat":"voter"},{"name":"n2","seat":"learner"},{"name":"n3","seat":null}],
                "applied":null,"leaseAgeMs":12.4}"#,
        ));
        assert_eq!(row, ["3", "n1", "5", "", "n1", "n2", "yes", "", "12 ms"]);
    }

    #[test]
    fn what_is_left_counts_what_the_table_still_names() {
        assert_eq!(progress(&answer(r#"{"held":0,"placed":3,"led":0}"#)), "3 replicas left, 0 of them leading");
    }
}
