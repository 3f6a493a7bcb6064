//! `cargo xtask flame`: where the time of a container's life goes, as flame graphs.
//!
//! Needs perf(1), and its right to look at the whole machine. The shim is built once more, with its
//! names and frame pointers.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use crate::{bench, build, peers::Peers, sh};

/// Lives, back to back: a few thousand samples of each process.
const ROUNDS: &str = "300";
/// Samples a second; a prime, in step with nothing.
const RATE: &str = "19997";

/// The pages' pictures, by the name that a process has.
const PICTURES: [(&str, &str, &str); 2] = [
    ("containerd-shim", "flame-shim", "the shim: start, Create, Start, exec, Kill, Delete"),
    ("shim-stem", "flame-stem", "the stem, and first processes up to the program"),
];

/// Records lives, and draws `docs/flame-*.svg`.
pub(crate) fn flame() -> Result<ExitCode> {
    let folder = sh::target().join("flame");
    let shim = build::shim_with_names(&folder)?;
    build::shimctl()?;
    let rootfs = bench::rootfs(&Peers::fetch()?)?;
    let data = folder.join("perf.data");
    let mut record = Command::new("perf");
    record.args(["record", "--all-cpus", "--call-graph", "fp", "--freq", RATE, "--output"]);
    record.arg(&data).arg("--").arg(sh::target().join("release/shimctl"));
    record.args(["--as", "2.0", "bench", "--scenario", "life", "--rounds", ROUNDS, "--rootfs"]);
    record.arg(rootfs).arg("--shim").arg(format!("native={}", shim.display()));
    sh::run(&mut record).context("perf, of Debian's linux-perf")?;
    let mut script = Command::new("perf");
    script.args(["script", "--comms", &PICTURES.map(|(process, ..)| process).join(",")]);
    script.args(["--fields", "comm,ip,sym", "--kallsyms", "/proc/kallsyms"]);
    script.arg("--symfs").arg(programs(&folder, &shim)?).arg("--input").arg(&data);
    let told = sh::output(&mut script)?;
    for (process, file, title) in PICTURES {
        let stacks = stacks(&told, process);
        ensure!(!stacks.is_empty(), "perf has seen nothing of {process}");
        let path = docs(file);
        fs::write(&path, plot::flame(title, &stacks))?;
        println!("{}", path.display());
    }
    fs::remove_file(data)?;
    Ok(ExitCode::SUCCESS)
}

/// A folder with the program where perf looks for it: at its path, and at that of the sealed file that
/// the stem is executed from, which is the only one on its mount.
fn programs(folder: &Path, shim: &Path) -> Result<PathBuf> {
    let programs = folder.join("programs");
    let name = shim.file_name().context("the shim has no name")?;
    let path = programs.join(shim.strip_prefix("/").context("the shim's path is not absolute")?);
    fs::create_dir_all(path.parent().context("the shim is in no folder")?)?;
    fs::copy(shim, path)?;
    fs::copy(shim, programs.join(name))?;
    Ok(programs)
}

fn docs(file: &str) -> PathBuf {
    Path::new(&sh::root()).join("docs").join(format!("{file}.svg"))
}

/// The stacks of one kind of process, outermost call first: perf tells the innermost first, a call a
/// line below the process's name, and an empty line after each.
fn stacks(told: &str, process: &str) -> Vec<(Vec<String>, u64)> {
    let mut stacks: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for sample in told.split("\n\n") {
        let mut lines = sample.lines();
        let Some(name) = lines.by_ref().find(|line| !line.trim().is_empty()) else { continue };
        if name.trim() != process {
            continue;
        }
        let mut stack: Vec<String> = lines.filter_map(call).collect();
        stack.reverse();
        *stacks.entry(stack).or_default() += 1;
    }
    stacks.into_iter().collect()
}

/// `address symbol`; the kernel's are in the upper half of the addresses.
fn call(line: &str) -> Option<String> {
    let (address, symbol) = line.trim().split_once(' ')?;
    let symbol = symbol.trim();
    // The hash of Rust's mangling tells nobody anything.
    let symbol = symbol
        .rsplit_once("::h")
        .map_or(symbol, |(name, hash)| if hash.len() == 16 { name } else { symbol });
    let is_kernel = address.len() == 16 && address.starts_with("ffff");
    Some(if is_kernel { format!("{symbol}_[k]") } else { symbol.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_process_are_counted_by_their_stacks() {
        let told = "shim-stem \n\tffffffff81000001 do_it\n\t  7f00 main::h0123456789abcdef\n\n\
                    other \n\t7f00 main\n\n\
                    shim-stem \n\tffffffff81000009 do_it\n\t  7f10 main::h0123456789abcdef\n\n";
        let stack = vec!["main".to_owned(), "do_it_[k]".to_owned()];
        assert_eq!(stacks(told, "shim-stem"), [(stack, 2)]);
        assert_eq!(stacks(told, "none"), []);
    }
}
