//! What flow control counts: one set of series for each flow, held exactly as long as the flow.
//!
//! In: each request as it enters, each decision, flows that were forgotten. Out: the families of the
//! catalog's flow file. It never decides and never reads a clock; labels beyond the cap are `other`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tally_core::admission::Outcome;
use tally_core::catalog::flow::{
    DISPATCH_CYCLE_DURATION, ENQUEUE_DURATION, FLOW_OVERFLOW_TOTAL, POOL_SATURATION, QUEUE_BYTES, QUEUE_DURATION,
    QUEUE_SIZE, REQUESTS_TOTAL,
};
use tally_core::catalog::{Family, Kind};
use tally_core::exposition::Writer;
use tally_core::histogram::Histogram;

use super::config::MetricLabels;
use super::queue::{FlowId, MAX_BANDS, SHARED_FLOW};
use super::slots::{Id, Slots};

/// Names the series that a request counts in, from its entering to its outcome.
pub(super) type SeriesId = Id<Series>;

/// See the file's head.
#[derive(Debug)]
pub(super) struct FlowMetrics {
    labels: MetricLabels,
    max_labels: usize,
    series: Slots<Series>,
    /// By flow, then by pair of models.
    of_flow: HashMap<FlowId, Vec<(Models, SeriesId)>>,
    /// Flows beyond the cap, by priority.
    of_others: BTreeMap<i32, Vec<(Models, SeriesId)>>,
    models: HashMap<(Arc<str>, Arc<str>), Models>,
    model_names: Vec<(Arc<str>, Arc<str>)>,
    /// By priority; `None` is beyond the cap.
    outcomes: BTreeMap<Option<i32>, [u64; Outcome::ALL.len()]>,
    overflows: u64,
    cycles: Histogram,
}

/// What one flow (with one pair of models) counts.
#[derive(Debug)]
pub(super) struct Series {
    fairness_id: Arc<str>,
    priority: String,
    models: Models,
    requests: u64,
    bytes: u64,
    waited: BTreeMap<&'static str, Histogram>,
    entering: BTreeMap<&'static str, Histogram>,
}

/// Number of a pair of models; 0 where models are no labels, or are beyond the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Models(usize);

/// A request as it enters, for its labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entering<'a> {
    /// Its flow.
    pub(super) flow: FlowId,
    /// The flow's fairness id.
    pub(super) fairness_id: &'a Arc<str>,
    /// The flow's priority.
    pub(super) priority: i32,
    /// The flow is one that ids beyond the queue's cap share.
    pub(super) is_shared: bool,
    /// Model asked for.
    pub(super) model: &'a str,
    /// Model rewritten to.
    pub(super) target_model: &'a str,
    /// Body bytes.
    pub(super) bytes: u64,
}

impl FlowMetrics {
    pub(super) fn new(labels: MetricLabels, max_labels: usize) -> Self {
        let other: Arc<str> = SHARED_FLOW.into();
        let first = match labels {
            MetricLabels::Seed => (Arc::from(""), Arc::from("")),
            MetricLabels::V15 => (other.clone(), other),
        };
        Self {
            labels,
            max_labels,
            series: Slots::new(),
            of_flow: HashMap::new(),
            of_others: BTreeMap::new(),
            models: HashMap::new(),
            model_names: vec![first],
            outcomes: BTreeMap::new(),
            overflows: 0,
            cycles: empty(&DISPATCH_CYCLE_DURATION),
        }
    }

    /// A request enters: it is held until [`Self::left`] takes it out.
    pub(super) fn entered(&mut self, entering: &Entering<'_>) -> SeriesId {
        let models = self.models_of(entering.model, entering.target_model);
        let is_named = self.of_flow.contains_key(&entering.flow) || self.of_flow.len() < self.max_labels;
        if entering.is_shared || !is_named {
            self.overflows += 1;
        }
        let (list, fairness_id) = if is_named {
            (self.of_flow.entry(entering.flow).or_default(), entering.fairness_id.clone())
        } else {
            (self.of_others.entry(entering.priority).or_default(), SHARED_FLOW.into())
        };
        let id = match list.iter().find(|(of, _)| *of == models) {
            Some((_, id)) => *id,
            None => {
                let id = self.series.insert(Series::new(fairness_id, entering.priority, models));
                list.push((models, id));
                id
            }
        };
        if let Some(series) = self.series.get_mut(id) {
            series.requests += 1;
            series.bytes += entering.bytes;
        }
        id
    }

    /// How long entering took, and what came of it at once; `None` is queued.
    pub(super) fn enqueued(&mut self, id: SeriesId, outcome: Option<Outcome>, nanos: u64) {
        if let Some(series) = self.series.get_mut(id) {
            let outcome = outcome.map_or(QUEUED, Outcome::label);
            series.entering.entry(outcome).or_insert_with(|| empty(&ENQUEUE_DURATION)).observe(nanos);
        }
    }

    /// A request has its outcome.
    pub(super) fn left(&mut self, id: SeriesId, priority: i32, outcome: Outcome, bytes: u64, waited_nanos: u64) {
        if let Some(series) = self.series.get_mut(id) {
            series.requests = series.requests.saturating_sub(1);
            series.bytes = series.bytes.saturating_sub(bytes);
            series.waited.entry(outcome.label()).or_insert_with(|| empty(&QUEUE_DURATION)).observe(waited_nanos);
        }
        let is_known = self.outcomes.contains_key(&Some(priority)) || self.outcomes.len() < MAX_BANDS;
        let counts = self.outcomes.entry(is_known.then_some(priority)).or_default();
        let at = Outcome::ALL.iter().position(|other| *other == outcome);
        if let Some(count) = at.and_then(|at| counts.get_mut(at)) {
            *count += 1;
        }
    }

    /// One cycle that had something to do.
    pub(super) fn cycle(&mut self, nanos: u64) {
        self.cycles.observe(nanos);
    }

    /// A flow was forgotten: its series go, and make room for others' labels.
    pub(super) fn gone(&mut self, flow: FlowId) {
        for (_, id) in self.of_flow.remove(&flow).unwrap_or_default() {
            self.series.remove(id);
        }
    }

    /// Writes all families of flow control.
    pub(super) fn write(&self, page: &mut Writer, pool: &str, saturation: f64) {
        self.write_histograms(page, pool, &QUEUE_DURATION, |series| &series.waited);
        self.write_gauge(page, pool, &QUEUE_SIZE, |series| series.requests);
        self.write_gauge(page, pool, &QUEUE_BYTES, |series| series.bytes);
        self.write_histograms(page, pool, &ENQUEUE_DURATION, |series| &series.entering);
        page.family(&DISPATCH_CYCLE_DURATION).histogram(&[], &self.cycles);
        page.family(&POOL_SATURATION).sample(&[("inference_pool", pool)], saturation);
        let mut family = page.family(&REQUESTS_TOTAL);
        for (priority, counts) in &self.outcomes {
            let priority = priority.map_or_else(|| SHARED_FLOW.to_owned(), |priority| priority.to_string());
            for (outcome, count) in Outcome::ALL.iter().zip(counts).filter(|(_, count)| **count > 0) {
                family.sample(&[("priority", &priority), ("outcome", outcome.label())], *count as f64);
            }
        }
        page.family(&FLOW_OVERFLOW_TOTAL).sample(&[], self.overflows as f64);
    }

    fn write_gauge(&self, page: &mut Writer, pool: &str, family: &'static Family, value: impl Fn(&Series) -> u64) {
        let mut family = page.family(family);
        for series in self.series.iter() {
            family.sample(&self.labels_of(series, pool, None), value(series) as f64);
        }
    }

    fn write_histograms(
        &self,
        page: &mut Writer,
        pool: &str,
        family: &'static Family,
        histograms: impl Fn(&Series) -> &BTreeMap<&'static str, Histogram>,
    ) {
        let mut family = page.family(family);
        for series in self.series.iter() {
            for (outcome, histogram) in histograms(series) {
                family.histogram(&self.labels_of(series, pool, Some(outcome)), histogram);
            }
        }
    }

    fn labels_of<'a>(
        &'a self,
        series: &'a Series,
        pool: &'a str,
        outcome: Option<&'a str>,
    ) -> Vec<(&'static str, &'a str)> {
        let mut labels = vec![("fairness_id", &*series.fairness_id), ("priority", series.priority.as_str())];
        labels.extend(outcome.map(|outcome| ("outcome", outcome)));
        if self.labels == MetricLabels::V15 {
            let names = self.model_names.get(series.models.0);
            let (model, target) = names.map_or(("", ""), |(model, target)| (&**model, &**target));
            labels.extend([("inference_pool", pool), ("model_name", model), ("target_model_name", target)]);
        }
        labels
    }

    fn models_of(&mut self, model: &str, target: &str) -> Models {
        if self.labels == MetricLabels::Seed {
            return Models(0);
        }
        let key = (Arc::from(model), Arc::from(target));
        if let Some(models) = self.models.get(&key) {
            return *models;
        }
        if self.models.len() >= self.max_labels {
            return Models(0);
        }
        let models = Models(self.model_names.len());
        self.model_names.push(key.clone());
        self.models.insert(key, models);
        models
    }
}

impl Series {
    fn new(fairness_id: Arc<str>, priority: i32, models: Models) -> Self {
        Self {
            fairness_id,
            priority: priority.to_string(),
            models,
            requests: 0,
            bytes: 0,
            waited: BTreeMap::new(),
            entering: BTreeMap::new(),
        }
    }
}

fn empty(family: &Family) -> Histogram {
    match family.kind {
        Kind::Histogram(bounds) => Histogram::new(bounds),
        Kind::Counter | Kind::Gauge => Histogram::new(&[]),
    }
}

/// What came of a request that waits when entering is over.
const QUEUED: &str = "Queued";
