//! Compiles the wire and disk definitions with protox: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

/// Every definition of the crate, relative to `wire/`.
const DEFINITIONS: &[&str] = &["disk.proto", "calls.proto", "peer.proto", "raft.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=wire");
    let descriptors = protox::compile(DEFINITIONS, ["wire"])?;
    // The test that holds the field numbers still reads them from here.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
