//! The Grafana dashboard as JSON, made from the catalog and the list of panels in `rows`.
//!
//! In: the tables. Out: one document, the same every time. Never: a metric that the catalog does not have.

mod panel;
mod rows;

use serde_json::{Value, json};

pub use panel::{Panel, Shape};

/// Grafana's grid is this wide.
const WIDTH: u32 = 24;

/// The selector of every request family.
pub(crate) const MODEL: &str = r#"job=~"$job", model_name=~"$model""#;
/// The selector of every pool family.
pub(crate) const POOL: &str = r#"job=~"$job", name=~"$pool""#;
/// The selector of every flow control family that has a priority.
pub(crate) const PRIORITY: &str = r#"job=~"$job", priority=~"$priority""#;
/// The selector of all others.
pub(crate) const JOB: &str = r#"job=~"$job""#;

/// A titled row of panels.
#[derive(Debug)]
pub struct Row {
    /// Its title.
    pub title: &'static str,
    /// Its panels, left to right, top to bottom.
    pub panels: Vec<Panel>,
}

/// Everything that is on the dashboard.
#[must_use]
pub fn rows() -> Vec<Row> {
    rows::all()
}

/// The document that Grafana imports.
#[must_use]
pub fn render() -> Value {
    json!({
        "uid": "tally-inference",
        "title": "Tally: LLM traffic",
        "description": "Requests, latency, tokens and errors per model; the pool behind them; flow control; LoRA; the filter itself.",
        "tags": ["tally", "inference", "llm"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "10s",
        "timezone": "browser",
        "time": { "from": "now-1h", "to": "now" },
        "timepicker": {},
        "annotations": { "list": [] },
        "links": [],
        "templating": { "list": variables() },
        "panels": panels(),
    })
}

fn variables() -> Vec<Value> {
    let mut list = vec![json!({
        "name": "DS_PROMETHEUS",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": { "text": "default", "value": "default" },
        "hide": 0,
        "includeAll": false,
        "multi": false,
        "options": [],
        "refresh": 1,
    })];
    let queries = [
        ("job", "Job", r#"label_values({__name__=~"inference_.*|tally_.*|lora_syncer_.*"}, job)"#),
        ("pool", "Pool", "label_values(inference_pool_ready_pods, name)"),
        ("model", "Model", "label_values(inference_objective_request_total, model_name)"),
        ("priority", "Priority", "label_values(inference_extension_flow_control_queue_size, priority)"),
    ];
    list.extend(queries.map(|(name, label, query)| {
        json!({
            "name": name,
            "label": label,
            "type": "query",
            "datasource": source(),
            "definition": query,
            "query": { "query": query, "refId": name },
            "refresh": 2,
            "sort": 1,
            "includeAll": true,
            "allValue": ".*",
            "multi": true,
            "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
            "hide": 0,
            "options": [],
            "regex": "",
        })
    }));
    list
}

/// The data source that the variable names.
fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${DS_PROMETHEUS}" })
}

/// Rows and panels with their places, numbered in order.
fn panels() -> Vec<Value> {
    let (mut list, mut y) = (Vec::new(), 0);
    for row in rows() {
        list.push(json!({
            "id": list.len() + 1,
            "type": "row",
            "title": row.title,
            "collapsed": false,
            "gridPos": { "x": 0, "y": y, "w": WIDTH, "h": 1 },
            "panels": [],
        }));
        y += 1;
        let (mut x, mut tallest) = (0, 0);
        for panel in &row.panels {
            let (width, height) = panel.shape.size();
            if x + width > WIDTH {
                (x, y, tallest) = (0, y + tallest, 0);
            }
            list.push(panel.render(list.len() + 1, json!({ "x": x, "y": y, "w": width, "h": height }), &source()));
            (x, tallest) = (x + width, tallest.max(height));
        }
        y += tallest;
    }
    list
}
