//! Containers in the foreground: output, input, exit status.

use std::fmt::Write;

use anyhow::Result;
use integration::container::PROMPT;
use integration::lane::Lane;

integration::tests![
    output_of_a_foreground_run_is_printed,
    standard_error_stays_apart,
    an_exit_code_reaches_the_client,
    an_init_killed_by_a_signal_exits_with_128_and_its_number,
    standard_input_is_piped_and_its_end_is_seen,
    ten_megabytes_of_output_arrive_whole,
    environment_and_working_directory_are_the_given_ones,
    a_missing_command_is_named_and_leaves_nothing,
    a_missing_working_directory_is_made,
];

fn output_of_a_foreground_run_is_printed(lane: &Lane) -> Result<()> {
    assert_eq!(lane.output(&[], &["echo", "hello"])?, "hello\n");
    Ok(())
}

fn standard_error_stays_apart(lane: &Lane) -> Result<()> {
    let name = lane.name();
    // The pause for input keeps both streams open until they are read.
    let script = "echo out; echo err >&2; read _";
    let mut session =
        lane.ctr().start(&lane.run_command(&["--rm"], &name, &["sh", "-c", script]))?;
    session.expect("out\n", PROMPT)?;
    session.send("\n")?;
    let output = session.finish(PROMPT)?;
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    Ok(())
}

fn an_exit_code_reaches_the_client(lane: &Lane) -> Result<()> {
    for code in [0, 1, 42, 255] {
        let output = lane.run(&[], &["sh", "-c", &format!("exit {code}")])?;
        assert_eq!(output.status, code, "{}", output.stderr);
    }
    Ok(())
}

fn an_init_killed_by_a_signal_exits_with_128_and_its_number(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    assert_eq!(container.remove()?, 137);
    Ok(())
}

fn standard_input_is_piped_and_its_end_is_seen(lane: &Lane) -> Result<()> {
    let name = lane.name();
    let args = lane.run_command(&["--rm"], &name, &["sh", "-c", "echo ready; cat; echo end"]);
    let mut session = lane.ctr().start(&args)?;
    // Input that ends before the task exists is never closed by `ctr`.
    session.expect("ready\n", PROMPT)?;
    session.send("one\ntwo\n")?;
    session.close_stdin();
    let output = session.finish(PROMPT)?;
    assert_eq!(output.stdout, "ready\none\ntwo\nend\n");
    assert_eq!(output.status, 0);
    Ok(())
}

fn ten_megabytes_of_output_arrive_whole(lane: &Lane) -> Result<()> {
    const LAST: u32 = 1_500_000;
    let mut expect = String::new();
    for number in 1..=LAST {
        writeln!(expect, "{number}")?;
    }
    assert!(expect.len() > 10 << 20);
    let output = lane.output(&[], &["seq", &LAST.to_string()])?;
    assert_eq!(output.len(), expect.len());
    assert!(output == expect, "the length is right, the text is not");
    Ok(())
}

fn environment_and_working_directory_are_the_given_ones(lane: &Lane) -> Result<()> {
    let flags = ["--env", "COLOUR=green blue", "--cwd", "/home"];
    let output = lane.output(&flags, &["sh", "-c", "echo $COLOUR; pwd"])?;
    assert_eq!(output, "green blue\n/home\n");
    Ok(())
}

fn a_missing_command_is_named_and_leaves_nothing(lane: &Lane) -> Result<()> {
    let output = lane.run(&[], &["/no/such/program"])?;
    assert_ne!(output.status, 0);
    assert!(output.stderr.contains("/no/such/program"), "{}", output.stderr);
    Ok(())
}

fn a_missing_working_directory_is_made(lane: &Lane) -> Result<()> {
    let output = lane.output(&["--cwd", "/new/folder"], &["pwd"])?;
    assert_eq!(output, "/new/folder\n");
    Ok(())
}
