//! A metrics page as a table with one line for each model.

use std::fmt::Write;

use tally_core::catalog::objective as families;

use crate::page::Page;

const HEAD: [&str; 10] =
    ["model", "requests", "errors", "left", "tokens in", "tokens out", "p50 s", "p99 s", "TTFT p50 s", "s/token p50"];

/// The table.
pub(super) fn render(page: &Page) -> String {
    let models = page.label_values(families::REQUEST_TOTAL.name, "model_name");
    if models.is_empty() {
        return "no model was counted: is the filter in the chain?".to_owned();
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(models.iter().map(|model| row(page, model)));
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if index == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    }
    text
}

fn row(page: &Page, model: &str) -> [String; 10] {
    let of_model = [("model_name", model)];
    let left = [("model_name", model), ("outcome", "client_cancelled")];
    let count = |name: &str| page.total(name, &of_model).to_string();
    let sum = |name: &str| page.total(&format!("{name}_sum"), &of_model).to_string();
    let quantile = |name: &str, q: f64| {
        page.quantile(name, &of_model, q).map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}"))
    };
    [
        model.to_owned(),
        count(families::REQUEST_TOTAL.name),
        count(families::REQUEST_ERROR_TOTAL.name),
        page.total(families::REQUEST_OUTCOME_TOTAL.name, &left).to_string(),
        sum(families::INPUT_TOKENS_FAMILY.name),
        sum(families::OUTPUT_TOKENS_FAMILY.name),
        quantile(families::REQUEST_DURATION.name, 0.5),
        quantile(families::REQUEST_DURATION.name, 0.99),
        quantile(families::REQUEST_TTFT.name, 0.5),
        quantile(families::NORMALIZED_TIME_PER_OUTPUT_TOKEN.name, 0.5),
    ]
}
