//! Slots: values at stable small indices, named by ids that a reused slot does not answer to.
//!
//! In: values. Out: an id each; O(1) insert, look-up and removal, freed slots are used again.
//! It never shrinks: memory is that of the most values held at once. It never moves a value either: growing takes one
//! more piece of memory, no copy of all that wait.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Names one value of kind `K` for as long as it is there.
pub struct Id<K> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> K>,
}

impl<K> Id<K> {
    /// Names nothing.
    pub const NONE: Self = Self { index: u32::MAX, generation: u32::MAX, of: PhantomData };

    /// Index of the slot.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }
}

// By hand, because a derive would ask the same of K.
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.index, self.generation).cmp(&(other.index, other.generation))
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index, self.generation)
    }
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Slots<V, K = V> {
    pieces: Vec<Vec<Slot<V>>>,
    free: Vec<u32>,
    of: PhantomData<fn() -> K>,
}

#[derive(Debug)]
struct Slot<V> {
    generation: u32,
    value: Option<V>,
}

impl<V, K> Slots<V, K> {
    pub(super) const fn new() -> Self {
        Self { pieces: Vec::new(), free: Vec::new(), of: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.used() - self.free.len()
    }

    pub(super) fn insert(&mut self, value: V) -> Id<K> {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slot_mut(index)
        {
            slot.value = Some(value);
            return Id { index, generation: slot.generation, of: PhantomData };
        }
        // A queue's limits keep this far from 2^32; at the end of the range the id names nothing.
        let index = u32::try_from(self.used()).unwrap_or(u32::MAX);
        let slot = Slot { generation: 0, value: Some(value) };
        match self.pieces.last_mut().filter(|piece| piece.len() < PIECE) {
            Some(piece) => piece.push(slot),
            None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(slot);
                self.pieces.push(piece);
            }
        }
        Id { index, generation: 0, of: PhantomData }
    }

    pub(super) fn get(&self, id: Id<K>) -> Option<&V> {
        let slot = self.slot(id.index)?;
        if slot.generation == id.generation { slot.value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, id: Id<K>) -> Option<&mut V> {
        let slot = self.slot_mut(id.index)?;
        if slot.generation == id.generation { slot.value.as_mut() } else { None }
    }

    /// The index, if the id still names a value.
    pub(super) fn index_of(&self, id: Id<K>) -> Option<u32> {
        self.get(id).map(|_| id.index)
    }

    pub(super) fn remove(&mut self, id: Id<K>) -> Option<V> {
        self.index_of(id).and_then(|index| self.remove_at(index))
    }

    pub(super) fn remove_at(&mut self, index: u32) -> Option<V> {
        let slot = self.slot_mut(index)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    /// All values.
    pub(super) fn iter(&self) -> impl Iterator<Item = &V> {
        self.pieces.iter().flatten().filter_map(|slot| slot.value.as_ref())
    }

    /// Ids of the values that `keep` picks.
    pub(super) fn ids(&self, keep: impl Fn(&V) -> bool) -> Vec<Id<K>> {
        (0..)
            .zip(self.pieces.iter().flatten())
            .filter(|(_, slot)| slot.value.as_ref().is_some_and(&keep))
            .map(|(index, slot)| Id { index, generation: slot.generation, of: PhantomData })
            .collect()
    }

    fn used(&self) -> usize {
        self.pieces.last().map_or(0, |last| (self.pieces.len() - 1) * PIECE + last.len())
    }

    fn slot(&self, index: u32) -> Option<&Slot<V>> {
        let index = index as usize;
        self.pieces.get(index / PIECE)?.get(index % PIECE)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<V>> {
        let index = index as usize;
        self.pieces.get_mut(index / PIECE)?.get_mut(index % PIECE)
    }
}

/// Slots of a piece.
const PIECE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_removed_value_names_nothing_even_when_the_slot_is_used_again() {
        let mut slots: Slots<char> = Slots::new();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_eq!(first.index(), second.index());
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!((slots.get(second), slots.len()), (Some(&'b'), 1));
        assert_eq!(slots.get(Id::NONE), None);
    }

    #[test]
    fn values_keep_their_ids_while_many_come_and_go() {
        let mut slots: Slots<usize> = Slots::new();
        let ids: Vec<Id<usize>> = (0..1_000).map(|value| slots.insert(value)).collect();
        for id in ids.iter().step_by(3) {
            slots.remove(*id);
        }
        let held: Vec<Option<&usize>> = ids.iter().map(|id| slots.get(*id)).collect();
        let expected: Vec<usize> = (0..1_000).collect();
        let expected: Vec<Option<&usize>> =
            expected.iter().map(|value| Some(value).filter(|value| *value % 3 != 0)).collect();
        assert_eq!(held, expected);
        assert_eq!((slots.len(), slots.iter().count(), slots.ids(|_| true).len()), (666, 666, 666));
    }
}
