//! Fetches the shims and runtimes that ours is measured against, and prints where they are: a line
//! each, `name path`. With the argument `runtimes` it is those alone.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its output is its job")]

use anyhow::Result;
use integration::debs::{Deb, Patched, Store};
use integration::engine::Engine;
use integration::registry;

fn main() -> Result<()> {
    let store = Store::open();
    store.fetch(&[Deb::RUNC, Deb::BUSYBOX])?;
    println!("runc {}", store.unpacked(Deb::RUNC)?.join("usr/sbin/runc").display());
    println!("crun {}", Patched::CRUN.fetch(&store)?.display());
    println!("busybox {}", store.unpacked(Deb::BUSYBOX)?.join("bin/busybox").display());
    if std::env::args().any(|argument| argument == "runtimes") {
        println!("crun12 {}", Patched::CRUN_12.fetch(&store)?.display());
        println!("newer-runc {}", Patched::RUNC.fetch(&store)?.display());
        return Ok(());
    }
    store.fetch(&Engine::ALL.map(Engine::deb))?;
    for engine in Engine::ALL {
        let shim = engine.bin_dir(&store)?.join("containerd-shim-runc-v2");
        println!("{} {}", engine.name(), shim.display());
    }
    println!("rust {}", registry::shim()?.display());
    Ok(())
}
