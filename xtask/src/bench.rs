//! `cargo xtask bench`: our shim beside containerd's own with runc and with crun, in one run and
//! through one client, `shimctl bench`.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::sh;

/// Fetches the peers, builds ours and measures all of them.
///
/// Further arguments go to `shimctl bench`: `--rounds 50`, `--json FILE`.
pub(crate) fn bench(arguments: &[&str]) -> Result<ExitCode> {
    let build = ["build", "--release", "--package", "shimctl", "--package", "shim-runc"];
    sh::run(sh::cargo().args(build))?;
    let peers = ["run", "--quiet", "--package", "integration", "--bin", "peers"];
    let peers = sh::output(sh::cargo().args(peers))?;
    let peers: HashMap<&str, &str> =
        peers.lines().filter_map(|line| line.split_once(' ')).collect();
    let path = |name: &str| peers.get(name).copied().with_context(|| format!("no {name}"));

    let release = sh::target().join("release");
    let rootfs = sh::target().join("bench-rootfs");
    // Pages of a file just written count as dirty in whoever maps them, until they are on disk.
    sh::run(&mut Command::new("sync"))?;
    make_rootfs(Path::new(path("busybox")?), &rootfs)?;
    let native = release.join("containerd-shim-native-v2");
    let (go, runc, crun) = (path("engine2")?, path("runc")?, path("crun")?);
    // crun 1.8 takes no host with controllers in the unified hierarchy beside version 1. Without
    // that mount, in a mount namespace of this run alone, all of them see a pure version 1 host.
    let mut bench = Command::new("unshare");
    bench.env("LD_LIBRARY_PATH", path("lib")?).args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
    ]);
    bench.arg("umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"").arg("sh");
    bench.arg(release.join("shimctl")).args(["--as", "2.0", "bench"]).arg("--rootfs").arg(&rootfs);
    bench.arg("--shim").arg(format!("native={}", native.display()));
    bench.arg("--shim").arg(format!("go+runc={go},BinaryName={runc}"));
    bench.arg("--shim").arg(format!("go+crun={go},BinaryName={crun}"));
    let status = sh::status(bench.args(arguments))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A root filesystem of one static program.
fn make_rootfs(busybox: &Path, rootfs: &Path) -> Result<()> {
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(folder))?;
    }
    let copy = rootfs.join("bin/busybox");
    fs::copy(busybox, &copy).with_context(|| format!("copy {}", busybox.display()))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    for applet in ["sh", "sleep", "true"] {
        let link = rootfs.join("bin").join(applet);
        if !link.is_symlink() {
            symlink("busybox", link)?;
        }
    }
    Ok(())
}
