//! One YAML document of a resource file: the envelope that all kinds share, and the specs that are looked into.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Reader;

/// Looks a variable of the environment up.
pub type EnvVars = fn(&str) -> Option<String>;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    #[serde(default)]
    pub api_version: String,
    pub kind: String,
    #[serde(default)]
    pub metadata: Metadata,
    #[serde(default)]
    spec: serde_yaml_ng::Value,
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    #[serde(default)]
    auth: Option<Auth>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Auth {
    #[serde(default)]
    secret_store: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Metadata {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub namespace: String,
}

/// A value given in place, or by reference.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Value {
    #[serde(default)]
    value: Option<serde_yaml_ng::Value>,
    #[serde(default)]
    secret_key_ref: Option<SecretKeyRef>,
    #[serde(default)]
    env_ref: Option<String>,
}

/// A secret of a store, and which of its texts; without `key` the one of the secret's own name.
#[derive(Debug, Clone, Deserialize)]
pub struct SecretKeyRef {
    pub name: String,
    #[serde(default)]
    key: String,
}

impl SecretKeyRef {
    pub fn key(&self) -> &str {
        if self.key.is_empty() { &self.name } else { &self.key }
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct NameValue {
    pub name: String,
    #[serde(flatten)]
    pub value: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct ComponentSpec {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    metadata: Option<Vec<NameValue>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ConfigurationSpec {
    #[serde(default)]
    pub features: Option<Vec<Feature>>,
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_yaml_ng::Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Feature {
    pub name: String,
    #[serde(default)]
    pub enabled: bool,
}

/// The documents of a file: separated by lines that are `---`.
pub(super) fn split(text: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_end();
        if trimmed == "---" || trimmed.starts_with("--- ") {
            documents.push(&text[start..at]);
            start = at + line.len();
        }
        at += line.len();
    }
    documents.push(&text[start..]);
    documents
}

impl Document {
    /// `None` for a document of nothing but comments.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        if value.is_null() {
            return Ok(None);
        }
        let document: Document = serde_yaml_ng::from_value(value).map_err(|error| error.to_string())?;
        if document.metadata.name.is_empty() {
            return Err(format!("a {} without metadata.name", document.kind));
        }
        Ok(Some(document))
    }

    pub(super) fn is_for(&self, reader: Reader<'_>) -> bool {
        let namespace = &self.metadata.namespace;
        let elsewhere = reader.namespace.is_some_and(|own| !namespace.is_empty() && own != namespace);
        let scoped = self.scopes.as_deref().unwrap_or_default();
        !elsewhere && (scoped.is_empty() || scoped.iter().any(|app| app == reader.app_id))
    }

    /// `spec.type`, of a component.
    pub(super) fn spec_type(&self) -> Option<&str> {
        self.spec.get("type")?.as_str()
    }

    /// The store that its secrets are in.
    pub(super) fn secret_store(&self) -> Option<&str> {
        self.auth.as_ref().map(|auth| auth.secret_store.as_str()).filter(|name| !name.is_empty())
    }

    pub(super) fn spec<T: DeserializeOwned>(self) -> Result<T, String> {
        let spec = if self.spec.is_null() { serde_yaml_ng::Mapping::new().into() } else { self.spec };
        serde_yaml_ng::from_value(spec).map_err(|error| error.to_string())
    }
}

impl Value {
    /// The secret that it stands for.
    pub fn secret(&self) -> Option<&SecretKeyRef> {
        self.secret_key_ref.as_ref()
    }

    /// The text, if it is given in place or by the environment. A scalar that is no string counts as it is written.
    pub fn text(&self, env: EnvVars) -> Result<Option<String>, String> {
        if self.secret_key_ref.is_some() {
            return Err("a secretKeyRef has no meaning here".to_owned());
        }
        if let Some(name) = &self.env_ref {
            if !may_be_read(name) {
                return Err(format!("envRef may not name {name}"));
            }
            return Ok(Some(env(name).unwrap_or_default()));
        }
        let Some(value) = &self.value else { return Ok(None) };
        if let Some(text) = value.as_str() {
            return Ok(Some(text.to_owned()));
        }
        if value.is_bool() || value.is_number() {
            return serde_yaml_ng::to_string(value)
                .map(|text| Some(text.trim_end().to_owned()))
                .map_err(|e| e.to_string());
        }
        if value.is_null() { Ok(None) } else { serde_json::to_string(value).map(Some).map_err(|e| e.to_string()) }
    }
}

/// Whether a resource may take this variable of the environment: the tokens of the node are not its to use.
pub(super) fn may_be_read(variable: &str) -> bool {
    variable != "APP_API_TOKEN" && !variable.starts_with("DAPR_")
}

impl ComponentSpec {
    /// A setting of the component.
    pub(super) fn setting(&self, name: &str, env: EnvVars) -> Result<Option<String>, String> {
        let item = self.metadata.iter().flatten().find(|item| item.name.eq_ignore_ascii_case(name));
        item.map_or(Ok(None), |item| item.value.text(env))
    }

    /// Whether it asks to be the actor state store.
    pub(super) fn is_actor_store(&self, env: EnvVars) -> bool {
        let mark = self.setting("actorStateStore", env).ok().flatten();
        self.kind.starts_with("state.") && mark.is_some_and(|mark| is_truthy(&mark))
    }
}

/// What counts as yes in metadata values.
pub fn is_truthy(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "y" | "yes" | "true" | "t" | "on" | "1")
}

/// Replaces `$NAME` and `${NAME}` by the environment's values, nothing by the empty string.
pub(super) fn expand(text: &str, env: EnvVars) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, tail) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, tail)) => (name, tail),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if name.is_empty() {
            expanded.push('$');
        } else {
            expanded.push_str(&env(name).unwrap_or_default());
        }
        rest = tail;
    }
    expanded.push_str(rest);
    expanded
}
