//! Hooks: programs of the spec's that run at certain moments.
//!
//! Those of the host's side are run by the shim, each by a little plan of its own. Those of the
//! container's side are steps of the container's plan: they see what its init process sees.

use std::{path::PathBuf, time::Duration};

use oci_spec::runtime::{Hook as Asked, Spec};
use shim_core::{Error, Result, model::Bundle};

use super::{Draft, Plan, Source, Starter};
use crate::engine::{step::Step, wire::Text};

/// The number behind the standard streams.
pub(super) const FIRST_FILE: u64 = 3;

/// One program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    path: PathBuf,
    arguments: Vec<String>,
    /// Nothing is not the same as an empty one.
    environment: Option<Vec<String>>,
    pub(crate) timeout: Option<Duration>,
}

/// All hooks of a spec, by their moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    /// `prestart`, then `createRuntime`: the namespaces are there, the root is still the host's.
    pub(crate) host: Vec<Hook>,
    /// `createContainer`: the same moment, in the container's namespaces.
    create: Vec<Hook>,
    /// `startContainer`: right before the program.
    start: Vec<Hook>,
    /// `poststart`: right after.
    pub(crate) poststart: Vec<Hook>,
    /// `poststop`: when the container is deleted.
    pub(crate) poststop: Vec<Hook>,
}

impl Hooks {
    /// Reads a spec's hooks.
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        let Some(asked) = spec.hooks() else { return Ok(Self::default()) };
        let all = |hooks: &Option<Vec<Asked>>| -> Result<Vec<Hook>> {
            hooks.iter().flatten().map(Hook::of).collect()
        };
        let mut host = all(asked.prestart())?;
        host.extend(all(asked.create_runtime())?);
        Ok(Self {
            host,
            create: all(asked.create_container())?,
            start: all(asked.start_container())?,
            poststart: all(asked.poststart())?,
            poststop: all(asked.poststop())?,
        })
    }

    /// Plans those that run before the change of root.
    pub(super) fn create(&self, draft: &mut Draft, bundle: &Bundle) -> Result<()> {
        if self.host.is_empty() && self.create.is_empty() {
            return Ok(());
        }
        draft.step(Step::AwaitHooks {});
        if !self.create.is_empty() {
            // Where the hooks of the host's side are, too. The change of root leaves it.
            draft.step(Step::Enter { path: Text::new(bundle.path())? });
        }
        self.create.iter().try_for_each(|hook| hook.inside(draft, "createContainer", &[]))
    }

    /// Plans the wait for the start, and those that run right after it.
    pub(super) fn start(
        &self,
        draft: &mut Draft,
        environment: &[Text],
        starter: Starter,
    ) -> Result<()> {
        let has_hooks = !self.start.is_empty();
        let wait = match starter {
            Starter::Maker => Step::AwaitStart { with_state: u64::from(has_hooks) },
            Starter::Other => {
                let [go, answer] = [Source::Go, Source::Answer].map(|source| draft.file(source));
                let state = has_hooks.then(|| draft.file(Source::State));
                Step::AwaitStarter { go, answer, state }
            }
        };
        draft.step(wait);
        let mut hooks = self.start.iter();
        hooks.try_for_each(|hook| hook.inside(draft, "startContainer", environment))
    }
}

impl Hook {
    fn of(asked: &Asked) -> Result<Self> {
        let path = asked.path().clone();
        if !path.is_absolute() {
            return Err(Error::invalid(format!("hook {} is not absolute", path.display())));
        }
        let timeout = match asked.timeout() {
            None => None,
            Some(seconds) => {
                let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
                let wrong = || Error::invalid("a hook's timeout is at least a second");
                Some(Duration::from_secs(seconds.ok_or_else(wrong)?))
            }
        };
        let name = path.display().to_string();
        let arguments = asked.args().clone().filter(|arguments| !arguments.is_empty());
        Ok(Self {
            path,
            arguments: arguments.unwrap_or_else(|| vec![name]),
            environment: asked.env().clone(),
            timeout,
        })
    }

    fn inside(&self, draft: &mut Draft, moment: &'static str, own: &[Text]) -> Result<()> {
        let output = draft.file(Source::Output);
        let seconds = self.timeout.map_or(0, |timeout| timeout.as_secs());
        draft.step(Step::RunHook {
            path: Text::new(&self.path)?,
            arguments: self.arguments.iter().map(Text::new).collect::<Result<_>>()?,
            environment: self.environment(own)?,
            seconds,
            output,
            moment: Text::new(moment)?,
        });
        Ok(())
    }

    /// Its variables; those of whoever runs it where it names none.
    fn environment(&self, own: &[Text]) -> Result<Vec<Text>> {
        match &self.environment {
            Some(asked) => asked.iter().map(Text::new).collect(),
            None => Ok(own.to_vec()),
        }
    }

    /// What an error calls it.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// A plan for running it on the host's side. One without variables has `own`, as with runc.
    pub(crate) fn outside(&self, bundle: &std::path::Path, own: &[Text]) -> Result<Plan> {
        let draft = &mut Draft::default();
        let [stdin, stdout, stderr] = [0, 1, 2].map(|stream| draft.file(Source::Stream(stream)));
        draft.step(Step::StartSession {});
        draft.step(Step::PlaceStreams { stdin, stdout, stderr });
        draft.step(Step::SetUmask { mask: 0o022 });
        draft.step(Step::Enter { path: Text::new(bundle)? });
        draft.step(Step::CloseFiles { from: FIRST_FILE });
        let path = Text::new(&self.path)?;
        draft.step(Step::FindProgram { name: path.clone(), candidates: vec![path] });
        draft.step(Step::Execute {
            arguments: self.arguments.iter().map(Text::new).collect::<Result<_>>()?,
            environment: self.environment(own)?,
        });
        Ok(std::mem::take(&mut draft.plan))
    }
}
