//! What other nodes ask of this one, by the kind of their calls.

use std::sync::Arc;

use bytes::Bytes;
use callboard_proto::calls as wire;
use callboard_raft::Groups;
use callboard_types::{Class, Epoch, NodeId, PartitionId};
use prost::Message;

use super::meta::{MALFORMED, Meta};
use super::{form, status};
use crate::actors::Actors;
use crate::calls::report;
use crate::host::serve::{HostDoor, Refused};
use crate::owner::hosts::Hosts;
use crate::peer::{Call, Failure, Handlers, Kind};

/// Code of a refusal whose detail says the rest.
const DETAILED: u32 = 3;

/// The part that a node serves from the moment its groups are open: others may need its votes before it does anything
/// else.
pub fn groups(groups: &Groups, meta: &Meta) -> Handlers {
    let (raft, propose, follow, join) = (groups.clone(), meta.clone(), meta.clone(), (meta.clone(), groups.clone()));
    Handlers::new()
        .on(Kind::Raft, move |call: Call| {
            let groups = raft.clone();
            async move { groups.receive(call.body).await.map_err(|error| failed(Class::Busy, error.to_string())) }
        })
        .on(Kind::Propose, move |call: Call| {
            let meta = propose.clone();
            async move { meta.proposed(call.body).await }
        })
        .on_cancellable(Kind::Meta, move |call: Call| {
            let meta = follow.clone();
            async move { meta.followed(call.body).await }
        })
        .on(Kind::Join, move |call: Call| {
            let (meta, groups) = join.clone();
            async move { form::take_in(meta, groups, call.body).await }
        })
}

/// The road of actor calls.
pub fn road(handlers: Handlers, door: HostDoor, hosts: Hosts, actors: Actors) -> Handlers {
    let door = Arc::new(door);
    let with = |door: &Arc<HostDoor>| door.clone();
    let (dispatch, deactivate, seal, retoken, quiet, hosted) =
        (with(&door), with(&door), with(&door), with(&door), with(&door), with(&door));
    let (asked, pinged, sealed, handed) = (actors.clone(), actors.clone(), actors.clone(), actors);
    handlers
        .on_cancellable(Kind::Ask, move |call: Call| {
            let actors = asked.clone();
            async move { actors.asked(call.body).await.map_err(detailed) }
        })
        .on(Kind::Dispatch, move |call: Call| {
            let door = dispatch.clone();
            async move { door.dispatch(call.from.node, call.body).await.map_err(refused) }
        })
        .on(Kind::Deactivate, move |call: Call| {
            let door = deactivate.clone();
            async move { door.deactivate(call.body).await.map_err(refused) }
        })
        .on(Kind::Seal, move |call: Call| {
            let (door, actors) = (seal.clone(), sealed.clone());
            async move {
                // Who seals has claimed: nobody knows sooner where the owner is.
                if let Ok(message) = wire::Seal::decode(call.body.clone()) {
                    let (partition, epoch) = (PartitionId(message.partition), Epoch(message.epoch));
                    actors.whereabouts().learn(partition, epoch, call.from.node);
                }
                door.seal(call.body).map_err(refused)
            }
        })
        .on(Kind::Retoken, move |call: Call| {
            let door = retoken.clone();
            async move { door.retoken(call.from.node, call.body).map_err(refused) }
        })
        .on_cancellable(Kind::Quiet, move |call: Call| {
            let door = quiet.clone();
            async move { door.quiet(call.body).await.map_err(refused) }
        })
        .on(Kind::Hosted, move |_call: Call| {
            let door = hosted.clone();
            async move { Ok(door.hosted()) }
        })
        .on(Kind::HostPing, move |call: Call| {
            let (actors, hosts) = (pinged.clone(), hosts.clone());
            async move { pong(&actors, &hosts, call.from.node, call.body) }
        })
        .on(Kind::Handing, move |call: Call| {
            let actors = handed.clone();
            async move {
                let message =
                    wire::Handing::decode(call.body).map_err(|error| failed(Class::Rejected, error.to_string()))?;
                match actors.owners().get(PartitionId(message.partition)) {
                    Some(owner) => owner.expect(Epoch(message.epoch)),
                    None => return Err(failed(Class::Rejected, "the partition is not held here".to_owned())),
                }
                Ok(wire::Nothing {}.encode_to_vec().into())
            }
        })
}

/// What is asked on behalf of people: rows, signs of life of partitions, and what this node says of itself.
pub fn operate(handlers: Handlers, groups: &Groups, actors: Actors) -> Handlers {
    let (listed, proved, groups) = (actors.clone(), actors.clone(), groups.clone());
    handlers
        .on_cancellable(Kind::Scan, move |call: Call| {
            let actors = listed.clone();
            async move { actors.listed(call.body).await.map_err(detailed) }
        })
        .on_cancellable(Kind::Prove, move |call: Call| {
            let actors = proved.clone();
            async move { actors.proved(call.body).await.map_err(detailed) }
        })
        .on(Kind::Admin, move |_call: Call| {
            let report = report::put(&status::of_this_node(&groups, actors.owners()));
            async move { Ok(report.encode_to_vec().into()) }
        })
}

/// A host's sign of life: answered with what this node owns at this moment.
fn pong(actors: &Actors, hosts: &Hosts, host: NodeId, body: Bytes) -> Result<Bytes, Failure> {
    let ping = wire::Ping::decode(body).map_err(|error| failed(Class::Rejected, error.to_string()))?;
    hosts.pinged(host, ping.session);
    let owned = actors.owners().all().into_iter().filter(|owner| owner.confirm(host)).map(|owner| owner.id().0);
    Ok(wire::Pong { partitions: owned.collect() }.encode_to_vec().into())
}

fn failed(class: Class, text: String) -> Failure {
    Failure { class, code: MALFORMED, text, detail: Bytes::new() }
}

fn detailed(detail: Bytes) -> Failure {
    Failure { class: Class::Rejected, code: DETAILED, text: String::new(), detail }
}

fn refused(refused: Refused) -> Failure {
    match refused {
        Refused::Detail(detail) => detailed(detail),
        Refused::Malformed(text) => failed(Class::Rejected, text),
    }
}
