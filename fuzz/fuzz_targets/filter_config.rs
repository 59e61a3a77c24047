//! Any bytes as the filter's configuration: taken with sane bounds and as the same each time, or refused in one sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tally_core::config::Config;
use tally_core::labels::Names;

fuzz_target!(|data: &[u8]| match Config::parse(data) {
    Ok(config) => {
        assert_eq!(Config::parse(data).as_ref(), Ok(&config));
        assert!((1..=10_000).contains(&config.max_models) && (1..=10_000).contains(&config.max_tenants));
        assert!((10..=60_000).contains(&config.flush_interval_ms));
        assert!(
            config.target_model_header.bytes().chain(config.tenant_header.bytes()).all(|byte| byte.is_ascii_graphic())
        );
        let names = Names::new(config.max_models as usize, &config.models);
        assert!(names.len() <= config.models.len() + 2);
        config.api(b"/v1/chat/completions").unwrap();
    }
    Err(error) => {
        let sentence = error.to_string();
        assert!(sentence.starts_with("configuration"), "{sentence}");
    }
});
