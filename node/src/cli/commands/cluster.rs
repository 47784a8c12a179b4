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
/// Bytes of an exported line, which is held until it has ended.
const MAX_LINE: usize = 64 << 20;

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
                    .help("app||type||id||key; or the last part alone, with --type and --id"),
            )
            .arg(Arg::new("key-flag").long("key").value_name("KEY").conflicts_with("key").help("The same, as a flag"))
            .arg(Arg::new("type").long("type").value_name("TYPE").requires("id").help("The actor's type"))
            .arg(Arg::new("id").long("id").value_name("ID").requires("type").help("The actor's id"))
            .arg(Arg::new("json").long("json").action(clap::ArgAction::SetTrue).help("With its expiry, as JSON"))
    }

    pub fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let (actor_type, id) = (text("type"), text("id"));
        let wrong = |kind, text: &str| Err(clap::Error::raw(kind, format!("{text}\n")));
        let Some(key) = text("key").or_else(|| text("key-flag")) else {
            let missing = "the key is missing: give app||type||id||key, or --type, --id and --key";
            return wrong(ErrorKind::MissingRequiredArgument, missing);
        };
        if actor_type.is_none() && key.split("||").count() != 4 {
            let text = format!(
                "{key}: not app||type||id||key; a key alone, or parts that contain ||, go with --type and --id"
            );
            return wrong(ErrorKind::ValueValidation, &text);
        }
        Ok(Self { key, actor_type, id, json: matches.get_flag("json") })
    }

    /// What is looked for, for people.
    fn described(&self) -> String {
        match (&self.actor_type, &self.id) {
            (Some(actor_type), Some(id)) => format!("key {} of actor {actor_type}/{id}", self.key),
            (_, _) => self.key.clone(),
        }
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
    let more_given_up = pages.first.get("moreGivenUp") == Some(&Value::Bool(true));
    if form == Form::Json {
        let all = serde_json::json!({ "reminders": pages.rows, "givenUp": given_up, "moreGivenUp": more_given_up });
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
        if more_given_up {
            writeln!(out, "There are older ones; --type and --id narrow them down.")?;
        }
    }
    Ok(0)
}

pub async fn state_get(errands: &Errands<'_>, key: StateKey, out: &mut impl Write) -> anyhow::Result<u8> {
    let answer = errands.endpoint()?.ask(Request::get(key.path()).token(errands.token())).await?;
    if answer.status == http::StatusCode::NOT_FOUND || answer.status == http::StatusCode::NO_CONTENT {
        anyhow::bail!("{}: nothing is stored there; `callboard actors` lists the keys of each actor", key.described());
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
    let endpoint = errands.endpoint()?;
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
        printed += page.rows;
        match page.next(limit, after.as_deref()) {
            Some(next) => after = Some(next),
            None => return Ok(0),
        }
    }
}

/// What went through on one page.
#[derive(Default)]
struct Passed {
    rows: u64,
    /// The cursor of the last line.
    cursor: Option<String>,
    /// The node looked at as much as it does for one page, and says where to go on.
    more: bool,
    /// A line that has not ended yet.
    line: Vec<u8>,
}

impl Passed {
    /// Passes on the rows that end in `data`. The mark of a page that was cut short is none.
    fn take(&mut self, data: &[u8], out: &mut impl Write) -> anyhow::Result<()> {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            anyhow::ensure!(
                self.line.len() + piece.len() <= MAX_LINE,
                "a line of the export has over {MAX_LINE} bytes"
            );
            self.line.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                continue;
            }
            let tail = serde_json::from_slice::<Tail>(&self.line).context("a line of the export is not a row")?;
            self.more = tail.key.is_none() && tail.more;
            self.cursor = tail.cursor;
            if !self.more {
                out.write_all(&self.line)?;
                self.rows += 1;
            }
            self.line.clear();
        }
        Ok(())
    }

    /// Where the next page begins; `None` at the end.
    fn next(self, limit: u64, after: Option<&str>) -> Option<String> {
        let goes_on = self.more || self.rows >= limit;
        self.cursor.filter(|next| goes_on && Some(next.as_str()) != after)
    }
}

/// What a line says of the listing.
#[derive(serde::Deserialize)]
struct Tail {
    key: Option<String>,
    cursor: Option<String>,
    #[serde(default)]
    more: bool,
}

async fn pass_on(mut sent: Sent, out: &mut impl Write) -> anyhow::Result<Passed> {
    let status = sent.response.status();
    if !status.is_success() {
        let body = http_body_util::Limited::new(sent.response.body_mut(), 1 << 20).collect().await;
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        anyhow::bail!("the node answered {status}: {}", text.trim());
    }
    let mut passed = Passed::default();
    while let Some(frame) = sent.response.body_mut().frame().await {
        let frame = frame.context("the export broke off; what was printed is incomplete")?;
        let Ok(data) = frame.into_data() else { continue };
        passed.take(&data, out)?;
    }
    anyhow::ensure!(passed.line.is_empty(), "the export broke off inside a line; what was printed is incomplete");
    Ok(passed)
}

/// Rows of several pages, and the whole first answer for what stands beside them.
#[derive(Default)]
struct Pages {
    rows: Vec<Map<String, Value>>,
    first: Map<String, Value>,
}

/// Every row of `field`, page after page, until the limit or the end.
async fn pages(errands: &Errands<'_>, path: &str, field: &str, query: &Query) -> anyhow::Result<Pages> {
    let endpoint = errands.endpoint()?;
    let mut pages = Pages::default();
    let mut after = query.after.clone();
    loop {
        let left = query.limit.map_or(PAGE, |limit| limit.saturating_sub(pages.rows.len() as u64).min(PAGE));
        if left == 0 {
            return Ok(pages);
        }
        let page = query.page(path, Some(left), after.as_deref());
        let body = endpoint.ask(Request::get(page).token(errands.token())).await?.ok()?;
        let answer: Map<String, Value> = serde_json::from_slice(&body).context("the node's answer is not JSON")?;
        match pages.add(answer, field, after.as_deref()) {
            Some(next) => after = Some(next),
            None => return Ok(pages),
        }
    }
}

impl Pages {
    /// Keeps the rows of an answer. Where the next one begins; `None` at the end. A page without rows is not the end.
    fn add(&mut self, answer: Map<String, Value>, field: &str, after: Option<&str>) -> Option<String> {
        self.rows.extend(table::rows_of(&answer, field));
        let next = answer.get("next").and_then(Value::as_str).map(str::to_owned);
        if self.first.is_empty() {
            self.first = answer;
        }
        next.filter(|next| Some(next.as_str()) != after)
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
    let mut passed = Passed::default();
    // Lines that are no rows are refused.
    let _ = passed.take(data, &mut Vec::new());
    let next = passed.next(1, None);
    let page = Query::default().page("/p", Some(1), next.as_deref());
    assert!(page.parse::<http::Uri>().is_ok() || page.len() > usize::from(u16::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, size: usize) -> anyhow::Result<(String, u64, Passed)> {
        let (mut passed, mut out) = (Passed::default(), Vec::new());
        for data in text.as_bytes().chunks(size) {
            passed.take(data, &mut out)?;
        }
        Ok((String::from_utf8(out)?, passed.rows, passed))
    }

    #[test]
    fn an_export_goes_on_behind_a_mark_and_never_prints_it() {
        let rows = "{\"key\":\"a\",\"value\":{\"more\":true},\"cursor\":\"1\"}\n{\"key\":\"b\",\"value\":1,\"cursor\":\"2\"}\n";
        let mark = "{\"cursor\":\"7\",\"more\":true}\n";
        for size in [1, 7, 1_000] {
            let (out, count, passed) = cut(&format!("{rows}{mark}"), size).unwrap();
            assert_eq!((out.as_str(), count), (rows, 2));
            assert_eq!(passed.next(1_000, Some("0")).as_deref(), Some("7"));
            let (out, count, passed) = cut(mark, size).unwrap();
            assert_eq!((out.as_str(), count), ("", 0));
            assert_eq!(passed.next(1_000, None).as_deref(), Some("7"));
        }
        let next = |limit, after| cut(rows, 9).unwrap().2.next(limit, after);
        assert_eq!(next(2, None).as_deref(), Some("2"), "a full page goes on");
        assert_eq!(next(3, None), None, "a page that is not full is the last");
        assert_eq!(next(2, Some("2")), None, "a cursor that does not move ends it");
        assert!(cut("not a row\n", 3).is_err());
    }

    #[test]
    fn a_page_without_rows_is_not_the_end_of_a_list() {
        let answer = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let mut pages = Pages::default();
        let next = pages.add(answer(r#"{"reminders":[],"next":"1","givenUp":[{"id":"x"}]}"#), "reminders", None);
        assert_eq!(next.as_deref(), Some("1"));
        let next = pages.add(answer(r#"{"reminders":[{"id":"y"}],"next":null,"givenUp":[]}"#), "reminders", Some("1"));
        assert_eq!((next, pages.rows.len()), (None, 1));
        assert_eq!(
            table::rows_of(&pages.first, "givenUp").len(),
            1,
            "what stands beside the rows is of the first page"
        );
        assert_eq!(pages.add(answer(r#"{"next":"3"}"#), "reminders", Some("3")), None);
    }

    #[test]
    fn a_query_says_only_what_was_asked_and_escapes_it() {
        let query = Query { actor_type: Some("a&b".into()), prefix: Some("x||".into()), ..Query::default() };
        assert_eq!(query.page("/p", None, None), "/p?type=a%26b&prefix=x%7C%7C");
        assert_eq!(Query::default().page("/p", Some(3), Some("c")), "/p?limit=3&after=c");
        assert_eq!(Query::default().page("/p", None, None), "/p");
    }
}
