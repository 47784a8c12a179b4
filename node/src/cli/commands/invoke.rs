//! `invoke`: one service invocation from the command line, by the rules of `dapr invoke`.

use std::io::Write;

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::Errands;
use crate::cli::client::Request;
use crate::cli::persona::Persona;

/// What may not stand in a request line as it is; everything else is the caller's business.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}').add(b'#');

#[derive(Debug)]
pub struct Args {
    app_id: String,
    method: String,
    verb: String,
    data: Option<String>,
    data_file: Option<String>,
    headers: Vec<String>,
}

pub fn grammar() -> Command {
    Command::new("invoke")
        .about("Invoke a method of an app")
        .arg(Arg::new("app-id").long("app-id").short('a').value_name("ID").required(true).help("The app to invoke"))
        .arg(Arg::new("method").long("method").short('m').value_name("PATH").required(true).help("What to invoke"))
        .arg(Arg::new("verb").long("verb").short('v').value_name("VERB").default_value("POST").help("HTTP verb"))
        .arg(Arg::new("data").long("data").short('d').value_name("TEXT").help("The request's body"))
        .arg(
            Arg::new("data-file")
                .long("data-file")
                .short('f')
                .value_name("FILE")
                .help("The request's body, from a file"),
        )
        .arg(
            Arg::new("header")
                .long("header")
                .value_name("NAME: VALUE")
                .action(clap::ArgAction::Append)
                .help("A header of the request; repeatable [default: content-type: application/json]"),
        )
}

impl Args {
    pub fn of(matches: &ArgMatches) -> Self {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        Self {
            app_id: text("app-id").unwrap_or_default(),
            method: text("method").unwrap_or_default(),
            verb: text("verb").unwrap_or_default().to_ascii_uppercase(),
            data: text("data"),
            data_file: text("data-file"),
            headers: matches.get_many::<String>("header").into_iter().flatten().cloned().collect(),
        }
    }
}

pub async fn run(errands: &Errands<'_>, args: Args, out: &mut impl Write) -> anyhow::Result<u8> {
    let body = match (args.data, args.data_file) {
        (Some(_), Some(_)) => bail!("only one of --data and --data-file makes sense in one invocation"),
        (Some(text), None) => text.into_bytes(),
        (None, Some(file)) => std::fs::read(&file).with_context(|| format!("--data-file {file}"))?,
        (None, None) => Vec::new(),
    };
    // Any node knows every app, so one that is not on this machine is reached through one that is.
    let endpoint = errands.endpoint_of(&args.app_id)?;
    let method = utf8_percent_encode(args.method.trim_start_matches('/'), PATH);
    let mut request = Request {
        method: args.verb,
        path: format!("/v1.0/invoke/{}/method/{method}", utf8_percent_encode(&args.app_id, PATH)),
        headers: Vec::new(),
        body: body.into(),
    }
    .token(errands.token());
    for header in &args.headers {
        let (name, value) = header.split_once(':').with_context(|| format!("--header {header}: write NAME: VALUE"))?;
        request.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    if !request.body.is_empty() && !request.headers.iter().any(|(name, _)| name == "content-type") {
        request.headers.push(("content-type".into(), "application/json".into()));
    }
    let answer = endpoint.ask(request).await?;
    if !answer.status.is_success() {
        bail!("app {} answered {}: {}", args.app_id, answer.status, answer.text().trim());
    }
    out.write_all(&answer.body)?;
    if !answer.body.is_empty() && !answer.body.ends_with(b"\n") {
        writeln!(out)?;
    }
    match errands.persona {
        Persona::Dapr => writeln!(out, "✅  App invoked successfully")?,
        Persona::Callboard | Persona::Daprd => {}
    }
    Ok(0)
}
