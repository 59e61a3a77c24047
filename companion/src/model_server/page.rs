//! Adds up one page of a model server.
//!
//! In: the page's pieces. Out: a [`Sample`], or why there is none. Series of several engines in one pod are one server:
//! queues and running requests add up, cache shares are averaged. It never takes a value that can't be (negative, NaN).

use tally_core::exposition::read::select::MAX_SPECS;
use tally_core::exposition::read::{Found, Matches, Reader};

use super::Sample;
use super::lora::Latest;
use super::mapping::{Mapping, Meaning};

/// A page being read.
#[derive(Debug)]
pub struct Page<'m> {
    mapping: &'m Mapping,
    reader: Reader<'m>,
    sums: [Sum; MAX_SPECS],
    loras: Latest,
    is_broken: bool,
}

/// A page that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// What it says.
    pub sample: Sample,
    /// It lacks a series that the engine should show, but not the queue.
    pub is_incomplete: bool,
}

/// Why a page gives no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageError {
    /// It has no queue.
    MissingFamily,
    /// A wanted line is not one, or says what can't be.
    Parse,
    /// It ends inside a line.
    Truncated,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    total: f64,
    series: u32,
}

impl<'m> Page<'m> {
    /// At the begin of a page.
    #[must_use]
    pub fn new(mapping: &'m Mapping) -> Self {
        Self {
            mapping,
            reader: Reader::new(&mapping.selector),
            sums: [Sum::default(); MAX_SPECS],
            loras: Latest::default(),
            is_broken: false,
        }
    }

    /// The next piece.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while let Some(found) = self.reader.next(&mut piece) {
            match found {
                Found::Broken => self.is_broken = true,
                Found::Sample(sample, matches) => {
                    self.is_broken |= !add(self.mapping, &mut self.sums, &mut self.loras, sample, matches);
                }
            }
        }
    }

    /// The end of the page.
    ///
    /// # Errors
    /// The page gives no sample.
    pub fn finish(self) -> Result<Read, PageError> {
        if self.is_broken {
            return Err(PageError::Parse);
        }
        if self.reader.is_cut() {
            return Err(PageError::Truncated);
        }
        let sum_of = |meaning| {
            let sums = self.mapping.meanings.iter().zip(&self.sums);
            sums.filter(|(known, _)| **known == meaning).map(|(_, sum)| *sum).find(|sum| sum.series > 0)
        };
        let is_missing = |meaning: &Meaning| sum_of(*meaning).is_none();
        let (waiting, running) = (sum_of(Meaning::Waiting), sum_of(Meaning::Running));
        let kv = sum_of(Meaning::KvUsage);
        let nothing = waiting.is_none() && running.is_none() && kv.is_none();
        if nothing || (self.mapping.expected.contains(&Meaning::Waiting) && waiting.is_none()) {
            return Err(PageError::MissingFamily);
        }
        let is_incomplete = self.mapping.expected.iter().any(is_missing);
        let sample = Sample {
            waiting: waiting.unwrap_or_default().total,
            running: running.map(|sum| sum.total),
            kv_usage: kv.map(|sum| sum.total / f64::from(sum.series)),
            loras: self.loras.finish(),
        };
        Ok(Read { sample, is_incomplete })
    }
}

/// Adds one sample to the sums of its meanings; false if its value can't be.
fn add(
    mapping: &Mapping,
    sums: &mut [Sum; MAX_SPECS],
    loras: &mut Latest,
    sample: tally_core::exposition::read::Sample<'_>,
    matches: Matches,
) -> bool {
    for index in matches.iter() {
        let (Some(meaning), Some(sum)) = (mapping.meanings.get(index), sums.get_mut(index)) else { continue };
        let value = match meaning {
            Meaning::LoraInfo => {
                loras.add(sample.labels, sample.value);
                continue;
            }
            // Some engines round a full cache up.
            Meaning::KvUsage => sample.value.min(1.0),
            Meaning::Running | Meaning::Waiting => sample.value,
        };
        if !sample.value.is_finite() || value < 0.0 {
            return false;
        }
        sum.total += value;
        sum.series += 1;
    }
    true
}
