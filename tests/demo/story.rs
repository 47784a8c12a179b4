//! The story, with the requests it makes shown as `curl` would make them.

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use callboard_tests::binary;
use callboard_tests::http::Answer;
use callboard_tests::node::{Node, Setup};
use callboard_tests::ports;
use callboard_tests::process::Process;
use callboard_tests::wait::eventually;
use serde_json::json;

const APP_ID: &str = "theatre";

pub async fn tell() -> anyhow::Result<()> {
    let port = ports::free();
    // The user's own list of running nodes, so that `callboard list` and `stop` find it.
    let runtime = env::var("XDG_RUNTIME_DIR").unwrap_or_default();
    let setup = Setup::new(APP_ID).app_at(([127, 0, 0, 1], port).into()).env("XDG_RUNTIME_DIR", runtime);
    println!("1. An app of a hundred lines hosts the actor type `cat`; a node stands beside it.");
    let mut command = Command::new(env::current_exe()?);
    command.arg("app").env("APP_PORT", port.to_string()).env("DAPR_HTTP_PORT", setup.http_port().to_string());
    let log = setup.home().join("app");
    let mut app = Process::start(&mut command, &log);
    println!("   $ callboard run --app-id theatre --app-port {port}");
    let begun = Instant::now();
    let mut node = setup.ready().await;
    println!("   serving after {:.1} s, one process, data in one folder\n", begun.elapsed().as_secs_f64());

    println!("2. Service invocation: any program calls the app by its name.");
    show(&node, "GET", "/v1.0/invoke/theatre/method/hello", None).await;

    println!("\n3. Actors: each cat has an identity, its own turns, and durable state.");
    for meal in ["fish", "milk"] {
        show(&node, "POST", "/v1.0/actors/cat/tom/method/feed", Some(meal)).await;
    }
    show(&node, "POST", "/v1.0/actors/cat/kitty/method/feed", Some("ants")).await;

    println!("\n4. The state can be asked for from outside, without waking anyone.");
    show(&node, "GET", "/cluster/v1/state?key=theatre%7C%7Ccat%7C%7Ctom%7C%7Cmeals", None).await;

    println!("\n5. Reminders: dinner in a second, supper in six.");
    node.remind("cat", "tom", "dinner", json!({"dueTime": "1s"})).await;
    node.remind("cat", "kitty", "dinner", json!({"dueTime": "6s"})).await;
    let registered = Instant::now();
    heard(&app, "dinner time for tom").await;
    println!("   tom was called after {:.2} s\n", registered.elapsed().as_secs_f64());
    // A firing whose end was not committed before a crash is repeated after it; this one is done.
    let fired = "/v1.0/actors/cat/tom/reminders/dinner";
    eventually(Duration::from_secs(30), "tom's reminder is done", async || {
        (node.get(fired).send().await.status == 404).then_some(())
    })
    .await;

    println!("6. kill -9 of the node. Then it is started again on the same folder.");
    node.kill();
    let begun = Instant::now();
    node.restart_ready().await;
    println!("   serving again after {:.1} s; what it had acknowledged is there:", begun.elapsed().as_secs_f64());
    for cat in ["tom", "kitty"] {
        show(&node, "GET", &format!("/v1.0/actors/cat/{cat}/state/meals"), None).await;
    }
    println!("   and kitty's reminder, registered before, fires:");
    heard(&app, "dinner time for kitty").await;
    println!("   kitty was called {:.2} s after the registration", registered.elapsed().as_secs_f64());
    eventually(Duration::from_secs(30), "kitty has had ants and dinner", async || {
        (node.get_state("cat", "kitty", "meals").await.json() == json!(["ants", "dinner"])).then_some(())
    })
    .await;

    if env::var_os("KEEP").is_some_and(|keep| keep == "0") {
        node.terminate();
        let ended = node.wait_end(Duration::from_secs(30)).await;
        app.kill();
        anyhow::ensure!(ended.success(), "the node ended with {ended}");
        println!("\nBoth are stopped.");
    } else {
        leave(node, app);
    }
    Ok(())
}

/// Leaves both running, and says how to use and how to end them.
fn leave(node: Node, app: Process) {
    let (http, app_id) = (node.http().port(), app.id());
    app.leave();
    let folder = node.leave();
    println!("\nNode and app run on, for you to use:");
    println!("   $ curl -XPOST localhost:{http}/v1.0/actors/cat/tom/method/feed -d '\"cheese\"'");
    println!("   $ curl localhost:{http}/v1.0/metadata");
    println!("To stop the node, then the app, and to remove their data and logs:");
    println!("   $ {} stop --app-id {APP_ID}", binary::callboard().display());
    println!("   $ kill {app_id}");
    println!("   $ rm -r {}", folder.display());
}

/// Makes a request and shows it with its answer.
async fn show(node: &Node, method: &str, path: &str, body: Option<&str>) {
    let mut request = node.request(method, path);
    let mut line = format!(
        "   $ curl {}localhost:{}{path}",
        if method == "GET" { String::new() } else { format!("-X{method} ") },
        node.http().port()
    );
    if let Some(body) = body {
        line += &format!(" -d '\"{body}\"'");
        request = request.json(&body);
    }
    println!("{line}");
    let answer: Answer = request.send().await.expect(200);
    println!("     {}", answer.text().trim());
}

/// Waits until the app has said something.
async fn heard(app: &Process, words: &str) {
    eventually(Duration::from_secs(30), words, async || app.log().contains(words).then_some(())).await;
}
