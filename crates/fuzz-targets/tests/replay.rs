//! All targets over what fuzzing found and over what real clients sent.

use fleetpass_fuzz_targets::{TARGETS, seeds};
use std::fs;
use std::path::{Path, PathBuf};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a test on a stack that is large enough without optimisation; `large.rs` sees to it that a server's is with it.
fn on_large_stack(test: fn()) {
    let thread = std::thread::Builder::new().stack_size(32 * 1024 * 1024).spawn(test).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a target on an input, and names that if it panics.
fn run(target: &str, act: fn(&[u8]), name: &str, input: &[u8]) {
    let result = std::panic::catch_unwind(|| act(input));
    assert!(result.is_ok(), "{target} fails on {name}: {:?}", String::from_utf8_lossy(input));
}

#[test]
fn recorded_requests() {
    on_large_stack(replay_recorded);
}

#[test]
fn what_fuzzing_found() {
    on_large_stack(replay_found);
}

fn replay_recorded() {
    let seeds = seeds::from_scenarios(&here("../../conformance/scenarios")).unwrap();
    assert_eq!(seeds.len(), TARGETS.len(), "each target has seeds");
    for (target, act) in TARGETS {
        let inputs = &seeds[target];
        assert!(inputs.len() > 5, "{target} has {} seeds", inputs.len());
        for (number, input) in inputs.iter().enumerate() {
            run(target, act, &format!("seed {number}"), input);
        }
    }
}

fn replay_found() {
    for (target, act) in TARGETS {
        let folder = here("corpus").join(target);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            run(target, act, &file.display().to_string(), &fs::read(&file).unwrap());
        }
    }
}
