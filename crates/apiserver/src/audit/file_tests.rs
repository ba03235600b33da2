use super::*;
use fleetpass_api::clock::Clock;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

/// A clock that stands still.
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

const NOW: &str = "2026-03-01T12:00:00.5Z";

fn rotating(path: &Path, max_bytes: u64, max_backups: usize, max_age_days: u32) -> RotatingFile {
    let rotation = Rotation { max_bytes, max_backups, max_age_days };
    RotatingFile::open(path, rotation, Arc::new(At(NOW.parse().unwrap()))).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn lines(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| format!("{text}\n").into_bytes()).collect()
}

fn write(log: &mut RotatingFile, texts: &[&str]) {
    let Written { lost, fault } = log.write(&lines(texts));
    assert_eq!((lost, fault.map(|error| error.to_string())), (0, None));
}

#[test]
fn a_full_file_is_put_aside_and_lines_stay_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/audit.log");
    let mut log = rotating(&path, 10, 0, 0);
    // Two lines fill a file; one that is larger than a file has one for itself.
    write(&mut log, &["1234", "5678", "9", "much longer than ten bytes", "x"]);
    write(&mut log, &["y"]);
    let read = |name: &str| fs::read_to_string(path.with_file_name(name)).unwrap();
    assert_eq!(
        names(path.parent().unwrap()),
        [
            "audit-2026-03-01T12-00-00.500.log",
            "audit-2026-03-01T12-00-00.501.log",
            "audit-2026-03-01T12-00-00.502.log",
            "audit.log"
        ]
    );
    assert_eq!(read("audit-2026-03-01T12-00-00.500.log"), "1234\n5678\n");
    assert_eq!(read("audit-2026-03-01T12-00-00.501.log"), "9\n");
    assert_eq!(read("audit-2026-03-01T12-00-00.502.log"), "much longer than ten bytes\n");
    assert_eq!(read("audit.log"), "x\ny\n");
    for name in names(path.parent().unwrap()) {
        assert_eq!(mode(&path.with_file_name(name)), 0o600);
    }
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    // Who comes back knows how full the file is.
    drop(log);
    let mut log = rotating(&path, 10, 0, 0);
    write(&mut log, &["1234567"]);
    assert_eq!(read("audit.log"), "1234567\n");
}

#[test]
fn without_a_limit_a_file_is_never_full() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = rotating(&directory.path().join("audit"), 0, 1, 1);
    write(&mut log, &["1"; 1000]);
    assert_eq!(names(directory.path()), ["audit"]);
}

#[test]
fn old_files_go_by_number_and_by_age_and_no_other_file_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let put = |name: &str| fs::write(directory.path().join(name), "").unwrap();
    let others = [
        "audit-2020-01-01T00-00-00.000.log.gz",
        "audit-2020-01-01T00-00-00.log",
        "audit-notes.log",
        "other-2020-01-01T00-00-00.000.log",
    ];
    others.into_iter().for_each(put);
    put("audit-2026-02-28T12-00-00.500.log");
    put("audit-2026-02-28T12-00-00.499.log");
    // A day is 24 hours: of the two, one is older.
    drop(rotating(&path, 4, 0, 1));
    let mut kept = vec!["audit-2026-02-28T12-00-00.500.log", "audit.log"];
    kept.extend(others);
    kept.sort_unstable();
    assert_eq!(names(directory.path()), kept);
    // Three more are put aside; two may stay.
    write(&mut rotating(&path, 4, 2, 0), &["1", "22", "333", "4444"]);
    let stamped: Vec<String> = names(directory.path())
        .into_iter()
        .filter(|name| !others.contains(&name.as_str()) && name != "audit.log")
        .collect();
    assert_eq!(stamped, ["audit-2026-03-01T12-00-00.501.log", "audit-2026-03-01T12-00-00.502.log"]);
}

#[test]
fn a_file_that_others_can_read_is_made_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    fs::write(&path, "before\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut log = rotating(&path, 100, 0, 0);
    assert_eq!(mode(&path), 0o600);
    write(&mut log, &["after"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
}

#[test]
fn what_is_no_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let rotation = Rotation { max_bytes: 0, max_backups: 0, max_age_days: 0 };
    let open = |path: &Path| {
        let opened = RotatingFile::open(path, rotation, fleetpass_api::clock::system());
        opened.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(open(directory.path()).ends_with("is not a regular file; for standard output give -"));
    assert!(open(Path::new("/dev/null")).starts_with("/dev/null is not"));
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file.join("audit.log"));
    assert!(error.contains("file/audit.log has no directory, and none can be made: "), "{error}");
}

#[test]
fn where_rotation_fails_the_old_file_is_written_on() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("inner");
    let mut log = rotating(&inner.join("audit.log"), 4, 0, 0);
    write(&mut log, &["1", "2"]);
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&inner, &elsewhere).unwrap();
    let Written { lost, fault } = log.write(&lines(&["3", "4"]));
    assert_eq!((lost, fault.is_some()), (0, true));
    assert_eq!(fs::read_to_string(elsewhere.join("audit.log")).unwrap(), "1\n2\n3\n4\n");
    // Once it can be renamed again, it is.
    fs::rename(&elsewhere, &inner).unwrap();
    write(&mut log, &["5"]);
    assert_eq!(fs::read_to_string(inner.join("audit.log")).unwrap(), "5\n");
    assert_eq!(names(&inner).len(), 2);
}
