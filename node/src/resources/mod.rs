//! YAML resources and Configuration files: what of Dapr's files has a meaning here.
//!
//! Read once, at start. An HTTPEndpoint becomes a name that invocations may use. A Component that is marked as the
//! actor state store stands for the built-in store and is shown under its name; one that is a local secret store gives
//! HTTPEndpoints their secrets, wherever it stands; every other Component, and every kind that is not known, is named in
//! the log and ignored, since the public demo folders are full of Redis and Kafka files. A Resiliency is known by name
//! only. A Configuration contributes its features.
//!
//! A resource is skipped when its scopes name other apps, or when its namespace and the node's are both set and differ.
//! Two resources of one kind and name, an unreadable folder and a broken Configuration are errors; a broken document
//! in a resource folder is reported and skipped, as the reference does.
//!
//! Deliberately absent: hot reload, and secret stores that are reached over the network (`secrets`).

mod document;
mod endpoint;
mod secrets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use document::{Document, EnvVars, NameValue, Value, is_truthy};
pub use endpoint::HttpEndpoint;
use secrets::Secrets;

/// What the resource files said.
#[derive(Debug, Default)]
pub struct Resources {
    pub endpoints: Vec<Arc<HttpEndpoint>>,
    /// The Component that names the built-in actor store, if one does.
    pub actor_store: Option<Component>,
    /// Names of Resiliency resources.
    pub resiliencies: Vec<String>,
    /// Features that Configuration files enable.
    pub features: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    pub name: String,
    pub kind: String,
    pub version: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read resources from {}: {why}", path.display())]
    Read { path: PathBuf, why: std::io::Error },
    #[error("the {kind} resource {name:?} is defined twice, the second time in {}", path.display())]
    Duplicate { kind: String, name: String, path: PathBuf },
    #[error("the configuration {} cannot be read: {why}", path.display())]
    Configuration { path: PathBuf, why: String },
}

/// Who reads: decides which resources are meant for it.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    pub app_id: &'a str,
    /// `NAMESPACE`, if the environment sets it.
    pub namespace: Option<&'a str>,
    /// The environment, for `envRef` and for variables in Configuration files.
    pub env: EnvVars,
}

impl Resources {
    /// Reads all resource folders and Configuration files.
    pub fn load(folders: &[PathBuf], configurations: &[PathBuf], reader: Reader<'_>) -> Result<Self, Error> {
        let mut found = Found::default();
        for folder in folders {
            for path in yaml_files(folder)? {
                let text = std::fs::read_to_string(&path).map_err(|why| Error::Read { path: path.clone(), why })?;
                found.take_file(&text, &path, reader)?;
            }
        }
        let mut resources = Resources::of(found, reader, &|path| std::fs::read_to_string(path));
        resources.features = features(configurations, reader.env)?;
        Ok(resources)
    }

    pub fn endpoint(&self, name: &str) -> Option<&Arc<HttpEndpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.name == name)
    }

    /// `read` gives the file of a secret store.
    fn of(found: Found, reader: Reader<'_>, read: secrets::Read<'_>) -> Self {
        let mut resources = Resources::default();
        let (stores, others): (Vec<_>, Vec<_>) =
            found.documents.into_iter().partition(|(_, one)| secrets::is_store(one));
        let mut secrets = Secrets::default();
        for (path, document) in stores {
            let (kind, name) = (document.kind.clone(), document.metadata.name.clone());
            reported(secrets.take(document, reader.env, read), &path, &kind, &name);
        }
        for (path, document) in others {
            let (kind, name) = (document.kind.clone(), document.metadata.name.clone());
            reported(resources.take(document, reader, &secrets), &path, &kind, &name);
        }
        resources
    }

    fn take(&mut self, document: Document, reader: Reader<'_>, secrets: &Secrets) -> Result<(), String> {
        let name = document.metadata.name.clone();
        match document.kind.as_str() {
            "HTTPEndpoint" => HttpEndpoint::from_document(document, reader.env, secrets)
                .map(|endpoint| self.endpoints.push(Arc::new(endpoint))),
            "Component" => self.take_component(document, reader.env),
            "Resiliency" => {
                tracing::warn!(name, "Resiliency policies are not applied: calls use the built-in retries");
                self.resiliencies.push(name);
                Ok(())
            }
            "Configuration" => {
                tracing::debug!(name, "a Configuration in a resource folder counts only when --config names it");
                Ok(())
            }
            kind => Err(format!("resources of kind {kind} are not known here")),
        }
    }

    fn take_component(&mut self, document: Document, env: EnvVars) -> Result<(), String> {
        let name = document.metadata.name.clone();
        let component: document::ComponentSpec = document.spec()?;
        if !component.is_actor_store(env) {
            return Err(format!("components of type {} have no meaning here", component.kind));
        }
        if let Some(store) = &self.actor_store {
            return Err(format!("{} is already the actor state store, {name} cannot be a second one", store.name));
        }
        tracing::info!(name, kind = component.kind, "the component stands for the built-in actor state store");
        self.actor_store = Some(Component { name, kind: component.kind, version: component.version });
        Ok(())
    }
}

/// The documents that are meant for the reader, each with its file.
#[derive(Default)]
struct Found {
    documents: Vec<(PathBuf, Document)>,
    /// Kinds and names.
    names: BTreeSet<(String, String)>,
}

impl Found {
    fn take_file(&mut self, text: &str, path: &Path, reader: Reader<'_>) -> Result<(), Error> {
        for document in document::split(text) {
            let document = match Document::parse(document) {
                Ok(Some(document)) => document,
                Ok(None) => continue,
                Err(why) => {
                    tracing::warn!(path = %path.display(), why, "a resource is not valid and is skipped");
                    continue;
                }
            };
            if !document.is_for(reader) {
                tracing::debug!(kind = document.kind, name = document.metadata.name, "a resource of others is skipped");
                continue;
            }
            let key = (document.kind.clone(), document.metadata.name.clone());
            if !self.names.insert(key.clone()) {
                return Err(Error::Duplicate { kind: key.0, name: key.1, path: path.to_owned() });
            }
            self.documents.push((path.to_owned(), document));
        }
        Ok(())
    }
}

/// Says which resource has no effect, and why.
fn reported(taken: Result<(), String>, path: &Path, kind: &str, name: &str) {
    if let Err(why) = taken {
        tracing::warn!(path = %path.display(), kind, name, "the resource is ignored: {why}");
    }
}

/// The YAML files of a folder, by name; a path that is a file stands for itself.
fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |why| Error::Read { path: folder.to_owned(), why };
    if folder.is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        if path.is_file() && matches!(extension.as_deref(), Some("yaml" | "yml")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The features that are on: the last file with a `features` key decides.
fn features(configurations: &[PathBuf], env: EnvVars) -> Result<Vec<String>, Error> {
    let mut features = Vec::new();
    for path in configurations {
        let text = std::fs::read_to_string(path).map_err(|why| Error::Read { path: path.clone(), why })?;
        let text = document::expand(&text, env);
        for document in document::split(&text) {
            let broken = |why| Error::Configuration { path: path.clone(), why };
            let Some(document) = Document::parse(document).map_err(broken)? else { continue };
            if document.kind != "Configuration" {
                return Err(broken(format!("it is of kind {}", document.kind)));
            }
            let spec: document::ConfigurationSpec = document.spec().map_err(broken)?;
            for key in spec.other.keys() {
                tracing::info!(path = %path.display(), "configuration spec.{key} has no meaning here and is ignored");
            }
            if let Some(given) = spec.features {
                features = given.into_iter().filter(|feature| feature.enabled).map(|feature| feature.name).collect();
            }
        }
    }
    Ok(features)
}

/// Fuzz body: a resource file, and the same text as a Configuration. What is taken from it can be used.
pub fn fuzz_resources(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let reader = Reader { app_id: "app", namespace: Some("default"), env: |name| Some(format!("<{name}>")) };
    let mut found = Found::default();
    // A duplicate ends the file: what stands before it is taken all the same.
    let _ = found.take_file(&text, Path::new("fuzz.yaml"), reader);
    // A secret store's file is what follows the last document, as the input has it.
    let file = document::split(&text).last().map(|last| (*last).to_owned()).unwrap_or_default();
    let resources = Resources::of(found, reader, &|_| Ok(file.clone()));
    for endpoint in &resources.endpoints {
        assert!(resources.endpoint(&endpoint.name).is_some_and(|found| Arc::ptr_eq(found, endpoint)));
        assert!(crate::invoke::target::is_url(&endpoint.base_url) && !endpoint.base_url.ends_with('/'));
    }
    let text = document::expand(&text, reader.env);
    for document in document::split(&text) {
        if let Ok(Some(document)) = Document::parse(document) {
            let _ = document.spec::<document::ConfigurationSpec>();
        }
    }
}

#[cfg(test)]
#[path = "resources_test.rs"]
mod tests;
