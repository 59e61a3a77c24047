//! A client of the service by tonic's own client, and a server on free ports. Shared by tests and benchmarks.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use rustls::ServerConfig;
use tally_core::admission::{
    ENQUEUE_AND_WAIT, EnqueueAndWaitRequest, EnqueueAndWaitResponse, REPORT, ReportRequest, ReportResponse, SERVICE,
};
use tallyd::flow::config::{FlowConfig, FlowPlan};
use tallyd::flow::pool::PoolView;
use tallyd::flow::saturation::EndpointSample;
use tallyd::flow::{FlowControl, FlowListeners};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_prost::ProstCodec;

pub fn config(text: &str) -> FlowPlan {
    serde_saphyr::from_str::<FlowConfig>(text).unwrap().plan().unwrap()
}

/// A question of reporter 9.
pub fn question(number: u64) -> EnqueueAndWaitRequest {
    EnqueueAndWaitRequest { reporter: 9, request: number, ..Default::default() }
}

#[derive(Clone)]
pub struct Pool(Vec<f64>, Instant);

/// A pool with these requests waiting in its endpoints, seen now.
pub fn pool(waiting: &[f64]) -> Pool {
    Pool(waiting.to_vec(), Instant::now())
}

impl PoolView for Pool {
    fn name(&self) -> &str {
        "test-pool"
    }

    fn endpoints(&self, nanos: impl Fn(Instant) -> u64) -> Vec<EndpointSample> {
        let sampled_nanos = Some(nanos(self.1));
        self.0.iter().map(|waiting| EndpointSample { waiting: *waiting, kv_usage: 0.0, sampled_nanos }).collect()
    }
}

pub struct Server {
    pub flow: FlowControl,
    pub shutdown: CancellationToken,
    pub authority: Option<String>,
    pub certificates: Option<watch::Sender<Arc<ServerConfig>>>,
    health: SocketAddr,
    tracker: TaskTracker,
}

pub async fn start(plan: &FlowPlan) -> Server {
    start_with::<Pool>(plan, None, None).await
}

/// With a pool to watch, and a certificate for a host name.
pub async fn start_with<P: PoolView + Send + Sync + 'static>(
    plan: &FlowPlan,
    pool: Option<watch::Receiver<Arc<P>>>,
    host: Option<&str>,
) -> Server {
    let flow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let health = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let health_address = health.local_addr().unwrap();
    let certified = host.map(certified);
    let authority = certified.as_ref().map(|(_, authority)| authority.clone());
    let (certificates, tls) = certified.map(|(server, _)| watch::channel(server)).unzip();
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let listeners = FlowListeners { flow, tls, health: Some(health) };
    let flow = FlowControl::start(plan.clone(), pool, listeners, &tracker, shutdown.clone()).unwrap();
    tracker.close();
    Server { flow, shutdown, authority, certificates, health: health_address, tracker }
}

/// A new certificate for a host name, as a server takes it and as a client trusts it.
pub fn certified(host: &str) -> (Arc<ServerConfig>, String) {
    let certified = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![certified.cert.der().clone()];
    let mut server = builder.with_no_client_auth().with_single_cert(chain, key.into()).unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    (Arc::new(server), certified.cert.pem())
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.flow.address()
    }

    /// All tasks have ended, in time.
    pub async fn ended(&mut self) {
        tokio::time::timeout(Duration::from_secs(10), self.tracker.wait()).await.unwrap();
    }

    /// The number of gRPC health's answer.
    pub async fn health(&self) -> i32 {
        let channel = Endpoint::from_shared(format!("http://{}", self.health)).unwrap().connect().await.unwrap();
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
        client
            .check(tonic_health::pb::HealthCheckRequest { service: SERVICE.into() })
            .await
            .unwrap()
            .into_inner()
            .status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[derive(Clone)]
pub struct Client(Channel);

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
    }

    pub async fn connect_tls(address: SocketAddr, authority: &str) -> Self {
        Self::try_tls(address, authority).await.unwrap()
    }

    pub async fn try_tls(address: SocketAddr, authority: &str) -> Result<Self, tonic::transport::Error> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
        endpoint.connect().await.map(Self)
    }

    /// A question in plain text, wherever.
    pub async fn try_plain(address: SocketAddr) -> Result<(), tonic::Status> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        Self(channel).ask(question(1)).await.map(|_| ())
    }

    pub async fn ask(&self, question: EnqueueAndWaitRequest) -> Result<EnqueueAndWaitResponse, tonic::Status> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<EnqueueAndWaitRequest, EnqueueAndWaitResponse> = ProstCodec::default();
        grpc.unary(Request::new(question), path(ENQUEUE_AND_WAIT), codec).await.map(tonic::Response::into_inner)
    }

    /// A report stream, open for as long as the sender lives.
    pub fn report(&self) -> mpsc::Sender<ReportRequest> {
        let (sender, receiver) = mpsc::channel(64);
        let channel = self.0.clone();
        tokio::spawn(async move {
            let mut grpc = Grpc::new(channel);
            grpc.ready().await.unwrap();
            let codec: ProstCodec<ReportRequest, ReportResponse> = ProstCodec::default();
            let reports = Request::new(ReceiverStream::new(receiver));
            let _ = grpc.client_streaming(reports, path(REPORT), codec).await;
        });
        sender
    }

    pub async fn call_unknown(&self) -> tonic::Code {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let codec: ProstCodec<EnqueueAndWaitRequest, EnqueueAndWaitResponse> = ProstCodec::default();
        grpc.unary(Request::new(question(1)), path("Nothing"), codec).await.unwrap_err().code()
    }
}

fn path(method: &str) -> PathAndQuery {
    PathAndQuery::from_maybe_shared(format!("/{SERVICE}/{method}")).unwrap()
}
