//! An [`Ask`] about one actor, answered by the owner's reign: from this node and from others alike.

use std::sync::Arc;

use callboard_engine::mailbox::RequestKind;
use callboard_machine::partition::ActorOp;
use callboard_types::ActorKey;

use super::writes::Write;
use super::{Error, Reign, Turn};
use crate::calls::{Answer, Ask, TurnKind};
use crate::clock;

impl Reign {
    pub async fn answer(self: &Arc<Self>, actor: &ActorKey, ask: &Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Turn { kind, chain, call, patience } => {
                let (kind, tick) = match kind {
                    TurnKind::Call => (RequestKind::Call, None),
                    TurnKind::Timer(tick) => (RequestKind::Timer, Some(tick.clone())),
                };
                let (actor, chain, call) = (actor.clone(), chain.clone(), call.clone());
                let deadline = clock::monotonic().saturating_add(*patience);
                let turn = Turn { actor, kind, chain, call, deadline, wanted: None, tick };
                Ok(Answer::Response(self.turn(Arc::new(turn)).await?))
            }
            Ask::Commit { author, ops, now } => {
                self.check_room(actor, ops).await?;
                self.commit(actor, Write { author: *author, ops: ops.clone(), now: *now }).await?;
                Ok(Answer::Done)
            }
            Ask::State { key } => Ok(Answer::State(self.state(actor, key)?)),
            Ask::Reminder { name } => Ok(Answer::Reminder(self.reminder(actor, name)?)),
            Ask::Reminders { limit } => {
                let rows = self.scan_reminders(Some(actor.clone()), None, *limit).await?;
                Ok(Answer::Reminders(rows.into_iter().map(|(_, name, reminder)| (name, reminder)).collect()))
            }
            Ask::Delete { patience } => {
                let deadline = clock::monotonic().saturating_add(*patience);
                let key = actor.clone();
                let write = |reign: Arc<Reign>| async move {
                    reign
                        .commit(&key, Write { author: None, ops: vec![ActorOp::DeleteActor], now: clock::wall() })
                        .await
                };
                self.exclusive(actor, deadline, write).await?;
                Ok(Answer::Done)
            }
        }
    }

    /// One more reminder than an actor may have is refused before it is proposed.
    async fn check_room(&self, actor: &ActorKey, ops: &[ActorOp]) -> Result<(), Error> {
        let limit = self.common.limits.reminders_per_actor;
        for op in ops {
            if let ActorOp::PutReminder { name, .. } = op
                && self.reminder(actor, name)?.is_none()
                && self.scan_reminders(Some(actor.clone()), None, limit).await?.len() >= limit
            {
                return Err(Error::TooManyReminders(limit));
            }
        }
        Ok(())
    }
}
