//! Why there is no answer, across a link: the same error on both sides, so that a caller hears the same words wherever
//! the owner is.

use std::time::Duration;

use callboard_engine::mailbox::Refusal;
use callboard_machine::partition::Rejection;
use callboard_proto::calls::{AskError, ask_error::Code};
use callboard_types::{NodeId, PartitionId};

use super::convert::millis;
use crate::app::Error as AppError;
use crate::host::Error as HostError;
use crate::owner::Error;

/// `owner` is who owns the partition, as far as the asked node knows.
pub fn put(error: &Error, owner: Option<NodeId>) -> AskError {
    let owner = owner.map_or(0, |owner| owner.0);
    let plain = |code| (code, String::new(), 0, 0);
    let (code, text, number, other) = match error {
        Error::NotServing(partition) => (Code::NotServing, String::new(), u64::from(partition.0), 0),
        Error::NoHost => plain(Code::NoHost),
        Error::Refused(refusal) => plain(match refusal {
            Refusal::StackDepth => Code::StackDepth,
            Refusal::MailboxFull => Code::MailboxFull,
            Refusal::TooManyWaiting => Code::TooManyWaiting,
            Refusal::TooManyActivations => Code::TooManyActivations,
            Refusal::TurnRunning => Code::TurnRunning,
            Refusal::Superseded => Code::Superseded,
            Refusal::EpochOver => Code::NotServing,
        }),
        Error::NoTurn(waited) => (Code::NoTurn, String::new(), millis(*waited), 0),
        Error::App(error) => return AskError { owner, ..put_app(error) },
        Error::Unknown(why) => (Code::OutcomeUnknown, why.to_string(), 0, 0),
        Error::Fenced => plain(Code::Fenced),
        Error::Rejected(Rejection::ReminderExists { name }) => (Code::ReminderExists, name.clone(), 0, 0),
        Error::Rejected(Rejection::StaleWrite { given, last }) => (Code::StaleWrite, String::new(), *given, *last),
        // Sizes are checked where a request comes in, before it is sent on.
        Error::TooLarge(exceeded) => (Code::AppInvalid, exceeded.to_string(), 0, 0),
        Error::Unwanted => plain(Code::Unwanted),
        Error::TooManyReminders(limit) => (Code::TooManyReminders, String::new(), *limit as u64, 0),
        Error::Storage(text) => (Code::Storage, text.clone(), 0, 0),
    };
    AskError { code: code.into(), text, number, other, owner }
}

/// The error, and who owns the partition where that was said. A code of a later version counts as an unknown outcome:
/// it must not be tried again.
pub fn get(error: AskError) -> (Error, Option<NodeId>) {
    let owner = (error.owner != 0).then_some(NodeId(error.owner));
    let (code, text, number) = (error.code(), error.text, error.number);
    let error = match code {
        Code::NotServing => Error::NotServing(PartitionId(u32::try_from(number).unwrap_or(u32::MAX))),
        Code::NoHost => Error::NoHost,
        Code::StackDepth => Refusal::StackDepth.into(),
        Code::MailboxFull => Refusal::MailboxFull.into(),
        Code::TooManyWaiting => Refusal::TooManyWaiting.into(),
        Code::TooManyActivations => Refusal::TooManyActivations.into(),
        Code::TurnRunning => Refusal::TurnRunning.into(),
        Code::Superseded => Refusal::Superseded.into(),
        Code::NoTurn => Error::NoTurn(Duration::from_millis(number)),
        Code::AppNotInitialized => Error::App(AppError::NotInitialized),
        Code::AppUnhealthy => Error::App(AppError::Unhealthy),
        Code::AppNotSent => Error::App(AppError::NotSent(text)),
        Code::AppLost => Error::App(AppError::Lost(text)),
        Code::AppTimedOut => Error::App(AppError::TimedOut(text)),
        Code::AppInvalid => Error::App(AppError::Invalid(text)),
        Code::AppTooLarge => Error::App(AppError::TooLarge { limit: number }),
        Code::Fenced => Error::Fenced,
        Code::ReminderExists => Error::Rejected(Rejection::ReminderExists { name: text }),
        Code::StaleWrite => Error::Rejected(Rejection::StaleWrite { given: number, last: error.other }),
        Code::Unwanted => Error::Unwanted,
        Code::TooManyReminders => Error::TooManyReminders(usize::try_from(number).unwrap_or(usize::MAX)),
        Code::Storage => Error::Storage(text),
        // A host's words are for an owner, which is not what asked.
        Code::OutcomeUnknown | Code::Unspecified | Code::NotActive | Code::Lapsed => Error::Unknown(text.into()),
    };
    (error, owner)
}

/// What a host answers to an owner on another node.
pub fn put_host(error: &HostError) -> AskError {
    let plain = |code: Code| AskError { code: code.into(), ..AskError::default() };
    match error {
        HostError::NotActive => plain(Code::NotActive),
        HostError::Fenced => plain(Code::Fenced),
        HostError::Full => plain(Code::TooManyActivations),
        HostError::Lapsed => plain(Code::Lapsed),
        HostError::Unwanted => plain(Code::Unwanted),
        HostError::App(error) => put_app(error),
    }
}

pub fn get_host(error: AskError) -> HostError {
    match error.code() {
        Code::NotActive => HostError::NotActive,
        Code::Fenced => HostError::Fenced,
        Code::TooManyActivations => HostError::Full,
        Code::Lapsed => HostError::Lapsed,
        Code::Unwanted => HostError::Unwanted,
        Code::AppNotInitialized => HostError::App(AppError::NotInitialized),
        Code::AppUnhealthy => HostError::App(AppError::Unhealthy),
        Code::AppNotSent => HostError::App(AppError::NotSent(error.text)),
        Code::AppTimedOut => HostError::App(AppError::TimedOut(error.text)),
        Code::AppInvalid => HostError::App(AppError::Invalid(error.text)),
        Code::AppTooLarge => HostError::App(AppError::TooLarge { limit: error.number }),
        // Anything else is not a host's word; what happened is not known.
        Code::AppLost
        | Code::Unspecified
        | Code::NotServing
        | Code::NoHost
        | Code::StackDepth
        | Code::MailboxFull
        | Code::TooManyWaiting
        | Code::TurnRunning
        | Code::Superseded
        | Code::NoTurn
        | Code::OutcomeUnknown
        | Code::ReminderExists
        | Code::StaleWrite
        | Code::TooManyReminders
        | Code::Storage => HostError::App(AppError::Lost(error.text)),
    }
}

fn put_app(error: &AppError) -> AskError {
    let (code, text, number) = match error {
        AppError::NotInitialized => (Code::AppNotInitialized, String::new(), 0),
        AppError::Unhealthy => (Code::AppUnhealthy, String::new(), 0),
        AppError::NotSent(text) => (Code::AppNotSent, text.clone(), 0),
        AppError::Forbidden => (Code::AppNotSent, error.to_string(), 0),
        AppError::Lost(text) => (Code::AppLost, text.clone(), 0),
        AppError::TimedOut(text) => (Code::AppTimedOut, text.clone(), 0),
        AppError::Invalid(text) => (Code::AppInvalid, text.clone(), 0),
        AppError::TooLarge { limit } => (Code::AppTooLarge, String::new(), *limit),
    };
    AskError { code: code.into(), text, number, ..AskError::default() }
}
