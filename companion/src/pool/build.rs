//! Which build is running.
//!
//! In: what the build script saw. Out: `inference_extension_info`.

use tally_core::catalog::pool::EXTENSION_INFO;
use tally_core::exposition::Writer;

use crate::collect::Collect;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo;

impl BuildInfo {
    /// Commit the binary was built from; `unknown` outside of a checkout.
    pub const COMMIT: &'static str = env!("TALLY_COMMIT");
    /// Branch, tag or whatever the builder said.
    pub const BUILD_REF: &'static str = env!("TALLY_BUILD_REF");
}

impl Collect for BuildInfo {
    fn collect(&self, page: &mut Writer) {
        page.family(&EXTENSION_INFO).sample(&[("commit", Self::COMMIT), ("build_ref", Self::BUILD_REF)], 1.0);
    }
}
