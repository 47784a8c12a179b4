//! Resource files: what is read, skipped, reported or refused.

use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("t0k3n".to_owned()),
        "FEATURE" => Some("Expanded".to_owned()),
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

#[test]
fn a_secret_reference_skips_its_resource() {
    let text = ENDPOINT.replace("value: text/plain", "secretKeyRef: {name: s, key: k}");
    assert_eq!(load(&text).unwrap().endpoints.len(), 0);
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
