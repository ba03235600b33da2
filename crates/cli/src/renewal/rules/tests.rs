use super::super::subject;
use super::*;
use crate::pki::{Authority, ClientSubject, Identity};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, PublicKeyData as _,
};
use x509_parser::certification_request::X509CertificationRequest;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn life(seconds: i64) -> Validity {
    Validity { not_before: at(1_000_000), not_after: at(1_000_000 + seconds) }
}

#[test]
fn a_certificate_is_renewed_in_time_and_a_fleets_not_all_at_once() {
    for seconds in [600, 3_600, 86_400, 30 * 86_400, 365 * 86_400] {
        let times: Vec<_> = [0, 128, 255].map(|spread| renew_at(life(seconds), spread).as_second()).into();
        let share = |time: i64| (time - 1_000_000) as f64 / seconds as f64;
        assert!((share(times[0]) - 2.0 / 3.0).abs() < 0.01, "{seconds}");
        assert!(times[0] > times[1] && times[1] > times[2] && share(times[2]) > 0.59, "{seconds}: {times:?}");
    }
    let nonsense = Validity { not_before: at(10), not_after: at(0) };
    assert!(renew_at(nonsense, 255) < at(20));
}

#[test]
fn a_warning_comes_after_a_renewal_is_due_and_before_the_end() {
    for (seconds, parts, margin) in [
        (365 * 86_400, 4, 7 * 86_400),
        (30 * 86_400, 4, 7 * 86_400),
        (28 * 86_400, 4, 7 * 86_400),
        (86_400, 4, 21_600),
        (600, 4, 150),
        (86_400, 10, 8_640),
        (0, 4, 0),
    ] {
        let validity = life(seconds);
        let warn = warn_at(validity.not_before, validity.not_after, parts);
        assert_eq!(warn, at(1_000_000 + seconds - margin), "{seconds}");
        assert!(seconds == 0 || warn > renew_at(validity, 0), "{seconds}");
    }
    assert_eq!(warn_at(at(10), at(0), 4), at(0), "nonsense is no panic");
}

/// As kube-controller-manager signs: what it is asked for becomes this life.
fn signed(asked: i64) -> i64 {
    if asked < SHORT.as_secs() { asked + BACKDATE.as_secs() } else { asked }
}

#[test]
fn lives_neither_grow_nor_shrink_from_one_renewal_to_the_next() {
    let hour = 3_600;
    for seconds in
        [900, 901, hour, 8 * hour - 1, 8 * hour, 8 * hour + 299, 8 * hour + 300, 24 * hour, 30 * 24 * hour]
    {
        let mut now = seconds;
        for _ in 0..100 {
            now = signed(i64::from(asked_seconds(life(now))));
            assert!((now - seconds).abs() <= BACKDATE.as_secs(), "{seconds}: {now}");
        }
    }
    assert_eq!(asked_seconds(life(1)), 600, "no API server takes less");
    assert_eq!(asked_seconds(Validity { not_before: Timestamp::MIN, not_after: Timestamp::MAX }), i32::MAX);
}

#[test]
fn pauses_grow_and_leave_time_for_more_attempts() {
    let day = SignedDuration::from_hours(24);
    let seconds = |failures, left, random| retry_after(failures, left, random).as_secs();
    assert_eq!(
        [1, 2, 3, 7, 8, 9, 99].map(|n| seconds(n, day * 100, 0)),
        [30, 60, 120, 1920, 3600, 3600, 3600]
    );
    assert_eq!(seconds(99, SignedDuration::from_mins(10), 0), 60);
    assert_eq!(seconds(99, SignedDuration::from_secs(60), 0), 30, "but never without pause");
    // It is over: the hub does not let us in, but its clock may be wrong, or ours.
    assert_eq!(seconds(99, SignedDuration::from_secs(-1), 0), 3600);
    assert!((15..=16).contains(&seconds(1, day, 255)));
}

struct Issued {
    der: Vec<u8>,
    key: Vec<u8>,
}

/// A certificate of its own making, unless it has an issuer.
fn issue(
    alter: impl FnOnce(&mut CertificateParams),
    issuer: Option<(&CertificateParams, &KeyPair)>,
) -> Issued {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "agent");
    params.distinguished_name.push(DnType::OrganizationName, "agents");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026, 3, 1);
    alter(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        None => params.self_signed(&key).unwrap(),
        Some((issuer, pair)) => params.signed_by(&key, &rcgen::Issuer::from_params(issuer, pair)).unwrap(),
    };
    Issued { der: certificate.der().to_vec(), key: key.subject_public_key_info() }
}

#[test]
fn only_what_was_asked_for_is_taken() {
    let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
    let old = issue(|params| params.not_after = rcgen::date_time_ymd(2026, 2, 10), None);
    let judge = |new: &Issued| accept(&old.der, &[&new.der], &new.key, now);
    let with = |alter: fn(&mut CertificateParams)| judge(&issue(alter, None));
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|p| p.extended_key_usages.clear()), Ok(()), "for everything");
    type Case = (&'static str, fn(&mut CertificateParams), Unfit);
    let cases: [Case; 10] = [
        ("another name", |p| p.distinguished_name.push(DnType::CommonName, "eve"), Unfit::Subject),
        ("another group", |p| p.distinguished_name.push(DnType::OrganizationName, "eve"), Unfit::Subject),
        ("less", |p| assert!(p.distinguished_name.remove(DnType::OrganizationName)), Unfit::Subject),
        ("more", |p| p.distinguished_name.push(DnType::OrganizationalUnitName, "u"), Unfit::Subject),
        (
            "a second group",
            |p| p.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "b"),
            Unfit::Subject,
        ),
        ("a server's", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], Unfit::Purpose),
        ("an authority's", |p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained), Unfit::Authority),
        ("tomorrow's", |p| p.not_before = rcgen::date_time_ymd(2026, 2, 2), Unfit::Early),
        ("as long", |p| p.not_after = rcgen::date_time_ymd(2026, 2, 10), Unfit::NoGain),
        ("shorter", |p| p.not_after = rcgen::date_time_ymd(2026, 2, 9), Unfit::NoGain),
    ];
    for (what, alter, unfit) in cases {
        assert_eq!(with(alter), Err(unfit), "{what}");
    }
    let good = issue(|_| (), None);
    assert_eq!(accept(&old.der, &[&good.der], &old.key, now), Err(Unfit::Key));
    assert_eq!(accept(&old.der, &[&old.der], &good.key, now), Err(Unfit::Key));
    assert_eq!(accept(&old.der, &[], &good.key, now), Err(Unfit::Unreadable));
    assert_eq!(accept(&old.der, &[b"x"], &good.key, now), Err(Unfit::Unreadable));
}

#[test]
fn what_comes_with_it_has_to_have_issued_it() {
    let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        (params, key, der)
    };
    let (right, other, same_name) = (authority("a"), authority("b"), authority("a"));
    let old = issue(|params| params.not_after = rcgen::date_time_ymd(2026, 2, 10), None);
    let new = issue(|_| (), Some((&right.0, &right.1)));
    let judge = |chain: &[&[u8]]| accept(&old.der, chain, &new.key, now);
    assert_eq!(judge(&[&new.der]), Ok(()));
    assert_eq!(judge(&[&new.der, &right.2]), Ok(()));
    assert_eq!(judge(&[&new.der, &other.2]), Err(Unfit::Chain));
    assert_eq!(judge(&[&new.der, &same_name.2]), Err(Unfit::Chain), "the name alone says nothing");
}

#[test]
fn the_request_is_for_the_same_subject_to_the_byte() {
    let directory = tempfile::tempdir().unwrap();
    let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
    let authority = Authority::open(directory.path(), "test", now).unwrap();
    let subject = ClientSubject { user: "agent: ü".into(), groups: vec!["a".into(), "b".into()] };
    let identity: Identity = authority.issue_client(&subject, now).unwrap();
    let key = KeyPair::generate().unwrap();
    let pem = subject::request(&identity.chain()[0], &key).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    assert_eq!(block.label, "CERTIFICATE REQUEST");
    let (rest, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
    assert!(rest.is_empty());
    request.verify_signature().unwrap();
    let info = &request.certification_request_info;
    let (_, old) = X509Certificate::from_der(&identity.chain()[0]).unwrap();
    assert_eq!(info.subject.as_raw(), old.subject().as_raw());
    assert_eq!(info.subject_pki.raw, key.subject_public_key_info());
    assert_eq!(info.attributes(), []);
    assert_eq!(attributes(&info.subject).len(), 3);
}
