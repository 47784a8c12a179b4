//! The list of actors whose instances the app may hold, as a file: what a node that crashed needs to know.
//!
//! Lines of JSON, appended: `+[namespace,type,id]` before an actor's first dispatch, `-[…]` after its `DELETE` was
//! answered. It is not synced: a crash of the process keeps it, and a crash of the machine ends the app too. A last line
//! that is cut off was never followed by a dispatch and counts for nothing. The file is rewritten when it holds many
//! more lines than actors.
//!
//! When the file cannot be written, the node goes on and says so: the list narrows what a restart has to distrust, it
//! does not protect what is stored.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use callboard_types::ActorKey;
use parking_lot::Mutex;

/// Lines beyond twice the number of actors that are tolerated before the file is rewritten.
const SLACK: usize = 4_096;

/// The list and its file.
pub struct Opened {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    actors: HashSet<ActorKey>,
    lines: usize,
}

impl Opened {
    /// Reads what an earlier life of the node has left.
    pub fn open(path: PathBuf) -> std::io::Result<Self> {
        let mut actors = HashSet::new();
        match File::open(&path) {
            Ok(file) => replay(file, &mut actors)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let opened = Self { path, state: Mutex::new(State { file: None, lines: 0, actors }) };
        opened.state.lock().rewrite(&opened.path)?;
        Ok(opened)
    }

    /// The actors on the list.
    pub fn listed(&self) -> Vec<ActorKey> {
        self.state.lock().actors.iter().cloned().collect()
    }

    pub fn add(&self, actor: &ActorKey) {
        let mut state = self.state.lock();
        if state.actors.insert(actor.clone()) {
            state.note('+', actor, &self.path);
        }
    }

    pub fn remove(&self, actor: &ActorKey) {
        let mut state = self.state.lock();
        if state.actors.remove(actor) {
            state.note('-', actor, &self.path);
        }
    }

    /// The app is gone: it holds nothing.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        if !state.actors.is_empty() {
            state.actors.clear();
            state.rewrite_or_warn(&self.path);
        }
    }
}

impl State {
    fn note(&mut self, sign: char, actor: &ActorKey, path: &PathBuf) {
        self.lines += 1;
        if self.lines > 2 * self.actors.len() + SLACK {
            self.rewrite_or_warn(path);
            return;
        }
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(line(sign, actor).as_bytes()) {
            tracing::error!(path = %path.display(), %error, "the list of opened actors cannot be written");
            self.file = None;
        }
    }

    fn rewrite_or_warn(&mut self, path: &PathBuf) {
        if let Err(error) = self.rewrite(path) {
            tracing::error!(path = %path.display(), %error, "the list of opened actors cannot be written");
            self.file = None;
        }
    }

    fn rewrite(&mut self, path: &PathBuf) -> std::io::Result<()> {
        let next = path.with_extension("next");
        let mut file = File::create(&next)?;
        let text: String = self.actors.iter().map(|actor| line('+', actor)).collect();
        file.write_all(text.as_bytes())?;
        std::fs::rename(&next, path)?;
        self.file = Some(OpenOptions::new().append(true).open(path)?);
        self.lines = self.actors.len();
        Ok(())
    }
}

fn line(sign: char, actor: &ActorKey) -> String {
    let parts = serde_json::json!([&*actor.namespace, &*actor.actor_type, &*actor.actor_id]);
    format!("{sign}{parts}\n")
}

fn replay(file: impl Read, actors: &mut HashSet<ActorKey>) -> std::io::Result<()> {
    for text in BufReader::new(file).split(b'\n') {
        let text = text?;
        let (Some(sign), Some(parts)) = (text.first(), text.get(1..)) else { continue };
        let Ok([namespace, actor_type, actor_id]) = serde_json::from_slice::<[String; 3]>(parts) else { continue };
        let actor = ActorKey::new(namespace, actor_type, actor_id);
        match sign {
            b'+' => {
                actors.insert(actor);
            }
            b'-' => {
                actors.remove(&actor);
            }
            _unknown => {}
        }
    }
    Ok(())
}

/// Fuzz body: any bytes as the file of an earlier life. What it lists survives being written and read again.
pub fn fuzz_replay(data: &[u8]) {
    let mut actors = HashSet::new();
    assert!(replay(data, &mut actors).is_ok());
    let text: String = actors.iter().map(|actor| line('+', actor)).collect();
    let mut again = HashSet::new();
    assert!(replay(text.as_bytes(), &mut again).is_ok() && again == actors);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(id: &str) -> ActorKey {
        ActorKey::new("default", "T\n\"", id)
    }

    #[test]
    fn what_was_added_and_not_removed_is_listed_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("opened");
        let opened = Opened::open(path.clone()).expect("opens");
        opened.add(&actor("a"));
        opened.add(&actor("b||\u{7f}"));
        opened.remove(&actor("a"));
        drop(opened);
        assert_eq!(Opened::open(path).expect("opens").listed(), [actor("b||\u{7f}")]);
    }

    #[test]
    fn a_line_cut_off_counts_for_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("opened");
        std::fs::write(&path, "+[\"n\",\"t\",\"a\"]\n+[\"n\",\"t\",\"b").expect("writes");
        assert_eq!(Opened::open(path).expect("opens").listed(), [ActorKey::new("n", "t", "a")]);
    }

    #[test]
    fn the_file_stays_small_and_clearing_empties_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("opened");
        let opened = Opened::open(path.clone()).expect("opens");
        for round in 0..3 * SLACK {
            opened.add(&actor(&round.to_string()));
            opened.remove(&actor(&round.to_string()));
        }
        opened.add(&actor("kept"));
        let lines = std::fs::read_to_string(&path).expect("reads").lines().count();
        assert!(lines <= SLACK + 2, "{lines}");
        opened.clear();
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "");
        assert!(Opened::open(path).expect("opens").listed().is_empty());
    }
}
