//! What a node's file says, and how it is written.

use callboard_types::{ClusterId, NodeId, Timestamp};
use serde::{Deserialize, Serialize};

/// Of the file; another one is a node of another version, which is not understood and left alone.
const FORMAT: u32 = 1;

/// A node of this user on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub node: NodeId,
    pub name: String,
    pub pid: u32,
    /// When it started, by the wall clock.
    pub started: Timestamp,
    /// `host:port` where peers reach it, best one first.
    pub peer: Vec<String>,
    /// `None` while it has not joined or formed one.
    pub cluster: Option<ClusterId>,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    node: String,
    name: String,
    pid: u32,
    started_micros: i64,
    peer: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let file = File {
            format: FORMAT,
            node: self.node.to_string(),
            name: self.name.clone(),
            pid: self.pid,
            started_micros: self.started.as_micros(),
            peer: self.peer.clone(),
            cluster: self.cluster.map(|id| id.to_string()),
        };
        let mut text = serde_json::to_vec_pretty(&file).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// `None`: not written by this version.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let file: File = serde_json::from_slice(text).ok()?;
        if file.format != FORMAT {
            return None;
        }
        let cluster = match file.cluster {
            Some(text) => Some(ClusterId(u128::from_str_radix(&text, 16).ok()?)),
            None => None,
        };
        Some(Self {
            node: NodeId(u64::from_str_radix(&file.node, 16).ok()?),
            name: file.name,
            pid: file.pid,
            started: Timestamp::from_micros(file.started_micros),
            peer: file.peer,
            cluster,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            node: NodeId(0x1f),
            name: "cat \"1\"".into(),
            pid: 7,
            started: Timestamp(5),
            peer: vec!["127.0.0.1:50002".into(), "[::1]:50002".into()],
            cluster: Some(ClusterId(u128::MAX)),
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        assert_eq!(Entry::decode(&entry().encode()), Some(entry()));
        let without = Entry { cluster: None, ..entry() };
        assert_eq!(Entry::decode(&without.encode()), Some(without));
    }

    #[test]
    fn what_is_no_entry_is_none() {
        let text = String::from_utf8(entry().encode()).unwrap();
        let broken = [
            String::new(),
            "{".into(),
            text.replace("\"format\": 1", "\"format\": 2"),
            text.replace("000000000000001f", "cat"),
            text.replace("ffffffffffffffffffffffffffffffff", "fffffffffffffffffffffffffffffffff"),
            text[..text.len() / 2].to_owned(),
        ];
        for text in broken {
            assert_eq!(Entry::decode(text.as_bytes()), None, "{text}");
        }
    }
}
