//! The gauges say what a person counts by hand on the recorded pages.

mod pool;

use pool::{Behaviour, Running, Server, VLLM_BUSY, vllm};

const LORA_BUSY: &str = include_str!("../../testdata/scrapes/vllm-lora-busy.prom");
const LLAMA_BUSY: &str = include_str!("../../testdata/scrapes/llamacpp-busy.prom");
const VLLM_IDLE: &str = include_str!("../../testdata/scrapes/vllm-idle.prom");

fn static_pool(servers: &[&Server], more: &str) -> String {
    let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    format!("- {{name: p, discovery: {{static: [\"{}\"]}}{more}}}", addresses.join("\",\""))
}

#[tokio::test]
async fn gauges_of_recorded_vllm_pages_are_the_values_by_hand() {
    let busy = Server::start(Behaviour::Page(VLLM_BUSY.into())).await;
    let lora = Server::start(Behaviour::Page(LORA_BUSY.into())).await;
    let idle = Server::start(Behaviour::Page(VLLM_IDLE.into())).await;
    let running = Running::start(&static_pool(&[&busy, &lora, &idle], ", engine: vllm"));
    // By grep on the recordings: waiting 4, 8, 0; running 4, 4, 0; kv 0.12698412698412698, 0.06349206349206349, 0.
    running
        .until(&[
            ("inference_pool_ready_pods{name=\"p\"}", Some(3.0)),
            ("inference_pool_average_queue_size{name=\"p\"}", Some(4.0)),
            ("inference_pool_average_running_requests{name=\"p\"}", Some(8.0 / 3.0)),
            ("inference_pool_average_kv_cache_utilization{name=\"p\"}", Some(0.190_476_190_476_190_47 / 3.0)),
            ("inference_pool_min_queue_size{name=\"p\"}", Some(0.0)),
            ("inference_pool_max_queue_size{name=\"p\"}", Some(8.0)),
            // Squares of 0, 4 and -4: 32 over 3.
            ("inference_pool_stddev_queue_size{name=\"p\"}", Some(3.265_986_323_710_904)),
            ("inference_pool_max_kv_cache_utilization{name=\"p\"}", Some(0.126_984_126_984_126_98)),
            ("inference_pool_min_running_requests{name=\"p\"}", Some(0.0)),
            // The latest series of the LoRA page names both; that of the busy page names none, though an older one does.
            ("inference_pool_lora_adapter_pods{name=\"p\",adapter_name=\"lora-1\"}", Some(1.0)),
            ("inference_pool_lora_adapter_pods{name=\"p\",adapter_name=\"lora-2\"}", Some(1.0)),
            ("inference_pool_lora_adapter_pods{name=\"p\",adapter_name=\"l1\"}", None),
            ("inference_pool_scrape_errors_total{name=\"p\",reason=\"missing_family\"}", Some(0.0)),
        ])
        .await;
    let per_pod = format!("inference_pool_per_pod_queue_size{{name=\"p\",model_server_pod=\"{}\"}}", lora.address);
    assert_eq!(running.value(&per_pod), Some(8.0));
}

#[tokio::test]
async fn llama_cpp_has_a_queue_and_no_cache_and_that_is_no_error() {
    let server = Server::start(Behaviour::Page(LLAMA_BUSY.into())).await;
    for more in ["", ", engine: llamacpp"] {
        let running = Running::start(&static_pool(&[&server], more));
        running
            .until(&[
                ("inference_pool_ready_pods{name=\"p\"}", Some(1.0)),
                ("inference_pool_average_queue_size{name=\"p\"}", Some(4.0)),
                ("inference_pool_average_running_requests{name=\"p\"}", Some(4.0)),
                ("inference_pool_average_kv_cache_utilization{name=\"p\"}", None),
                ("inference_pool_scrape_errors_total{name=\"p\",reason=\"missing_family\"}", Some(0.0)),
            ])
            .await;
    }
}

#[tokio::test]
async fn engines_of_one_pod_add_up_and_their_caches_are_averaged() {
    let page = "vllm:num_requests_waiting{engine=\"0\"} 3\nvllm:num_requests_waiting{engine=\"1\"} 5\n\
                vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_running{engine=\"1\"} 2\n\
                vllm:kv_cache_usage_perc{engine=\"0\"} 0.2\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.6\n\
                vllm:gpu_cache_usage_perc{engine=\"0\"} 0.9\n";
    let server = Server::start(Behaviour::Page(page.into())).await;
    let running = Running::start(&static_pool(&[&server], ", engine: vllm"));
    running
        .until(&[
            ("inference_pool_average_queue_size{name=\"p\"}", Some(8.0)),
            ("inference_pool_average_running_requests{name=\"p\"}", Some(3.0)),
            ("inference_pool_average_kv_cache_utilization{name=\"p\"}", Some(0.4)),
        ])
        .await;
}

#[tokio::test]
async fn each_engines_names_are_read_with_and_without_being_told() {
    // Pages by the names in each engine's documentation; the values are made up.
    let pages = [
        (
            "vllm",
            "vllm:num_requests_waiting 2\nvllm:num_requests_running 3\nvllm:gpu_cache_usage_perc 0.25\n".to_owned(),
        ),
        ("vllm", vllm(2.0, 3.0, 0.25)),
        (
            "sglang",
            "sglang:num_queue_reqs{tp_rank=\"0\"} 2\nsglang:num_running_reqs 3\nsglang:token_usage 0.25\n".to_owned(),
        ),
        (
            "triton",
            "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 2\n\
             nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 3\n\
             nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\",version=\"1\"} 512\n\
             nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\",model=\"m\",version=\"1\"} 0.25\n\
             nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\",model=\"m\",version=\"1\"} 6239\n"
                .to_owned(),
        ),
        (
            "trtllm",
            "trtllm_num_requests_waiting 2\ntrtllm_num_requests_running 3\ntrtllm_kv_cache_utilization 0.25\n"
                .to_owned(),
        ),
    ];
    for (engine, page) in pages {
        let server = Server::start(Behaviour::Page(page)).await;
        for more in [String::new(), format!(", engine: {engine}")] {
            let running = Running::start(&static_pool(&[&server], &more));
            running
                .until(&[
                    ("inference_pool_average_queue_size{name=\"p\"}", Some(2.0)),
                    ("inference_pool_average_running_requests{name=\"p\"}", Some(3.0)),
                    ("inference_pool_average_kv_cache_utilization{name=\"p\"}", Some(0.25)),
                ])
                .await;
        }
    }
    let tgi = Server::start(Behaviour::Page("tgi_queue_size 2\ntgi_batch_current_size 3\n".into())).await;
    let running = Running::start(&static_pool(&[&tgi], ", engine: tgi"));
    running.until(&[("inference_pool_average_running_requests{name=\"p\"}", Some(3.0))]).await;
}

#[tokio::test]
async fn own_mappings_replace_an_engines_names_and_an_empty_one_switches_it_off() {
    let page = "my_queue{kind=\"real\"} 6\nmy_queue{kind=\"fake\"} 60\nmy_running 1\n";
    let server = Server::start(Behaviour::Page(page.into())).await;
    let mapping = ", engine: vllm, mapping: {waiting: \"my_queue{kind=real}\", running: my_running, kv_usage: \"\"}";
    let running = Running::start(&static_pool(&[&server], mapping));
    running
        .until(&[
            ("inference_pool_average_queue_size{name=\"p\"}", Some(6.0)),
            ("inference_pool_average_running_requests{name=\"p\"}", Some(1.0)),
            ("inference_pool_average_kv_cache_utilization{name=\"p\"}", None),
            ("inference_pool_scrape_errors_total{name=\"p\",reason=\"missing_family\"}", Some(0.0)),
        ])
        .await;
}

#[tokio::test]
async fn a_page_without_its_cache_series_counts_for_the_queue_and_is_told_of() {
    let page = "vllm:num_requests_waiting 2\nvllm:num_requests_running 3\nvllm:cache_usage_of_tomorrow 0.5\n";
    let server = Server::start(Behaviour::Page(page.into())).await;
    let running = Running::start(&static_pool(&[&server], ", engine: vllm"));
    running
        .until(&[
            ("inference_pool_average_queue_size{name=\"p\"}", Some(2.0)),
            ("inference_pool_average_kv_cache_utilization{name=\"p\"}", None),
        ])
        .await;
    assert!(running.value("inference_pool_scrape_errors_total{name=\"p\",reason=\"missing_family\"}") > Some(0.0));
}

#[tokio::test]
async fn a_compressed_page_is_read_and_a_kept_connection_serves_many_scrapes() {
    let server = Server::start(Behaviour::Gzip(VLLM_BUSY.into(), 0)).await;
    let running = Running::start(&static_pool(&[&server], ", engine: vllm, refresh_metrics_interval: 5ms"));
    running.until(&[("inference_pool_average_queue_size{name=\"p\"}", Some(4.0))]).await;
    server.now(Behaviour::Page(vllm(9.0, 0.0, 0.0)));
    running.until(&[("inference_pool_average_queue_size{name=\"p\"}", Some(9.0))]).await;
    assert!(server.asked() > 1);
    assert_eq!(server.most_open.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn pools_are_told_apart_and_a_second_one_of_a_name_is_refused() {
    let one = Server::start(Behaviour::Page(vllm(1.0, 0.0, 0.0))).await;
    let two = Server::start(Behaviour::Page(vllm(2.0, 0.0, 0.0))).await;
    let yaml = |names: [&str; 2]| {
        format!(
            "- {{name: {}, discovery: {{static: [\"{}\"]}}}}\n- {{name: {}, discovery: {{static: [\"{}\"]}}}}\n",
            names[0], one.address, names[1], two.address
        )
    };
    let running = Running::start(&yaml(["a", "b"]));
    running
        .until(&[
            ("inference_pool_average_queue_size{name=\"a\"}", Some(1.0)),
            ("inference_pool_average_queue_size{name=\"b\"}", Some(2.0)),
        ])
        .await;
    let configs: Vec<tallyd::pool::PoolConfig> = serde_saphyr::from_str(&yaml(["a", "a"])).unwrap();
    let plans = configs.into_iter().map(|config| config.plan().unwrap()).collect();
    let tracker = tokio_util::task::TaskTracker::new();
    assert!(tallyd::pool::Pools::start(plans, &tracker, Default::default()).is_err());
}

#[tokio::test]
async fn snapshots_and_the_summary_say_what_the_page_says() {
    let server = Server::start(Behaviour::Page(LORA_BUSY.into())).await;
    let running = Running::start(&static_pool(&[&server], ""));
    let mut snapshots = running.pools.watch("p").unwrap();
    assert!(running.pools.watch("q").is_none());
    let deadline = tokio::time::Instant::now() + pool::DEADLINE;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if let Some((endpoint, sample)) = snapshot.fresh().next() {
            assert_eq!((sample.waiting, sample.running), (8.0, Some(4.0)));
            assert_eq!(*endpoint.name, server.address.to_string());
            break;
        }
        tokio::time::timeout_at(deadline, snapshots.changed()).await.unwrap().unwrap();
    }
    let json = serde_json::to_value(running.pools.summary()).unwrap();
    assert_eq!(json["pools"][0]["ready_pods"], 1);
    assert_eq!(json["pools"][0]["endpoints"][0]["loras"], serde_json::json!(["lora-1", "lora-2"]));
}
