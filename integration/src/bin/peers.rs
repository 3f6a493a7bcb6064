//! Fetches the shims and runtimes that ours is measured against, and prints where they are: a line
//! each, `name path`, with the libraries that a runtime needs under `lib`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its output is its job")]

use anyhow::Result;
use integration::debs::{Deb, Store};
use integration::engine::Engine;

fn main() -> Result<()> {
    let store = Store::open();
    let runtimes = [Deb::RUNC, Deb::CRUN, Deb::YAJL, Deb::BUSYBOX];
    let engines = Engine::ALL.map(Engine::deb);
    store.fetch(&[runtimes.as_slice(), &engines].concat())?;
    for engine in Engine::ALL {
        let shim = engine.bin_dir(&store)?.join("containerd-shim-runc-v2");
        println!("{} {}", engine.name(), shim.display());
    }
    println!("runc {}", store.unpacked(Deb::RUNC)?.join("usr/sbin/runc").display());
    println!("crun {}", store.unpacked(Deb::CRUN)?.join("usr/bin/crun").display());
    println!("lib {}", store.unpacked(Deb::YAJL)?.join("usr/lib/x86_64-linux-gnu").display());
    println!("busybox {}", store.unpacked(Deb::BUSYBOX)?.join("bin/busybox").display());
    Ok(())
}
