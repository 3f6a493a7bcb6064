//! Our command line does what runc and crun do, but for what is explained.

use std::process::Command;

#[test]
fn ours_differs_from_its_peers_only_where_that_is_explained() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: containers need root");
        return;
    }
    let mut chore = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = chore.args(["compare-runtimes", "--check"]).output().unwrap();
    let (told, wrong) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if told.starts_with("skipped: ") {
        println!("{told}");
        return;
    }
    assert!(output.status.success(), "{told}{wrong}");
    assert!(told.trim_end().ends_with(" 0 unexplained differences"), "{told}");
}
