//! Endpoints from names: addresses by the system's resolver, SRV records by a name server of the test.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helper may stop it")]

mod pool;

use std::sync::{Arc, Mutex};

use pool::{Behaviour, Running, Server, vllm};
use tokio::net::UdpSocket;

const READY: &str = "inference_pool_ready_pods{name=\"p\"}";
const QUEUE: &str = "inference_pool_average_queue_size{name=\"p\"}";

/// Host, address, port.
type Records = Arc<Mutex<Vec<(&'static str, [u8; 4], u16)>>>;

/// A name server by RFC 1035 and 2782 that knows these services and their addresses.
async fn name_server(records: Records) -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            // The question ends after its name's closing zero, its type and its class.
            let end = 12 + buffer[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let (question, kind) = (&buffer[12..end], buffer[end - 3]);
            let answers: Vec<Vec<u8>> = {
                let records = records.lock().unwrap();
                let of = |(host, ip, port): &(&str, [u8; 4], u16)| match kind {
                    33 => Some([&[0, 0, 0, 0], &port.to_be_bytes()[..], &encoded(host)].concat()),
                    1 if question.to_ascii_lowercase().starts_with(&encoded(host)) => Some(ip.to_vec()),
                    _ => None,
                };
                records.iter().filter_map(of).collect()
            };
            let mut reply = buffer[..2].to_vec();
            reply.extend([0x81, 0x80, 0, 1, 0, u8::try_from(answers.len()).unwrap(), 0, 0, 0, 0]);
            reply.extend(question);
            for answer in answers {
                // The question's name, its type, class IN, no time to live.
                reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, u8::try_from(answer.len()).unwrap()]);
                reply.extend(answer);
            }
            socket.send_to(&reply, peer).await.unwrap();
        }
    });
    address
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn srv_records_say_who_is_scraped_and_a_record_that_goes_takes_its_endpoint_along() {
    let one = Server::start_at("127.0.0.1:0", Behaviour::Page(vllm(2.0, 0.0, 0.0))).await;
    let two = Server::start_at("127.0.0.2:0", Behaviour::Page(vllm(4.0, 0.0, 0.0))).await;
    let both = vec![("a.test", [127, 0, 0, 1], one.address.port()), ("b.test", [127, 0, 0, 2], two.address.port())];
    let records: Records = Arc::new(Mutex::new(both));
    let server = name_server(records.clone()).await;
    let running = Running::start(&format!(
        "- {{name: p, engine: vllm, discovery: {{dns: {{srv: _metrics._tcp.vllm.test, server: \"{server}\"}}}}}}"
    ));
    running.until(&[(READY, Some(2.0)), (QUEUE, Some(3.0))]).await;
    let per_pod = |host: &str, server: &Server| {
        format!("inference_pool_per_pod_queue_size{{name=\"p\",model_server_pod=\"{host}:{}\"}}", server.address.port())
    };
    assert_eq!(running.value(&per_pod("b.test", &two)), Some(4.0));
    records.lock().unwrap().truncate(1);
    running.until(&[(READY, Some(1.0)), (QUEUE, Some(2.0)), (&per_pod("b.test", &two), None)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_stands_for_its_addresses() {
    let server = Server::start(Behaviour::Page(vllm(5.0, 0.0, 0.0))).await;
    let running = Running::start(&format!(
        "- {{name: p, engine: vllm, discovery: {{dns: {{name: localhost, port: {}}}}}}}",
        server.address.port()
    ));
    // localhost may be ::1 too, where nobody listens: that one is known and not ready.
    running.until(&[(READY, Some(1.0)), (QUEUE, Some(5.0))]).await;
}
