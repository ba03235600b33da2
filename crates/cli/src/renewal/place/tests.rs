use super::*;
use crate::pki::{Authority, ClientSubject};
use jiff::SignedDuration;
use serde_json::json;
use std::fs;
use tempfile::TempDir;

fn now() -> Timestamp {
    "2026-02-01T00:00:00Z".parse().unwrap()
}

/// A directory, an authority in it, and an old and a new identity.
struct World {
    directory: TempDir,
    old: Identity,
    new: Identity,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path(), "test", now()).unwrap();
        let subject = ClientSubject { user: "agent".into(), groups: vec!["agents".into()] };
        let later = now() + SignedDuration::from_hours(24);
        let old = authority.issue_client(&subject, now()).unwrap();
        let new = authority.issue_client(&subject, later).unwrap();
        Self { directory, old, new }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A kubeconfig whose user has these fields.
    fn kubeconfig(&self, name: &str, user: &str) -> PathBuf {
        let text = format!(
            "# mine\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://a'}}}}]\n\
             users: [{{name: other, user: {{token: t}}}}, {{name: u, user: {{{user}}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
        );
        let path = self.path(name);
        files::write(&path, text.as_bytes()).unwrap();
        path
    }

    /// The old identity in each form that a kubeconfig knows.
    fn forms(&self) -> Vec<PathBuf> {
        let (chain, key) = (self.old.chain_pem(), self.old.key_pem().expose_secret());
        files::write(&self.path("tls.crt"), chain.as_bytes()).unwrap();
        files::write(&self.path("tls.key"), key.as_bytes()).unwrap();
        files::write(&self.path("both.pem"), format!("{key}{chain}").as_bytes()).unwrap();
        let data = (STANDARD.encode(chain), STANDARD.encode(key));
        vec![
            self.kubeconfig(
                "embedded",
                &format!("client-certificate-data: {}, client-key-data: {}", data.0, data.1),
            ),
            self.kubeconfig("files", "client-certificate: tls.crt, client-key: tls.key"),
            self.kubeconfig("one-file", "client-certificate: both.pem, client-key: both.pem"),
            self.kubeconfig("mixed", &format!("client-certificate-data: {}, client-key: tls.key", data.0)),
        ]
    }

    fn found(&self, kubeconfig: &Path) -> (Place, Identity) {
        match find(&[kubeconfig.to_owned()]).unwrap() {
            Credential::Certificate(place, identity) => (place, *identity),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_was_read_is_written_back_to_where_it_was() {
    let count = World::new().forms().len();
    for index in 0..count {
        // Anew each time: some forms share files.
        let world = World::new();
        let kubeconfig = &world.forms()[index];
        let text = fs::read_to_string(kubeconfig).unwrap();
        let (place, identity) = world.found(kubeconfig);
        assert_eq!(identity.chain_pem(), world.old.chain_pem());
        let before: Vec<_> =
            fs::read_dir(world.directory.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
        place.require_writable().unwrap();
        place.write(&world.new).unwrap();
        let (again, identity) = world.found(kubeconfig);
        assert_eq!(again, place);
        assert_eq!(identity.chain_pem(), world.new.chain_pem());
        assert_eq!(identity.key_pem().expose_secret(), world.new.key_pem().expose_secret());
        let mut expected = text;
        for (old, new) in [
            (world.old.chain_pem(), world.new.chain_pem()),
            (world.old.key_pem().expose_secret(), world.new.key_pem().expose_secret()),
        ] {
            expected = expected.replace(&STANDARD.encode(old), &STANDARD.encode(new));
        }
        assert_eq!(fs::read_to_string(kubeconfig).unwrap(), expected);
        let mut after: Vec<_> =
            fs::read_dir(world.directory.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
        let mut before = before;
        before.sort();
        after.sort();
        assert_eq!(before, after, "nothing is left behind");
        #[cfg(unix)]
        for file in place.files() {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}

/// What a process leaves that is killed while it writes two files: the journal, with none, one or both of them written.
#[test]
fn killed_between_two_files_it_is_completed_by_the_next_start() {
    for index in [1, 3] {
        for written in 0..=2 {
            let world = World::new();
            let kubeconfig = &world.forms()[index];
            let (place, _) = world.found(kubeconfig);
            let contents = place.contents(&from_disk, &world.new).unwrap();
            assert_eq!(contents.len(), 2);
            let pair = format!("{}{}", world.new.key_pem().expose_secret(), world.new.chain_pem());
            files::write(&place.journal(), pair.as_bytes()).unwrap();
            for (path, content) in contents.iter().take(written) {
                files::replace(path, content).unwrap();
            }
            assert_eq!(
                find(std::slice::from_ref(kubeconfig)).is_err(),
                written == 1,
                "half of it cannot be used"
            );
            for _ in 0..2 {
                recover(std::slice::from_ref(kubeconfig)).unwrap();
                assert_eq!(world.found(kubeconfig).1.chain_pem(), world.new.chain_pem(), "{index} {written}");
                assert!(!place.journal().exists());
            }
        }
    }
}

#[test]
fn what_somebody_wrote_later_stays() {
    let world = World::new();
    let kubeconfig = &world.forms()[1];
    let (place, _) = world.found(kubeconfig);
    place.write(&world.new).unwrap();
    let pair = format!("{}{}", world.old.key_pem().expose_secret(), world.old.chain_pem());
    files::write(&place.journal(), pair.as_bytes()).unwrap();
    recover(std::slice::from_ref(kubeconfig)).unwrap();
    assert_eq!(world.found(kubeconfig).1.chain_pem(), world.new.chain_pem());
    assert!(!place.journal().exists());
    // What is no pair is nobody's that we know.
    files::write(&place.journal(), b"x").unwrap();
    let error = recover(std::slice::from_ref(kubeconfig)).unwrap_err().to_string();
    assert!(error.contains(&*place.journal().to_string_lossy()) && error.contains("remove it"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_stay_links_and_what_cannot_be_written_is_said_before() {
    let world = World::new();
    let kubeconfig = world.forms().remove(0);
    let link = world.path("link");
    std::os::unix::fs::symlink(&kubeconfig, &link).unwrap();
    let (place, _) = world.found(&link);
    place.write(&world.new).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(world.found(&kubeconfig).1.chain_pem(), world.new.chain_pem());

    assert!(!place.is_on_volume());
    fs::remove_file(&kubeconfig).unwrap();
    let fault = place.require_writable().unwrap_err();
    assert!(fault.file == link && fault.problem.starts_with("cannot be replaced"), "{fault}");
}

#[cfg(unix)]
#[test]
fn a_kubelets_volume_is_known_as_one() {
    let world = World::new();
    let kubeconfig = world.forms().remove(0);
    let volume = world.path("volume");
    let version = volume.join("..2026");
    fs::create_dir_all(&version).unwrap();
    fs::copy(&kubeconfig, version.join("kubeconfig")).unwrap();
    std::os::unix::fs::symlink("..2026", volume.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/kubeconfig", volume.join("kubeconfig")).unwrap();
    assert!(world.found(&volume.join("kubeconfig")).0.is_on_volume());
}

#[test]
fn the_credential_is_the_one_that_a_client_would_show() {
    let world = World::new();
    let data = format!(
        "client-certificate-data: {}, client-key-data: {}",
        STANDARD.encode(world.old.chain_pem()),
        STANDARD.encode(world.old.key_pem().expose_secret())
    );
    let jwt = |claims: serde_json::Value| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let (begins, ends) = (Timestamp::from_second(100).unwrap(), Timestamp::from_second(200).unwrap());
    files::write(&world.path("token"), format!("{}\n", jwt(json!({"iat": 100, "exp": 200}))).as_bytes())
        .unwrap();
    for (user, expected) in [
        (format!("token: {}", jwt(json!({"iat": 100, "exp": 200}))), Some((begins, ends))),
        (format!("token: {}", jwt(json!({"exp": 200.0}))), Some((ends, ends))),
        (format!("token: {}", jwt(json!({"iat": 100}))), None),
        ("token: opaque".into(), None),
        ("token: a.b.c".into(), None),
        ("tokenFile: token".into(), Some((begins, ends))),
        ("username: a, password: b".into(), None),
        ("client-certificate-data: ''".into(), None),
    ] {
        let found = find(&[world.kubeconfig("k", &user)]).unwrap();
        let lifetime = match found {
            Credential::Token(begins, ends) => Some((begins, ends)),
            Credential::Other => None,
            Credential::Certificate(..) => panic!("{user}"),
        };
        assert_eq!(lifetime, expected, "{user}");
    }
    let both =
        world.kubeconfig("k", &format!("{data}, token: t, client-certificate: none, client-key: none"));
    assert_eq!(world.found(&both).1.chain_pem(), world.old.chain_pem());
    // Of several files: the context of the first that has one, the user of the first that knows it.
    let first = world.path("first");
    files::write(&first, b"current-context: x\n").unwrap();
    let missing = world.path("missing");
    match find(&[missing.clone(), first, both.clone()]).unwrap() {
        Credential::Certificate(place, _) => assert_eq!(place.files(), [both.as_path()]),
        other => panic!("{other:?}"),
    }
    assert!(format!("{:#}", find(&[missing]).unwrap_err()).contains("missing"));
    // Half of it is a fault, and not something without a certificate.
    let broken = world.kubeconfig("k", "client-certificate: tls.crt, client-key: nowhere.key");
    assert!(find(&[broken]).is_err());
}
