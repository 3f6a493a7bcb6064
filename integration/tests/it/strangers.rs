//! Another user's connections to a shim's socket, let through by a careless mode.

use std::env;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::lane::Lane;

integration::tests![another_user_gets_no_answer];

/// Has this very executable knock at a socket instead of running tests.
const KNOCK: &str = "SHIM_TEST_KNOCK";

/// A head of a frame and no request: a shim that listens refuses it, and that is an answer.
const FRAME: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 1, 1, 0];

fn another_user_gets_no_answer(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let address = fs::read_to_string(lane.bundle(container.id()).join("address"))?;
    let socket = Path::new(address.trim().trim_start_matches("unix://"));
    // Every folder on the way, too: a shim makes them for its own user.
    let way: Vec<&Path> = socket.ancestors().take_while(|path| *path != Path::new("/")).collect();
    let modes = way.iter().map(|path| Ok(fs::metadata(path)?.permissions()));
    let modes = modes.collect::<Result<Vec<_>>>()?;
    for path in &way {
        fs::set_permissions(path, Permissions::from_mode(0o777))?;
    }
    let answered = [0, 65534].map(|user| knock_as(user, socket));
    for (path, mode) in way.iter().zip(modes) {
        fs::set_permissions(path, mode)?;
    }
    let [own, strangers] = answered;
    assert_eq!((own?.as_str(), strangers?.as_str()), ("answered", "closed"));
    container.remove()?;
    Ok(())
}

fn knock_as(user: u32, socket: &Path) -> Result<String> {
    // The executable lies where another user may not look: it is opened here.
    let own = fs::File::open("/proc/self/exe")?;
    let mut command = Command::new("/proc/self/fd/0");
    command.stdin(own).env(KNOCK, socket).uid(user);
    let output = command.output().context("execute ourselves")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// What the executable does when it is asked to knock.
#[expect(clippy::print_stdout, reason = "its output is the answer")]
pub(crate) fn knock() -> Option<ExitCode> {
    let socket = env::var_os(KNOCK)?;
    let heard = UnixStream::connect(&socket).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // The other side may be closed already.
        let _closed = stream.write_all(&FRAME);
        Ok(matches!(stream.read(&mut [0]), Ok(1)))
    });
    match heard {
        Ok(answered) => print!("{}", if answered { "answered" } else { "closed" }),
        Err(error) => print!("{error}"),
    }
    Some(ExitCode::SUCCESS)
}
