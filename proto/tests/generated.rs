//! The checked-in code is what the .proto files say. To renew it after a change of one:
//! `UPDATE_GENERATED=1 cargo test -p shardmeter-proto --test generated`.

use std::{fs, path::Path};

use protox::prost::Message as _;

const PROTOS: [&str; 2] =
    ["shardmeter/telemetry/v1/fleet.proto", "shardmeter/telemetry/v1/telemetry.proto"];

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();

    let descriptors = protox::compile(PROTOS, [root]).unwrap();
    fs::write(fresh.path().join("descriptors.bin"), descriptors.encode_to_vec()).unwrap();
    tonic_prost_build::configure()
        .build_transport(true)
        .out_dir(fresh.path())
        .compile_fds(descriptors)
        .unwrap();

    let checked_in = root.join("src/generated");
    for entry in fs::read_dir(fresh.path()).unwrap() {
        let name = entry.unwrap().file_name();
        if name == "google.protobuf.rs" {
            continue; // prost-types has these
        }
        let (new, old) = (fs::read(fresh.path().join(&name)).unwrap(), checked_in.join(&name));
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(&old, &new).unwrap();
        }
        assert!(
            fs::read(&old).is_ok_and(|old| old == new),
            "{} is out of date; see the head of this file",
            old.display()
        );
    }
}
