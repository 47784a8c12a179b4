//! Everything wrong with a command line and what it names, told at once: each line names the flag, the value and what
//! to do.

use std::fmt;

/// One thing to correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// With dashes, and with the value where there is one: `--app-port 70000`.
    pub subject: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// One or more [`Mistake`]s.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub fn add(&mut self, subject: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Mistake { subject: subject.into(), problem: problem.into() });
    }

    pub fn extend(&mut self, other: Mistakes) {
        self.0.extend(other.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("nothing is wrong"),
            [one] => write!(f, "{}: {}", one.subject, one.problem),
            many => {
                write!(f, "{} things are wrong:", many.len())?;
                many.iter().try_for_each(|mistake| write!(f, "\n  {}: {}", mistake.subject, mistake.problem))
            }
        }
    }
}

impl std::error::Error for Mistakes {}
