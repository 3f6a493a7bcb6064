//! Turns `proto/client.proto` into Rust in `OUT_DIR`, with no `protoc` to install.

use std::path::PathBuf;
use std::{env, fs, io};

use protobuf_codegen::{Codegen, Customize};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    Codegen::new()
        .pure()
        .include("proto")
        .input("proto/client.proto")
        .customize(Customize::default().lite_runtime(true).gen_mod_rs(false))
        .out_dir(&out)
        .run()
        .map_err(io::Error::other)?;

    // The attribute cannot stand below the crate's `forbid`, and nothing in the file needs it.
    let file = out.join("client.rs");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("#![allow(unsafe_code)]\n", ""))?;
    // `include!` refuses a file with inner attributes, but not one that names such a module.
    fs::write(out.join("mod.rs"), "pub mod client;\n")
}
