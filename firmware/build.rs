//! Puts the memory layout of the emulated board where the linker looks for it.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let board = if target.starts_with("thumbv6m") { "microbit.x" } else { "mps2-an386.x" };
    fs::copy(board, out.join("memory.x")).expect("the memory layout is here");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rerun-if-changed={board}");
    println!("cargo:rustc-check-cfg=cfg(microbit)");
    if board == "microbit.x" {
        println!("cargo:rustc-cfg=microbit");
    }
}
