//! Binds every listener of a node before anything else starts, so that nobody takes a port in between.
//!
//! A port the user gave is bound or is an error that names its holder. A default is tried, and a free one is taken in
//! its place; the same number must be free on every address of that API. Explicit ports go first, so that no default
//! moves onto one of them, and a default never moves onto the app's port. A machine without IPv6 serves IPv4 alone.
//!
//! Deliberately absent: accepting. The listeners are non-blocking and listening: connections made before the node
//! accepts wait in the kernel's queue.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use super::holder;
use crate::config::{Config, Port};
use crate::node::BoundPorts;

/// Connections that may wait to be accepted, per listener.
const BACKLOG: i32 = 1_024;
/// Free numbers tried until one is free on all addresses.
const ATTEMPTS: usize = 64;

/// Every listener of the node, ready to accept.
#[derive(Debug)]
pub struct Bound {
    /// One per listen address, all on `ports.http`.
    pub http: Vec<TcpListener>,
    pub grpc: Vec<TcpListener>,
    pub peer: Vec<TcpListener>,
    /// Empty with `--enable-metrics=false`.
    pub metrics: Vec<TcpListener>,
    /// Serves only health and metadata.
    pub public: Vec<TcpListener>,
    /// With `--unix-domain-socket`.
    pub http_unix: Option<UnixSocket>,
    pub grpc_unix: Option<UnixSocket>,
    pub ports: BoundPorts,
    /// Defaults that were taken: what to tell the user.
    pub moved: Vec<Moved>,
}

/// A listener on a file, which goes with it.
#[derive(Debug)]
pub struct UnixSocket {
    pub listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // It may have been removed by hand: there is nothing left to do then.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A default port that was in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub flag: &'static str,
    pub from: u16,
    pub to: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--{flag} {port}: {address} is in use by {by}; stop it or give another port")]
    Taken { flag: &'static str, port: u16, address: SocketAddr, by: String },
    #[error("--{flag} {port}: cannot listen on {address}: {source}")]
    Refused { flag: &'static str, port: u16, address: SocketAddr, source: io::Error },
    #[error("--{flag}: no address of this machine among {addresses:?}; give one that `ip addr` shows")]
    NoAddress { flag: &'static str, addresses: Vec<IpAddr> },
    #[error("--{flag}: no port found that is free on all of {addresses:?}; give one with the flag")]
    NoneFree { flag: &'static str, addresses: Vec<IpAddr> },
    #[error("--unix-domain-socket: cannot listen on {path}: {source}")]
    Unix { path: PathBuf, source: io::Error },
}

/// One API of the node: which port, on which addresses.
struct Door<'a> {
    flag: &'static str,
    port: Port,
    addresses: &'a [IpAddr],
}

impl Door<'_> {
    fn bind(&self, avoid: &[u16]) -> Result<Vec<TcpListener>, Error> {
        if self.port.explicit {
            return self.bind_at(self.port.number);
        }
        if self.port.number != 0 && !avoid.contains(&self.port.number) {
            match self.bind_at(self.port.number) {
                Err(Error::Taken { .. }) => {}
                other => return other,
            }
        }
        for _ in 0..ATTEMPTS {
            let number = self.free_number()?;
            if avoid.contains(&number) {
                continue;
            }
            match self.bind_at(number) {
                Err(Error::Taken { .. }) => {}
                other => return other,
            }
        }
        Err(Error::NoneFree { flag: self.flag, addresses: self.addresses.to_vec() })
    }

    /// A number the kernel finds free on the first usable address.
    fn free_number(&self) -> Result<u16, Error> {
        let listeners = self.bind_at(0)?;
        Ok(listeners.first().and_then(|listener| listener.local_addr().ok()).map_or(0, |addr| addr.port()))
    }

    /// Listens on `number` on each address the machine has. With number 0, the addresses differ in their numbers.
    fn bind_at(&self, number: u16) -> Result<Vec<TcpListener>, Error> {
        let mut listeners = Vec::new();
        for ip in self.addresses {
            let address = SocketAddr::new(*ip, number);
            match listen(address) {
                Ok(listener) => listeners.push(listener),
                Err(error) if lacks_address(&error) && self.addresses.len() > 1 => {}
                Err(error) => return Err(self.refused(address, error)),
            }
        }
        if listeners.is_empty() {
            return Err(Error::NoAddress { flag: self.flag, addresses: self.addresses.to_vec() });
        }
        Ok(listeners)
    }

    fn refused(&self, address: SocketAddr, source: io::Error) -> Error {
        let (flag, port) = (self.flag, address.port());
        if source.kind() == io::ErrorKind::AddrInUse {
            let by = holder::of_port(address.ip(), port).map_or("another user's process".into(), |by| by.to_string());
            Error::Taken { flag, port, address, by }
        } else if lacks_address(&source) {
            Error::NoAddress { flag, addresses: self.addresses.to_vec() }
        } else {
            Error::Refused { flag, port, address, source }
        }
    }
}

/// Binds what `config` asks for.
///
/// # Errors
///
/// An explicit port is taken, or an address is not one of this machine.
pub fn bind(config: &Config) -> Result<Bound, Error> {
    let listen = config.http.listen.as_slice();
    let doors = [
        Some(Door { flag: "dapr-http-port", port: config.ports.http, addresses: listen }),
        Some(Door { flag: "dapr-grpc-port", port: config.ports.grpc, addresses: listen }),
        Some(Door { flag: "dapr-internal-grpc-port", port: config.ports.peer, addresses: &config.peer_listen }),
        config.ports.metrics.map(|port| Door { flag: "metrics-port", port, addresses: &config.metrics_listen }),
    ];
    let mut avoid: Vec<u16> = config.app.iter().map(|app| app.port).collect();
    let mut bound: [Vec<TcpListener>; 4] = Default::default();
    let public = bind_public(&config.http.public)?;
    for explicit in [true, false] {
        for (slot, door) in bound.iter_mut().zip(&doors) {
            if let Some(door) = door.as_ref().filter(|door| door.port.explicit == explicit) {
                *slot = door.bind(&avoid)?;
                avoid.extend(number_of(slot));
            }
        }
    }
    let moved = doors.iter().flatten().zip(bound.iter().filter(|slot| !slot.is_empty())).filter_map(|(door, slot)| {
        let to = number_of(slot)?;
        (to != door.port.number && door.port.number != 0).then_some(Moved {
            flag: door.flag,
            from: door.port.number,
            to,
        })
    });
    let moved = moved.collect();
    let (http_unix, grpc_unix) = match &config.http.unix_dir {
        Some(dir) => (Some(bind_unix(dir, &config.app_id, "http")?), Some(bind_unix(dir, &config.app_id, "grpc")?)),
        None => (None, None),
    };
    let [http, grpc, peer, metrics] = bound;
    let number = |slot: &[TcpListener]| number_of(slot).unwrap_or_default();
    let ports =
        BoundPorts { http: number(&http), grpc: number(&grpc), peer: number(&peer), metrics: number_of(&metrics) };
    Ok(Bound { http, grpc, peer, metrics, public, http_unix, grpc_unix, ports, moved })
}

fn bind_public(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Error> {
    let Some(first) = addresses.first() else { return Ok(Vec::new()) };
    let ips: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
    Door { flag: "dapr-public-port", port: Port::fixed(first.port()), addresses: &ips }.bind(&[])
}

/// `<dir>/dapr-<app id>-<api>.socket`, as Dapr's SDKs look for it. A file that nobody answers on is left from a crash.
fn bind_unix(dir: &Path, app_id: &str, api: &str) -> Result<UnixSocket, Error> {
    let path = dir.join(format!("dapr-{app_id}-{api}.socket"));
    let bind = || {
        std::fs::create_dir_all(dir)?;
        if UnixStream::connect(&path).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AddrInUse));
        }
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    match bind() {
        Ok(listener) => Ok(UnixSocket { listener, path }),
        Err(source) => Err(Error::Unix { path, source }),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last run's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn number_of(listeners: &[TcpListener]) -> Option<u16> {
    listeners.first()?.local_addr().ok().map(|address| address.port())
}

/// The machine does not have this address, or not this family.
fn lacks_address(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

#[cfg(test)]
#[path = "ports_test.rs"]
mod ports_test;
