#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shardmeter_manager::fuzzing::protobuf(input));
