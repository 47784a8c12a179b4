//! Which texts may name an actor type, an actor, a reminder or a timer.
//!
//! Names travel in URL paths, to the app and back, unescaped by some SDKs; so what would change the meaning of a path is
//! refused where it enters: `# ? NUL / \`, control characters, `.` and `..`. Everything else, `|`, `||`, `@`, spaces and
//! other scripts included, is a name. The length limit bounds keys on disk and in memory.
//!
//! *Deliberately absent:* normalisation of methods (a path, not a name) and any notion of which types are hosted.

use callboard_types::Class;

/// Longest name or id, in characters.
pub const MAX_NAME: usize = 500;

/// How much of a refused name an error repeats, in characters.
const SHOWN: usize = 64;

/// What a text was meant to name; its words begin the error's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ActorType,
    ActorId,
    Reminder,
    Timer,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::ActorType => "invalid actorType: actorType",
            Kind::ActorId => "invalid actorId: actorId",
            Kind::Reminder | Kind::Timer => "name",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Kind::ActorType => "actor type",
            Kind::ActorId => "actor id",
            Kind::Reminder => "reminder name",
            Kind::Timer => "timer name",
        }
    }
}

/// Why a text is no name. The text of an error follows Dapr's "invalid request: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{} cannot be empty", .0.noun())]
    Empty(Kind),
    #[error("{} contains forbidden character: {name:?}", kind.prefix())]
    Forbidden { kind: Kind, name: String },
    #[error("{} contains control character at position {position}: {name:?}", kind.prefix())]
    Control { kind: Kind, position: usize, name: String },
    #[error("{} must not be {name:?}", kind.prefix())]
    Relative { kind: Kind, name: String },
    #[error("{} is longer than {MAX_NAME} characters", .0.prefix())]
    TooLong(Kind),
}

impl Error {
    /// A bad name never becomes a good one.
    pub fn class(&self) -> Class {
        Class::Rejected
    }
}

pub fn check_type(name: &str) -> Result<(), Error> {
    check(Kind::ActorType, name)
}

pub fn check_id(name: &str) -> Result<(), Error> {
    check(Kind::ActorId, name)
}

pub fn check_reminder_name(name: &str) -> Result<(), Error> {
    check(Kind::Reminder, name)
}

pub fn check_timer_name(name: &str) -> Result<(), Error> {
    check(Kind::Timer, name)
}

/// # Errors
///
/// The first rule that `name` breaks.
pub fn check(kind: Kind, name: &str) -> Result<(), Error> {
    let shown = || name.chars().take(SHOWN).collect::<String>();
    if name.is_empty() {
        return Err(Error::Empty(kind));
    }
    if name == "." || name == ".." {
        return Err(Error::Relative { kind, name: shown() });
    }
    if name.contains(['#', '?', '\0', '/', '\\']) {
        return Err(Error::Forbidden { kind, name: shown() });
    }
    if let Some(position) = name.bytes().position(|b| b < 0x20 || b == 0x7f) {
        return Err(Error::Control { kind, position, name: shown() });
    }
    // A character is at most four bytes: nothing longer is counted.
    if name.len() > MAX_NAME && (name.len() > 4 * MAX_NAME || name.chars().count() > MAX_NAME) {
        return Err(Error::TooLong(kind));
    }
    Ok(())
}

/// Fuzz body: what may be a name changes no path.
pub fn fuzz_name(data: &[u8]) {
    let name = String::from_utf8_lossy(data);
    for kind in [Kind::ActorType, Kind::ActorId, Kind::Reminder, Kind::Timer] {
        match check(kind, &name) {
            Ok(()) => assert!(!name.contains(['#', '?', '/', '\\', '\0']) && !matches!(&*name, "" | "." | "..")),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_and_odd_names_are_names() {
        let longest = "é".repeat(MAX_NAME);
        for name in [
            "a",
            "remind|me@now",
            "remind||me||now",
            "two words",
            "héllo",
            "日本",
            "...",
            "a.b",
            "%2F",
            "\"",
            "*",
            ":",
            &longest,
        ] {
            assert_eq!(check_reminder_name(name), Ok(()), "{name}");
            assert_eq!(check_id(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_changes_a_path_is_no_name() {
        for name in ["a#b", "a?b", "a\0b", "a/b", "/", "a\\b", ".", "..", "a\nb", "\t", "\u{7f}", ""] {
            assert!(check_type(name).is_err(), "{name:?}");
        }
        assert_eq!(check_id(&"a".repeat(MAX_NAME)), Ok(()));
        assert_eq!(check_id(&"a".repeat(600)), Err(Error::TooLong(Kind::ActorId)));
        assert_eq!(check_id(&"é".repeat(MAX_NAME + 1)), Err(Error::TooLong(Kind::ActorId)));
    }

    #[test]
    fn errors_say_which_name_and_why() {
        let text = |kind, name: &str| check(kind, name).unwrap_err().to_string();
        assert_eq!(text(Kind::Reminder, "a#b"), "name contains forbidden character: \"a#b\"");
        assert_eq!(text(Kind::Timer, "a\nb"), "name contains control character at position 1: \"a\\nb\"");
        assert_eq!(text(Kind::ActorType, "a/b"), "invalid actorType: actorType contains forbidden character: \"a/b\"");
        assert_eq!(text(Kind::ActorId, ".."), "invalid actorId: actorId must not be \"..\"");
        assert_eq!(text(Kind::Reminder, ""), "reminder name cannot be empty");
        assert_eq!(text(Kind::Reminder, &"x".repeat(501)), "name is longer than 500 characters");
    }
}
