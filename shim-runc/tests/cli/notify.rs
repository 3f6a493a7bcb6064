//! Programs that tell a supervisor when they are ready, sd_notify(3). The tests speak for them, through
//! the container's own view of its files.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::world::{Ended, LIMIT, World, is_root, until};

/// The socket of a supervisor.
fn supervisor(world: &World) -> UnixDatagram {
    let socket = UnixDatagram::bind(world.path("supervisor")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn supervised(world: &World, args: &[&str]) -> Command {
    let mut command = world.program();
    command.args(args).env("NOTIFY_SOCKET", world.path("supervisor"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The next message; files that come with it are closed, as by any who does not know them.
fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

fn hears_nothing(socket: &UnixDatagram) {
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 4096]).is_err());
}

/// Says something as the container's program does.
fn say(pid: i32, messages: &[&str]) {
    let path = PathBuf::from(format!("/proc/{pid}/root/run/notify/notify.sock"));
    let socket = UnixDatagram::unbound().unwrap();
    until(|| socket.connect(&path).is_ok());
    for message in messages {
        socket.send(message.as_bytes()).unwrap();
    }
}

fn succeeds(child: Child) {
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn a_start_returns_when_the_program_is_ready_and_the_supervisor_knows() {
    if !is_root() {
        return;
    }
    let world = World::sleeper().with(|spec| spec["process"]["user"]["uid"] = 1000.into());
    let socket = supervisor(&world);
    assert!(supervised(&world, &["create", "c"]).status().unwrap().success());
    let pid = world.pid("c");
    let start = supervised(&world, &["start", "c"]).spawn().unwrap();
    until(|| world.status("c") == "running");
    let environment = || fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    until(|| environment().contains("\0NOTIFY_SOCKET=/run/notify/notify.sock\0"));
    say(pid, &["STATUS=soon\n", "READY=10", &"READY=1\n".repeat(1000)]);
    // Any of its users may, and none may put anything there.
    let look = "test -w /run/notify/notify.sock && ! touch /run/notify/x 2>/dev/null && echo fine";
    assert_eq!(world.ok(&["exec", "c", "sh", "-c", look]), "fine\n");
    say(pid, &["MAINPID=1\nFDSTORE=1\nREADY=1\n"]);
    assert_eq!(heard(&socket), format!("MAINPID={pid}\nREADY=1\n"));
    assert_eq!(heard(&socket), "BARRIER=1");
    succeeds(start);
    hears_nothing(&socket);
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn a_program_that_ends_before_it_is_ready_keeps_no_start_waiting() {
    if !is_root() {
        return;
    }
    let world = World::script("exit 3");
    let socket = supervisor(&world);
    assert!(supervised(&world, &["create", "c"]).status().unwrap().success());
    succeeds(supervised(&world, &["start", "c"]).spawn().unwrap());
    hears_nothing(&socket);
    world.ok(&["delete", "c"]);
}

#[test]
fn who_stays_with_a_container_is_the_process_to_watch_and_else_its_program() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    let socket = supervisor(&world);
    let run = supervised(&world, &["run", "c"]).spawn().unwrap();
    let own = run.id();
    until(|| world.call(&["state", "c"]).code == 0 && world.status("c") == "running");
    say(world.pid("c"), &["READY=1"]);
    assert_eq!(heard(&socket), format!("MAINPID={own}\nREADY=1\n"));
    assert_eq!(heard(&socket), "BARRIER=1");
    world.ok(&["kill", "c", "KILL"]);
    assert_eq!(Ended::of(run.wait_with_output().unwrap()).code, 137);

    let run = supervised(&world, &["run", "--detach", "c"]).spawn().unwrap();
    until(|| world.call(&["state", "c"]).code == 0 && world.status("c") == "running");
    let pid = world.pid("c");
    say(pid, &["READY=1"]);
    assert_eq!(heard(&socket), format!("MAINPID={pid}\nREADY=1\n"));
    assert_eq!(heard(&socket), "BARRIER=1");
    succeeds(run);
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn an_address_that_is_none_is_refused_and_a_start_needs_no_supervisor() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    let mut create = world.program();
    let create = create.args(["create", "c"]).env("NOTIFY_SOCKET", "vsock:2:1").output().unwrap();
    let ended = Ended::of(create);
    assert!(ended.code == 1 && ended.err.contains("NOTIFY_SOCKET"), "{ended:?}");
    assert!(supervised(&world, &["create", "c"]).status().unwrap().success());
    world.start("c");
    world.ok(&["delete", "-f", "c"]);
    // And one that was made without has no socket to listen to.
    world.create("c");
    succeeds(supervised(&world, &["start", "c"]).spawn().unwrap());
    world.ok(&["delete", "-f", "c"]);
}
