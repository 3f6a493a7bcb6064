//! Commands in a container, and what its programs write.

use std::fs;

use anyhow::{Result, ensure};
use integration::client::refusal;
use integration::cri::container::Draft;
use integration::cri::log::Line;
use integration::cri::stage::Stage;
use integration::grpc::Code;
use integration::wait::{self, SOON};

integration::pod_tests![
    a_command_has_its_streams_and_its_code,
    a_command_s_output_is_whole_at_any_size,
    a_command_that_takes_too_long_is_ended,
    a_log_has_every_line_with_its_stream,
    a_log_is_opened_anew,
];

fn a_command_has_its_streams_and_its_code(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let container = pod.sleeper("one")?;
    let output = container.exec_within(&["sh", "-c", "echo out; echo err >&2; exit 3"], 10)?;
    assert_eq!((output.status, output.stdout.as_str()), (3, "out\n"));
    assert_eq!(output.stderr, "err\n");
    let killed = container.exec_within(&["sh", "-c", "kill -9 $$"], 10)?;
    assert_eq!(killed.status, 137);
    let error = container.exec_within(&["/nowhere"], 10).expect_err("there is no such program");
    assert!(format!("{error:#}").contains("/nowhere"), "{error:#}");
    pod.remove()
}

fn a_command_s_output_is_whole_at_any_size(stage: &Stage<'_>) -> Result<()> {
    const SIZE: usize = 1 << 20;
    let pod = stage.pod()?;
    let container = pod.sleeper("one")?;
    let script = format!("yes 0123456 | head -c {SIZE}");
    let output = container.exec_within(&["sh", "-c", &script], 20)?;
    assert_eq!(output.stdout, "0123456\n".repeat(SIZE / 8));
    pod.remove()
}

fn a_command_that_takes_too_long_is_ended(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let container = pod.sleeper("one")?;
    let late = container.exec_within(&["sleep", "2000"], 1);
    assert_eq!(refusal(late)?, Code::DeadlineExceeded);
    wait::until("the command's end", SOON, || {
        let processes = container.exec(&["ps"])?;
        ensure!(!processes.contains("sleep 2000"), "{processes}");
        Ok(())
    })?;
    pod.remove()
}

fn a_log_has_every_line_with_its_stream(stage: &Stage<'_>) -> Result<()> {
    /// As much as containerd keeps of a line.
    const LONGEST: usize = 16 << 10;
    let pod = stage.pod()?;
    let script = "seq 1000; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; echo";
    let container = pod.start(&Draft::new("writer", &["sh", "-c", script]))?;
    assert_eq!(container.wait()?.exit_code, 0);
    let lines = container.log()?;
    let of = |name: &str| -> Vec<Line> {
        lines.iter().filter(|line| line.stream == name).cloned().collect()
    };
    let (out, err) = (of("stdout"), of("stderr"));
    assert_eq!(err.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["err"]);
    let (numbers, long) = out.split_at(1000);
    let expect: Vec<_> = (1..=1000).map(|number| number.to_string()).collect();
    assert_eq!(numbers.iter().map(|line| line.text.clone()).collect::<Vec<_>>(), expect);
    assert!(numbers.iter().all(|line| line.is_whole));
    let long: Vec<_> = long.iter().map(|line| (line.text.len(), line.is_whole)).collect();
    assert_eq!(long, [(LONGEST, false), (20000 - LONGEST, true)]);
    pod.remove()
}

fn a_log_is_opened_anew(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let script = "echo old; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo new; sleep 1000";
    let container = pod.start(&Draft::new("writer", &["sh", "-c", script]))?;
    container.wait_line("old")?;
    let moved = container.log_file().with_extension("1");
    fs::rename(container.log_file(), &moved)?;
    container.reopen_log()?;
    container.exec(&["touch", "/tmp/go"])?;
    container.wait_line("new")?;
    assert_eq!(container.log()?.len(), 1);
    assert_eq!(integration::cri::log::read(&moved)?.len(), 1);
    pod.remove()
}
