//! A process that is elsewhere than its container in some hierarchies of v1, which `exec --cgroup` asks
//! for by controller.

use std::sync::Arc;

use shim_core::{Error, Result};

use super::{Cgroup, CgroupPath};

/// The paths in hierarchies that have one of their own, by the hierarchy's name.
pub(super) type Apart = Arc<Vec<(String, CgroupPath)>>;

impl Cgroup {
    /// The same cgroup, with other paths in the hierarchies of these controllers. Controllers of one
    /// hierarchy cannot be at two places.
    ///
    /// # Errors
    /// `InvalidArgument` for a controller that has no v1 hierarchy, or two paths for one.
    pub(crate) fn apart(self, paths: Vec<(&str, CgroupPath)>) -> Result<Self> {
        let mut apart: Vec<(String, CgroupPath)> = Vec::with_capacity(paths.len());
        for (controller, path) in paths {
            let Some(found) = self.hierarchies.v1_of(controller) else {
                let why = format!("controller {controller:?} has no hierarchy of cgroup v1");
                return Err(Error::invalid(why));
            };
            match apart.iter().find(|(name, _)| *name == found.name) {
                Some((_, known)) if *known == path => {}
                Some((name, _)) => {
                    return Err(Error::invalid(format!("there are two paths for {name}")));
                }
                None => apart.push((found.name.clone(), path)),
            }
        }
        Ok(Self { apart: Arc::new(apart), ..self })
    }

    /// The path below the root of a hierarchy.
    pub(super) fn relative_in(&self, hierarchy: &str) -> &str {
        let own = self.apart.iter().find(|(name, _)| name == hierarchy);
        own.map_or(&self.path, |(_, path)| path).relative()
    }
}

#[cfg(test)]
mod tests {
    use shim_core::Kind;

    use super::*;
    use crate::engine::cgroup::Hierarchies;

    fn cgroup() -> Cgroup {
        let mounts = "32 31 0:29 / /h/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            33 31 0:31 / /h/pids rw - cgroup cgroup rw,pids\n";
        let hierarchies = Arc::new(Hierarchies::find(mounts).unwrap());
        Cgroup::under(hierarchies, CgroupPath::parse("/c").unwrap())
    }

    #[test]
    fn a_path_is_for_the_hierarchy_of_its_controller() {
        let path = |text: &str| CgroupPath::parse(text).unwrap();
        let paths = |cgroup: Cgroup| -> Vec<_> {
            cgroup.directories().into_iter().map(|one| one.path.display().to_string()).collect()
        };
        assert_eq!(paths(cgroup()), ["/h/cpu/c", "/h/pids/c"]);
        let one = cgroup().apart(vec![("cpuacct", path("/c/a"))]).unwrap();
        assert_eq!(paths(one), ["/h/cpu/c/a", "/h/pids/c"]);
        let same = vec![("cpu", path("/c/a")), ("cpuacct", path("/c/a")), ("pids", path("/c/b"))];
        assert_eq!(paths(cgroup().apart(same).unwrap()), ["/h/cpu/c/a", "/h/pids/c/b"]);
        let two = vec![("cpu", path("/c/a")), ("cpuacct", path("/c/b"))];
        for bad in [two, vec![("memory", path("/c/a"))]] {
            assert_eq!(cgroup().apart(bad).unwrap_err().kind(), Kind::InvalidArgument);
        }
    }
}
