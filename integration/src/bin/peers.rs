//! Fetches the shims and runtimes that ours is measured against, and prints where they are: a line
//! each, `name path`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its output is its job")]

use anyhow::Result;
use integration::debs::{Deb, Store, patched};
use integration::engine::Engine;
use integration::registry;

fn main() -> Result<()> {
    let store = Store::open();
    let engines = Engine::ALL.map(Engine::deb);
    store.fetch(&[[Deb::RUNC, Deb::BUSYBOX].as_slice(), &engines].concat())?;
    for engine in Engine::ALL {
        let shim = engine.bin_dir(&store)?.join("containerd-shim-runc-v2");
        println!("{} {}", engine.name(), shim.display());
    }
    println!("runc {}", store.unpacked(Deb::RUNC)?.join("usr/sbin/runc").display());
    println!("crun {}", patched::CRUN.fetch(&store)?.display());
    println!("rust {}", registry::shim()?.display());
    println!("busybox {}", store.unpacked(Deb::BUSYBOX)?.join("bin/busybox").display());
    Ok(())
}
