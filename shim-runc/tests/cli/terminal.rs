//! Terminals: sent to a socket, or passed through.

use std::{
    fs::File,
    io::{IoSliceMut, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    process::{Child, Stdio},
    thread,
};

use nix::{
    pty::{Winsize, openpty},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

use crate::world::{Ended, World, is_root};

/// Takes the one file of a message, and its text.
pub(crate) fn receive(stream: &UnixStream) -> (String, File) {
    let mut bytes = [0; 64];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
    let files = message.cmsgs().unwrap().find_map(|one| match one {
        ControlMessageOwned::ScmRights(files) => files.first().copied(),
        _ => None,
    });
    let number = files.expect("a file comes along");
    #[expect(unsafe_code, reason = "nix hands descriptors out as numbers")]
    // SAFETY: the kernel has just made it for us alone.
    let file = unsafe { File::from_raw_fd(number) };
    let length = message.bytes;
    (String::from_utf8_lossy(&bytes[..length]).into_owned(), file)
}

/// Everything until the end, which a terminal's master tells by an error.
fn read_all(mut from: impl Read) -> String {
    let mut all = Vec::new();
    let _ = from.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// Starts a verb in a terminal of its own; what it prints, by a thread.
fn in_terminal(world: &World, args: &[&str]) -> (Child, File, thread::JoinHandle<String>) {
    let size = Winsize { ws_row: 21, ws_col: 43, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    let copy = || -> OwnedFd { pty.slave.as_fd().try_clone_to_owned().unwrap() };
    let mut verb = world.program();
    verb.args(args).stdin(copy()).stdout(copy()).stderr(Stdio::inherit());
    let child = verb.spawn().unwrap();
    drop((verb, pty.slave));
    let master = File::from(pty.master);
    let reader = master.try_clone().unwrap();
    (child, master, thread::spawn(move || read_all(reader)))
}

#[test]
fn the_master_goes_to_the_console_socket() {
    if !is_root() {
        return;
    }
    let world = World::script("tty; stty size").with_terminal();
    let world = world.with(|spec| {
        spec["process"]["consoleSize"] = serde_json::json!({ "height": 12, "width": 34 });
    });
    let path = world.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    let taken = thread::spawn(move || receive(&listener.accept().unwrap().0));
    world.leave(&["create", "--console-socket", path.to_str().unwrap(), "c"]);
    let (name, master) = taken.join().unwrap();
    assert_eq!(name, "/dev/ptmx");
    world.start("c");
    assert_eq!(read_all(master), "/dev/pts/0\r\n12 34\r\n");
    world.await_status("c", "stopped");
    world.ok(&["delete", "c"]);
}

#[test]
fn without_anybody_to_take_it_there_is_none() {
    if !is_root() {
        return;
    }
    let world = World::script("true").with_terminal();
    for verb in [&["create"][..], &["run", "-d"]] {
        let why = world.refused(&[verb, &["c"]].concat());
        assert!(why.contains("only with a console socket"), "{why}");
    }
    let why = world.refused(&["create", "--console-socket", "none", "c"]);
    assert!(why.contains("connect to none"), "{why}");
    let why = world.refused(&["run", "--console-socket", "none", "c"]);
    assert!(why.contains("left alone"), "{why}");
}

#[test]
fn it_is_passed_through_by_who_stays() {
    if !is_root() {
        return;
    }
    let script = "tty; stty size; read line; echo \"got $line\"; exit 6";
    let world = World::script(script).with_terminal();
    let (child, mut keys, printed) = in_terminal(&world, &["run", "c"]);
    keys.write_all(b"hello\r").unwrap();
    assert_eq!(Ended::of(child.wait_with_output().unwrap()).code, 6);
    let printed = printed.join().unwrap();
    // Our own terminal echoes nothing: it is raw. That of the container does.
    let lines: Vec<_> = printed.lines().filter(|line| *line != "hello").collect();
    assert_eq!(lines, ["/dev/pts/0", "21 43", "got hello"], "{printed:?}");
}

#[test]
fn an_added_process_can_have_one_too() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    world.create("c");
    world.start("c");
    let (child, _keys, printed) =
        in_terminal(&world, &["exec", "-t", "c", "sh", "-c", "tty; stty size; exit 8"]);
    assert_eq!(Ended::of(child.wait_with_output().unwrap()).code, 8);
    assert_eq!(printed.join().unwrap(), "/dev/pts/0\r\n21 43\r\n");
    world.ok(&["delete", "-f", "c"]);
}
