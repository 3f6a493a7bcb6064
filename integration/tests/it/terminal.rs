//! Containers and execs on a terminal.

use anyhow::{Result, ensure};
use integration::container::PROMPT;
use integration::lane::Lane;
use integration::session::Session;
use integration::wait;

integration::tests![
    a_run_on_a_terminal_knows_its_size_and_follows_it,
    an_exec_on_a_terminal_knows_its_size_and_follows_it,
    an_interrupt_typed_on_the_terminal_arrives,
    the_console_of_a_container_is_its_terminal,
];

/// Asks a shell for the size of its terminal until it is the expected one, doing `first` each time.
fn expect_size(
    session: &mut Session,
    (rows, columns): (u16, u16),
    first: impl Fn(&Session) -> Result<()>,
) -> Result<()> {
    let size = format!("\n{rows} {columns}\r");
    // The size comes after the start, by a request of its own.
    wait::until(format!("a terminal of {rows} by {columns}"), PROMPT, || {
        first(session)?;
        session.send("stty size\n")?;
        let written = session.written();
        ensure!(written.contains(&size), "{written:?}");
        Ok(())
    })
}

fn check_sizes(mut session: Session) -> Result<()> {
    session.expect("#", PROMPT)?;
    expect_size(&mut session, (24, 81), |_| Ok(()))?;
    // ctr listens for the signal only after it has told the first size, and may miss one.
    expect_size(&mut session, (33, 99), |session| session.resize(33, 99))?;
    session.send("exit 42\n")?;
    assert_eq!(session.finish(PROMPT)?.status, 42);
    Ok(())
}

fn a_run_on_a_terminal_knows_its_size_and_follows_it(lane: &Lane) -> Result<()> {
    let name = lane.name();
    let args = lane.run_command(&["--rm", "--tty"], &name, &["sh"]);
    check_sizes(lane.ctr().start_on_terminal(&args, 24, 81)?)
}

fn an_exec_on_a_terminal_knows_its_size_and_follows_it(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    check_sizes(container.start_exec_on_terminal(&["sh"], 24, 81)?)?;
    container.remove()?;
    Ok(())
}

fn an_interrupt_typed_on_the_terminal_arrives(lane: &Lane) -> Result<()> {
    let name = lane.name();
    let script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let args = lane.run_command(&["--rm", "--tty"], &name, &["sh", "-c", script]);
    let mut session = lane.ctr().start_on_terminal(&args, 24, 80)?;
    session.expect("ready", PROMPT)?;
    session.send("\u{3}")?;
    session.expect("interrupted", PROMPT)?;
    assert_eq!(session.finish(PROMPT)?.status, 3);
    Ok(())
}

fn the_console_of_a_container_is_its_terminal(lane: &Lane) -> Result<()> {
    let name = lane.name();
    let script = "tty; test -c /dev/console && echo through the console > /dev/console; read _";
    let args = lane.run_command(&["--rm", "--tty"], &name, &["sh", "-c", script]);
    let mut session = lane.ctr().start_on_terminal(&args, 24, 80)?;
    session.expect("/dev/pts/0", PROMPT)?;
    session.expect("through the console", PROMPT)?;
    session.send("\n")?;
    assert_eq!(session.finish(PROMPT)?.status, 0);
    Ok(())
}
