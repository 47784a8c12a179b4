//! What the actors API answers when it fails.
//!
//! Limits, ownership and unknown outcomes are told the same way on every endpoint, under codes of their own, since a
//! caller does the same about them everywhere. Anything else is told under the endpoint's code and in Dapr's words.

use std::fmt::Display;
use std::time::Duration;

use callboard_engine::mailbox::Refusal;
use http::StatusCode;

use crate::actors::Error;
use crate::ingress::http::error::{ApiError, Code};
use crate::owner::Error as OwnerError;

/// What a caller is told to wait before it asks again.
const SOON: Duration = Duration::from_secs(1);

/// How one endpoint tells of the failures that are its own.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    code: Code,
    /// How its texts begin.
    says: &'static str,
}

pub const INVOKE: Endpoint = Endpoint { code: Code::ActorInvokeMethod, says: "error invoke actor method" };
pub const SAVE_STATE: Endpoint =
    Endpoint { code: Code::ActorStateTransactionSave, says: "error saving actor transaction state" };
pub const GET_STATE: Endpoint = Endpoint { code: Code::ActorStateGet, says: "error getting actor state" };
pub const PUT_REMINDER: Endpoint = Endpoint { code: Code::ActorReminderCreate, says: "error creating actor reminder" };
pub const GET_REMINDER: Endpoint = Endpoint { code: Code::ActorReminderGet, says: "error getting actor reminder" };
pub const DELETE_REMINDER: Endpoint =
    Endpoint { code: Code::ActorReminderDelete, says: "error deleting actor reminder" };
pub const PUT_TIMER: Endpoint = Endpoint { code: Code::ActorTimerCreate, says: "error creating actor timer" };
pub const DELETE_ACTOR: Endpoint = Endpoint { code: Code::ActorStateTransactionSave, says: "error deleting actor" };

impl Endpoint {
    /// A failure of its own.
    pub fn failed(self, why: impl Display) -> ApiError {
        ApiError::new(self.code, format!("{}: {why}", self.says))
    }

    /// The answer to whatever may go wrong: as everywhere where it is told alike, else its own.
    pub fn answer(self, error: &Error) -> ApiError {
        common(error).unwrap_or_else(|| self.failed(error))
    }
}

/// `None`: the endpoint's own.
fn common(error: &Error) -> Option<ApiError> {
    let owner = match error {
        Error::Closed => return Some(ApiError::new(Code::ActorRuntimeClosed, error.to_string())),
        Error::NoHost(_) | Error::NotActive | Error::ReminderNotFound(_) | Error::Invalid(_) => return None,
        Error::Owner(owner) => owner,
    };
    let code = match owner {
        OwnerError::Refused(Refusal::StackDepth) => Code::ActorStackDepth,
        OwnerError::Refused(Refusal::MailboxFull) => Code::TooManyRequests,
        OwnerError::Refused(Refusal::TooManyWaiting | Refusal::TooManyActivations)
        | OwnerError::TooManyReminders(_) => Code::Overloaded,
        OwnerError::Refused(Refusal::TurnRunning) => Code::Conflict,
        OwnerError::NotServing(_) | OwnerError::NoTurn(_) | OwnerError::Refused(Refusal::EpochOver) => {
            Code::Unavailable
        }
        OwnerError::Unknown(_) | OwnerError::Refused(Refusal::Superseded) => Code::OutcomeUnknown,
        OwnerError::TooLarge(_) => Code::BadRequest,
        OwnerError::NoHost
        | OwnerError::Unwanted
        | OwnerError::App(_)
        | OwnerError::Fenced
        | OwnerError::Rejected(_)
        | OwnerError::Storage(_) => return None,
    };
    let answer = ApiError::new(code, owner.to_string());
    Some(match answer.status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => answer.retry_after(SOON),
        _other => answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_alike_everywhere_and_the_rest_in_the_endpoints_words() {
        for endpoint in [INVOKE, PUT_REMINDER] {
            let full = endpoint.answer(&Error::Owner(OwnerError::TooManyReminders(7)));
            assert_eq!(
                (full.code, full.retry_after, &*full.message),
                (Code::Overloaded, Some(SOON), "an actor has at most 7 reminders")
            );
        }
        let own = GET_STATE.answer(&Error::Owner(OwnerError::Fenced));
        assert_eq!((own.code, own.retry_after), (Code::ActorStateGet, None));
        assert_eq!(own.message, "error getting actor state: superseded: the actor's activation is over");
    }
}
