//! Where log lines go and in which form.
//!
//! One subscriber for the process, set once at start. `CALLBOARD_LOG` takes a filter such as `info,callboard_raft=debug`
//! and replaces `--log-level`. Lines go to stderr, so that stdout carries the app's output; under Dapr's names they go
//! to stdout, where scripts written for Dapr look for them. A line that cannot be written is dropped without a word: the
//! reader of a closed pipe is gone, and the node is there for others.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub level: Level,
    pub format: Format,
    pub output: Output,
    /// `CALLBOARD_LOG`.
    pub filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

impl Settings {
    fn filter(&self) -> Result<EnvFilter, String> {
        let directives = match (&self.filter, self.level) {
            (Some(filter), _) => filter.as_str(),
            (None, Level::Debug) => {
                "info,openraft=warn,chitchat=warn,callboard=debug,callboard_raft=debug,callboard_storage=debug"
            }
            // The consensus library reports every election step at info; the raft crate reports what matters.
            (None, Level::Info) => "info,openraft=error,chitchat=error",
            (None, Level::Warn) => "warn,openraft=error,chitchat=error",
            (None, Level::Error) => "error",
        };
        EnvFilter::try_new(directives).map_err(|error| format!("CALLBOARD_LOG={directives}: {error}"))
    }
}

/// Sets the process's subscriber. A second call leaves the first in place.
///
/// # Errors
///
/// `CALLBOARD_LOG` is not a filter.
pub fn init(settings: &Settings) -> Result<(), String> {
    let writer = match settings.output {
        Output::Stdout => BoxMakeWriter::new(std::io::stdout),
        Output::Stderr => BoxMakeWriter::new(std::io::stderr),
    };
    // Told of a line that cannot be written, the subscriber would print that, and a print that fails panics.
    let builder =
        tracing_subscriber::fmt().with_env_filter(settings.filter()?).with_writer(writer).log_internal_errors(false);
    let result = match settings.format {
        Format::Text => builder.with_target(false).with_ansi(colours(settings.output)).try_init(),
        Format::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    // Only tests call twice in one process; the subscriber that is there serves as well.
    drop(result);
    Ok(())
}

fn colours(output: Output) -> bool {
    use std::io::IsTerminal;
    match output {
        Output::Stdout => std::io::stdout().is_terminal(),
        Output::Stderr => std::io::stderr().is_terminal(),
    }
}
