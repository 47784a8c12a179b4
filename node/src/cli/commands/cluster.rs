//! `actors`, `reminders` and `state`: what the cluster holds, asked of any node without waking an actor.

use std::io::Write;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::table;
use super::{Errands, Form};
use crate::cli::client::Request;

/// Rows asked for at a time.
const PAGE: u64 = 1_000;

/// Which rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    actor_type: Option<String>,
    prefix: Option<String>,
    limit: Option<u64>,
    after: Option<String>,
}

impl Query {
    pub fn of(matches: &ArgMatches) -> Self {
        let text = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
        Self {
            actor_type: text("type"),
            prefix: text("prefix"),
            limit: matches.get_one::<u64>("limit").copied(),
            after: text("after"),
        }
    }

    /// `path` with the query of one page.
    fn page(&self, path: &str, limit: Option<u64>, after: Option<&str>) -> String {
        let limit = limit.map(|limit| limit.to_string());
        let pairs = [
            ("type", self.actor_type.as_deref()),
            ("prefix", self.prefix.as_deref()),
            ("limit", limit.as_deref()),
            ("after", after),
        ];
        with_query(path, &pairs)
    }
}

/// One value, by its outside key or by its parts.
#[derive(Debug)]
pub struct StateKey {
    key: String,
    actor_type: Option<String>,
    id: Option<String>,
    json: bool,
}

impl StateKey {
    pub fn grammar() -> Command {
        Command::new("get")
            .about("Print one value")
            .arg(
                Arg::new("key")
                    .value_name("KEY")
                    .required(true)
                    .help("app||type||id||key; or the last part alone, with --type and --id"),
            )
            .arg(Arg::new("type").long("type").value_name("TYPE").requires("id").help("The actor's type"))
            .arg(Arg::new("id").long("id").value_name("ID").requires("type").help("The actor's id"))
            .arg(Arg::new("json").long("json").action(clap::ArgAction::SetTrue).help("With its expiry, as JSON"))
    }

    pub fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let key =
            Self { key: text("key").unwrap_or_default(), actor_type: text("type"), id: text("id"), json: matches.get_flag("json") };
        if key.actor_type.is_none() && key.key.split("||").count() != 4 {
            let text = format!("{}: not app||type||id||key; parts that contain || go with --type and --id\n", key.key);
            return Err(clap::Error::raw(ErrorKind::ValueValidation, text));
        }
        Ok(key)
    }

    fn path(&self) -> String {
        let pairs = [("key", Some(self.key.as_str())), ("type", self.actor_type.as_deref()), ("id", self.id.as_deref())];
        with_query("/cluster/v1/state", &pairs)
    }
}

pub async fn actors(errands: &Errands<'_>, query: Query, form: Form, out: &mut impl Write) -> anyhow::Result<u8> {
    let rows = pages(errands, "/cluster/v1/actors", &query).await?;
    show(rows, form, &[("TYPE", "type"), ("ID", "id"), ("KEYS", "keys"), ("REMINDERS", "reminders")], out)
}

pub async fn reminders(errands: &Errands<'_>, query: Query, form: Form, out: &mut impl Write) -> anyhow::Result<u8> {
    let columns = [
        ("TYPE", "type"),
        ("ID", "id"),
        ("NAME", "name"),
        ("DUE", "due"),
        ("PERIOD", "period"),
        ("OCCURRENCE", "occurrence"),
        ("DROPPED", "dropped"),
    ];
    let rows = pages(errands, "/cluster/v1/reminders", &query).await?;
    show(rows, form, &columns, out)
}

pub async fn state_get(errands: &Errands<'_>, key: StateKey, out: &mut impl Write) -> anyhow::Result<u8> {
    let answer = errands.endpoint(None)?.ask(Request::get(key.path()).token(errands.token())).await?;
    if answer.status == http::StatusCode::NOT_FOUND || answer.status == http::StatusCode::NO_CONTENT {
        anyhow::bail!("{}: no such value", key.key);
    }
    let body = answer.ok()?;
    let value = serde_json::from_slice::<Map<String, Value>>(&body).ok().and_then(|mut object| object.remove("value"));
    match value {
        Some(value) if !key.json => writeln!(out, "{value}")?,
        Some(_) | None => writeln!(out, "{}", String::from_utf8_lossy(&body).trim_end())?,
    }
    Ok(0)
}

/// Lines are passed on as they come: an export may be larger than memory.
pub async fn state_export(errands: &Errands<'_>, query: Query, out: &mut impl Write) -> anyhow::Result<u8> {
    let prefix = query.prefix.clone().or(Some(String::new()));
    let query = Query { prefix, ..query };
    let path = query.page("/cluster/v1/state", query.limit, query.after.as_deref());
    let endpoint = errands.endpoint(None)?;
    let mut sent = endpoint.send(Request::get(path).token(errands.token())).await?;
    let status = sent.response.status();
    if !status.is_success() {
        let body = http_body_util::Limited::new(sent.response.into_body(), 1 << 20).collect().await;
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        anyhow::bail!("the node answered {status}: {}", text.trim());
    }
    while let Some(frame) = sent.response.body_mut().frame().await {
        let frame = frame.context("the export broke off; what was printed is incomplete")?;
        if let Ok(data) = frame.into_data() {
            out.write_all(&data)?;
        }
    }
    Ok(0)
}

/// Every row, page after page, until the limit or the end.
async fn pages(errands: &Errands<'_>, path: &str, query: &Query) -> anyhow::Result<Vec<Map<String, Value>>> {
    let endpoint = errands.endpoint(None)?;
    let mut rows = Vec::new();
    let mut after = query.after.clone();
    loop {
        let left = query.limit.map(|limit| limit.saturating_sub(rows.len() as u64));
        let page = query.page(path, Some(left.unwrap_or(PAGE).min(PAGE)), after.as_deref());
        let body = endpoint.ask(Request::get(page).token(errands.token())).await?.ok()?;
        let found = table::rows(&body).context("the node's answer is not JSON")?;
        let next = serde_json::from_slice::<Map<String, Value>>(&body).ok().and_then(|object| {
            ["next", "after"].iter().find_map(|name| object.get(*name)?.as_str().map(str::to_owned))
        });
        let ended = found.is_empty() || next.is_none() || next == after || left.is_some_and(|left| found.len() as u64 >= left);
        rows.extend(found);
        if ended {
            return Ok(rows);
        }
        after = next;
    }
}

fn show(rows: Vec<Map<String, Value>>, form: Form, columns: &[(&str, &str)], out: &mut impl Write) -> anyhow::Result<u8> {
    match form {
        Form::Json => writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?,
        Form::Table if rows.is_empty() => writeln!(out, "None.")?,
        Form::Table => {
            let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
            let cells = |row: &Map<String, Value>| columns.iter().map(|(_, field)| table::cell(row.get(*field))).collect();
            table::print(out, &titles, &rows.iter().map(cells).collect::<Vec<_>>())?;
        }
    }
    Ok(0)
}

fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let pairs: Vec<_> = pairs
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", utf8_percent_encode((*value)?, NON_ALPHANUMERIC))))
        .collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_only_what_was_asked_and_escapes_it() {
        let query = Query { actor_type: Some("a&b".into()), prefix: Some("x||".into()), ..Query::default() };
        assert_eq!(query.page("/p", None, None), "/p?type=a%26b&prefix=x%7C%7C");
        assert_eq!(Query::default().page("/p", Some(3), Some("c")), "/p?limit=3&after=c");
        assert_eq!(Query::default().page("/p", None, None), "/p");
    }
}
