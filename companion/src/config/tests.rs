use super::*;

fn build(args: ServeArgs, text: &str) -> Result<Config, String> {
    Config::build(&args, text, false)
}

fn problem(text: &str) -> String {
    build(ServeArgs::default(), text).unwrap_err()
}

#[test]
fn without_file_and_flags_the_pages_stay_on_this_machine() {
    let config = build(ServeArgs::default(), "").unwrap();
    assert_eq!(config.auth, Auth::None);
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:9090");
    assert!(config.is_pprof_on && config.tls.is_none() && config.envoy.is_empty());
}

#[test]
fn in_a_pod_the_default_is_kubernetes_on_all_interfaces() {
    let config = Config::build(&ServeArgs::default(), "", true).unwrap();
    assert_eq!(config.auth, Auth::Kubernetes { kubeconfig: None, audiences: Vec::new(), times: CacheTimes::default() });
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:9090");
}

#[test]
fn no_auth_on_an_open_address_is_refused_unless_forced() {
    let text = "listen: {address: '0.0.0.0:9090'}\nauth: {mode: none}\n";
    assert!(problem(text).contains("--insecure-no-auth"), "{}", problem(text));
    let forced = ServeArgs { insecure_no_auth: true, ..ServeArgs::default() };
    assert_eq!(build(forced, text).unwrap().listen.address.to_string(), "0.0.0.0:9090");
    let forced = "auth: {mode: none, insecure_no_auth: true}\n";
    assert_eq!(build(ServeArgs::default(), forced).unwrap().listen.address.to_string(), "0.0.0.0:9090");
}

#[test]
fn client_certificates_are_auth_enough_for_an_open_address() {
    let text = "listen: {address: '0.0.0.0:9090'}\ntls: {certificate: /c, key: /k, client_ca: /a}\n";
    assert_eq!(build(ServeArgs::default(), text).unwrap().auth, Auth::None);
    assert!(problem(&text.replace(", client_ca: /a", "")).contains("--insecure-no-auth"));
}

#[test]
fn answers_of_kubernetes_are_kept_as_long_as_epp_keeps_them_unless_told() {
    let times = |text: &str| match build(ServeArgs::default(), text).unwrap().auth {
        Auth::Kubernetes { times, .. } => {
            [times.token, times.bad_token, times.allow, times.deny].map(|time| time.as_secs())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(times("auth: {mode: kubernetes}\n"), [60, 10, 300, 30]);
    assert_eq!(times("auth: {mode: kubernetes, cache: {token: 1s, allow: 2s, deny: 0s}}\n"), [1, 10, 2, 0]);
}

#[test]
fn epps_switch_turns_auth_off_and_on_and_an_explicit_mode_wins() {
    let off = ServeArgs { metrics_endpoint_auth: Some(false), ..ServeArgs::default() };
    assert_eq!(build(off.clone(), "auth: {mode: kubernetes}\n").unwrap().auth, Auth::None);
    let on = ServeArgs { metrics_endpoint_auth: Some(true), ..ServeArgs::default() };
    assert!(matches!(build(on.clone(), "").unwrap().auth, Auth::Kubernetes { .. }));
    assert_eq!(build(on, "auth: {mode: token-file, token_file: /t}\n").unwrap().auth, Auth::TokenFile("/t".into()));
    let both = ServeArgs { auth: Some(AuthMode::Kubernetes), ..off };
    assert!(matches!(build(both, "").unwrap().auth, Auth::Kubernetes { .. }));
}

#[test]
fn flags_win_over_the_file() {
    let text = "listen: {address: '10.0.0.1:1'}\nauth: {mode: token-file, token_file: /file}\npprof: {enabled: false}\n\
                logging: {format: json, level: debug}\n";
    let args = ServeArgs {
        metrics_port: Some(7),
        token_file: Some("/flag".into()),
        enable_pprof: Some(true),
        log_format: Some(LogFormat::Text),
        log_level: Some("warn".to_owned()),
        ..ServeArgs::default()
    };
    let config = build(args, text).unwrap();
    assert_eq!(config.listen.address.to_string(), "10.0.0.1:7");
    assert_eq!(config.auth, Auth::TokenFile("/flag".into()));
    assert!(config.is_pprof_on);
    assert_eq!(config.logging, Logging { format: LogFormat::Text, filter: "warn".to_owned() });
    let config = build(ServeArgs::default(), text).unwrap();
    assert!(!config.is_pprof_on);
    assert_eq!(config.logging, Logging { format: LogFormat::Json, filter: "debug".to_owned() });
}

#[test]
fn envoys_are_read_with_their_options_and_need_distinct_names() {
    let text = "envoy:\n- {url: 'http://10.0.0.1:9901/', interval: 5s, timeout: 2s, also: 'envoy_cluster_.*'}\n\
                - {unix: /run/envoy.sock, name: edge}\n";
    let config = build(ServeArgs { envoy: vec!["unix:///x".to_owned()], ..ServeArgs::default() }, text).unwrap();
    let names: Vec<_> = config.envoy.iter().map(|admin| admin.name.as_str()).collect();
    assert_eq!(names, ["10.0.0.1:9901", "edge", "/x"]);
    assert_eq!(config.envoy[0].interval, Duration::from_secs(5));
    assert_eq!(config.envoy[1].at, AdminAddress::Unix("/run/envoy.sock".into()));
    let also = config.envoy[0].also.as_ref().unwrap();
    assert!(also.is_match("envoy_cluster_upstream_rq") && !also.is_match("my_envoy_cluster_x"));
    assert!(problem("envoy: [{url: 'h:1'}, {url: 'h:1'}]\n").contains("two entries are named h:1"));
}

#[test]
fn an_admins_address_has_a_port_and_no_path() {
    for (text, right) in [("http://h:1", true), ("h:1", true), ("[::1]:9901", true), ("unix:/a", true)] {
        assert_eq!(AdminAddress::parse(text).is_some(), right, "{text}");
    }
    for text in ["h", "http://h", "https://h:1", "http://h:1/stats", "unix:a", "u@h:1", ""] {
        assert_eq!(AdminAddress::parse(text), None, "{text}");
    }
}

#[test]
fn a_mistake_is_named_with_line_key_and_what_was_expected() {
    for (text, said) in [
        (
            "listen:\n  adress: x\n",
            "line 2, column 11: listen.adress: unknown key; known here are address, flow, flow_health, linger, drain",
        ),
        (
            "listen:\n  address: 9090\n",
            "listen.address: expected an address with a port, such as 0.0.0.0:9090, found 9090",
        ),
        ("listen: {drain: 5}\n", "listen.drain: expected a duration such as 50ms, 2s or 1m30s, found 5"),
        ("auth: {mode: ldap}\n", "auth.mode: expected one of kubernetes, none, token-file, found \"ldap\""),
        ("auth: {mode: token-file}\n", "auth.token_file: expected the path of a file with tokens, found nothing"),
        ("envoy: [{}]\n", "envoy[0]: expected either `url` or `unix`"),
        ("envoy: [{url: 'h:1', also: '('}]\n", "envoy[0].also: expected a regular expression, found \"(\""),
        ("tls: {key: /k}\n", "tls.certificate: expected the path of a PEM file, found nothing"),
        ("logging: {level: loud=very}\n", "logging.level: expected a level"),
        ("pools: [\n", "not valid YAML"),
        ("a list\n", "expected a map of keys, found \"a list\""),
    ] {
        assert!(problem(text).contains(said), "{text}: {}", problem(text));
    }
}

#[test]
fn pools_and_flow_control_are_read_and_epps_flags_are_of_the_only_pool() {
    let text = "pools:\n- {name: p, discovery: {static: ['127.0.0.1:8000']}}\nflow_control: {maxRequests: 10}\n";
    let flags = PoolFlags { refresh_metrics_interval: Some(Duration::from_millis(20)), ..PoolFlags::default() };
    let args = ServeArgs { pool: flags.clone(), grpc_port: Some(7002), ..ServeArgs::default() };
    let config = build(args, text).unwrap();
    assert_eq!(config.pools[0].name(), "p");
    assert_eq!(config.flow.unwrap().controller.queue.max_requests, 10);
    assert_eq!(config.listen.flow.to_string(), "127.0.0.1:7002");
    assert_eq!(config.listen.flow_health.to_string(), "127.0.0.1:9003");
    let two = "pools:\n- {name: a, discovery: {static: []}}\n- {name: b, discovery: {static: []}}\n";
    let problem = build(ServeArgs { pool: flags, ..ServeArgs::default() }, two).unwrap_err();
    assert!(problem.contains("of one pool"), "{problem}");
}

#[test]
fn a_doubtful_configuration_is_taken_with_a_sentence_for_each_doubt() {
    let pool = |interval: &str| {
        format!("- {{name: p, refresh_metrics_interval: {interval}, discovery: {{static: ['127.0.0.1:8000']}}}}\n")
    };
    let doubts = |text: &str| build(ServeArgs::default(), text).unwrap().doubts();
    assert_eq!(doubts(&format!("pools:\n{}flow_control: {{}}\n", pool("50ms"))), Vec::<String>::new());
    let slow = doubts(&format!("pools:\n{}flow_control: {{}}\n", pool("200ms")));
    assert!(slow.len() == 1 && slow[0].starts_with("flow_control.saturationDetector.metricsStalenessThreshold: 200ms"));
    assert_eq!(doubts(&format!("pools:\n{}", pool("200ms"))), Vec::<String>::new());
    let stale = doubts(&format!("pools:\n{}", pool("2s")));
    assert!(stale.len() == 1 && stale[0].starts_with("pools[0].refresh_metrics_interval: 2s"), "{stale:?}");
    let two = doubts(&format!("pools:\n{}{}flow_control: {{}}\n", pool("50ms"), pool("50ms")));
    assert!(two.len() == 1 && two[0].contains("the first, p;"), "{two:?}");
    let open = doubts("listen: {address: '0.0.0.0:9090'}\nauth: {mode: none, insecure_no_auth: true}\n");
    assert!(open.len() == 1 && open[0].starts_with("auth.insecure_no_auth: anybody who reaches 0.0.0.0:9090"));
    let open =
        "listen: {address: '0.0.0.0:9090'}\nauth: {mode: none, insecure_no_auth: true}\ntls: {certificate: /c, key: /k";
    assert_eq!(doubts(&format!("{open}}}\n")).len(), 1);
    assert_eq!(doubts(&format!("{open}, client_ca: /a}}\n")), Vec::<String>::new());
}

#[test]
fn a_mistake_in_a_parts_own_section_is_named_with_its_key() {
    for (text, sentence) in [
        ("pools:\n- {name: p, discovery: {static: []}, engine: gpt}\n", "line 2: pools[0].engine: expected "),
        ("pools:\n- {name: p, discovery: {static: []}, port: 1}\n", "line 2, column "),
        ("flow_control:\n  maxFlows: 0\n", "line 2: flow_control.maxFlows: expected at least 1"),
        ("flow_control:\n  maxFlow: 1\n", "line 2, column "),
        (
            "flow_control:\n  saturationDetector: {detectors: [utilization-detector]}\n",
            "line 2: flow_control.saturationDetector.detectors: utilization-detector needs a pool",
        ),
    ] {
        assert!(problem(text).starts_with(sentence), "{}", problem(text));
    }
}

#[test]
fn the_example_of_the_documentation_is_good_and_says_its_defaults() {
    let page = include_str!("../../../docs/TALLYD.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let config = build(ServeArgs::default(), example).unwrap();
    assert_eq!(config.listen.drain, DEFAULT_DRAIN);
    assert_eq!(config.auth, Auth::Kubernetes { kubeconfig: None, audiences: Vec::new(), times: CacheTimes::default() });
    assert_eq!((config.envoy[0].interval, config.envoy[0].timeout), (ENVOY_INTERVAL, ENVOY_TIMEOUT));
    assert!(config.envoy[1].also.as_ref().unwrap().is_match("envoy_cluster_upstream_rq_time"));
}
