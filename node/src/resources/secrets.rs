//! Secret stores: where a `secretKeyRef` finds its text.
//!
//! Two kinds, those that need nothing but this machine: `secretstores.local.env`, the variables of the node's own
//! environment, and `secretstores.local.file`, a JSON file that is read once, at start. A resource names its store in
//! `auth.secretStore`; there is no default one. Every other kind is reported and ignored.
//!
//! In a file, `nestedSeparator` (`:`) joins the names on the way to a text, as in `redis:password`. With `multiValued`
//! a secret is an entry of the file, and its key what leads on from there.
//!
//! What cannot be found is an error that names the reference and never a text: whoever asks must not go on without it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::document::{ComponentSpec, Document, EnvVars, SecretKeyRef, is_truthy, may_be_read};

const ENV: &str = "secretstores.local.env";
const FILE: &str = "secretstores.local.file";

/// Gives the content of a file.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> std::io::Result<String>;

/// The texts of one secret, by key.
type Texts = BTreeMap<String, String>;

enum Store {
    Env { prefix: String },
    File(BTreeMap<String, Texts>),
}

/// The secret stores by name; one that cannot be used holds the reason.
#[derive(Default)]
pub(super) struct Secrets(BTreeMap<String, Result<Store, String>>);

/// Whether the document is a secret store of any kind.
pub(super) fn is_store(document: &Document) -> bool {
    document.kind == "Component" && document.spec_type().is_some_and(|kind| kind.starts_with("secretstores."))
}

impl Secrets {
    pub fn take(&mut self, document: Document, env: EnvVars, read: Read<'_>) -> Result<(), String> {
        let name = document.metadata.name.clone();
        let store = document.spec().and_then(|spec: ComponentSpec| match spec.kind.as_str() {
            ENV => Ok(Store::Env { prefix: spec.setting("prefix", env)?.unwrap_or_default() }),
            FILE => file(&spec, env, read).map(Store::File),
            kind => Err(format!("secret stores of type {kind} are not known here, {ENV} and {FILE} are")),
        });
        let taken = store.as_ref().map(|_| ()).map_err(Clone::clone);
        self.0.insert(name, store);
        taken
    }

    /// The text of a secret, never an empty one.
    pub fn find(&self, store: Option<&str>, reference: &SecretKeyRef, env: EnvVars) -> Result<String, String> {
        let (name, key) = (&reference.name, reference.key());
        let store = store.ok_or_else(|| format!("secret {name:?}: the resource names no auth.secretStore"))?;
        let text = match self.0.get(store) {
            Some(Ok(Store::Env { prefix })) if key == name => Some(format!("{prefix}{name}"))
                .filter(|variable| may_be_read(variable))
                .and_then(|variable| env(&variable)),
            Some(Ok(Store::Env { .. })) => None,
            Some(Ok(Store::File(secrets))) => secrets.get(name).and_then(|texts| texts.get(key)).cloned(),
            Some(Err(why)) => return Err(format!("secret {name:?}: store {store:?} cannot be used: {why}")),
            None => return Err(format!("secret {name:?}: there is no secret store {store:?}")),
        };
        let text = text.filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("secret {name:?}: store {store:?} has no text under the key {key:?}"))
    }
}

fn file(spec: &ComponentSpec, env: EnvVars, read: Read<'_>) -> Result<BTreeMap<String, Texts>, String> {
    let path = spec.setting("secretsFile", env)?.ok_or("secretsFile is missing")?;
    let separator = spec.setting("nestedSeparator", env)?.unwrap_or_else(|| ":".to_owned());
    let multi_valued = spec.setting("multiValued", env)?.is_some_and(|text| is_truthy(&text));
    let text = read(Path::new(&path)).map_err(|why| format!("read {path}: {why}"))?;
    let root: BTreeMap<String, Value> = serde_json::from_str(&text).map_err(|why| format!("{path}: {why}"))?;
    let mut secrets = BTreeMap::<String, Texts>::new();
    for (name, value) in &root {
        let mut texts = Texts::new();
        // Within its entry a text of many keys is named from there on; a lone one is named as the entry is.
        let is_nested = value.is_object() || value.is_array();
        flatten(if multi_valued && is_nested { "" } else { name }, value, &separator, &mut texts);
        if multi_valued {
            secrets.insert(name.clone(), texts);
        } else {
            secrets.extend(texts.into_iter().map(|(name, text)| (name.clone(), Texts::from([(name, text)]))));
        }
    }
    Ok(secrets)
}

/// Every text below `value`, by the names that lead there.
fn flatten(at: &str, value: &Value, separator: &str, texts: &mut Texts) {
    let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}{separator}{name}") };
    match value {
        Value::Null => {}
        Value::Bool(flag) => drop(texts.insert(at.to_owned(), flag.to_string())),
        Value::Number(number) => drop(texts.insert(at.to_owned(), number.to_string())),
        Value::String(text) => drop(texts.insert(at.to_owned(), text.clone())),
        Value::Array(values) => {
            for (n, value) in values.iter().enumerate() {
                flatten(&below(&n.to_string()), value, separator, texts);
            }
        }
        Value::Object(values) => {
            for (name, value) in values {
                flatten(&below(name), value, separator, texts);
            }
        }
    }
}
