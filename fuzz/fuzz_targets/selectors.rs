#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fleetpass_fuzz_targets::selectors(data));
