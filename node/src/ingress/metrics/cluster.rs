//! Numbers of this node as one of its cluster: its replicas, what goes to other nodes and comes from them, and turns.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use callboard_raft::{GroupStatus, ReplicaRole};
use callboard_types::GroupId;

use super::{Metrics, head, line};
use crate::actors::{Actors, Owners};
use crate::cluster::Running;
use crate::cluster::status::group_name;

/// Adds them.
pub fn expose(metrics: &Arc<Metrics>, actors: &Actors, cluster: &Running) {
    let (owners, groups) = (actors.owners().clone(), cluster.placing.groups.clone());
    metrics.register(move |out| replicas(out, &groups.statuses(), &owners));
    let moves = cluster.moves.clone();
    metrics.computed(
        "callboard_moves_in_flight",
        "Groups of the cluster that are on their way to other nodes.",
        move || i64::try_from(moves.count()).unwrap_or(i64::MAX),
    );
    let road = actors.clone();
    metrics.register(move |out| calls(out, &road));
    let peers = cluster.peers.clone();
    metrics.register(move |out| links(out, &peers.counters()));
    let membership = cluster.membership.clone();
    metrics.register(move |out| gossip(out, &membership));
}

/// One line per replica of this node, for each number.
fn replicas(out: &mut String, statuses: &[GroupStatus], owners: &Owners) {
    let mut each = |name: &str, help: &str, value: &dyn Fn(&GroupStatus) -> Option<(&'static str, f64)>| {
        head(out, name, help, "gauge");
        for status in statuses {
            if let Some((more, value)) = value(status) {
                let group = group_name(status.group);
                // Writing to a String does not fail.
                let _ = writeln!(out, "{name}{{partition=\"{group}\"{more}}} {value}");
            }
        }
    };
    let owner = |status: &GroupStatus| match status.group {
        GroupId::Meta => None,
        GroupId::Partition(partition) => owners.get(partition),
    };
    each("callboard_partition_role", "The replica's part in its group, as a label.", &|status| {
        Some((role(status.role), 1.0))
    });
    each("callboard_partition_epoch", "The epoch at which this node owns the partition.", &|status| {
        Some(("", owner(status)?.reign().ok()?.epoch().0 as f64))
    });
    each("callboard_partition_applied_index", "The last entry of the log that this replica has applied.", &|status| {
        Some(("", status.applied as f64))
    });
    each(
        "callboard_partition_lease_age_seconds",
        "How long ago a quorum last answered, where this node leads.",
        &|status| Some(("", status.quorum_ack.filter(|_| status.is_leader())?.as_secs_f64())),
    );
    each(
        "callboard_partition_queue_depth",
        "Calls that wait for their turn, where this node is the owner.",
        &|status| Some(("", owner(status)?.counts()?.waiting as f64)),
    );
}

const fn role(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Leader => ",role=\"leader\"",
        ReplicaRole::Candidate => ",role=\"candidate\"",
        ReplicaRole::Follower => ",role=\"follower\"",
        ReplicaRole::Learner => ",role=\"learner\"",
    }
}

fn calls(out: &mut String, actors: &Actors) {
    const TURNS: &str = "callboard_turn_seconds";
    const REFUSED: &str = "callboard_mailbox_rejections_total";
    let counters = actors.counters();
    head(out, TURNS, "Time from asking for a turn to the app's answer, of this node's callers.", "histogram");
    counters.turns.render(out, TURNS, "");
    let (sent, taken) = (counters.asked_of_others(), counters.asked_by_others());
    line(out, "callboard_calls_forwarded_total", "Asked of owners on other nodes.", "counter", sent);
    line(out, "callboard_calls_taken_total", "Asked of owners here by other nodes.", "counter", taken);
    head(out, REFUSED, "What mailboxes refused to this node's callers.", "counter");
    for (reason, count) in counters.refusals() {
        let _ = writeln!(out, "{REFUSED}{{reason=\"{reason}\"}} {count}");
    }
}

fn links(out: &mut String, counters: &crate::peer::Counters) {
    for (name, help, value) in [
        ("frames_sent", "Frames sent to other nodes.", counters.frames_sent),
        ("frames_received", "Frames received from other nodes.", counters.frames_received),
        ("batches_sent", "Messages that carried the frames sent.", counters.batches_sent),
        ("batches_received", "Messages that carried the frames received.", counters.batches_received),
        ("bytes_sent", "Bytes of the messages sent.", counters.bytes_sent),
        ("bytes_received", "Bytes of the messages received.", counters.bytes_received),
        ("links_dialled", "Links made by dialling.", counters.links_dialled),
        ("reconnects", "Links that replaced a lost one.", counters.reconnects),
        ("dials_failed", "Attempts that made no link.", counters.dials_failed),
        ("links_accepted", "Links accepted.", counters.links_accepted),
        ("strangers", "Links refused as a stranger's, by either side.", counters.strangers),
        ("links_too_many", "Connections and links beyond a limit.", counters.links_too_many),
        ("links_lost", "Links that ended other than by being closed.", counters.links_lost),
        ("calls_busy", "Calls refused since too many were worked on.", counters.calls_busy),
        ("calls_not_sent", "Calls that did not leave this node.", counters.calls_not_sent),
        ("calls_lost", "Calls whose link ended before their answer.", counters.calls_lost),
        ("calls_timed_out", "Calls without an answer in time.", counters.calls_timed_out),
        ("violations", "Frames that broke the protocol.", counters.violations),
    ] {
        line(out, &format!("callboard_peer_{name}_total"), help, "counter", value);
    }
}

fn gossip(out: &mut String, membership: &crate::membership::Membership) {
    let counters = membership.counters();
    for (name, help, value) in [
        ("datagrams_sent", "Datagrams sent.", &counters.datagrams_sent),
        ("datagrams_received", "Datagrams received.", &counters.datagrams_received),
        ("bytes_sent", "Bytes of the datagrams sent.", &counters.bytes_sent),
        ("bytes_received", "Bytes of the datagrams received.", &counters.bytes_received),
        ("messages_received", "Messages of other nodes that were understood.", &counters.messages_received),
        ("send_failed", "Datagrams that the network refused.", &counters.send_failed),
        ("forged", "Datagrams with a missing or wrong tag.", &counters.forged),
        ("malformed", "Datagrams that are no gossip, or beyond a limit.", &counters.malformed),
        ("other_cluster", "Datagrams of another cluster.", &counters.other_cluster),
        ("restarts", "Times that gossip ended by itself and was started again.", &counters.restarts),
    ] {
        line(out, &format!("callboard_gossip_{name}_total"), help, "counter", value.load(Ordering::Relaxed));
    }
    let view = membership.view().borrow().clone();
    let up = view.nodes().filter(|report| view.is_up(report.node)).count();
    line(out, "callboard_nodes_up", "Nodes that this one hears, itself included.", "gauge", up);
}
