//! Compiles the BPF programs into the object that `src/pin.rs` embeds.

use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    println!("cargo::rerun-if-changed=bpf");
    let object = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("steer.bpf.o");
    SkeletonBuilder::new()
        .source("bpf/steer.bpf.c")
        .obj(&object)
        .clang_args(clang_args())
        .build()
        .expect("bpf/steer.bpf.c compiles; it needs clang and the kernel's user-space headers (linux-libc-dev)");
}

/// `<linux/types.h>` includes `<asm/types.h>`, which Debian keeps in a directory named after the
/// host's triplet. clang for the BPF target does not look there by itself.
fn clang_args() -> Vec<String> {
    let mut args = vec!["-Wall".to_owned(), "-Werror".to_owned()];
    let triplet = Command::new("gcc")
        .arg("-print-multiarch")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|text| text.trim().to_owned())
        .filter(|triplet| !triplet.is_empty())
        .unwrap_or_else(|| format!("{}-linux-gnu", std::env::consts::ARCH));
    let directory = Path::new("/usr/include").join(triplet);
    if directory.is_dir() {
        args.push(format!("-I{}", directory.display()));
    }
    args
}
