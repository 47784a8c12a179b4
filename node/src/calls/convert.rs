//! The messages of `calls.proto` and the values they stand for.
//!
//! Writing cannot fail. Reading checks everything that the program relies on: identities are whole, numbers in range,
//! heads and URIs such as HTTP allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::Instant;
use callboard_engine::actor_config::{HostedTypes, Reentrancy, TypeConfig};
use callboard_engine::guard::{SealReport, SealedActivation, SealedTurn};
use callboard_engine::mailbox::ReentrancyId;
use callboard_machine::partition::{ActorCommand, Reminder, StateValue};
use callboard_proto::calls as wire;
use callboard_raft::Storable;
use callboard_types::{
    Activation, ActorKey, ClusterId, Epoch, FencingToken, NodeId, PartitionId, Timestamp, WriteNumber,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};

use super::{Answer, Ask, TickRef, TurnKind};
use crate::owner::AppCall;

/// Why a message means nothing.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is out of range")]
    Range(&'static str),
    #[error("{what}: {why}")]
    Malformed { what: &'static str, why: String },
}

pub(super) fn need<T>(what: &'static str, field: Option<T>) -> Result<T, Invalid> {
    field.ok_or(Invalid::Missing(what))
}

pub(super) fn malformed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Invalid {
    move |error| Invalid::Malformed { what, why: error.to_string() }
}

/// Milliseconds, rounded up so that a wait never becomes none; the largest span stands for "never".
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

pub fn span(millis: u64) -> Duration {
    if millis == u64::MAX { Duration::MAX } else { Duration::from_millis(millis) }
}

pub fn put_actor(actor: &ActorKey) -> wire::ActorKey {
    wire::ActorKey {
        namespace: actor.namespace.as_ref().into(),
        actor_type: actor.actor_type.as_ref().into(),
        actor_id: actor.actor_id.as_ref().into(),
    }
}

pub fn get_actor(actor: Option<wire::ActorKey>) -> Result<ActorKey, Invalid> {
    let actor = need("actor", actor)?;
    if actor.actor_type.is_empty() || actor.actor_id.is_empty() {
        return Err(Invalid::Missing("actor type or id"));
    }
    Ok(ActorKey::new(actor.namespace, actor.actor_type, actor.actor_id))
}

pub fn put_token(token: &FencingToken) -> wire::Token {
    wire::Token {
        generation: token.generation,
        partition: token.partition.0,
        epoch: token.epoch.0,
        activation: token.activation.0,
    }
}

/// A token names no cluster: strangers have no link.
pub fn get_token(cluster: ClusterId, token: Option<wire::Token>) -> Result<FencingToken, Invalid> {
    let token = need("token", token)?;
    Ok(FencingToken {
        cluster,
        generation: token.generation,
        partition: PartitionId(token.partition),
        epoch: Epoch(token.epoch),
        activation: Activation(token.activation),
    })
}

pub fn put_chain(chain: Option<&ReentrancyId>) -> Option<String> {
    chain.map(|chain| chain.as_str().to_owned())
}

pub fn get_chain(chain: Option<String>) -> Option<ReentrancyId> {
    chain.map(ReentrancyId::from)
}

fn put_headers(headers: &HeaderMap) -> Vec<wire::Header> {
    let header = |(name, value): (&HeaderName, &HeaderValue)| wire::Header {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    headers.iter().map(header).collect()
}

fn get_headers(headers: Vec<wire::Header>) -> Result<HeaderMap, Invalid> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(malformed("header name"))?;
        let value = HeaderValue::from_maybe_shared(header.value).map_err(malformed("header value"))?;
        map.try_append(name, value).map_err(malformed("headers"))?;
    }
    Ok(map)
}

pub fn put_request(call: &AppCall) -> wire::AppRequest {
    wire::AppRequest {
        path_and_query: call.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: put_headers(&call.headers),
        body: call.body.clone(),
    }
}

pub fn get_request(request: Option<wire::AppRequest>) -> Result<AppCall, Invalid> {
    let request = need("request", request)?;
    let uri = Uri::try_from(request.path_and_query).map_err(malformed("path"))?;
    Ok(AppCall { uri, headers: get_headers(request.headers)?, body: request.body })
}

pub fn put_response(response: Response<Bytes>) -> wire::AppResponse {
    let (head, body) = response.into_parts();
    wire::AppResponse { status: u32::from(head.status.as_u16()), headers: put_headers(&head.headers), body }
}

pub fn get_response(response: wire::AppResponse) -> Result<Response<Bytes>, Invalid> {
    let status = u16::try_from(response.status).map_err(|_| Invalid::Range("status"))?;
    let mut answer = Response::new(response.body);
    *answer.status_mut() = StatusCode::from_u16(status).map_err(malformed("status"))?;
    *answer.headers_mut() = get_headers(response.headers)?;
    Ok(answer)
}

pub fn put_tick(tick: &TickRef) -> wire::Tick {
    wire::Tick { node: tick.node.0, name: tick.name.clone(), instance: tick.instance, occurrence: tick.occurrence }
}

pub fn get_tick(tick: wire::Tick) -> TickRef {
    TickRef { node: NodeId(tick.node), name: tick.name, instance: tick.instance, occurrence: tick.occurrence }
}

pub fn put_ask(actor: &ActorKey, ask: &Ask) -> wire::Ask {
    use wire::ask::Ask as Asked;
    let asked = match ask {
        Ask::Turn { kind, chain, call, patience } => {
            let (kind, tick) = match kind {
                TurnKind::Call => (wire::turn::Kind::Call, None),
                TurnKind::Timer(tick) => (wire::turn::Kind::Timer, Some(put_tick(tick))),
            };
            Asked::Turn(wire::Turn {
                kind: kind.into(),
                chain: put_chain(chain.as_ref()),
                request: Some(put_request(call)),
                patience_ms: millis(*patience),
                tick,
            })
        }
        Ask::Commit { author, ops, now } => {
            // The epoch is the owner's to say; the record needs one.
            let (token, number) = author.map_or((None, 0), |(token, number)| (Some(put_token(&token)), number.0));
            let command =
                ActorCommand { epoch: Epoch::NONE, actor: actor.clone(), write: None, now: *now, ops: ops.clone() };
            Asked::Commit(wire::Commit { token, number, command: command.encode() })
        }
        Ask::State { key } => Asked::State(key.clone()),
        Ask::Reminder { name } => Asked::Reminder(name.clone()),
        Ask::Reminders { limit } => Asked::Reminders(*limit as u64),
        Ask::Delete { patience } => Asked::Delete(wire::Delete { patience_ms: millis(*patience) }),
    };
    wire::Ask { actor: Some(put_actor(actor)), ask: Some(asked) }
}

pub fn get_ask(cluster: ClusterId, message: wire::Ask) -> Result<(ActorKey, Ask), Invalid> {
    use wire::ask::Ask as Asked;
    let actor = get_actor(message.actor)?;
    let ask = match need("ask", message.ask)? {
        Asked::Turn(turn) => {
            let kind = match (turn.kind(), turn.tick) {
                (wire::turn::Kind::Call, None) => TurnKind::Call,
                (wire::turn::Kind::Timer, Some(tick)) => TurnKind::Timer(get_tick(tick)),
                (wire::turn::Kind::Call, Some(_)) | (wire::turn::Kind::Timer, None) => {
                    return Err(Invalid::Missing("timer"));
                }
            };
            let call = Arc::new(get_request(turn.request)?);
            Ask::Turn { kind, chain: get_chain(turn.chain), call, patience: span(turn.patience_ms) }
        }
        Asked::Commit(commit) => {
            let author = match commit.token {
                Some(token) => Some((get_token(cluster, Some(token))?, WriteNumber(commit.number))),
                None => None,
            };
            let command = ActorCommand::decode(&commit.command).map_err(malformed("command"))?;
            if command.actor != actor {
                return Err(Invalid::Missing("the actor of the command"));
            }
            Ask::Commit { author, ops: command.ops, now: command.now }
        }
        Asked::State(key) => Ask::State { key },
        Asked::Reminder(name) => Ask::Reminder { name },
        Asked::Reminders(limit) => Ask::Reminders { limit: usize::try_from(limit).unwrap_or(usize::MAX) },
        Asked::Delete(delete) => Ask::Delete { patience: span(delete.patience_ms) },
    };
    Ok((actor, ask))
}

pub fn put_answer(answer: Answer) -> wire::Answer {
    use wire::answer::Answer as Answered;
    let answered = match answer {
        Answer::Response(response) => Answered::Response(put_response(response)),
        Answer::Done => Answered::Done(wire::Nothing {}),
        Answer::State(value) => Answered::State(match value {
            Some(StateValue { value, expires_at }) => {
                wire::State { value: Some(value), expires_at: expires_at.map(Timestamp::as_micros) }
            }
            None => wire::State { value: None, expires_at: None },
        }),
        Answer::Reminder(reminder) => {
            Answered::Reminder(reminder.map_or_else(Bytes::new, |reminder| reminder.encode()))
        }
        Answer::Reminders(reminders) => Answered::Reminders(wire::Reminders {
            reminders: reminders
                .into_iter()
                .map(|(name, reminder)| wire::NamedReminder { name, reminder: reminder.encode() })
                .collect(),
        }),
    };
    wire::Answer { answer: Some(answered) }
}

pub fn get_answer(message: wire::Answer) -> Result<Answer, Invalid> {
    use wire::answer::Answer as Answered;
    let reminder = |record: &Bytes| Reminder::decode(record).map_err(malformed("reminder"));
    Ok(match need("answer", message.answer)? {
        Answered::Response(response) => Answer::Response(get_response(response)?),
        Answered::Done(wire::Nothing {}) => Answer::Done,
        Answered::State(state) => Answer::State(
            state.value.map(|value| StateValue { value, expires_at: state.expires_at.map(Timestamp::from_micros) }),
        ),
        Answered::Reminder(record) if record.is_empty() => Answer::Reminder(None),
        Answered::Reminder(record) => Answer::Reminder(Some(reminder(&record)?)),
        Answered::Reminders(reminders) => {
            let named = |named: wire::NamedReminder| Ok((named.name, reminder(&named.reminder)?));
            Answer::Reminders(reminders.reminders.into_iter().map(named).collect::<Result<_, Invalid>>()?)
        }
    })
}

/// An instant goes as the time that is left until it.
pub fn put_instant(at: Instant, now: Instant) -> u64 {
    if at == Instant::MAX { u64::MAX } else { millis(at.saturating_since(now)) }
}

pub fn get_instant(millis: u64, now: Instant) -> Instant {
    if millis == u64::MAX { Instant::MAX } else { now.saturating_add(span(millis)) }
}

pub fn put_report(report: &SealReport, now: Instant) -> wire::SealReport {
    let activations = report.activations.iter().map(|one| wire::Activation {
        actor: Some(put_actor(&one.actor)),
        token: one.token.as_ref().map(put_token),
        idle_ms: put_instant(one.idle_deadline, now),
    });
    let running = report
        .running
        .iter()
        .map(|turn| wire::RunningTurn { actor: Some(put_actor(&turn.actor)), chain: put_chain(turn.chain.as_ref()) });
    wire::SealReport { activations: activations.collect(), running: running.collect() }
}

pub fn get_report(cluster: ClusterId, report: wire::SealReport, now: Instant) -> Result<SealReport, Invalid> {
    let activation = |one: wire::Activation| {
        let token = one.token.map(|token| get_token(cluster, Some(token))).transpose()?;
        let idle_deadline = get_instant(one.idle_ms, now);
        Ok(SealedActivation { actor: get_actor(one.actor)?, token, idle_deadline })
    };
    let turn = |turn: wire::RunningTurn| Ok(SealedTurn { actor: get_actor(turn.actor)?, chain: get_chain(turn.chain) });
    Ok(SealReport {
        activations: report.activations.into_iter().map(activation).collect::<Result<_, Invalid>>()?,
        running: report.running.into_iter().map(turn).collect::<Result<_, Invalid>>()?,
    })
}

pub fn put_hosted(hosted: &HostedTypes) -> wire::Hosted {
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).ok();
    let types = hosted.types.iter().map(|(name, config)| wire::HostedType {
        name: name.as_ref().into(),
        idle_ns: nanos(config.idle_timeout),
        drain_ns: nanos(config.drain_timeout),
        drain_rebalanced: config.drain_rebalanced,
        reentrant: config.reentrancy.enabled,
        max_stack_depth: config.reentrancy.max_stack_depth,
    });
    wire::Hosted { types: types.collect() }
}

pub fn get_hosted(hosted: wire::Hosted) -> HostedTypes {
    let span = |nanos: Option<u64>| nanos.map_or(Duration::MAX, Duration::from_nanos);
    let types: BTreeMap<Arc<str>, TypeConfig> = hosted
        .types
        .into_iter()
        .map(|one| {
            let config = TypeConfig {
                idle_timeout: span(one.idle_ns),
                drain_timeout: span(one.drain_ns),
                drain_rebalanced: one.drain_rebalanced,
                reentrancy: Reentrancy { enabled: one.reentrant, max_stack_depth: one.max_stack_depth.max(1) },
            };
            (one.name.into(), config)
        })
        .collect();
    HostedTypes::new(types, Vec::new())
}
