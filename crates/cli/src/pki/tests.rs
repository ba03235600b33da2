//! Files of an authority: made, reused, renewed, refused.

use super::*;
use jiff::{SignedDuration, Timestamp};
use std::fs;
use std::path::Path;

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn names() -> Vec<String> {
    serving_names("192.0.2.7".parse().unwrap(), Some("Hub.Example.com"))
}

fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Chains to the authority for one of the names, in the eyes of rustls.
fn is_trusted(authority: &Authority, identity: &Identity, name: &str, now: Timestamp) -> bool {
    use rustls::client::danger::ServerCertVerifier as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let now = std::time::Duration::from_secs(now.as_second().try_into().unwrap());
    let now = rustls_pki_types::UnixTime::since_unix_epoch(now);
    verifier
        .verify_server_cert(&identity.chain()[0], &[], &name.to_owned().try_into().unwrap(), &[], now)
        .is_ok()
}

#[test]
fn names_are_those_that_clients_use() {
    let names = names();
    for name in ["localhost", "127.0.0.1", "::1", "192.0.2.7", "kubernetes.default.svc", "hub.example.com"] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
    let any = serving_names("0.0.0.0".parse().unwrap(), Some("my_host"));
    assert!(!any.iter().any(|name| name == "0.0.0.0" || name == "my_host"));
    let loopback = serving_names("127.0.0.1".parse().unwrap(), Some("localhost"));
    assert_eq!(loopback.iter().filter(|name| *name == "127.0.0.1" || *name == "localhost").count(), 2);
}

#[test]
fn a_second_start_finds_what_the_first_one_made() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::new(dir.path(), names());
    let open = |now| {
        let authority = Authority::open(dir.path(), "hub", now).unwrap();
        let (identity, renew_at) = serving.ensure(&authority, now).unwrap();
        (authority, identity, renew_at)
    };
    let (authority, identity, renew_at) = open(start());
    for name in names() {
        assert!(is_trusted(&authority, &identity, &name, start()), "{name}");
    }
    assert!(!is_trusted(&authority, &identity, "example.org", start()));
    assert!(!is_trusted(&authority, &identity, "localhost", start() + days(366)));
    assert!(renew_at > start() + days(240) && renew_at < start() + days(245), "{renew_at}");
    let first = content(dir.path());
    assert_eq!(
        first.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["ca.crt", "ca.key", "serving.pem"]
    );

    open(start() + days(240));
    assert_eq!(content(dir.path()), first, "nothing was written while all is fresh");

    // Renewed, though not before its time: another key, the same authority.
    let (authority, renewed, next) = open(renew_at);
    assert!(
        is_trusted(&authority, &renewed, "localhost", renew_at + days(300)) && next > renew_at + days(240)
    );
    assert_ne!(renewed.chain(), identity.chain());
    assert_eq!(content(dir.path())[..2], first[..2]);
}

#[test]
fn another_name_needs_another_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), "hub", start()).unwrap();
    let (first, _) = Serving::new(dir.path(), names()).ensure(&authority, start()).unwrap();
    let moved = serving_names("192.0.2.8".parse().unwrap(), None);
    let (second, _) = Serving::new(dir.path(), moved).ensure(&authority, start()).unwrap();
    assert_ne!(first.chain(), second.chain());
    assert!(is_trusted(&authority, &second, "192.0.2.8", start()));
}

#[test]
fn an_old_authority_is_renewed_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), "hub", start()).unwrap();
    let late = start() + days(9 * 365);
    let serving = Serving::new(dir.path(), names());
    let (identity, _) = serving.ensure(&authority, late).unwrap();
    assert!(
        identity.validity().not_after <= start() + days(10 * 365),
        "no certificate outlives its authority"
    );

    let renewed = Authority::open(dir.path(), "hub", late).unwrap();
    assert_ne!(renewed.certificate(), authority.certificate());
    assert!(is_trusted(&renewed, &identity, "localhost", late), "what it issued stays good");
    let (after, _) = serving.ensure(&renewed, late).unwrap();
    assert!(
        is_trusted(&authority, &after, "localhost", late),
        "those who trust the old certificate trust the new"
    );

    // Also when only the certificate was lost.
    fs::remove_file(dir.path().join("ca.crt")).unwrap();
    let again = Authority::open(dir.path(), "hub", late).unwrap();
    assert!(is_trusted(&again, &identity, "localhost", late));
}

#[test]
fn client_certificates_say_who_the_client_is() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), "hub", start()).unwrap();
    let subject = ClientSubject { user: "alice".into(), groups: vec!["a".into(), "b".into()] };
    let identity = authority.issue_client(&subject, start()).unwrap();
    let renewal = |subject: &ClientSubject, now| authority.client_renewal(&identity, subject, now);
    assert_eq!(renewal(&subject, start()), Some(identity.validity().renew_at()));
    assert_eq!(renewal(&subject, identity.validity().renew_at()), None);
    for other in [("bob", &["a", "b"][..]), ("alice", &["a"]), ("alice", &["b", "a"])] {
        let groups = other.1.iter().map(|&group| group.to_owned()).collect();
        assert_eq!(renewal(&ClientSubject { user: other.0.into(), groups }, start()), None, "{other:?}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Authority::open(elsewhere.path(), "hub", start()).unwrap();
    assert_eq!(stranger.client_renewal(&identity, &subject, start()), None);
    assert!(!format!("{identity:?}").contains("PRIVATE"));
}

#[test]
fn what_cannot_be_used_is_named_and_left_alone() {
    type Spoil = fn(&Path);
    let cases: &[(&str, Spoil, &str, &str)] = &[
        ("ca.key", |p| fs::remove_file(p).unwrap(), "is missing", "remove ca.crt as well"),
        ("ca.key", |p| fs::write(p, "").unwrap(), "no private key", "backup"),
        ("ca.key", |p| cut(p, 100), "no private key", "backup"),
        ("ca.crt", |p| cut(p, 100), "no certificate", "remove it"),
        ("ca.crt", |p| fs::write(p, "").unwrap(), "no certificate", "remove it"),
        ("ca.crt", |p| fs::write(p, foreign("ca.crt")).unwrap(), "does not belong", "same backup"),
        ("serving.pem", |p| cut(p, 100), "no private key", "remove it"),
        ("serving.pem", |p| cut(p, 500), "no certificate", "remove it"),
        ("serving.pem", |p| mix(p), "do not belong together", "remove it"),
        ("sa.key", |p| cut(p, 100), "no usable key", "remove it"),
    ];
    for (file, spoil, problem, remedy) in cases {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let authority = Authority::open(dir.path(), "hub", start())?;
            Serving::new(dir.path(), names()).ensure(&authority, start())?;
            open_signing_key(dir.path())
        };
        let first = open().unwrap();
        assert_eq!(open().unwrap(), first);
        let path = dir.path().join(file);
        spoil(&path);
        let before = content(dir.path());
        let fault = open().unwrap_err();
        assert_eq!(fault.file, path, "{fault}");
        assert!(fault.problem.contains(problem) && fault.remedy.contains(remedy), "{fault}");
        assert!(!fault.to_string().contains("BEGIN"), "{fault}");
        assert_eq!(content(dir.path()), before, "{file}: nothing is touched");
    }
}

fn cut(path: &Path, length: usize) {
    let whole = fs::read(path).unwrap();
    assert!(whole.len() > length);
    fs::write(path, &whole[..length]).unwrap();
}

/// A file of another authority.
fn foreign(file: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), "other", start()).unwrap();
    Serving::new(dir.path(), names()).ensure(&authority, start()).unwrap();
    fs::read(dir.path().join(file)).unwrap()
}

/// The key of one certificate with another certificate.
fn mix(path: &Path) {
    let own = String::from_utf8(fs::read(path).unwrap()).unwrap();
    let other = String::from_utf8(foreign("serving.pem")).unwrap();
    let begin = "-----BEGIN CERTIFICATE-----";
    let key = own.split(begin).next().unwrap();
    fs::write(path, format!("{key}{begin}{}", other.split(begin).nth(1).unwrap())).unwrap();
}
