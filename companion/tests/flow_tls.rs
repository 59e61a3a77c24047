//! Flow control's port of a whole `tallyd serve`, in this process: the certificate's files are followed.

// Helpers of a test may stop it too; clippy only knows the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod flow_client;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use flow_client::{Client, question};
use tally_core::admission::Outcome;
use tallyd::config::{Config, ServeArgs};
use tokio_util::sync::CancellationToken;

/// A new certificate into the files; what a client trusts.
fn renew(folder: &Path) -> String {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), certified.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), certified.signing_key.serialize_pem()).unwrap();
    certified.cert.pem()
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Polls, for thirty seconds.
async fn connected(address: SocketAddr, authority: &str) -> Client {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match Client::try_tls(address, authority).await {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < end, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_takes_a_new_certificate_from_the_files_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let old = renew(folder.path());
    let (flow, health) = (free_address(), free_address());
    let text = format!(
        "listen: {{address: '127.0.0.1:0', flow: '{flow}', flow_health: '{health}'}}\nauth: {{mode: none}}\n\
         tls: {{certificate: {0}/tls.crt, key: {0}/tls.key}}\nflow_control: {{}}\n",
        folder.path().display()
    );
    let file = folder.path().join("tallyd.yaml");
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&ServeArgs { config: Some(file), ..ServeArgs::default() }).unwrap();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(tallyd::serve::run(config, shutdown.clone()));
    let before = connected(flow, &old).await;
    assert_eq!(before.ask(question(1)).await.unwrap().outcome(), Outcome::Dispatched);
    let new = renew(folder.path());
    let after = connected(flow, &new).await;
    assert_eq!(after.ask(question(2)).await.unwrap().outcome(), Outcome::Dispatched);
    assert!(Client::try_tls(flow, &old).await.is_err(), "the old certificate is no longer shown");
    assert_eq!(before.ask(question(3)).await.unwrap().outcome(), Outcome::Dispatched, "who was there stays");
    shutdown.cancel();
    server.await.unwrap().unwrap();
}
