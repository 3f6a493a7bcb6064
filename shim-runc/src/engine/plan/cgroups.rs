//! Mounts of type `cgroup`: the container's view of its limits.
//!
//! With a cgroup namespace each hierarchy is mounted afresh and shows the container's cgroup as its
//! root. Without one a fresh mount would show the host's, so the container's own directory of each
//! hierarchy is bound instead.

use std::path::PathBuf;

use shim_core::Result;

use super::{
    Draft, Facts, Hierarchy, Namespaces,
    mounts::{One, Propagation},
    options::Options,
};
use crate::engine::{
    step::Step,
    sys::{Reach, attribute},
    wire::Text,
};

const FLAGS: u64 = attribute::NOSUID | attribute::NODEV | attribute::NOEXEC;

pub(super) fn mount(
    draft: &mut Draft,
    asked: One,
    namespaces: &Namespaces,
    propagation: Propagation,
    facts: &Facts,
) -> Result<()> {
    let has_namespace = namespaces.has(libc::CLONE_NEWCGROUP);
    if facts.is_unified {
        return match facts.hierarchies.first().filter(|_| !has_namespace) {
            Some(own) => {
                let target = asked.target.clone();
                bound(&asked, own, target).bind(draft, Reach::Tree, namespaces, propagation)
            }
            None => One { kind: "cgroup2".to_owned(), ..asked }.filesystem(draft),
        };
    }
    let above = tmpfs(&asked)?;
    above.filesystem(draft)?;
    for hierarchy in &facts.hierarchies {
        let target = asked.target.join(&hierarchy.name);
        if has_namespace {
            fresh(&asked, hierarchy, target)?.filesystem(draft)?;
        } else {
            bound(&asked, hierarchy, target).bind(draft, Reach::Tree, namespaces, propagation)?;
        }
        links(draft, &asked, hierarchy)?;
    }
    if asked.options.set & attribute::RDONLY != 0 {
        draft.sealed.push(super::in_container(&asked.target)?);
    }
    Ok(())
}

/// The directory that the hierarchies are mounted in.
fn tmpfs(asked: &One) -> Result<One> {
    let mut options = Options::parse(["nosuid", "nodev", "noexec", "mode=755"])?;
    options.propagation.clone_from(&asked.options.propagation);
    Ok(One {
        kind: "tmpfs".to_owned(),
        source: "tmpfs".into(),
        target: asked.target.clone(),
        options,
        mappings: None,
    })
}

fn fresh(asked: &One, hierarchy: &Hierarchy, target: PathBuf) -> Result<One> {
    let mut options = Options::parse(hierarchy.options.split(','))?;
    options.set = asked.options.set | FLAGS;
    Ok(One { kind: "cgroup".to_owned(), source: "cgroup".into(), target, options, mappings: None })
}

fn bound(asked: &One, hierarchy: &Hierarchy, target: PathBuf) -> One {
    let set = asked.options.set | FLAGS;
    let options = Options { set, ..Options::default() };
    One {
        kind: String::new(),
        source: hierarchy.directory.clone(),
        target,
        options,
        mappings: None,
    }
}

/// Each controller of a hierarchy that holds several is found by its own name too.
fn links(draft: &mut Draft, asked: &One, hierarchy: &Hierarchy) -> Result<()> {
    let several = hierarchy.name.contains(',');
    for controller in hierarchy.name.split(',').filter(|_| several) {
        let path = super::in_container(&asked.target.join(controller))?;
        draft.step(Step::Link { path, target: Text::new(&hierarchy.name)?, replace: 0 });
    }
    Ok(())
}
