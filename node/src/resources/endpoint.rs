//! HTTPEndpoint: a name for an external URL, with headers and TLS material of its own.

use http::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::document::{Document, EnvVars, NameValue, Value};
use super::secrets::Secrets;
use crate::app::tls::ClientTls;

#[derive(Debug, Clone)]
pub struct HttpEndpoint {
    pub name: String,
    /// As given, without trailing slashes.
    pub base_url: String,
    /// Set on every request, over what the caller sent.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub tls: ClientTls,
    /// Which secret it lacks. It is known by its name then, and no call goes out without what belongs to it.
    pub lacks: Option<String>,
}

/// Finds the texts of one resource, and remembers the first secret that was not to be had.
struct Texts<'a> {
    env: EnvVars,
    secrets: &'a Secrets,
    store: Option<String>,
    lacks: Option<String>,
}

impl Texts<'_> {
    fn of(&mut self, what: &str, value: &Value) -> Result<Option<String>, String> {
        let Some(reference) = value.secret() else { return value.text(self.env) };
        match self.secrets.find(self.store.as_deref(), reference, self.env) {
            Ok(text) => Ok(Some(text)),
            Err(why) => {
                self.lacks.get_or_insert_with(|| format!("{what}: {why}"));
                Ok(None)
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    base_url: String,
    #[serde(default)]
    headers: Option<Vec<NameValue>>,
    #[serde(default, rename = "clientTLS")]
    client_tls: Option<TlsSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TlsSpec {
    #[serde(default, rename = "rootCA")]
    root_ca: Option<Value>,
    #[serde(default)]
    certificate: Option<Value>,
    #[serde(default)]
    private_key: Option<Value>,
    #[serde(default)]
    renegotiation: Option<serde_yaml_ng::Value>,
}

impl HttpEndpoint {
    pub(super) fn from_document(document: Document, env: EnvVars, secrets: &Secrets) -> Result<Self, String> {
        let name = document.metadata.name.clone();
        let mut texts = Texts { env, secrets, store: document.secret_store().map(str::to_owned), lacks: None };
        let spec: Spec = document.spec()?;
        let base_url = spec.base_url.trim_end_matches('/').to_owned();
        if !(base_url.starts_with("http://") || base_url.starts_with("https://")) {
            return Err(format!("baseUrl {:?} is neither http:// nor https://", spec.base_url));
        }
        let mut headers = Vec::new();
        for header in spec.headers.into_iter().flatten() {
            let value = texts.of(&format!("header {:?}", header.name), &header.value)?.unwrap_or_default();
            let parsed = HeaderName::try_from(&header.name).ok().zip(HeaderValue::try_from(value).ok());
            headers.push(parsed.ok_or_else(|| format!("header {:?} is not valid", header.name))?);
        }
        let tls = spec.client_tls.map_or_else(|| Ok(ClientTls::default()), |tls| tls.resolve(&name, &mut texts))?;
        if let Some(why) = &texts.lacks {
            tracing::warn!(name, "calls of the endpoint will fail: {why}");
        }
        Ok(Self { name, base_url, headers, tls, lacks: texts.lacks })
    }
}

impl TlsSpec {
    fn resolve(self, name: &str, texts: &mut Texts<'_>) -> Result<ClientTls, String> {
        let mut text = |what: &str, value: Option<Value>| match value {
            Some(value) => texts.of(what, &value).map(|text| text.filter(|text| !text.trim().is_empty())),
            None => Ok(None),
        };
        if let Some(given) = self.renegotiation.as_ref().and_then(|value| value.as_str())
            && !given.is_empty()
            && given != "RenegotiateNever"
        {
            tracing::warn!(name, "clientTLS.renegotiation {given}: connections never renegotiate here");
        }
        let tls = ClientTls {
            root_ca: text("clientTLS.rootCA", self.root_ca)?,
            certificate: text("clientTLS.certificate", self.certificate)?,
            private_key: text("clientTLS.privateKey", self.private_key)?,
        };
        // Broken material is reported at start, not at the first call; what lacks a part is not used at all.
        if texts.lacks.is_none() {
            crate::app::tls::endpoint(&tls).map_err(|error| format!("clientTLS: {error}"))?;
        }
        Ok(tls)
    }
}
