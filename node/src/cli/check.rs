//! `run --check`: what a start would trip over, found without starting anything, all of it at once.
//!
//! Looked at are the flags, the log filter, the resource and configuration files, and whether the data folder could be
//! taken. Nothing is made, locked, bound or sent, so that a check may run beside the node it is about. Deliberately
//! absent: ports and the app, whose state now says little about their state at the start.

use std::io::Write;
use std::path::PathBuf;

use super::mistakes::Mistakes;
use super::resolve::Launch;
use super::{data_dir, logging};
use crate::config::Config;

/// Exit code 0 and `ok` when `launch` could be started as far as can be told.
///
/// # Errors
///
/// `mistakes`, which the command line has, and what else is wrong.
pub fn run(launch: &Launch, mut mistakes: Mistakes) -> Result<u8, Mistakes> {
    match logging::init(&launch.log) {
        Ok(()) => launch.notices.iter().for_each(|notice| tracing::warn!("{notice}")),
        Err(error) => add(&mut mistakes, &error),
    }
    // Where the folder's name comes from a wrong flag, it is nobody's folder.
    if mistakes.is_empty()
        && let Err(error) = data_dir::check(&launch.data, &launch.config.cluster)
    {
        add(&mut mistakes, &error.to_string());
    }
    check_resources(&launch.config, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    // A closed stdout has no reader to disappoint: the exit code says it too.
    let _ = writeln!(std::io::stdout(), "ok");
    Ok(0)
}

/// All of them, and where that fails each on its own, since a reading ends at its first error.
fn check_resources(config: &Config, mistakes: &mut Mistakes) {
    let Err(first) = crate::boot::read_resources(config) else { return };
    let alone = |resources: &[PathBuf], configurations: &[PathBuf]| {
        let config =
            Config { resources: resources.to_vec(), configurations: configurations.to_vec(), ..config.clone() };
        crate::boot::read_resources(&config).err().map(|error| format!("{error:#}"))
    };
    let folders = config.resources.chunks(1).filter_map(|folder| alone(folder, &[]));
    let files = config.configurations.chunks(1).filter_map(|file| alone(&[], file));
    let mut errors: Vec<String> = folders.chain(files).collect();
    if errors.is_empty() {
        // What two folders have in common is seen only together.
        errors.push(format!("{first:#}"));
    }
    errors.iter().for_each(|error| add(mistakes, error));
}

/// An error that begins with what it is about.
fn add(mistakes: &mut Mistakes, error: &str) {
    let (subject, problem) = error.split_once(": ").unwrap_or(("start", error));
    mistakes.add(subject, problem);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::cli::env::Env;
    use crate::cli::flags::Given;
    use crate::cli::persona::Persona;
    use crate::cli::resolve;

    fn checked(flags: &[(&'static str, &Path)]) -> Result<u8, Mistakes> {
        let mut given = Given::default();
        for (flag, value) in flags {
            given.set(flag, value.to_string_lossy());
        }
        let (launch, mistakes) = resolve::attempt(given, &Env::from([("HOME", "/tmp")]), Persona::Callboard, None);
        run(&launch, mistakes)
    }

    const ENDPOINT: &str = "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata:\n  name: other\n\
                            spec:\n  baseUrl: http://other.example\n";

    #[test]
    fn what_can_be_started_is_ok_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("one.yaml"), ENDPOINT).unwrap();
        let data = dir.path().join("data");
        assert_eq!(checked(&[("data-dir", &data), ("resources-path", dir.path())]), Ok(0));
        assert!(!data.exists());
    }

    #[test]
    fn mistakes_of_every_kind_are_told_together() {
        let dir = tempfile::tempdir().unwrap();
        let (file, none) = (dir.path().join("file"), dir.path().join("none"));
        fs::write(&file, "kind: [").unwrap();
        let found = checked(&[("resources-path", &none), ("config", &file), ("config", &none), ("data-dir", &file)]);
        let found = found.unwrap_err();
        let lines: Vec<String> = found.iter().map(|m| format!("{}: {}", m.subject, m.problem)).collect();
        assert_eq!(lines.len(), 4, "{lines:#?}");
        for (line, path) in lines.iter().zip([&file, &none, &file, &none]) {
            assert!(line.contains(&path.display().to_string()), "{path:?} is not in {line}");
        }
        let found = checked(&[("app-port", Path::new("x")), ("resources-path", &none), ("data-dir", &file)]);
        assert_eq!(found.unwrap_err().iter().count(), 2, "with wrong flags the folder is not looked at");
    }

    #[test]
    fn a_resource_that_two_folders_define_is_found_though_each_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["a", "b"].map(|name| dir.path().join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("one.yaml"), ENDPOINT).unwrap();
        }
        let data = dir.path().join("data");
        let flags = [("resources-path", &*folders[0]), ("resources-path", &*folders[1]), ("data-dir", &*data)];
        let found = checked(&flags).unwrap_err().to_string();
        assert!(found.contains("defined twice"), "{found}");
    }
}
