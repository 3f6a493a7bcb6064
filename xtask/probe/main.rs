//! What a process inside a container sees, as one line of JSON on its standard output.
//!
//! Its arguments are questions beyond that: `open:/proc/kcore`, `call:mkdir`, `exit:7`. Every answer
//! stands under the question, so that a difference between two runtimes names it. It is a program
//! and no script: a shell changes signals, variables and files before it can look at them.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its report is its job")]

mod asks;
mod files;
mod mounts;
mod process;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::{Map, Value, json};

fn main() -> ExitCode {
    let questions: Vec<String> = std::env::args().skip(1).collect();
    let mut report = Map::new();
    report.insert("process".to_owned(), process::all());
    report.insert("files".to_owned(), files::descriptors());
    report.insert("mounts".to_owned(), mounts::all());
    report.insert("dev".to_owned(), files::tree("/dev"));
    let mut answers = Map::new();
    let mut end = None;
    for question in &questions {
        match asks::ask(question) {
            asks::Answer::Told(answer) => {
                answers.insert(question.clone(), answer);
            }
            asks::Answer::End(last) => end = Some(last),
        }
    }
    report.insert("asked".to_owned(), Value::Object(answers));
    println!("{}", Value::Object(report));
    // The end may be a signal, and a buffer would be lost with us.
    let _ = io::stdout().flush();
    end.map_or(ExitCode::SUCCESS, asks::End::reach)
}

/// What a call answered: its value, or the name of its errno.
fn told<T: Into<Value>>(answer: io::Result<T>) -> Value {
    answer.map_or_else(|error| json!(errno(&error)), Into::into)
}

fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
        None => error.to_string(),
    }
}
