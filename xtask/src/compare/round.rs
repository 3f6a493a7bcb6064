//! One bundle with one runtime: it is laid out, its acts are played, and what is left is looked for.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::ExitStatusExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result};
use rustix::mount::{self, MountPropagationFlags};
use serde_json::Value;

use super::{
    act::{ALONE, Act},
    bundle::{Bundle, Host},
    field::Fields,
    outside,
    place::{ID, Place},
    streams::{self, Program},
    subject::Subject,
    view,
};

/// Plays a bundle, and clears up behind it.
pub(super) fn play(place: &mut Place, subject: &Subject, bundle: &Bundle) -> Result<Fields> {
    place.clear()?;
    let holder = lay_out(place, bundle)?;
    place.laid_out = place.mounts()?;
    let spec = place.filled(&bundle.spec.to_string(), holder.as_ref().map(|held| held.0.id()));
    fs::write(place.bundle.join("config.json"), spec)?;
    let mut round = Round {
        place,
        subject,
        bundle,
        holder: holder.as_ref().map(|held| held.0.id()),
        program: None,
        seen: Fields::default(),
    };
    for act in &bundle.acts {
        match round.play(act) {
            Ok(true) => {}
            Ok(false) => break,
            Err(err) => {
                // A verb that hangs is what this runtime does with the bundle.
                round.seen.add("hangs", format!("{err:#}"));
                break;
            }
        }
    }
    round.tell_program();
    let mut seen = round.seen;
    outside::left(place, &mut seen)?;
    // Whatever was left is gone for the next bundle, and for the machine.
    let mut delete = subject.command(place);
    delete.args(["delete", "--force", ID]);
    let _ = streams::answer(delete);
    outside::remove_groups(place);
    drop(holder);
    place.remove()?;
    Ok(seen)
}

struct Round<'a> {
    place: &'a Place,
    subject: &'a Subject,
    bundle: &'a Bundle,
    holder: Option<u32>,
    program: Option<Program>,
    seen: Fields,
}

impl Round<'_> {
    /// Plays an act; false where the rest makes no sense any more.
    fn play(&mut self, act: &Act) -> Result<bool> {
        match act {
            Act::Make(words) => return self.make(words, false),
            Act::MakeOnTerminal(words) => return self.make(words, true),
            Act::Verb(words) => drop(self.verb(words)?),
            Act::Tell(words) => self.tell(words)?,
            Act::Outside => outside::look(self.place, &mut self.seen),
            Act::Ready => {
                if let Some(program) = &mut self.program {
                    program.read_line()?;
                }
            }
            Act::Ended => {
                if let Some(program) = &mut self.program {
                    program.read_to_end()?;
                }
            }
            Act::File(name) => {
                let text = fs::read_to_string(self.place.bundle.join(name));
                let text = text.unwrap_or_else(|err| err.kind().to_string());
                let text = self.place.stripped(text.trim_end());
                match serde_json::from_str::<Value>(&text) {
                    Ok(state) if state.is_object() => view::state(&mut self.seen, name, &state),
                    _ => self.seen.add(&format!("file {name}"), text),
                }
            }
        }
        Ok(true)
    }

    fn make(&mut self, words: &[String], on_terminal: bool) -> Result<bool> {
        let mut command = self.command(words);
        let pid_file = self.place.top.join("pid");
        let _ = fs::remove_file(&pid_file);
        let socket = self.place.top.join("console");
        let made = streams::make(command.flags(&pid_file, on_terminal.then_some(&*socket)))?;
        let code = told(&words[0], made.status);
        let is_made = code == "0" || words[0] == "run";
        self.seen.add(&format!("{}.code", words[0]), code);
        self.program = Some(made.program);
        Ok(is_made)
    }

    fn command(&self, words: &[String]) -> Call {
        let mut command = self.subject.command(self.place);
        let (verb, rest) = words.split_first().expect("a verb has a name");
        command.arg(verb);
        Call { command, rest: rest.iter().map(|word| self.filled(word)).collect() }
    }

    fn filled(&self, word: &str) -> String {
        if word == "ID" { ID.to_owned() } else { self.place.filled(word, self.holder) }
    }

    fn verb(&mut self, words: &[String]) -> Result<streams::Answer> {
        let answer = streams::answer(self.command(words).whole())?;
        let code = told(&words[0], answer.status);
        self.seen.add(&format!("{}.code", words[0]), code);
        Ok(answer)
    }

    fn tell(&mut self, words: &[String]) -> Result<()> {
        let answer = self.verb(words)?;
        // Some writers of JSON escape slashes, behind which the place would not be found.
        let out = self.place.stripped(&answer.out.replace("\\/", "/"));
        match serde_json::from_str::<Value>(&out) {
            Ok(state) if words[0] == "state" => view::state(&mut self.seen, "state", &state),
            Ok(inside) if inside.get("process").is_some() => {
                view::inside(&mut self.seen, words[0].as_str(), inside, self.holder);
            }
            _ => self.seen.add(&format!("{}.out", words[0]), out.trim_end()),
        }
        Ok(())
    }

    /// What the container's program has printed.
    fn tell_program(&mut self) {
        let Some(program) = self.program.take() else { return };
        let out = self.place.stripped(&program.out());
        let line = out.lines().find(|line| line.starts_with("{\"asked\""));
        match line.map(serde_json::from_str::<Value>) {
            Some(Ok(report)) => view::inside(&mut self.seen, "inside", report, self.holder),
            _ if self.bundle.is_text && !out.is_empty() => {
                self.seen.add("text", out.replace('\r', "").trim_end());
            }
            _ => {}
        }
        self.seen.add("said", self.place.stripped(program.err().trim_end()));
    }
}

/// A command whose last arguments are still to come.
pub(super) struct Call {
    command: Command,
    rest: Vec<String>,
}

impl Call {
    /// With the flags of what makes a container.
    fn flags(
        &mut self,
        pid_file: &std::path::Path,
        socket: Option<&std::path::Path>,
    ) -> streams::Making<'_> {
        self.command.arg("--pid-file").arg(pid_file).args(&self.rest);
        if let Some(socket) = socket {
            self.command.arg("--console-socket").arg(socket);
        }
        self.command.arg(ID);
        streams::Making {
            command: &mut self.command,
            pid_file: pid_file.into(),
            socket: socket.map(Into::into),
        }
    }

    fn whole(mut self) -> Command {
        let names_it = self.rest.iter().any(|word| word == ID || word == ALONE);
        self.command.args(self.rest.iter().filter(|word| *word != ALONE));
        if !names_it {
            self.command.arg(ID);
        }
        self.command
    }
}

/// How a verb ended: where the code may be the container's own, with the code.
fn told(verb: &str, status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "0".to_owned(),
        (Some(code), _) if matches!(verb, "run" | "exec") => code.to_string(),
        (Some(_), _) => "an error".to_owned(),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}

/// A process that keeps namespaces open until it is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lay_out(place: &Place, bundle: &Bundle) -> Result<Option<Holder>> {
    let mut holder = None;
    for host in &bundle.host {
        match *host {
            Host::Folder(name) => fs::create_dir_all(place.bundle.join(name))?,
            Host::File(name, text) => fs::write(place.bundle.join(name), text)?,
            Host::Script(name, lines) => {
                let path = place.bundle.join(name);
                // What lies in the root filesystem is executed in there.
                let shell = if name.starts_with("rootfs/") { "/bin" } else { "${top}" };
                let text = format!("#!{shell}/busybox sh\n{lines}\n");
                fs::write(&path, place.filled(&text, None))?;
                fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
            }
            Host::Link(name, to) => symlink(place.filled(to, None), place.bundle.join(name))?,
            Host::Mode(name, mode) => {
                fs::set_permissions(place.bundle.join(name), PermissionsExt::from_mode(mode))?;
            }
            Host::Owner(name, id) => chown(place.bundle.join(name), Some(id), Some(id))?,
            Host::Mounted(name, flags) => mounted(&place.bundle.join(name), flags)?,
            Host::Holder(flags) => holder = Some(hold(flags)?),
        }
    }
    Ok(holder)
}

fn mounted(path: &std::path::Path, flags: &[&str]) -> Result<()> {
    use rustix::mount::MountFlags;
    mount::mount_bind(path, path).with_context(|| format!("bind {}", path.display()))?;
    let mut all = MountFlags::BIND;
    for flag in flags {
        match *flag {
            "shared" => mount::mount_change(path, MountPropagationFlags::SHARED)?,
            "noexec" => all |= MountFlags::NOEXEC,
            "nosuid" => all |= MountFlags::NOSUID,
            "nodev" => all |= MountFlags::NODEV,
            "ro" => all |= MountFlags::RDONLY,
            _ => anyhow::bail!("no such flag: {flag}"),
        }
    }
    if all != MountFlags::BIND {
        mount::mount_remount(path, all, "")?;
    }
    Ok(())
}

fn hold(flags: &[&str]) -> Result<Holder> {
    let mut unshare = Command::new("unshare");
    unshare.args(flags).args(["--kill-child", "sh", "-c", "echo ready; exec sleep 600"]);
    let mut holder = Holder(unshare.stdout(Stdio::piped()).spawn().context("run unshare")?);
    let out = holder.0.stdout.take().context("unshare has an output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    anyhow::ensure!(line == "ready\n", "unshare {flags:?} makes no namespaces");
    Ok(holder)
}
