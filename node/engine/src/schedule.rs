//! When a reminder or timer fires: the first due instant, each next one, and the end.
//!
//! A [`Schedule`] is a pure function of the three texts of the request (due time, period, ttl) and of the instant at
//! which it was registered, so the owner of a reminder rebuilds it after any restart from what is stored and gets the
//! same answers. Reminders and timers differ in four points, all decided here:
//!
//! | | reminder | timer |
//! |---|---|---|
//! | no due time | first firing one period after registration | first firing at once |
//! | neither due time nor period | refused | one firing, at once |
//! | `Rn` without an interval | n firings back to back | one firing |
//! | ttl | a firing due exactly then still happens (inclusive) | it does not (exclusive) |
//!
//! Common rules. The next due instant is the previous *scheduled* one plus the period, never the time of delivery plus
//! the period, so lateness does not accumulate and instants missed while nobody could fire are delivered one after
//! another. A due time in the past fires at once; the firings that would have been due before the registration are no
//! missed ones, since there was nothing to fire: the second firing is the first grid instant after the registration.
//! (Otherwise `1970-01-01T00:00:00Z` with a period of a second would be a billion firings in a row.) Calendar periods
//! are counted from the first firing, so a reminder on the 31st comes on the last day of short months and on the 31st
//! again after them. A ttl duration counts from the due time when there is one, else from the registration. A period
//! of zero or less without `Rn` is no repetition: Python's SDK writes a negative one as `-1h59m59s0ms0μs`, and several
//! SDKs write "none" as zero. An interval that leaves the calendar ends the schedule.
//!
//! *Invariants.* No due instant is earlier than the one before; a repeating interval moves strictly forward; exactly n
//! firings under `Rn` unless the ttl ends it sooner; none beyond the ttl.
//!
//! *Deliberately absent:* a clock, retries after failures (`reminder`), delivery (`due`, `timer`).

use callboard_types::{Class, Timestamp};

use crate::duration::{self, Interval, Period, When, parse_period, parse_when, shown};

/// Why a request makes no schedule. The texts are Dapr's, without the "error creating ..." in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unsupported period format: {0}")]
    ReminderPeriod(String),
    #[error("due time format not recognized")]
    ReminderDueTime,
    #[error("repeats not supported for due time")]
    ReminderDueTimeRepeats,
    #[error("ttl format not recognized")]
    ReminderTtl,
    /// The ttl ends before the first firing: the reminder would never fire.
    #[error("ttl must be greater than due time")]
    TtlBeforeDue,
    #[error("job must have either a due time or a schedule")]
    NothingScheduled,
    #[error("job must have a schedule to have a ttl")]
    TtlWithoutPeriod,
    #[error("error parsing timer due time: {0}")]
    TimerDueTime(duration::Error),
    #[error("invalid timer period: parse error: {0}")]
    TimerPeriod(duration::Error),
    #[error("invalid timer period: has zero repetitions")]
    TimerZeroRepetitions,
    #[error("error parsing timer TTL: {0}")]
    TimerTtl(duration::Error),
    #[error("timer {key} has already expired: dueTime: {due_time} TTL: {ttl}")]
    TimerExpired { key: String, due_time: String, ttl: String },
}

impl Error {
    /// A request that makes no schedule never makes one by repetition.
    pub fn class(&self) -> Class {
        Class::Rejected
    }
}

/// How the firings after the first one follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repetition {
    Once,
    /// `Rn` alone: each firing is due with the one before.
    BackToBack {
        total: u64,
    },
    /// The firing after number `k` (from 1) is due at `anchor + (k + offset) * interval`.
    Every {
        interval: Interval,
        anchor: Timestamp,
        offset: u64,
        total: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Boundary {
    Inclusive,
    Exclusive,
}

/// When something fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    first: Timestamp,
    repetition: Repetition,
    expires_at: Option<Timestamp>,
    boundary: Boundary,
}

impl Schedule {
    /// The schedule of a reminder registered at `registered`.
    ///
    /// # Errors
    ///
    /// A text outside the grammar, a combination that schedules nothing, or a ttl before the first firing.
    pub fn reminder(due_time: &str, period: &str, ttl: &str, registered: Timestamp) -> Result<Self, Error> {
        let due = parse_when(due_time).map_err(|error| match error {
            duration::Error::Repetitions | duration::Error::ZeroRepetitions => Error::ReminderDueTimeRepeats,
            duration::Error::Duration(_) | duration::Error::Time(_) => Error::ReminderDueTime,
        })?;
        let unsupported = || Error::ReminderPeriod(shown(period));
        let repeated = parse_period(period).map_err(|_| unsupported())?;
        let lifetime = parse_when(ttl).map_err(|_| Error::ReminderTtl)?;
        if repeated.is_none() && due.is_none() {
            return Err(Error::NothingScheduled);
        }
        if repeated.is_none() && lifetime.is_some() {
            return Err(Error::TtlWithoutPeriod);
        }
        let due = instant(due, registered, Error::ReminderDueTime)?;
        let expires_at = instant(lifetime, due.unwrap_or(registered), Error::ReminderTtl)?;
        let repetition = Repetition::of(repeated, due, registered, |total| Repetition::BackToBack { total });
        let first = match (due, repetition) {
            (Some(due), _) => due,
            (None, Repetition::Every { interval, .. }) => interval.after(registered).ok_or_else(unsupported)?,
            (None, Repetition::Once | Repetition::BackToBack { .. }) => registered,
        };
        if expires_at.is_some_and(|end| first > end) {
            return Err(Error::TtlBeforeDue);
        }
        Ok(Self { first, repetition, expires_at, boundary: Boundary::Inclusive })
    }

    /// The schedule of the timer `key` (`type||id||name`, for the error text), created at `now`.
    ///
    /// # Errors
    ///
    /// A text outside the grammar, or a ttl that ends before the first tick.
    pub fn timer(key: &str, due_time: &str, period: &str, ttl: &str, now: Timestamp) -> Result<Self, Error> {
        let due = parse_when(due_time).map_err(Error::TimerDueTime)?;
        let repeated = parse_period(period).map_err(|error| match error {
            duration::Error::ZeroRepetitions => Error::TimerZeroRepetitions,
            duration::Error::Duration(_) | duration::Error::Time(_) | duration::Error::Repetitions => {
                Error::TimerPeriod(error)
            }
        })?;
        let lifetime = parse_when(ttl).map_err(Error::TimerTtl)?;
        let due = instant(due, now, Error::TimerDueTime(duration::Error::Time(shown(due_time))))?;
        let first = due.unwrap_or(now);
        let expires_at = instant(lifetime, first, Error::TimerTtl(duration::Error::Time(shown(ttl))))?;
        if expires_at.is_some_and(|end| first >= end || now >= end) {
            return Err(Error::TimerExpired { key: key.to_owned(), due_time: shown(due_time), ttl: shown(ttl) });
        }
        let repetition = Repetition::of(repeated, Some(first), now, |_| Repetition::Once);
        Ok(Self { first, repetition, expires_at, boundary: Boundary::Exclusive })
    }

    /// When the first firing is due; possibly in the past, which means at once.
    pub fn first_due(&self) -> Timestamp {
        self.first
    }

    /// Total number of firings, the first one included; `None`: no limit.
    pub fn repeats(&self) -> Option<u64> {
        match self.repetition {
            Repetition::Once => Some(1),
            Repetition::BackToBack { total } => Some(total),
            Repetition::Every { total, .. } => total,
        }
    }

    /// The instant that ends the schedule.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// When the firing after number `occurrence` (from 1), which was due at `due`, is due; `None`: that was the last.
    pub fn next(&self, due: Timestamp, occurrence: u64) -> Option<Timestamp> {
        if self.repeats().is_some_and(|total| occurrence >= total) {
            return None;
        }
        let next = match self.repetition {
            Repetition::Once => return None,
            Repetition::BackToBack { total: _ } => due,
            Repetition::Every { interval, anchor, offset, total: _ } => {
                let on_grid = occurrence.checked_add(offset).and_then(|steps| interval.times(steps)?.after(anchor));
                match on_grid {
                    Some(next) if next > due => next,
                    // The caller's `due` is beyond the grid: only a clock set back between registration and rebuild
                    // does that. Forward is what matters then.
                    Some(_) | None => interval.after(due)?,
                }
            }
        };
        match (self.expires_at, self.boundary) {
            (Some(end), Boundary::Inclusive) if next > end => None,
            (Some(end), Boundary::Exclusive) if next >= end => None,
            (Some(_) | None, Boundary::Inclusive | Boundary::Exclusive) => Some(next),
        }
    }
}

impl Repetition {
    /// `due`: the first firing where the request names it. `bare`: what `Rn` without an interval is.
    fn of(
        period: Option<Period>,
        due: Option<Timestamp>,
        registered: Timestamp,
        bare: impl FnOnce(u64) -> Repetition,
    ) -> Repetition {
        let Some(Period { interval, repeats }) = period else { return Repetition::Once };
        if interval.is_zero() || interval.is_negative() {
            return repeats.map_or(Repetition::Once, bare);
        }
        let interval = interval.round_up();
        let (anchor, offset) = match due {
            Some(due) => (due, steps_up_to(interval, due, registered)),
            None => (registered, 1),
        };
        Repetition::Every { interval, anchor, offset, total: repeats }
    }
}

/// How many whole `interval`s fit after `start` up to and including `end`; 0 when `end` is not later.
fn steps_up_to(interval: Interval, start: Timestamp, end: Timestamp) -> u64 {
    let beyond = |steps: u64| interval.times(steps).and_then(|span| span.after(start)).is_none_or(|at| at > end);
    // No interval is shorter than a microsecond, and two instants are less than 2^64 of them apart.
    let (mut within, mut over) = (0, u64::MAX);
    if end <= start {
        return 0;
    }
    while over - within > 1 {
        let middle = within + (over - within) / 2;
        if beyond(middle) {
            over = middle;
        } else {
            within = middle;
        }
    }
    within
}

fn instant(when: Option<When>, base: Timestamp, error: Error) -> Result<Option<Timestamp>, Error> {
    match when {
        None => Ok(None),
        Some(when) => when.from(base).map(Some).ok_or(error),
    }
}

/// Fuzz body: a schedule from arbitrary texts moves forward, keeps its count and ends with its ttl.
pub fn fuzz_schedule(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or("");
    let (due_time, period, ttl) = (part(), part(), part());
    let now = Timestamp::from_secs(1_700_000_000);
    if let Ok(schedule) = Schedule::reminder(due_time, period, ttl, now) {
        walk(&schedule, now);
    }
    if let Ok(schedule) = Schedule::timer("T||I||N", due_time, period, ttl, now) {
        walk(&schedule, now);
    }
}

/// Follows a schedule and asserts its invariants.
fn walk(schedule: &Schedule, registered: Timestamp) {
    const FOLLOWED: u64 = 64;
    let mut due = schedule.first_due();
    assert!(schedule.expires_at().is_none_or(|end| due <= end));
    for occurrence in 1..=FOLLOWED {
        assert!(schedule.repeats().is_none_or(|total| occurrence <= total));
        let Some(next) = schedule.next(due, occurrence) else { return };
        assert!(next >= due, "a due instant never lies before its predecessor");
        assert!(matches!(schedule.repetition, Repetition::BackToBack { .. }) || next > due);
        assert!(matches!(schedule.repetition, Repetition::BackToBack { .. }) || next > registered);
        assert!(schedule.expires_at().is_none_or(|end| next <= end));
        due = next;
    }
}

#[cfg(test)]
#[path = "schedule/schedule_test.rs"]
mod tests;
