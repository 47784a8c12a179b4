//! How a node with an empty data directory comes to a cluster: it makes one, or joins one that is there.
//!
//! ```text
//!   --join A,B          asks A and B, again and again, until one of them takes it in
//!   --standalone        makes a cluster
//!   neither             looks for nodes of this cluster's name and this user on this machine; joins the one it finds,
//!                       else makes the cluster. A lock lets one node at a time do this
//! ```
//!
//! A node that has data belongs to its cluster for good and never comes here.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use callboard_machine::meta::{MetaCommand, MetaResponse, NodeRecord, Role, Settings};
use callboard_proto::calls as wire;
use callboard_raft::{Groups, MetaAt, MetaUpdate, Storable};
use callboard_types::{Class, ClusterId, NodeId};
use prost::Message;

use super::meta::{MALFORMED, Meta};
use crate::clock;
use crate::config::NodeRole;
use crate::discovery::{Entry, FormingGuard, Local, Registration};
use crate::peer::{Failure, Identity, Kind, Peers};

/// One node is asked for this long before the next one is.
const JOIN_LIMIT: Duration = Duration::from_secs(20);
/// Between two rounds of asking everybody.
const JOIN_AGAIN: Duration = Duration::from_millis(500);
/// How often the log says that nobody has answered yet.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// How long another node of this machine may take to form the cluster.
const FORMING_PATIENCE: Duration = Duration::from_secs(60);

/// Code of a refusal to take a node in.
const REFUSED: u32 = 2;

/// What forming needs to know.
pub struct Forming<'a> {
    pub node: NodeId,
    pub groups: &'a Groups,
    pub peers: &'a Peers,
    pub settings: Settings,
    pub record: NodeRecord,
    /// `None`: who makes the cluster holds it; who joins holds nothing before its app has actors.
    pub role: Option<NodeRole>,
    pub join: &'a [String],
    /// `None` with `--standalone`.
    pub local: Option<&'a Local>,
}

impl Forming<'_> {
    /// Comes to a cluster if the node has none, and shows itself to the others on this machine.
    pub async fn enter(&self) -> anyhow::Result<Option<Registration>> {
        if !self.groups.is_empty() {
            return self.show(None);
        }
        if !self.join.is_empty() {
            self.join_any(self.join).await?;
            return self.show(None);
        }
        let Some(local) = self.local else {
            self.bootstrap().await?;
            return Ok(None);
        };
        let guard =
            local.forming(FORMING_PATIENCE).await.context("look for other nodes of the cluster on this machine")?;
        let others: Vec<_> = local.peers().into_iter().filter(|entry| entry.cluster.is_some()).collect();
        match others.is_empty() {
            true => self.bootstrap().await?,
            false => {
                let addresses: Vec<_> = others.into_iter().flat_map(|entry| entry.peer).collect();
                tracing::info!(
                    ?addresses,
                    "a cluster of this name runs on this machine: joining it (--standalone: never)"
                );
                self.join_any(&addresses).await?;
            }
        }
        self.show(Some(guard))
    }

    async fn bootstrap(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.role != Some(NodeRole::Gateway),
            "--role gateway: a gateway holds no data and joins a cluster that does; give --join, or leave the role out"
        );
        let record = NodeRecord { role: Role::Storage, ..self.record.clone() };
        let made = self.groups.bootstrap(self.settings.clone(), record, clock::wall());
        made.await.context("make the cluster")?;
        // Before anybody joins: a node that is not alone any more cannot bring its own log to an end by itself.
        self.groups.flush().await.context("make the cluster")?;
        self.belong();
        Ok(())
    }

    /// Registers the node with this machine's others; the forming lock is let go after that.
    fn show(&self, guard: Option<FormingGuard>) -> anyhow::Result<Option<Registration>> {
        self.belong();
        let Some(local) = self.local else { return Ok(None) };
        let entry = Entry {
            node: self.node,
            name: self.record.name.clone(),
            pid: std::process::id(),
            started: clock::wall(),
            peer: vec![self.record.address.clone()],
            cluster: self.groups.meta().state().cluster,
        };
        let registration = local.register(&entry).context("show this node to others on this machine")?;
        drop(guard);
        Ok(Some(registration))
    }

    /// From here on the links belong to the node's cluster.
    fn belong(&self) {
        let state = self.groups.meta().state();
        let known = self.peers.identity();
        let identity = Identity { cluster: state.cluster, generation: state.generation, ..known.as_ref().clone() };
        if identity != *known {
            self.peers.identify(identity);
        }
    }

    /// Asks every address, again and again, until a node takes this one in.
    async fn join_any(&self, addresses: &[String]) -> anyhow::Result<()> {
        let request = wire::Join {
            node: self.node.0,
            cluster_name: self.settings.name.clone(),
            name: self.record.name.clone(),
            zone: self.record.zone.clone(),
            storage: self.role == Some(NodeRole::Storage),
            incarnation: self.record.incarnation,
            address: self.record.address.clone(),
        };
        let body = Bytes::from(request.encode_to_vec());
        let mut said = None;
        loop {
            let mut last = String::new();
            for address in addresses {
                let answer = self.peers.call_address(address, Kind::Join, body.clone(), JOIN_LIMIT).await;
                let joined = match answer {
                    Ok((_, answer)) => self.adopt(answer).await,
                    Err(crate::peer::PeerError::Refused(failure)) if failure.code == REFUSED => {
                        anyhow::bail!("{address} does not take this node in: {}", failure.text)
                    }
                    Err(error) => Err(anyhow::anyhow!("{error}")),
                };
                match joined {
                    Ok(cluster) => {
                        tracing::info!(%address, %cluster, "joined the cluster");
                        return Ok(());
                    }
                    Err(error) => last = format!("{address}: {error:#}"),
                }
            }
            let now = clock::monotonic();
            if said.is_none_or(|said| now.saturating_since(said) >= SAY_AGAIN) {
                tracing::info!(last, "no node of the cluster has answered yet; asking again");
                said = Some(now);
            }
            tokio::time::sleep(JOIN_AGAIN).await;
        }
    }

    async fn adopt(&self, answer: Bytes) -> anyhow::Result<ClusterId> {
        let update = MetaUpdate::decode(&wire::Joined::decode(answer)?.update)?;
        self.groups.adopt(update).await?;
        let cluster = self.groups.meta().state().cluster.context("the node has no cluster itself")?;
        self.belong();
        Ok(cluster)
    }
}

/// Another node asks to be taken in.
pub async fn take_in(meta: Meta, groups: Groups, body: Bytes) -> Result<Bytes, Failure> {
    let refused = |class, code, text: String| Failure { class, code, text, detail: Bytes::new() };
    let join = wire::Join::decode(body).map_err(|error| refused(Class::Rejected, MALFORMED, error.to_string()))?;
    let state = meta.state();
    let Some(settings) = &state.settings else {
        return Err(refused(Class::Busy, MALFORMED, "this node has no cluster yet".to_owned()));
    };
    if settings.name != join.cluster_name {
        let text = format!("this is cluster {:?}, not {:?}", settings.name, join.cluster_name);
        return Err(refused(Class::Rejected, REFUSED, text));
    }
    let node = NodeId(join.node);
    let known = state.nodes.get(&node);
    let record = NodeRecord {
        name: join.name,
        role: if join.storage || known.is_some_and(|known| known.role == Role::Storage) {
            Role::Storage
        } else {
            Role::Gateway
        },
        zone: join.zone,
        incarnation: join.incarnation,
        address: join.address,
        leaving: false,
    };
    match meta.propose(MetaCommand::PutNode { node, record }).await {
        Ok(MetaResponse::Done) => {}
        Ok(MetaResponse::Rejected(why)) => return Err(refused(Class::Rejected, REFUSED, why.to_string())),
        Err(error) => return Err(refused(Class::Busy, MALFORMED, error.to_string())),
    }
    let update = groups.meta_update(MetaAt::default(), Duration::ZERO).await;
    Ok(wire::Joined { update: update.encode() }.encode_to_vec().into())
}
