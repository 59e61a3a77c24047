//! Answers that stay true for a while.
//!
//! In: keys, values, how long each holds, and the time as an argument. Out: the value while it holds. At the cap the
//! entries that have run out go first, then the one that would run out first.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// A bounded map whose entries run out.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    entries: HashMap<K, (V, Instant)>,
    capacity: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    /// Empty, for at most `capacity` entries.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity }
    }

    /// The value, if it still holds.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.entries.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    /// Puts a value that holds until `until`.
    pub(super) fn put(&mut self, key: K, value: V, now: Instant, until: Instant) {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.entries.retain(|_, (_, until)| now < *until);
            if self.entries.len() >= self.capacity
                && let Some(first) =
                    self.entries.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone())
            {
                self.entries.remove(&first);
            }
        }
        self.entries.insert(key, (value, until));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_value_holds_until_its_time_and_not_at_it() {
        let start = Instant::now();
        let mut cache = Cache::new(8);
        cache.put("a", 1, start, start + Duration::from_secs(60));
        assert_eq!(cache.get(&"a", start + Duration::from_millis(59_999)), Some(1));
        assert_eq!(cache.get(&"a", start + Duration::from_secs(60)), None);
        assert_eq!(cache.get(&"b", start), None);
    }

    #[test]
    fn at_the_cap_what_has_run_out_goes_first_then_what_would_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut cache = Cache::new(2);
        cache.put("old", 1, start, at(1));
        cache.put("long", 2, start, at(100));
        cache.put("middle", 3, at(2), at(50));
        assert_eq!([cache.get(&"long", at(2)), cache.get(&"middle", at(2))], [Some(2), Some(3)]);
        cache.put("new", 4, at(3), at(60));
        assert_eq!(
            [cache.get(&"long", at(3)), cache.get(&"middle", at(3)), cache.get(&"new", at(3))],
            [Some(2), None, Some(4)]
        );
        assert_eq!(cache.entries.len(), 2);
    }
}
