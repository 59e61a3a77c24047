//! Real processes for the tests and the demo: Envoy with the built filter, and a model server that replays recordings.
//!
//! In: `testdata/`, `envoy/bootstrap.yaml`, the built artefacts. Out: running processes on free ports, requests with what
//! came back, metrics pages as samples. Never: computes an expected value out of Tally's own code.
#![forbid(unsafe_code)]

pub mod admin;
pub mod chaos;
pub mod client;
pub mod companion;
pub mod conformance;
pub mod corpus;
pub mod dashboard;
pub mod demo;
pub mod envoy;
pub mod expect;
pub mod filter_config;
pub mod growing;
pub mod kube;
pub mod ledger;
pub mod llama;
pub mod lora;
pub mod manifests;
pub mod model_server;
pub mod page;
pub mod prometheus;
pub mod promql;
pub mod reliability;
pub mod soak;
pub mod tools;
mod wire;
