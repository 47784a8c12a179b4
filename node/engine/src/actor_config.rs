//! What an app says about its actors: the `/dapr/config` document, and what it means for each type.
//!
//! The document is written by six SDKs and by hand, so it is read with tolerance: unknown members and the case of keys
//! do not matter, `null` and `""` mean "not given", `entities` may be null (Go without actors), Java spells
//! `drainBalancedActors`. The rules are Dapr's:
//!
//! | member | default | per-type block (`entitiesConfig`) |
//! |---|---|---|
//! | `actorIdleTimeout` | 60m | replaces: absent there means 60m, whatever the document says |
//! | `drainOngoingCallTimeout` | 2s | replaces likewise |
//! | `reentrancy` `{enabled, maxStackDepth}` | off, 32 | replaces likewise |
//! | `drainRebalancedActors` | true | ignored: the document's value holds for every type |
//! | `actorScanInterval`, `remindersStoragePartitions` | | ignored, whatever they hold |
//!
//! A document that is no JSON object, or has a member of the wrong type, hosts nothing and warns. A bad duration at the
//! top fails the registration; in a per-type block it warns and the default holds. Of two blocks for one type the last
//! counts; a block for a type that is not in `entities` counts for nothing.
//!
//! The drain time is taken as given: Dapr's clamp to four fifths of its dissemination timeout guards a round that stops
//! the world, which does not exist here. Zero durations are taken as given too: a type may ask to be idle at once.
//!
//! The `digest` is a pure function of the effective configuration, so that nodes whose apps spell one configuration
//! differently gossip the same one.
//!
//! *Deliberately absent:* fetching the document, and what a status other than 200 means (no types: [`HostedTypes::none`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard_types::Class;
use xxhash_rust::xxh3::Xxh3;

use crate::duration::{self, parse_go_duration};
use crate::json::{self, Fields};
use crate::names;

pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
pub const DEFAULT_MAX_STACK_DEPTH: u32 = 32;

/// How many actor types one app may host.
pub const MAX_TYPES: usize = 1_024;

/// How many warnings a document produces at most.
pub const MAX_WARNINGS: usize = 32;

/// Why the registration of an app's types fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid {field}: {source}")]
    Duration { field: &'static str, source: duration::Error },
    #[error("an app hosts at most {MAX_TYPES} actor types, not {0}")]
    TooManyTypes(usize),
}

impl Error {
    /// The app has to change.
    pub fn class(&self) -> Class {
        Class::Rejected
    }
}

/// Whether a call chain may re-enter an actor, and how deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reentrancy {
    pub enabled: bool,
    /// Concurrent entries of one chain in one actor; at least 1.
    pub max_stack_depth: u32,
}

impl Default for Reentrancy {
    fn default() -> Self {
        Self { enabled: false, max_stack_depth: DEFAULT_MAX_STACK_DEPTH }
    }
}

/// What holds for one actor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeConfig {
    /// An activation ends this long after its last turn began.
    pub idle_timeout: Duration,
    /// How long a move waits for a running turn.
    pub drain_timeout: Duration,
    /// `false`: a move waits for no turn.
    pub drain_rebalanced: bool,
    pub reentrancy: Reentrancy,
}

impl Default for TypeConfig {
    fn default() -> Self {
        Self {
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            drain_rebalanced: true,
            reentrancy: Reentrancy::default(),
        }
    }
}

/// The actor types of an app, each with what holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostedTypes {
    pub types: BTreeMap<Arc<str>, TypeConfig>,
    /// What the document holds that has no effect, for the log.
    pub warnings: Vec<String>,
    /// Equal for equal `types`, on every node and build.
    pub digest: u64,
}

impl HostedTypes {
    /// An app without actors.
    pub fn none() -> Self {
        Self::new(BTreeMap::new(), Vec::new())
    }

    /// Hosted types from another source than the document.
    pub fn new(types: BTreeMap<Arc<str>, TypeConfig>, warnings: Vec<String>) -> Self {
        let digest = digest(&types);
        Self { types, warnings, digest }
    }
}

impl Default for HostedTypes {
    fn default() -> Self {
        Self::none()
    }
}

/// Reads the answer to `GET /dapr/config`.
///
/// # Errors
///
/// A bad duration at the top of the document, or too many types: the app then hosts nothing.
pub fn parse(body: &[u8]) -> Result<HostedTypes, Error> {
    match Document::parse(body) {
        Ok(document) => document.effective(),
        Err(error) => {
            let warning = format!("the actor configuration of the app is not understood, it hosts no actors: {error}");
            Ok(HostedTypes::new(BTreeMap::new(), vec![warning]))
        }
    }
}

/// The document as written.
struct Document {
    entities: Vec<String>,
    settings: Settings,
    drain_rebalanced: bool,
    blocks: Vec<(Vec<String>, Settings)>,
}

/// What the top of the document and a per-type block both hold. Durations are unread texts.
struct Settings {
    idle: Option<String>,
    drain: Option<String>,
    reentrancy: Option<(bool, Option<i64>)>,
}

const IDLE: &str = "actorIdleTimeout";
const DRAIN: &str = "drainOngoingCallTimeout";

impl Document {
    fn parse(body: &[u8]) -> Result<Self, json::Error> {
        let fields = Fields::parse(body)?;
        let block = |block: Fields<'_>| Ok((block.strings("entities")?, Settings::parse(&block)?));
        let drain_rebalanced = match fields.bool("drainRebalancedActors")? {
            None => fields.bool("drainBalancedActors")?,
            some => some,
        };
        Ok(Self {
            entities: fields.strings("entities")?,
            settings: Settings::parse(&fields)?,
            drain_rebalanced: drain_rebalanced.unwrap_or(true),
            blocks: fields.objects("entitiesConfig")?.into_iter().map(block).collect::<Result<_, json::Error>>()?,
        })
    }

    fn effective(self) -> Result<HostedTypes, Error> {
        let mut warnings = Warnings::default();
        let top = self.settings.top(self.drain_rebalanced, &mut warnings)?;
        let mut types: BTreeMap<Arc<str>, TypeConfig> = BTreeMap::new();
        for name in self.entities {
            match names::check_type(&name) {
                Ok(()) => {
                    types.insert(name.into(), top);
                }
                Err(error) => warnings.add(format!("an actor type of the app is not hosted: {error}")),
            }
        }
        if types.len() > MAX_TYPES {
            return Err(Error::TooManyTypes(types.len()));
        }
        for (entities, settings) in self.blocks {
            let config = settings.of_block(&entities, self.drain_rebalanced, &mut warnings);
            for name in entities {
                match types.get_mut(name.as_str()) {
                    Some(of_type) => *of_type = config,
                    None => warnings.add(format!("entitiesConfig names {:?}, which entities does not", short(&name))),
                }
            }
        }
        Ok(HostedTypes::new(types, warnings.0))
    }
}

impl Settings {
    fn parse(fields: &Fields<'_>) -> Result<Self, json::Error> {
        let text = |field| Ok::<_, json::Error>(fields.string(field)?.filter(|text| !text.is_empty()));
        let reentrancy = match fields.object("reentrancy")? {
            None => None,
            Some(object) => Some((object.bool("enabled")?.unwrap_or(false), object.integer("maxStackDepth")?)),
        };
        Ok(Self { idle: text(IDLE)?, drain: text(DRAIN)?, reentrancy })
    }

    /// A bad duration is an error.
    fn top(&self, drain_rebalanced: bool, warnings: &mut Warnings) -> Result<TypeConfig, Error> {
        let read = |field, text: &Option<String>, default| match text {
            None => Ok(default),
            Some(text) => parse_go_duration(text).map_err(|source| Error::Duration { field, source }),
        };
        Ok(TypeConfig {
            idle_timeout: read(IDLE, &self.idle, DEFAULT_IDLE_TIMEOUT)?,
            drain_timeout: read(DRAIN, &self.drain, DEFAULT_DRAIN_TIMEOUT)?,
            drain_rebalanced,
            reentrancy: self.reentrancy(warnings),
        })
    }

    /// A bad duration is the default.
    fn of_block(&self, entities: &[String], drain_rebalanced: bool, warnings: &mut Warnings) -> TypeConfig {
        let mut read = |field, text: &Option<String>, default| {
            let Some(text) = text else { return default };
            parse_go_duration(text).unwrap_or_else(|error| {
                let types = short(&entities.join(", "));
                warnings.add(format!("invalid {field} of {types}, the default holds: {error}"));
                default
            })
        };
        TypeConfig {
            idle_timeout: read(IDLE, &self.idle, DEFAULT_IDLE_TIMEOUT),
            drain_timeout: read(DRAIN, &self.drain, DEFAULT_DRAIN_TIMEOUT),
            drain_rebalanced,
            reentrancy: self.reentrancy(warnings),
        }
    }

    fn reentrancy(&self, warnings: &mut Warnings) -> Reentrancy {
        let Some((enabled, depth)) = self.reentrancy else { return Reentrancy::default() };
        let max_stack_depth = match depth {
            None => DEFAULT_MAX_STACK_DEPTH,
            Some(depth) => u32::try_from(depth).ok().filter(|depth| *depth > 0).unwrap_or_else(|| {
                warnings.add(format!("maxStackDepth cannot be {depth}, the default of 32 holds"));
                DEFAULT_MAX_STACK_DEPTH
            }),
        };
        Reentrancy { enabled, max_stack_depth }
    }
}

#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn add(&mut self, warning: String) {
        if self.0.len() < MAX_WARNINGS {
            self.0.push(warning);
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(names::MAX_NAME).collect()
}

fn digest(types: &BTreeMap<Arc<str>, TypeConfig>) -> u64 {
    let mut hasher = Xxh3::new();
    for (name, config) in types {
        let TypeConfig { idle_timeout, drain_timeout, drain_rebalanced, reentrancy } = config;
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&idle_timeout.as_nanos().to_le_bytes());
        hasher.update(&drain_timeout.as_nanos().to_le_bytes());
        hasher.update(&[u8::from(*drain_rebalanced), u8::from(reentrancy.enabled)]);
        hasher.update(&reentrancy.max_stack_depth.to_le_bytes());
    }
    hasher.digest()
}

/// Fuzz body: no document panics, and none hosts a type that cannot be named.
pub fn fuzz_config(data: &[u8]) {
    let Ok(hosted) = parse(data) else { return };
    assert!(hosted.types.len() <= MAX_TYPES && hosted.warnings.len() <= MAX_WARNINGS);
    for (name, config) in &hosted.types {
        assert!(names::check_type(name).is_ok() && config.reentrancy.max_stack_depth > 0);
    }
}

#[cfg(test)]
#[path = "actor_config/actor_config_test.rs"]
mod tests;
