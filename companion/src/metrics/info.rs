//! `inference_extension_info`: which build this is.

use tally_core::catalog::pool::EXTENSION_INFO;
use tally_core::exposition::Writer;

use crate::collect::Collect;

/// Commit and reference, put in by `build.rs`.
#[derive(Debug)]
pub(crate) struct Info;

impl Collect for Info {
    fn collect(&self, page: &mut Writer) {
        let labels = [("commit", env!("TALLY_COMMIT")), ("build_ref", env!("TALLY_BUILD_REF"))];
        page.family(&EXTENSION_INFO).sample(&labels, 1.0);
    }
}
