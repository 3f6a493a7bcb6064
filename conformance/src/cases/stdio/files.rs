//! Output that goes into files.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::case::group;
use crate::lab::{Ask, Io, Lab, SLEEP, SOON, eventually};

group! { "stdio":
    Must file_for_both: "One file:// for stdout and stderr MUST get both, in the order of the writes.";
    Must file_is_appended_to: "A file:// that exists MUST be appended to.";
    Should file_for_one: "A file:// for one stream SHOULD work without the other.";
    Must file_for_one_is_harmless: "A file:// for one stream alone MUST NOT end the shim.";
    Must file_in_a_new_folder: "The folder of a file:// MUST be made if it is missing.";
    Must file_for_exec: "An exec's output MUST go to a file:// too.";
}

fn place(lab: &Lab, name: &str) -> (PathBuf, String) {
    let path = lab.folder.join(name);
    let uri = format!("file://{}", path.display());
    (path, uri)
}

async fn expect_content(path: &PathBuf, expected: &str) -> Result<()> {
    let content = || fs::read_to_string(path).unwrap_or_default();
    let is = eventually(SOON, || content() == expected).await;
    ensure!(is, "expected {expected:?} in {}, got {:?}", path.display(), content());
    Ok(())
}

/// Runs that script in a container with these outputs, to its end.
async fn run(lab: &Lab, script: &str, stdout: &str, stderr: &str) -> Result<()> {
    let io = Io::Uris(String::new(), stdout.to_owned(), stderr.to_owned());
    let guest = lab.run(Ask::sh(script).io(io)).await?;
    guest.expect_exit("", 0).await?;
    guest.delete("").await?;
    Ok(())
}

async fn file_for_both(lab: &Lab) -> Result<()> {
    let (path, uri) = place(lab, "both");
    // A while apart, since the streams may be copied one by one.
    run(lab, "echo 1; sleep 0.05; echo 2 >&2; sleep 0.05; echo 3", &uri, &uri).await?;
    expect_content(&path, "1\n2\n3\n").await
}

async fn file_is_appended_to(lab: &Lab) -> Result<()> {
    let (path, uri) = place(lab, "old");
    fs::write(&path, "old\n").context("write a file")?;
    for _ in 0..2 {
        run(lab, "echo new", &uri, &uri).await?;
    }
    expect_content(&path, "old\nnew\nnew\n").await
}

async fn file_for_one(lab: &Lab) -> Result<()> {
    let (path, uri) = place(lab, "out");
    run(lab, "echo out; echo err >&2", &uri, "").await?;
    expect_content(&path, "out\n").await?;
    let (path, uri) = place(lab, "err");
    run(lab, "echo out; echo err >&2", "", &uri).await?;
    expect_content(&path, "err\n").await
}

async fn file_for_one_is_harmless(lab: &Lab) -> Result<()> {
    for number in [1, 2] {
        let (_, uri) = place(lab, "alone");
        let uris = if number == 1 { (uri, String::new()) } else { (String::new(), uri) };
        let guest =
            lab.prepare(Ask::sh("exit 5").io(Io::Uris(String::new(), uris.0, uris.1))).await?;
        match guest.create().await {
            Ok(_) => {
                guest.start("").await?;
                guest.expect_exit("", 5).await?;
                guest.delete("").await?;
            }
            Err(error) => ensure!(error.code().is_some(), "{error}"),
        }
        guest.connect().await.context("Connect afterwards")?;
    }
    Ok(())
}

async fn file_in_a_new_folder(lab: &Lab) -> Result<()> {
    let (path, uri) = place(lab, "new/folder/out");
    run(lab, "echo out", &uri, &uri).await?;
    expect_content(&path, "out\n").await
}

async fn file_for_exec(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let (path, uri) = place(lab, "exec");
    let args = ["/bin/sh", "-c", "echo out; echo err >&2"];
    let answer = guest.exec_with("e", &args, |request| {
        (request.stdout, request.stderr) = (uri.clone(), uri.clone());
    });
    answer.await?;
    guest.start("e").await?;
    guest.expect_exit("e", 0).await?;
    guest.delete("e").await?;
    let both = || fs::read_to_string(&path).is_ok_and(|text| text.len() == 8);
    ensure!(eventually(SOON, both).await, "got {:?}", fs::read_to_string(&path));
    Ok(())
}
