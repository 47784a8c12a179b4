//! Who holds a port: best effort, for the one line that tells the user what to stop.
//!
//! Reads `/proc`: the listening socket's inode from `net/tcp{,6}`, then the process that has it open. Processes of other
//! users hide their descriptors, so the answer is often "unknown" without root, never an error.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// State column of a listening socket.
const LISTEN: &str = "0A";
/// Bytes of a command line that are shown.
const MAX_COMMAND: usize = 120;

/// A process, as the user knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// The process that listens on `port` at an address that conflicts with `ip`.
pub fn of_port(ip: IpAddr, port: u16) -> Option<Holder> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| listening_inode(&table, ip, port))?;
    let target = format!("socket:[{inode}]");
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| has_open(*pid, &target)).map(|pid| Holder { pid, command: command_of(pid) })
}

/// The command line of `pid`, shortened; empty when it is gone.
pub fn command_of(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = raw.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let line = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ");
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(MAX_COMMAND) {
        Some((cut, _)) => format!("{}...", &line[..cut]),
        None => line,
    }
}

/// When `pid` started, in clock ticks since boot: with the pid it names one process for good. `None` once it has ended,
/// even if nobody has collected it yet.
pub fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may itself hold any character. After it comes the state; the
    // start time is field 22.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") { None } else { fields.nth(18)?.parse().ok() }
}

fn has_open(pid: u32, target: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(target)))
}

fn listening_inode(table: &str, ip: IpAddr, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (address, held) = columns.get(1)?.split_once(':')?;
        let conflict = columns.get(3) == Some(&LISTEN)
            && u16::from_str_radix(held, 16).ok()? == port
            && parse_ip(address).is_some_and(|held| conflicts(held, ip));
        if conflict { columns.get(9)?.parse().ok() } else { None }
    })
}

/// Whether a listener at one address keeps another from listening at the other, on the same port.
fn conflicts(held: IpAddr, wanted: IpAddr) -> bool {
    let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    held == wanted
        || held == any6
        || wanted == any6
        || (held.is_ipv4() == wanted.is_ipv4() && (held.is_unspecified() || wanted.is_unspecified()))
}

/// The kernel prints addresses as hexadecimal 32-bit words in the machine's byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    if hex.len() == 8 {
        return Some(IpAddr::V4(Ipv4Addr::from(word(0)?)));
    }
    let bytes: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let ip = Ipv6Addr::from(bytes);
    Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_listener_is_found_under_its_pid() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = of_port(IpAddr::V4(Ipv4Addr::LOCALHOST), port).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.command.is_empty());
        drop(listener);
        assert_eq!(of_port(IpAddr::V4(Ipv4Addr::LOCALHOST), port), None);
    }

    #[test]
    fn an_address_of_the_kernel_is_read_in_its_byte_order() {
        assert_eq!(parse_ip("0100007F"), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(parse_ip("00000000000000000000000001000000"), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(parse_ip("0000000000000000FFFF00000100007F"), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(parse_ip("0100"), None);
    }

    #[test]
    fn an_unspecified_listener_conflicts_with_every_address_of_its_family() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(conflicts(ip("0.0.0.0"), ip("127.0.0.1")));
        assert!(conflicts(ip("::"), ip("127.0.0.1")));
        assert!(!conflicts(ip("127.0.0.1"), ip("127.0.0.2")));
        assert!(!conflicts(ip("127.0.0.1"), ip("::1")));
    }

    #[test]
    fn the_start_time_of_a_process_does_not_change_and_a_dead_pid_has_none() {
        let own = std::process::id();
        assert!(started(own).is_some());
        assert_eq!(started(own), started(own));
        assert_eq!(started(u32::MAX), None);
    }

    #[test]
    fn a_process_that_has_ended_has_no_start_time_though_nobody_has_collected_it() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(started(child.id()).is_some());
        drop(child.stdin.take());
        while started(child.id()).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
