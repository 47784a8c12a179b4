//! Calls between two processes over a peer link, beside a bare tonic stream: what the table of calls, the handlers and
//! the bounds cost.
//!
//! `cargo bench -p callboard --bench peer`. A second process answers; both transports are measured in turns in the same
//! run, so that a machine that changes its pace changes it for both; on a busy one the processor time per call, of both
//! ends together, says more than the rate. The bare stream carries the same messages, one
//! frame each, and hands each answer to the task that waits for it, as any use of a stream for calls must.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use callboard::clock;
use callboard::peer::{Call, Directory, Handlers, Identity, Kind, Lane, PeerConfig, Peers};
use callboard::tasks::{self, Tasks};
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::peer_client::PeerClient;
use callboard_proto::peer::peer_server::{Peer, PeerServer};
use callboard_proto::peer::{Frame, Frames, Request, Response};
use callboard_types::{ClusterId, NodeId};
use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Status;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// First argument of the process that answers.
const ANSWERS: &str = "__answers";
const BODY: usize = 100;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
const CONCURRENCY: [usize; 3] = [1, 64, 256];
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some(ANSWERS) {
        return runtime.block_on(answers());
    }
    let mut child = Command::new(std::env::current_exe()?)
        .arg(ANSWERS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the process that answers")?;
    let measured = measure(&mut child, &runtime);
    child.kill()?;
    child.wait()?;
    measured
}

fn measure(child: &mut Child, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let mut said = BufReader::new(child.stdout.take().context("it says nothing")?).lines();
    let mut address = || -> anyhow::Result<SocketAddr> { Ok(said.next().context("it ended")??.parse()?) };
    let (link, bare) = (address()?, address()?);
    let both = [std::process::id(), child.id()];
    println!("{BODY} bytes there and back, two processes, medians of {ROUNDS} rounds");
    println!("{:>9}  {:^26}  {:^26}  {:>5}", "", "calls per second", "processor, us per call", "");
    let head = ["link", "bare", "ratio", "link", "bare", "ratio"];
    print!("{:>9}", "in flight");
    head.iter().for_each(|name| print!("  {name:>8}"));
    println!("  frames per message");
    for concurrency in CONCURRENCY {
        let (mut links, mut bares, mut batching) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..ROUNDS {
            bares.push(runtime.block_on(over_bare_stream(bare, concurrency, both))?);
            let (rate, frames) = runtime.block_on(over_link(link, concurrency, both))?;
            links.push(rate);
            batching = frames;
        }
        let (link, bare) = (median(&links, |rate| rate.calls), median(&bares, |rate| rate.calls));
        print!("{concurrency:>9}  {link:>8.0}  {bare:>8.0}  {:>8.2}", link / bare);
        let (link, bare) = (median(&links, |rate| rate.cost), median(&bares, |rate| rate.cost));
        println!("  {link:>8.2}  {bare:>8.2}  {:>8.2}  {batching:>18.1}", bare / link);
    }
    Ok(())
}

/// What one round showed.
struct Rate {
    /// Per second.
    calls: f64,
    /// Microseconds of processor time per call, both ends together.
    cost: f64,
}

fn median(rates: &[Rate], of: fn(&Rate) -> f64) -> f64 {
    let mut values: Vec<_> = rates.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Processor time of processes, in microseconds; 0 where the system does not tell.
fn processor_time(processes: [u32; 2]) -> f64 {
    const TICK: f64 = 10_000.0;
    let of = |process: u32| -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
        Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) * TICK)
    };
    processes.into_iter().filter_map(of).sum()
}

fn identity(node: u64) -> Identity {
    Identity {
        cluster: Some(ClusterId(1)),
        cluster_name: "bench".to_owned(),
        generation: 0,
        node: NodeId(node),
        node_name: format!("node-{node}"),
    }
}

/// Answers on both transports until its input ends.
async fn answers() -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let peers = Peers::new(PeerConfig::default(), identity(2), Directory::new(), tasks.clone());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    peers.serve(listener, Handlers::new().on(Kind::Ask, |call: Call| async move { Ok(call.body) }))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let incoming = TcpListenerStream::new(listener).inspect(|stream| {
        let _ = stream.as_ref().map(|stream| stream.set_nodelay(true));
    });
    tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .serve_with_incoming(PeerServer::new(Echo), incoming)
        .await?;
    Ok(())
}

/// Each request's body back, one frame per message.
struct Echo;

#[tonic::async_trait]
impl Peer for Echo {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<Frames, Status>> + Send>>;

    async fn link(
        &self,
        request: tonic::Request<tonic::Streaming<Frames>>,
    ) -> Result<tonic::Response<Self::LinkStream>, Status> {
        let answers = request.into_inner().map(|message| {
            let mut message = message?;
            for frame in &mut message.frames {
                if let Some(Content::Request(Request { length, body, .. })) = frame.content.take() {
                    frame.content = Some(Content::Response(Response { failure: None, length, body }));
                }
            }
            Ok(message)
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}

/// Callers that call until told to stop.
async fn run<F>(
    concurrency: usize,
    both: [u32; 2],
    tasks: &Tasks,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> Rate
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    for _ in 0..concurrency {
        let (stop, count, call) = (stop.clone(), count.clone(), call.clone());
        tasks.spawn(tasks::Kind::Work, "caller", async move {
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = call().await {
                    // The last calls meet the end of their link.
                    assert!(stop.load(Ordering::Relaxed), "{error}");
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let (begun, before, used) = (clock::runtime(), count.load(Ordering::Relaxed), processor_time(both));
    tokio::time::sleep(MEASURED).await;
    let calls = (count.load(Ordering::Relaxed) - before) as f64;
    let cost = (processor_time(both) - used) / calls;
    let calls = calls / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    Rate { calls, cost }
}

/// A round, and the frames of a message in it.
async fn over_link(address: SocketAddr, concurrency: usize, both: [u32; 2]) -> anyhow::Result<(Rate, f64)> {
    let (tasks, directory) = (Tasks::new(), Directory::new());
    directory.set(NodeId(2), vec![address.to_string()]);
    let peers = Peers::new(PeerConfig::default(), identity(1), directory, tasks.clone());
    let body = Bytes::from(vec![7; BODY]);
    let (calling, asked) = (peers.clone(), body.clone());
    let rate = run(concurrency, both, &tasks, move || {
        let (peers, body) = (calling.clone(), asked.clone());
        async move {
            let answer = peers.call(NodeId(2), Lane::Calls, Kind::Ask, body, PATIENCE).await?;
            anyhow::ensure!(answer.len() == BODY, "another body");
            Ok(())
        }
    })
    .await;
    let counters = peers.counters();
    tasks.join().await;
    Ok((rate, counters.frames_sent as f64 / counters.batches_sent as f64))
}

type Waiters = Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>>;

async fn over_bare_stream(address: SocketAddr, concurrency: usize, both: [u32; 2]) -> anyhow::Result<Rate> {
    let tasks = Tasks::new();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .connect()
        .await?;
    let (say, said) = mpsc::channel(1_024);
    let mut heard = PeerClient::new(channel).link(ReceiverStream::new(said)).await?.into_inner();
    let waiters = Waiters::default();
    let answered = waiters.clone();
    tasks.spawn(tasks::Kind::Work, "reader", async move {
        while let Ok(Some(message)) = heard.message().await {
            for frame in message.frames {
                if let Some(Content::Response(response)) = frame.content
                    && let Some(waiter) = answered.lock().remove(&frame.call)
                {
                    let _ = waiter.send(response.body);
                }
            }
        }
    });
    let (body, last) = (Bytes::from(vec![7; BODY]), Arc::new(AtomicU64::new(0)));
    let rate = run(concurrency, both, &tasks, move || {
        let (say, body, waiters) = (say.clone(), body.clone(), waiters.clone());
        let call = last.fetch_add(1, Ordering::Relaxed);
        async move {
            let (waiter, answer) = oneshot::channel();
            waiters.lock().insert(call, waiter);
            let request = Request { kind: Kind::Ask.into(), timeout_ms: 1, length: BODY as u64, body };
            let frames = vec![Frame { call, content: Some(Content::Request(request)) }];
            say.send(Frames { frames }).await?;
            let answer = tokio::time::timeout(PATIENCE, answer).await??;
            anyhow::ensure!(answer.len() == BODY, "another body");
            Ok(())
        }
    })
    .await;
    tasks.join().await;
    Ok(rate)
}
