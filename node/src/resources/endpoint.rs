//! HTTPEndpoint: a name for an external URL, with headers and TLS material of its own.

use http::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::document::{Document, EnvVars, NameValue, Value};
use crate::app::tls::ClientTls;

#[derive(Debug, Clone)]
pub struct HttpEndpoint {
    pub name: String,
    /// As given, without trailing slashes.
    pub base_url: String,
    /// Set on every request, over what the caller sent.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub tls: ClientTls,
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
    pub(super) fn from_document(document: Document, env: EnvVars) -> Result<Self, String> {
        let name = document.metadata.name.clone();
        let spec: Spec = document.spec()?;
        let base_url = spec.base_url.trim_end_matches('/').to_owned();
        if !(base_url.starts_with("http://") || base_url.starts_with("https://")) {
            return Err(format!("baseUrl {:?} is neither http:// nor https://", spec.base_url));
        }
        let mut headers = Vec::new();
        for header in spec.headers.into_iter().flatten() {
            let value = header.value.text(env)?.unwrap_or_default();
            let parsed = HeaderName::try_from(&header.name).ok().zip(HeaderValue::try_from(value).ok());
            headers.push(parsed.ok_or_else(|| format!("header {:?} is not valid", header.name))?);
        }
        let tls = spec.client_tls.map_or_else(|| Ok(ClientTls::default()), |tls| tls.resolve(&name, env))?;
        Ok(Self { name, base_url, headers, tls })
    }
}

impl TlsSpec {
    fn resolve(self, name: &str, env: EnvVars) -> Result<ClientTls, String> {
        let text = |value: Option<Value>| match value {
            Some(value) => value.text(env).map(|text| text.filter(|text| !text.trim().is_empty())),
            None => Ok(None),
        };
        if let Some(given) = self.renegotiation.as_ref().and_then(|value| value.as_str())
            && !given.is_empty()
            && given != "RenegotiateNever"
        {
            tracing::warn!(name, "clientTLS.renegotiation {given}: connections never renegotiate here");
        }
        let tls = ClientTls {
            root_ca: text(self.root_ca)?,
            certificate: text(self.certificate)?,
            private_key: text(self.private_key)?,
        };
        // Broken material is reported at start, not at the first call.
        crate::app::tls::endpoint(&tls).map_err(|error| format!("clientTLS: {error}"))?;
        Ok(tls)
    }
}
