//! Reads single flags: text into typed values, and a mistake instead of a value where that cannot be.
//!
//! A reading that fails returns the default and goes on, so that every mistake is found; whoever reads last looks at
//! `mistakes` before using anything.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use callboard_engine::quantity;

use super::env::Env;
use super::flags::Given;
use super::mistakes::Mistakes;
use super::persona::Persona;
use crate::config::{self, Port};

/// Bytes of a name that goes into paths and records.
pub const MAX_NAME: usize = 128;

/// A command line being read.
pub struct Reader<'a> {
    pub given: &'a Given,
    pub env: &'a Env,
    pub persona: Persona,
    pub mistakes: Mistakes,
    /// To be logged when logging works.
    pub notices: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(given: &'a Given, env: &'a Env, persona: Persona) -> Self {
        Self { given, env, persona, mistakes: Mistakes::default(), notices: Vec::new() }
    }

    /// A name that becomes part of a path.
    pub fn name(&mut self, flag: &str, default: &str) -> String {
        if self.given.is_blank(flag) {
            self.blank(flag);
        }
        let name = self.given.text(flag).unwrap_or(default).to_owned();
        if !name.is_empty() && path_safe(&name) != name {
            let problem = format!(
                "not a name: letters, digits, '-', '_' and '.', not starting with '.', at most {MAX_NAME} bytes"
            );
            self.mistakes.add(format!("--{flag} {name:?}"), problem);
        }
        name
    }

    pub fn paths(&self, flag: &str) -> Vec<PathBuf> {
        self.given.list(flag).into_iter().map(PathBuf::from).collect()
    }

    /// `None` when the flag is absent. `-1` and `0` ask for any free port.
    pub fn port(&mut self, flag: &str) -> Option<Port> {
        match self.given.text(flag)?.parse::<i64>() {
            Ok(-1 | 0) => Some(Port::preferred(0)),
            Ok(number) if u16::try_from(number).is_ok_and(|n| n > 0) => u16::try_from(number).ok().map(Port::fixed),
            Ok(_) | Err(_) => {
                self.bad(flag, "not a port: give a number from 1 to 65535, or 0 for any free one");
                None
            }
        }
    }

    /// `None` when the flag is absent.
    pub fn addresses(&mut self, flag: &str) -> Option<Vec<IpAddr>> {
        let values = self.given.list(flag);
        let mut addresses = Vec::new();
        for value in &values {
            let bare = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
            match bare.parse::<IpAddr>() {
                Ok(ip) => addresses.push(ip),
                Err(_) if bare.eq_ignore_ascii_case("localhost") => addresses.extend(config::loopback()),
                Err(_) => {
                    self.mistakes.add(format!("--{flag} {value}"), "not an IP address: write for example 127.0.0.1");
                }
            }
        }
        let mut seen = BTreeSet::new();
        addresses.retain(|ip| seen.insert(*ip));
        // An unspecified address contains every other of its family, which could then not be bound.
        let any = |ip: IpAddr| match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        addresses.retain(|ip| *ip == any(*ip) || !seen.contains(&any(*ip)));
        (!values.is_empty()).then_some(addresses)
    }

    /// A quantity, or the older flag's number of `unit` bytes.
    pub fn size(&mut self, flag: &str, older: &str, unit: u64, default: u64) -> u64 {
        if let Some(text) = self.given.text(flag) {
            return match quantity::parse(text) {
                Ok(0) | Err(_) => {
                    self.bad(flag, "not a size: write for example 4Mi or 500k");
                    default
                }
                Ok(bytes) => bytes,
            };
        }
        let number: i64 = self.number(older, -1);
        u64::try_from(number).ok().filter(|n| *n > 0).map_or(default, |n| n.saturating_mul(unit))
    }

    pub fn number<T: std::str::FromStr>(&mut self, flag: &str, default: T) -> T {
        match self.given.text(flag).map(str::parse) {
            None => default,
            Some(Ok(number)) => number,
            Some(Err(_)) => {
                self.bad(flag, "not a number this flag can take");
                default
            }
        }
    }

    pub fn switch(&mut self, flag: &str, default: bool) -> bool {
        match self.given.text(flag).map(parse_bool) {
            None => default,
            Some(Some(value)) => value,
            Some(None) => {
                self.bad(flag, "write true or false");
                default
            }
        }
    }

    /// A name that is given and empty would stand for the default, and so for another node's app or data.
    pub fn blank(&mut self, flag: &str) {
        self.mistakes.add(format!("--{flag}"), "empty: give a value, or leave the flag out");
    }

    pub fn bad(&mut self, flag: &str, problem: &str) {
        let value = self.given.text(flag).unwrap_or_default();
        self.mistakes.add(format!("--{flag} {value}"), problem);
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `name` with everything replaced that a folder's name should not have.
pub fn path_safe(name: &str) -> String {
    let safe = |(at, c): (usize, char)| match c {
        c if c.is_ascii_alphanumeric() || c == '-' || c == '_' => c,
        '.' if at > 0 => '.',
        _ => '_',
    };
    name.chars().take(MAX_NAME).enumerate().map(safe).collect()
}
