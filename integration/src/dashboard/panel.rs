//! One panel: what it shows of which families, and its JSON.
//!
//! In: families of the catalog, expressions over them. Out: Grafana's panel object; its description is the catalog's help.

use std::fmt::Write;

use serde_json::{Value, json};
use tally_core::catalog::{Family, Unit};

/// How a panel draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One number.
    Stat,
    /// Lines over time.
    Lines,
    /// Areas that add up.
    Stacked,
    /// Buckets over time.
    Heatmap,
}

impl Shape {
    /// Width and height on Grafana's grid.
    #[must_use]
    pub const fn size(self) -> (u32, u32) {
        match self {
            Self::Stat => (4, 4),
            Self::Lines | Self::Stacked | Self::Heatmap => (8, 8),
        }
    }
}

/// One panel.
#[derive(Debug)]
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// How it draws.
    pub shape: Shape,
    /// Grafana's name of the unit.
    pub unit: &'static str,
    /// Expressions, each with the legend of its series.
    pub targets: Vec<(String, &'static str)>,
    /// Families whose help texts describe it.
    families: Vec<&'static Family>,
    /// What the catalog cannot say.
    note: &'static str,
    /// From these values on the colour changes: to orange, then to red.
    limits: Option<(f64, f64)>,
}

impl Panel {
    /// A panel of one family; the unit is the family's.
    pub(super) fn of(title: &'static str, shape: Shape, family: &'static Family) -> Self {
        Self {
            title,
            shape,
            unit: unit(family.unit),
            targets: Vec::new(),
            families: vec![family],
            note: "",
            limits: None,
        }
    }

    /// With one more family to describe.
    pub(super) fn and(mut self, family: &'static Family) -> Self {
        self.families.push(family);
        self
    }

    /// With this expression.
    pub(super) fn show(mut self, expression: String, legend: &'static str) -> Self {
        self.targets.push((expression, legend));
        self
    }

    /// In another unit than the family's.
    pub(super) const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// With words of its own.
    pub(super) const fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    /// Orange from the first, red from the second.
    pub(super) const fn limits(mut self, warn: f64, bad: f64) -> Self {
        self.limits = Some((warn, bad));
        self
    }

    /// The 50th, 90th and 95th percentile of a histogram.
    pub(super) fn quantiles(title: &'static str, family: &'static Family, selector: &str) -> Self {
        let mut panel = Self::of(title, Shape::Lines, family);
        for (q, legend) in [("0.5", "50%"), ("0.9", "90%"), ("0.95", "95%")] {
            panel = panel.show(quantile(q, family, selector, "le"), legend);
        }
        panel
    }

    fn description(&self) -> String {
        let mut text = String::new();
        for family in &self.families {
            let _ = writeln!(text, "`{}`: {}", family.name, family.help);
        }
        text.push_str(self.note);
        text.trim_end().to_owned()
    }

    /// Its JSON, with this number and place.
    pub(super) fn render(&self, id: usize, place: Value, source: &Value) -> Value {
        let targets: Vec<Value> = self
            .targets
            .iter()
            .zip('A'..='Z')
            .map(|((expression, legend), letter)| {
                json!({
                    "refId": letter.to_string(),
                    "datasource": source,
                    "editorMode": "code",
                    "expr": expression,
                    "legendFormat": legend,
                    "format": if self.shape == Shape::Heatmap { "heatmap" } else { "time_series" },
                    "range": true,
                    "instant": false,
                })
            })
            .collect();
        json!({
            "id": id,
            "type": match self.shape {
                Shape::Stat => "stat",
                Shape::Lines | Shape::Stacked => "timeseries",
                Shape::Heatmap => "heatmap",
            },
            "title": self.title,
            "description": self.description(),
            "datasource": source,
            "gridPos": place,
            "targets": targets,
            "fieldConfig": { "defaults": self.defaults(), "overrides": [] },
            "options": self.options(),
        })
    }

    fn defaults(&self) -> Value {
        let mut steps = vec![json!({ "color": "green", "value": null })];
        if let Some((warn, bad)) = self.limits {
            steps.push(json!({ "color": "orange", "value": warn }));
            steps.push(json!({ "color": "red", "value": bad }));
        }
        let stacked = self.shape == Shape::Stacked;
        let custom = match self.shape {
            Shape::Lines | Shape::Stacked => json!({
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": if stacked { 30 } else { 5 },
                "showPoints": "never",
                "stacking": { "mode": if stacked { "normal" } else { "none" }, "group": "A" },
                "thresholdsStyle": { "mode": if self.limits.is_some() { "line" } else { "off" } },
            }),
            Shape::Stat | Shape::Heatmap => json!({}),
        };
        json!({
            "unit": self.unit,
            "min": 0,
            "noValue": "no data",
            "thresholds": { "mode": "absolute", "steps": steps },
            "color": { "mode": if self.shape == Shape::Stat { "thresholds" } else { "palette-classic" } },
            "custom": custom,
        })
    }

    fn options(&self) -> Value {
        match self.shape {
            Shape::Stat => json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "colorMode": "value",
                "graphMode": "area",
                "justifyMode": "auto",
                "orientation": "auto",
                "textMode": "auto",
                "wideLayout": true,
                "showPercentChange": false,
                "percentChangeColorMode": "standard",
            }),
            Shape::Lines | Shape::Stacked => json!({
                "legend": { "displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"] },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Shape::Heatmap => json!({
                "calculate": false,
                "cellGap": 1,
                "color": { "mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange", "reverse": false },
                "exemplars": { "color": "rgba(255,0,255,0.7)" },
                "showValue": "never",
                "legend": { "show": true },
                "tooltip": { "mode": "single", "yHistogram": false },
                "yAxis": { "axisPlacement": "left", "unit": self.unit },
            }),
        }
    }
}

/// One quantile over the rate of a histogram's buckets.
pub(super) fn quantile(q: &str, family: &Family, selector: &str, by: &str) -> String {
    format!("histogram_quantile({q}, sum by ({by}) (rate({}_bucket{{{selector}}}[$__rate_interval])))", family.name)
}

/// The rate of a counter, or of a histogram's `_sum` or `_count`, summed by labels.
pub(super) fn rate(family: &Family, part: &str, selector: &str, by: &str) -> String {
    format!("sum by ({by}) (rate({}{part}{{{selector}}}[$__rate_interval]))", family.name)
}

const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes",
        Unit::Nanoseconds => "ns",
        Unit::Ratio => "percentunit",
        Unit::Seconds => "s",
        Unit::UnixSeconds => "dateTimeAsIso",
        Unit::None | Unit::Requests | Unit::Tokens => "short",
    }
}
