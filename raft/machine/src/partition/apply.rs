//! Applying one entry of a partition's log.
//!
//! Decides, in this order, whether a command may speak at all (its epoch), whether it has spoken before (its write
//! number), and only then what it does; the last part is the `draft` module's. The order is what makes a
//! superseded owner harmless: nothing is read of a fenced command but its epoch, and nothing is written for it.
//!
//! # Invariants
//!
//! - The stored epoch rises by one with each claim and never otherwise.
//! - A response other than `Claimed` and `Done` leaves every row as it was, but for the record of the actor's last
//!   write, which also remembers a rejection: the repeat of a rejected write is rejected in the same words.
//! - The stored clock falls only by a claim that says so with [`Effect::ClockLowered`].
//!
//! Deliberately absent: any bound on how far a command may move the clock forward. The machine has no clock to compare
//! with; nodes whose clock is off are kept from owning, and the next claim repairs what one has done.

use callboard_types::{Epoch, Timestamp};

use super::command::{ActorCommand, Claim, Command, Effect, Outcome, Rejection, Response};
use super::draft::{Changes, Draft};
use super::table::{LastWrite, Ownership, Tables};

/// Applies the entry at log `index`: writes go to `tables`, the rest is returned.
///
/// # Errors
///
/// Only those of `tables` (the disk): the batch must then be abandoned.
pub fn apply<T: Tables>(tables: &mut T, index: u64, command: &Command) -> Result<Outcome, T::Error> {
    match command {
        Command::Claim(claim) => apply_claim(tables, claim),
        Command::Actor(command) => apply_actor(tables, index, command),
        Command::Noop { epoch } => Ok(Outcome::quiet(fenced(tables, *epoch)?.unwrap_or(Response::Done))),
    }
}

fn apply_claim<T: Tables>(tables: &mut T, claim: &Claim) -> Result<Outcome, T::Error> {
    let epoch = current_epoch(tables)?.next();
    tables.set_ownership(Ownership { epoch, node: claim.node, replica: claim.replica, nonce: claim.nonce })?;
    let mut effects = vec![Effect::Claimed { claim: claim.clone(), epoch }];
    match clock_excess(tables.clock()?, claim) {
        Some(by_micros) => {
            tables.set_clock(claim.now)?;
            effects.push(Effect::ClockLowered { by_micros });
        }
        None => advance_clock(tables, claim.now)?,
    }
    Ok(Outcome { response: Response::Claimed { epoch }, effects })
}

fn apply_actor<T: Tables>(tables: &mut T, index: u64, command: &ActorCommand) -> Result<Outcome, T::Error> {
    if let Some(fenced) = fenced(tables, command.epoch)? {
        return Ok(Outcome::quiet(fenced));
    }
    if let Some(answer) = answer_to_known_write(tables, command)? {
        return Ok(Outcome::quiet(answer));
    }
    let outcome = match Draft::of(tables, index, command)? {
        Ok(changes) => commit(tables, index, command, changes)?,
        Err(rejection) => Outcome::quiet(Response::Rejected(rejection)),
    };
    if let Some((activation, number)) = command.write {
        let response = outcome.response.clone();
        tables.set_last_write(&command.actor, LastWrite { epoch: command.epoch, activation, number, response })?;
    }
    Ok(outcome)
}

fn commit<T: Tables>(
    tables: &mut T,
    index: u64,
    command: &ActorCommand,
    changes: Changes,
) -> Result<Outcome, T::Error> {
    let effects = changes.write(tables, index, &command.actor)?;
    advance_clock(tables, command.now)?;
    Ok(Outcome { response: Response::Done, effects })
}

/// The rule "a stale epoch is `Fenced`": only the epoch of the last applied claim may write. An epoch that was never
/// claimed may not either, so nothing is written to a partition before its first claim.
fn fenced<T: Tables>(tables: &T, given: Epoch) -> Result<Option<Response>, T::Error> {
    let current = current_epoch(tables)?;
    let is_owner = given == current && current != Epoch::NONE;
    Ok((!is_owner).then_some(Response::Fenced { current }))
}

/// The rule "a repeated write gets its first answer": the number of the activation's last write is answered as it was
/// then, a lower one is refused. A higher one, or any of another activation or epoch, has no answer yet.
fn answer_to_known_write<T: Tables>(tables: &T, command: &ActorCommand) -> Result<Option<Response>, T::Error> {
    let Some((activation, number)) = command.write else { return Ok(None) };
    let Some(last) = tables.last_write(&command.actor)? else { return Ok(None) };
    if (last.epoch, last.activation) != (command.epoch, activation) || number > last.number {
        return Ok(None);
    }
    if number == last.number {
        return Ok(Some(last.response));
    }
    Ok(Some(Response::Rejected(Rejection::StaleWrite { given: number.0, last: last.number.0 })))
}

fn current_epoch<T: Tables>(tables: &T) -> Result<Epoch, T::Error> {
    Ok(tables.ownership()?.map_or(Epoch::NONE, |ownership| ownership.epoch))
}

/// How far the stored clock is ahead of the claim's, in microseconds, where that is more than the claim bears.
fn clock_excess(stored: Timestamp, claim: &Claim) -> Option<u64> {
    if stored <= claim.now {
        return None;
    }
    let ahead = stored.as_micros().abs_diff(claim.now.as_micros());
    (ahead > claim.max_clock_offset_micros).then_some(ahead)
}

/// The stored clock is the highest seen: what has expired once stays expired, whoever proposes next.
fn advance_clock<T: Tables>(tables: &mut T, now: Timestamp) -> Result<(), T::Error> {
    if now > tables.clock()? {
        tables.set_clock(now)?;
    }
    Ok(())
}

impl Outcome {
    fn quiet(response: Response) -> Self {
        Self { response, effects: Vec::new() }
    }
}
