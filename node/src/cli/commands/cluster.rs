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
use crate::cli::client::{Request, Sent};

/// Rows asked for at a time.
const PAGE: u64 = 1_000;

/// Which rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    actor_type: Option<String>,
    id: Option<String>,
    prefix: Option<String>,
    limit: Option<u64>,
    after: Option<String>,
}

impl Query {
    pub fn of(matches: &ArgMatches) -> Self {
        let text = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
        Self {
            actor_type: text("type"),
            id: text("id"),
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
            ("id", self.id.as_deref()),
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
        let key = Self {
            key: text("key").unwrap_or_default(),
            actor_type: text("type"),
            id: text("id"),
            json: matches.get_flag("json"),
        };
        if key.actor_type.is_none() && key.key.split("||").count() != 4 {
            let text = format!("{}: not app||type||id||key; parts that contain || go with --type and --id\n", key.key);
            return Err(clap::Error::raw(ErrorKind::ValueValidation, text));
        }
        Ok(key)
    }

    fn path(&self) -> String {
        let pairs =
            [("key", Some(self.key.as_str())), ("type", self.actor_type.as_deref()), ("id", self.id.as_deref())];
        with_query("/cluster/v1/state", &pairs)
    }
}

pub async fn actors(errands: &Errands<'_>, query: Query, form: Form, out: &mut impl Write) -> anyhow::Result<u8> {
    let pages = pages(errands, "/cluster/v1/actors", "actors", &query).await?;
    match form {
        Form::Json => writeln!(out, "{}", serde_json::to_string_pretty(&pages.rows)?)?,
        Form::Table => {
            show(&pages.rows, &[("TYPE", "type"), ("ID", "id"), ("KEYS", "keys"), ("REMINDERS", "reminders")], out)?;
        }
    }
    Ok(0)
}

pub async fn reminders(errands: &Errands<'_>, query: Query, form: Form, out: &mut impl Write) -> anyhow::Result<u8> {
    let pages = pages(errands, "/cluster/v1/reminders", "reminders", &query).await?;
    let given_up = table::rows_of(&pages.first, "givenUp");
    if form == Form::Json {
        let all = serde_json::json!({ "reminders": pages.rows, "givenUp": given_up });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(0);
    }
    let actor = [("TYPE", "type"), ("ID", "id"), ("NAME", "name"), ("DUE", "due")];
    let state = [("PERIOD", "period"), ("OCCURRENCE", "occurrence"), ("DROPPED", "dropped")];
    show(&pages.rows, &[&actor[..], &state[..]].concat(), out)?;
    if !given_up.is_empty() {
        writeln!(out, "\nFirings given up by their failure policy:")?;
        let end = [("OCCURRENCE", "occurrence"), ("DROPPED AT", "droppedAt"), ("REASON", "reason")];
        show(&given_up, &[&actor[..], &end[..]].concat(), out)?;
    }
    Ok(0)
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

/// Lines are passed on as they come, page after page: an export may be larger than memory.
pub async fn state_export(errands: &Errands<'_>, query: Query, out: &mut impl Write) -> anyhow::Result<u8> {
    let query = Query { prefix: query.prefix.or_else(|| Some(String::new())), ..query };
    let endpoint = errands.endpoint(None)?;
    let mut after = query.after.clone();
    let mut printed = 0;
    loop {
        let limit = query.limit.map_or(PAGE, |limit| limit.saturating_sub(printed).min(PAGE));
        if limit == 0 {
            return Ok(0);
        }
        let path = query.page("/cluster/v1/state", Some(limit), after.as_deref());
        let sent = endpoint.send(Request::get(path).token(errands.token())).await?;
        let page = pass_on(sent, out).await?;
        printed += page.lines;
        let next = page.cursor();
        if page.lines < limit || next.is_none() || next == after {
            return Ok(0);
        }
        after = next;
    }
}

/// What went through on one page.
struct Passed {
    lines: u64,
    /// The last line, whose cursor the next page begins with.
    last: Vec<u8>,
}

impl Passed {
    fn cursor(&self) -> Option<String> {
        let line: Map<String, Value> = serde_json::from_slice(&self.last).ok()?;
        line.get("cursor")?.as_str().map(str::to_owned)
    }
}

async fn pass_on(mut sent: Sent, out: &mut impl Write) -> anyhow::Result<Passed> {
    let status = sent.response.status();
    if !status.is_success() {
        let body = http_body_util::Limited::new(sent.response.body_mut(), 1 << 20).collect().await;
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        anyhow::bail!("the node answered {status}: {}", text.trim());
    }
    let mut passed = Passed { lines: 0, last: Vec::new() };
    let mut line = Vec::new();
    while let Some(frame) = sent.response.body_mut().frame().await {
        let frame = frame.context("the export broke off; what was printed is incomplete")?;
        let Ok(data) = frame.into_data() else { continue };
        out.write_all(&data)?;
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                passed.lines += 1;
                passed.last = std::mem::take(&mut line);
            }
        }
    }
    Ok(passed)
}

/// Rows of several pages, and the whole first answer for what stands beside them.
struct Pages {
    rows: Vec<Map<String, Value>>,
    first: Map<String, Value>,
}

/// Every row of `field`, page after page, until the limit or the end.
async fn pages(errands: &Errands<'_>, path: &str, field: &str, query: &Query) -> anyhow::Result<Pages> {
    let endpoint = errands.endpoint(None)?;
    let mut pages = Pages { rows: Vec::new(), first: Map::new() };
    let mut after = query.after.clone();
    loop {
        let left = query.limit.map_or(PAGE, |limit| limit.saturating_sub(pages.rows.len() as u64).min(PAGE));
        if left == 0 {
            return Ok(pages);
        }
        let page = query.page(path, Some(left), after.as_deref());
        let body = endpoint.ask(Request::get(page).token(errands.token())).await?.ok()?;
        let answer: Map<String, Value> = serde_json::from_slice(&body).context("the node's answer is not JSON")?;
        let found = table::rows_of(&answer, field);
        let next = answer.get("next").and_then(Value::as_str).map(str::to_owned);
        let ended = found.is_empty() || next.is_none() || next == after;
        pages.rows.extend(found);
        if pages.first.is_empty() {
            pages.first = answer;
        }
        if ended {
            return Ok(pages);
        }
        after = next;
    }
}

fn show(rows: &[Map<String, Value>], columns: &[(&str, &str)], out: &mut impl Write) -> anyhow::Result<()> {
    if rows.is_empty() {
        writeln!(out, "None.")?;
        return Ok(());
    }
    let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
    let cells = |row: &Map<String, Value>| columns.iter().map(|(_, field)| table::cell(row.get(*field))).collect();
    table::print(out, &titles, &rows.iter().map(cells).collect::<Vec<_>>())?;
    Ok(())
}

fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let pairs: Vec<_> = pairs
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", utf8_percent_encode((*value)?, NON_ALPHANUMERIC))))
        .collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// Fuzz body: any bytes as a node's answer, a page of rows or an exported line. They are shown or passed over.
pub fn fuzz_answer(data: &[u8]) {
    if let Ok(answer) = serde_json::from_slice::<Map<String, Value>>(data) {
        for (field, _) in &answer {
            let shown = show(&table::rows_of(&answer, field), &[("A", "type"), ("B", "keys")], &mut Vec::new());
            assert!(shown.is_ok(), "writing to memory does not fail");
        }
    }
    let next = Passed { lines: 1, last: data.to_vec() }.cursor();
    let page = Query::default().page("/p", Some(1), next.as_deref());
    assert!(page.parse::<http::Uri>().is_ok() || page.len() > usize::from(u16::MAX));
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
