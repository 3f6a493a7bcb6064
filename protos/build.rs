//! Turns `proto/*.proto` into Rust in `OUT_DIR`, with no `protoc` to install.
//!
//! All files land in one folder and refer to each other by file name, so every name below must
//! be unique.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

const PROTOS: [&str; 18] = [
    "bootstrap",
    "cgroups_v1",
    "cgroups_v2",
    "cri",
    "criu",
    "events",
    "forward",
    "guest",
    "runc",
    "runctypes",
    "runtimeoptions",
    "sandbox",
    "streaming",
    "task",
    "task_types",
    "task_v2",
    "transfer",
    "types",
];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // A file of an earlier build would be taken for one of this build's modules.
    for stale in rust_files(&out)? {
        fs::remove_file(stale)?;
    }

    Codegen::new()
        .out_dir(&out)
        .include("proto")
        .inputs(PROTOS.map(|name| format!("proto/{name}.proto")))
        .rust_protobuf()
        // Without descriptors and reflection: nothing here asks for them, and each shim process
        // would carry them.
        .rust_protobuf_customize(ProtobufCustomize::default().lite_runtime(true).gen_mod_rs(false))
        .customize(Customize { async_all: true, ..Customize::default() })
        .run()?;

    keep_unsafe_forbidden(&out)?;
    write_index(&out)
}

/// Takes `allow(unsafe_code)` out of the generated files: it cannot stand below the crate's
/// `forbid`, and none of them needs it.
fn keep_unsafe_forbidden(out: &Path) -> io::Result<()> {
    for file in rust_files(out)? {
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace("#![allow(unsafe_code)]\n", ""))?;
    }
    Ok(())
}

/// Lists the modules in `mod.rs`. The generators can, but theirs opens with an inner attribute,
/// which `include!` refuses.
fn write_index(out: &Path) -> io::Result<()> {
    let mut index = String::new();
    for file in rust_files(out)? {
        let name = file.file_stem().expect("has an extension").to_string_lossy();
        index.push_str(&format!("pub mod {name};\n"));
    }
    fs::write(out.join("mod.rs"), index)
}

fn rust_files(out: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
