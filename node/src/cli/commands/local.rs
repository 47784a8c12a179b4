//! `list` and `stop`: what the registry of this machine knows.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use clap::error::ErrorKind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::table;
use super::{Errands, Form, known};
use crate::cli::multi;
use crate::cli::registry::Entry;

/// Time a node has to drain after `stop`; it goes on draining when this has passed.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// How often a stopping node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub fn ids(matches: &ArgMatches) -> Result<Vec<String>, clap::Error> {
    let flags = matches.get_many::<String>("app-id").into_iter().flatten();
    let mut ids: Vec<String> = flags.chain(matches.get_many::<String>("ids").into_iter().flatten()).cloned().collect();
    if let Some(file) = matches.get_one::<String>("run-file") {
        let text = format!("--run-file {file}");
        let apps =
            multi::app_ids(file.as_ref()).map_err(|e| clap::Error::raw(ErrorKind::Io, format!("{text}: {e:#}\n")))?;
        ids.extend(apps);
    }
    if ids.is_empty() {
        return Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, "--app-id: missing: say which app to stop\n"));
    }
    Ok(ids)
}

pub fn list(errands: &Errands<'_>, form: Form, out: &mut impl Write) -> anyhow::Result<u8> {
    let running = errands.registry.running();
    match form {
        Form::Json => {
            let rows: Vec<_> = running.iter().map(as_json).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        }
        Form::Table if running.is_empty() => writeln!(out, "No nodes run here.")?,
        Form::Table => {
            let titles = ["APP ID", "HTTP PORT", "GRPC PORT", "APP PORT", "COMMAND", "AGE", "PID", "NODE", "CLUSTER"];
            let rows: Vec<_> = running.iter().map(as_row).collect();
            table::print(out, &titles, &rows)?;
        }
    }
    Ok(0)
}

fn as_row(entry: &Entry) -> Vec<String> {
    vec![
        entry.app_id.clone(),
        entry.http_port.to_string(),
        entry.grpc_port.to_string(),
        entry.app_port.map_or_else(String::new, |port| port.to_string()),
        entry.command.clone(),
        age(entry.created),
        entry.pid.to_string(),
        entry.node_name.clone(),
        entry.cluster.clone(),
    ]
}

/// The field names of `dapr list -o json`, and ours beside them.
fn as_json(entry: &Entry) -> serde_json::Value {
    json!({
        "appId": entry.app_id,
        "httpPort": entry.http_port,
        "grpcPort": entry.grpc_port,
        "appPort": entry.app_port.unwrap_or(0),
        "metricsEnabled": entry.metrics_port.is_some(),
        "metricsPort": entry.metrics_port,
        "internalGrpcPort": entry.peer_port,
        "command": entry.command,
        "age": age(entry.created),
        "created": entry.created,
        "daprdPid": entry.pid,
        "cliPid": entry.pid,
        "maxRequestBodySize": entry.max_body,
        "nodeName": entry.node_name,
        "namespace": entry.namespace,
        "cluster": entry.cluster,
        "dataDir": entry.data_dir,
    })
}

/// `45s`, `12m`, `3h`, `2d`.
fn age(created: u64) -> String {
    let seconds = crate::cli::unix_seconds().saturating_sub(created);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        86_400.. => format!("{}d", seconds / 86_400),
    }
}

/// Tells the nodes to drain and waits until they have.
pub async fn stop(errands: &Errands<'_>, app_ids: &[String], out: &mut impl Write) -> anyhow::Result<u8> {
    let running = errands.registry.running();
    let mut failed = 0;
    for app_id in app_ids {
        let mut stopped = 0;
        for entry in running.iter().filter(|entry| entry.app_id == *app_id) {
            match stop_one(entry).await {
                Ok(()) => stopped += 1,
                Err(error) => {
                    writeln!(out, "failed to stop app id {app_id}: {error}")?;
                    failed = 1;
                }
            }
        }
        if stopped > 0 {
            writeln!(out, "✅  app stopped successfully: {app_id}")?;
        } else if failed == 0 {
            writeln!(out, "failed to stop app id {app_id}: couldn't find app id {app_id}{}", known(&running))?;
            failed = 1;
        }
    }
    Ok(failed)
}

async fn stop_one(entry: &Entry) -> anyhow::Result<()> {
    let pid = i32::try_from(entry.pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid.filter(|_| entry.is_running()) else { return Ok(()) };
    kill_process(pid, Signal::TERM)?;
    let asked = Instant::now();
    while entry.is_running() {
        if asked.elapsed() > STOP_WAIT {
            anyhow::bail!("process {} still drains after {} s", entry.pid, STOP_WAIT.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
