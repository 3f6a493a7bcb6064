//! Paths that a container may not read, and paths that it may not write.

use std::path::Path;

use oci_spec::runtime::Spec;
use shim_core::Result;

use super::{Draft, Source, in_container};
use crate::engine::step::Step;

pub(super) fn all(draft: &mut Draft, spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    for path in linux.readonly_paths().iter().flatten() {
        draft.step(Step::Protect { path: in_container(Path::new(path))? });
    }
    for path in linux.masked_paths().iter().flatten() {
        let null = draft.file(Source::Null);
        draft.step(Step::Mask { path: in_container(Path::new(path))?, null });
    }
    Ok(())
}
