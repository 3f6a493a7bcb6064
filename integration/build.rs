//! Turns `proto/*.proto` into Rust in `OUT_DIR`, with no `protoc` to install.

use std::path::PathBuf;
use std::{env, fs, io};

use protobuf_codegen::{Codegen, Customize};

const FILES: [&str; 2] = ["client", "cri"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    Codegen::new()
        .pure()
        .include("proto")
        .inputs(FILES.map(|name| format!("proto/{name}.proto")))
        .customize(Customize::default().lite_runtime(true).gen_mod_rs(false))
        .out_dir(&out)
        .run()
        .map_err(io::Error::other)?;

    for name in FILES {
        // The attribute cannot stand below the crate's `forbid`, and nothing in the file needs it.
        let file = out.join(name).with_extension("rs");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace("#![allow(unsafe_code)]\n", ""))?;
    }
    // `include!` refuses a file with inner attributes, but not one that names such modules.
    fs::write(out.join("mod.rs"), FILES.map(|name| format!("pub mod {name};\n")).concat())
}
