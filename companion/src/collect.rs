//! What a metrics page is made of.

use tally_core::exposition::Writer;

/// A part of `tallyd` that has families to show.
///
/// Each family is written by one part only, with all of its series. A part answers from what it knows: it never waits
/// for a peer.
pub trait Collect: Send + Sync {
    /// Writes its families.
    fn collect(&self, page: &mut Writer);
}
