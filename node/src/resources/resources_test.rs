//! Resource files: what is read, skipped, reported or refused.

use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("t0k3n".to_owned()),
        "FEATURE" => Some("Expanded".to_owned()),
        "APP_API_TOKEN" | "DAPR_API_TOKEN" => Some("of the node".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn load_as(app_id: &str, namespace: Option<&str>, files: &[(&str, &str)]) -> Result<Resources, Error> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    Resources::load(&[folder.path().to_owned()], &[], Reader { app_id, namespace, env })
}

fn load(text: &str) -> Result<Resources, Error> {
    load_as("app", None, &[("a.yaml", text)])
}

const ENDPOINT: &str = "
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata:
  name: github
spec:
  baseUrl: http://api.github.com/
  headers:
  - name: Accept
    value: text/plain
  - name: X-Number
    value: 7
  - name: X-Token
    envRef: TOKEN
";

#[test]
fn an_endpoint_is_read_with_its_headers() {
    let resources = load(ENDPOINT).unwrap();
    let endpoint = resources.endpoint("github").unwrap();
    assert_eq!(endpoint.base_url, "http://api.github.com");
    let headers: Vec<_> =
        endpoint.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("accept", "text/plain"), ("x-number", "7"), ("x-token", "t0k3n")]);
}

#[test]
fn several_documents_and_unknown_kinds_share_a_file() {
    let text = format!(
        "# only a comment\n---\n{ENDPOINT}---\nkind: Subscription\nmetadata: {{name: s}}\n--- \nnot: [valid\n---\nkind: Resiliency\nmetadata:\n  name: r\nspec: {{}}\n"
    );
    let resources = load(&text).unwrap();
    assert_eq!(resources.endpoints.len(), 1);
    assert_eq!(resources.resiliencies, ["r"]);
}

#[test]
fn scopes_and_namespaces_choose_the_reader() {
    let scoped = ENDPOINT.to_owned() + "scopes: [other, app]\n";
    assert_eq!(load(&scoped).unwrap().endpoints.len(), 1);
    let scoped = ENDPOINT.to_owned() + "scopes:\n- other\n";
    assert_eq!(load(&scoped).unwrap().endpoints.len(), 0);
    let spaced = ENDPOINT.replace("name: github", "name: github\n  namespace: n1");
    for (namespace, expected) in [(None, 1), (Some("n1"), 1), (Some("n2"), 0)] {
        let resources = load_as("app", namespace, &[("a.yml", &spaced)]).unwrap();
        assert_eq!(resources.endpoints.len(), expected, "{namespace:?}");
    }
    assert_eq!(load_as("app", Some("n2"), &[("a.yml", ENDPOINT)]).unwrap().endpoints.len(), 1);
}

#[test]
fn one_kind_and_name_twice_is_an_error() {
    let error = load_as("app", None, &[("a.yaml", ENDPOINT), ("b.yaml", ENDPOINT)]).unwrap_err();
    assert!(matches!(error, Error::Duplicate { .. }), "{error}");
}

fn secret_store(name: &str, kind: &str, settings: &str) -> String {
    format!("kind: Component\nmetadata:\n  name: {name}\nspec:\n  type: secretstores.{kind}\n  metadata: {settings}\n")
}

/// An endpoint with one header by reference, of the store `s`, and before its store.
fn header_of(reference: &str, store: &str) -> Arc<HttpEndpoint> {
    let endpoint = ENDPOINT.replace("value: text/plain", &format!("secretKeyRef: {reference}"));
    let text = format!("{endpoint}auth:\n  secretStore: s\n---\n{store}");
    load(&text).unwrap().endpoint("github").expect("known, whatever it lacks").clone()
}

fn accept(endpoint: &HttpEndpoint) -> Option<&str> {
    let found = endpoint.headers.iter().find(|(name, _)| name == "accept");
    found.map(|(_, value)| value.to_str().unwrap()).filter(|value| !value.is_empty())
}

#[test]
fn a_secret_of_the_environment_is_its_variable() {
    let store = secret_store("s", "local.env", "[]");
    for reference in ["{name: TOKEN}", "{name: TOKEN, key: TOKEN}"] {
        let endpoint = header_of(reference, &store);
        assert_eq!((accept(&endpoint), endpoint.lacks.as_deref()), (Some("t0k3n"), None), "{reference}");
    }
    let prefixed = secret_store("s", "local.env", "[{name: Prefix, value: TO}]");
    assert_eq!(accept(&header_of("{name: KEN}", &prefixed)), Some("t0k3n"));
    // No variable, an empty one, another key, and the node's own tokens, by a prefix too.
    let dapr = secret_store("s", "local.env", "[{name: prefix, value: DAPR_}]");
    for (reference, store) in [
        ("{name: NONE}", &store),
        ("{name: EMPTY}", &store),
        ("{name: TOKEN, key: other}", &store),
        ("{name: APP_API_TOKEN}", &store),
        ("{name: DAPR_API_TOKEN}", &store),
        ("{name: API_TOKEN}", &dapr),
    ] {
        let endpoint = header_of(reference, store);
        assert_eq!(accept(&endpoint), None, "{reference}");
        let lacks = endpoint.lacks.as_deref().expect(reference);
        assert!(lacks.starts_with("header \"Accept\": secret ") && !lacks.contains("of the node"), "{lacks}");
    }
}

#[test]
fn a_secret_of_a_file_is_found_by_the_way_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.json");
    std::fs::write(&path, r#"{"plain": "p", "n": 7, "redis": {"user": "u", "deep": [{"key": "d"}]}, "none": null}"#)
        .unwrap();
    let path = path.display();
    let store = |more: &str| secret_store("s", "local.file", &format!("[{{name: secretsFile, value: {path}}}{more}]"));
    let separated = store(", {name: nestedSeparator, value: /}");
    let multi = store(", {name: multiValued, value: \"true\"}");
    for (reference, store, expected) in [
        ("{name: plain, key: plain}", &store(""), Some("p")),
        ("{name: n}", &store(""), Some("7")),
        ("{name: 'redis:user'}", &store(""), Some("u")),
        ("{name: 'redis:deep:0:key'}", &store(""), Some("d")),
        ("{name: redis, key: user}", &store(""), None),
        ("{name: none}", &store(""), None),
        ("{name: redis/user}", &separated, Some("u")),
        ("{name: plain}", &multi, Some("p")),
        ("{name: redis, key: user}", &multi, Some("u")),
        ("{name: redis, key: 'deep:0:key'}", &multi, Some("d")),
        ("{name: 'redis:user'}", &multi, None),
        ("{name: redis}", &multi, None),
    ] {
        let endpoint = header_of(reference, store);
        assert_eq!(accept(&endpoint), expected, "{reference} of {store}");
        assert_eq!(endpoint.lacks.is_none(), expected.is_some(), "{reference} of {store}");
    }
}

#[test]
fn an_endpoint_whose_store_is_of_no_use_says_why() {
    for (store, why) in [
        (secret_store("other", "local.env", "[]"), "there is no secret store \"s\""),
        (secret_store("s", "hashicorp.vault", "[]"), "secretstores.hashicorp.vault are not known here"),
        (secret_store("s", "local.file", "[]"), "secretsFile is missing"),
        (secret_store("s", "local.file", "[{name: secretsFile, value: /does/not/exist}]"), "read /does/not/exist"),
        (secret_store("s", "local.file", "[{name: secretsFile, secretKeyRef: {name: x}}]"), "has no meaning here"),
    ] {
        let lacks = header_of("{name: TOKEN}", &store).lacks.clone().expect(why);
        assert!(lacks.contains(why), "{lacks}");
    }
    let text = ENDPOINT.replace("value: text/plain", "secretKeyRef: {name: TOKEN}");
    let lacks = load(&text).unwrap().endpoints[0].lacks.clone();
    assert!(lacks.expect("no store").contains("names no auth.secretStore"));
}

#[test]
fn tls_material_may_be_secret_and_is_not_used_in_part() {
    let reference = "  clientTLS:\n    rootCA:\n      secretKeyRef: {name: TOKEN}\n    privateKey:\n      value: k\nauth: {secretStore: s}\n---\n";
    let text = format!("{ENDPOINT}{reference}{}", secret_store("s", "local.env", "[]"));
    assert_eq!(load(&text).unwrap().endpoints.len(), 0, "t0k3n is no certificate");
    let text = text.replace("name: TOKEN}", "name: NONE}");
    let endpoint = load(&text).unwrap().endpoints[0].clone();
    assert!(
        endpoint.lacks.as_deref().is_some_and(|lacks| lacks.starts_with("clientTLS.rootCA: secret ")),
        "{endpoint:?}"
    );
}

#[test]
fn an_env_reference_may_not_name_the_tokens() {
    for name in ["APP_API_TOKEN", "DAPR_API_TOKEN"] {
        let text = ENDPOINT.replace("envRef: TOKEN", &format!("envRef: {name}"));
        assert_eq!(load(&text).unwrap().endpoints.len(), 0, "{name}");
    }
}

#[test]
fn broken_tls_material_is_noticed_at_load() {
    let text = ENDPOINT.to_owned() + "  clientTLS:\n    rootCA:\n      value: nonsense\n";
    assert_eq!(load(&text).unwrap().endpoints.len(), 0);
    let text = ENDPOINT.to_owned() + "  clientTLS:\n    renegotiation: RenegotiateNever\n";
    assert_eq!(load(&text).unwrap().endpoints.len(), 1);
}

fn store(name: &str, mark: &str) -> String {
    format!(
        "kind: Component\nmetadata:\n  name: {name}\nspec:\n  type: state.redis\n  version: v1\n  metadata:\n  - name: redisHost\n    value: localhost:6379\n  - name: {mark}\n"
    )
}

#[test]
fn the_first_marked_store_names_the_built_in_one() {
    let text = [
        store("plain", "other\n    value: \"true\""),
        store("first", "ActorStateStore\n    value: true"),
        store("second", "actorStateStore\n    value: \"true\""),
    ]
    .join("---\n");
    let resources = load(&text).unwrap();
    let named = resources.actor_store.unwrap();
    assert_eq!((named.name.as_str(), named.kind.as_str(), named.version.as_str()), ("first", "state.redis", "v1"));
}

#[test]
fn a_missing_folder_is_an_error() {
    let reader = Reader { app_id: "app", namespace: None, env };
    assert!(matches!(Resources::load(&["/does/not/exist".into()], &[], reader), Err(Error::Read { .. })));
}

#[test]
fn the_last_configuration_with_features_decides_and_variables_are_expanded() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let first = write(
        "1.yaml",
        "kind: Configuration\nmetadata: {name: a}\nspec:\n  features:\n  - {name: A, enabled: true}\n  - {name: ${FEATURE}, enabled: true}\n  - {name: B, enabled: false}\n",
    );
    let silent = write("2.yaml", "kind: Configuration\nmetadata: {name: b}\nspec:\n  tracing: {samplingRate: \"1\"}\n");
    let last =
        write("3.yaml", "kind: Configuration\nmetadata: {name: c}\nspec:\n  features: [{name: C, enabled: true}]\n");
    let reader = Reader { app_id: "app", namespace: None, env };
    let features = |paths: &[PathBuf]| Resources::load(&[], paths, reader).unwrap().features;
    assert_eq!(features(&[first.clone(), silent.clone()]), ["A", "Expanded"]);
    assert_eq!(features(&[first, silent, last]), ["C"]);
    let broken = write("4.yaml", "kind: [");
    assert!(matches!(Resources::load(&[], &[broken], reader), Err(Error::Configuration { .. })));
}
