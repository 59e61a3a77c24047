//! Any text as tallyd's file: taken, and never more open than it says; or refused in one sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tallyd::config::{Auth, Config, ServeArgs};

fuzz_target!(|text: &str| {
    match Config::build(&ServeArgs::default(), text, false) {
        Ok(config) => {
            let asks_for_certificates = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
            if config.auth == Auth::None && !asks_for_certificates && !text.contains("insecure_no_auth") {
                assert!(config.listen.address.ip().is_loopback(), "{:?}", config.listen);
            }
            assert!(!config.summary().is_empty());
            for doubt in config.doubts() {
                assert!(!doubt.to_string().is_empty());
            }
        }
        Err(problem) => assert!(!problem.is_empty()),
    }
});
