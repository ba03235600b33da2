use super::*;
use crate::{
    observe::{Memory, Review},
    token::forge,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use proptest::prelude::*;

mod properties;

const NAME: &str = "robot";
const CA: &[u8] = b"ca";
const HOUR: i64 = 3_600;
const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn policy() -> Policy {
    Policy {
        cluster: "cluster1".into(),
        agent_namespace: "agents".into(),
        audiences: Vec::new(),
        longest_validity: None,
        review_seconds: 600,
        obstacle_seconds: 30,
    }
}

fn token(uid: &str, iat: i64, exp: i64, id: u64) -> Token {
    Token::new(forge(&format!("system:serviceaccount:agents:{NAME}"), uid, iat, exp, id))
}

fn record(seconds: i64) -> String {
    TokenRequestSpec { expiration_seconds: seconds, audiences: Vec::new() }.record()
}

fn secret(token: Option<Token>, record: Option<&str>) -> Secret {
    let owner = OwnerReference {
        api_version: "authentication.open-cluster-management.io/v1beta1".into(),
        kind: names::KIND.into(),
        name: NAME.into(),
        uid: "account".into(),
        ..OwnerReference::default()
    };
    let annotations = record.map(|record| (names::ANNOTATION_TOKEN_REQUEST.to_owned(), record.to_owned()));
    Secret {
        metadata: ObjectMeta {
            uid: Some("secret".into()),
            resource_version: Some("1".into()),
            owner_references: Some(vec![owner]),
            annotations: Some(annotations.into_iter().collect()),
            ..ObjectMeta::default()
        },
        managed: true,
        immutable: false,
        token,
        ca: Some(CA.to_vec()),
        extra_keys: false,
    }
}

/// An account with a token of one hour, issued at START, in good order and reviewed just then.
fn settled() -> Observed {
    let token = token("service", START, START + HOUR, 1);
    let review = Review { token: token.fingerprint(), accepted: true, at: at(START) };
    let mut seen = Observed {
        account: Some(Account {
            uid: "account".into(),
            resource_version: "1".into(),
            validity: "1h".into(),
            ..Account::default()
        }),
        service_account: Some(ServiceAccount {
            uid: "service".into(),
            managed: true,
            mark: mark(Some("cluster1"), Some("hub1")),
            ..ServiceAccount::default()
        }),
        unseen: None,
        hub: Some("hub1".into()),
        may_not_mark: false,
        secret: Some(secret(Some(token), Some(&record(HOUR)))),
        ca: CA.to_vec(),
        memory: Memory { review: Some(review), ..Memory::default() },
    };
    let plan = decide(NAME, &seen, &policy(), at(START));
    let Some(Step::PatchStatus(status)) = plan.step else { panic!("{plan:?}") };
    seen.account.as_mut().unwrap().status = status;
    seen
}

fn cause(seen: &Observed, now: i64) -> Option<Cause> {
    match decide(NAME, seen, &policy(), at(now)).step {
        Some(Step::RequestToken(_, cause)) => Some(cause),
        None | Some(Step::ReviewToken) => None,
        step => panic!("{step:?}"),
    }
}

fn reported(seen: &Observed, now: i64) -> (String, String) {
    let Some(Step::PatchStatus(status)) = decide(NAME, seen, &policy(), at(now)).step else { panic!() };
    let condition = status.condition(names::CONDITION_TOKEN_REPORTED).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

#[test]
fn a_good_account_needs_nothing() {
    let seen = settled();
    let plan = decide(NAME, &seen, &policy(), at(START));
    assert_eq!(plan.step, None);
    let next = plan.next.unwrap().as_second() - START;
    assert!((540..=600).contains(&next), "the next review: {next}");
    let status = &seen.account.unwrap().status;
    assert_eq!(status.expiration_timestamp, Some(Time(at(START + HOUR))));
    assert_eq!(status.token_secret_ref.as_ref().unwrap().name, NAME);
    assert_eq!(status.conditions.iter().filter(|c| c.status == "True").count(), 2);
}

#[test]
fn a_token_is_renewed_when_it_must_be() {
    type Change = fn(&mut Observed);
    let table: [(&str, Change, Cause); 13] = [
        ("Secret deleted", |s| s.secret = None, Cause::SecretMissing),
        ("token removed", |s| s.secret.as_mut().unwrap().token = None, Cause::SecretAltered),
        (
            "token is garbage",
            |s| s.secret.as_mut().unwrap().token = Some(Token::new("garbage".into())),
            Cause::SecretAltered,
        ),
        (
            "token of another account",
            |s| {
                let text = forge("system:serviceaccount:kube-system:root", "service", START, START + HOUR, 9);
                s.secret.as_mut().unwrap().token = Some(Token::new(text));
            },
            Cause::SecretAltered,
        ),
        (
            "another token than was projected",
            |s| {
                let other = token("service", START, START + HOUR, 7);
                s.memory.projected = Some((other.fingerprint(), at(START)));
            },
            Cause::SecretAltered,
        ),
        (
            "ServiceAccount recreated",
            |s| s.service_account.as_mut().unwrap().uid = "other".into(),
            Cause::ServiceAccountRecreated,
        ),
        ("token rejected", |s| s.memory.review.as_mut().unwrap().accepted = false, Cause::Rejected),
        ("validity changed", |s| s.account.as_mut().unwrap().validity = "2h".into(), Cause::RequestChanged),
        (
            "audiences changed",
            |s| {
                s.secret.as_mut().unwrap().metadata.annotations =
                    secret(None, Some("else")).metadata.annotations
            },
            Cause::RequestChanged,
        ),
        (
            "upstream's token, of another lifetime",
            |s| {
                s.account.as_mut().unwrap().validity = "2h".into();
                s.secret.as_mut().unwrap().metadata.annotations = None;
            },
            Cause::RequestChanged,
        ),
        (
            "immutable and of the wrong lifetime",
            |s| {
                s.account.as_mut().unwrap().validity = "2h".into();
                s.secret.as_mut().unwrap().immutable = true;
            },
            Cause::RequestChanged,
        ),
        (
            "a token that waits, for another account UID",
            |s| {
                s.secret = None;
                let token = token("other", START, START + HOUR, 3);
                s.memory.minted = Some(Minted { token, record: record(HOUR), at: at(START) });
            },
            Cause::SecretMissing,
        ),
        (
            "a token that waits, for an earlier wish",
            |s| {
                s.secret = None;
                let token = token("service", START, START + HOUR, 3);
                s.memory.minted = Some(Minted { token, record: record(60), at: at(START) });
            },
            Cause::SecretMissing,
        ),
    ];
    for (what, change, expected) in table {
        let mut seen = settled();
        change(&mut seen);
        assert_eq!(cause(&seen, START), Some(expected), "{what}");
    }
}

#[test]
fn what_surrounds_the_token_is_put_in_order_without_a_new_one() {
    type Change = fn(&mut Observed);
    let table: [(&str, Change); 6] = [
        ("CA of the cluster changed", |s| s.ca = b"new".to_vec()),
        ("CA in the Secret altered", |s| s.secret.as_mut().unwrap().ca = Some(b"evil".to_vec())),
        ("another key", |s| s.secret.as_mut().unwrap().extra_keys = true),
        ("annotations of another token", |s| {
            let annotations = s.secret.as_mut().unwrap().metadata.annotations.as_mut().unwrap();
            annotations.insert(names::ANNOTATION_TOKEN_EXPIRES_AT.into(), "2020-01-01T00:00:00Z".into());
        }),
        ("owner removed", |s| s.secret.as_mut().unwrap().metadata.owner_references = None),
        ("upstream's Secret", |s| s.secret.as_mut().unwrap().metadata.annotations = None),
    ];
    for (what, change) in table {
        let mut seen = settled();
        change(&mut seen);
        let step = decide(NAME, &seen, &policy(), at(START)).step;
        assert_eq!(step, Some(Step::WriteSecret(Source::Present)), "{what}");
    }
}

#[test]
fn somebody_elses_objects_stand_in_the_way() {
    let mut service = settled();
    service.service_account.as_mut().unwrap().managed = false;
    assert_eq!(reported(&service, START), ("False".into(), names::REASON_NAME_CONFLICT.into()));

    let mut projection = settled();
    projection.secret.as_mut().unwrap().managed = false;
    projection.service_account = None;
    assert_eq!(reported(&projection, START), ("False".into(), names::REASON_NAME_CONFLICT.into()));
    let Some(Step::PatchStatus(status)) = decide(NAME, &projection, &policy(), at(START)).step else {
        panic!()
    };
    assert_eq!(status.token_secret_ref, None, "somebody else's Secret is not ours to point at");
    assert_eq!(decide(NAME, &projection, &policy(), at(START)).next, Some(at(START + 30)));
}

#[test]
fn a_service_account_is_ours_if_its_mark_does_not_name_another_agent() {
    enum Then {
        Keep,
        Mark,
        Leave,
    }
    let (own, other) = (Some("hub1"), Some("hub2"));
    let table = [
        (mark(Some("cluster1"), own), own, Then::Keep),
        (mark(Some("cluster1"), None), None, Then::Keep),
        // The agent lost the right to see which hub this is: what is known stays.
        (mark(Some("cluster1"), own), None, Then::Keep),
        (mark(None, None), own, Then::Mark),
        (mark(None, None), None, Then::Mark),
        (mark(Some("cluster1"), None), own, Then::Mark),
        (mark(None, own), own, Then::Mark),
        (mark(Some("cluster2"), own), own, Then::Leave),
        (mark(Some("cluster2"), None), None, Then::Leave),
        (mark(Some("cluster1"), other), own, Then::Leave),
        (mark(None, other), own, Then::Leave),
    ];
    for (mark, hub, then) in table {
        let mut seen = settled();
        seen.service_account.as_mut().unwrap().mark = mark.clone();
        seen.hub = hub.map(str::to_owned);
        let step = decide(NAME, &seen, &policy(), at(START)).step;
        match then {
            Then::Keep => assert_eq!(step, None, "{mark:?} {hub:?}"),
            Then::Mark => {
                let own = super::tests::mark(Some("cluster1"), hub);
                assert_eq!(step, Some(Step::MarkServiceAccount(own)), "{mark:?} {hub:?}");
                seen.may_not_mark = true;
                let step = decide(NAME, &seen, &policy(), at(START)).step;
                assert_eq!(step, None, "used without, where it must be: {mark:?} {hub:?}");
            }
            Then::Leave => {
                assert_eq!(reported(&seen, START), ("False".into(), names::REASON_NAME_CONFLICT.into()));
                let Some(Step::PatchStatus(status)) = step else { panic!("{step:?}") };
                let message = &status.condition(names::CONDITION_TOKEN_REPORTED).unwrap().message;
                for named in mark.cluster.iter().chain(&mark.hub) {
                    assert!(message.contains(named), "{message}");
                }
            }
        }
        // Without an account: what is ours, or nobody's, goes; what is another agent's stays.
        seen.account = None;
        seen.secret = None;
        let step = decide(NAME, &seen, &policy(), at(START)).step;
        let expected = Step::DeleteServiceAccount { uid: "service".into() };
        assert_eq!(step, (!matches!(then, Then::Leave)).then_some(expected), "{mark:?} {hub:?}");
    }
}

#[test]
fn nonsense_in_the_spec_is_said_and_not_requested() {
    for validity in ["", "for ever", "9m59s", "-1h", "1193047h"] {
        let mut seen = settled();
        seen.account.as_mut().unwrap().validity = validity.into();
        seen.secret = None;
        let reason = names::REASON_INVALID_VALIDITY.to_owned();
        assert_eq!(reported(&seen, START), ("False".into(), reason), "{validity}");
    }
}

#[test]
fn a_validity_beyond_the_operators_limit_is_said_and_not_requested() {
    let limited = Policy { longest_validity: Some(HOUR), ..policy() };
    for (validity, refused) in
        [("10m", false), ("1h", false), ("1h0m0.5s", false), ("1h0m1s", true), ("8640h", true)]
    {
        let account = Account { validity: validity.into(), ..settled().account.unwrap() };
        let wanted = wanted_request(&account, &limited);
        let message = wanted.as_ref().err().cloned().unwrap_or_default();
        assert_eq!(wanted.is_err(), refused, "{validity}: {message}");
        assert!(!refused || message.contains("at most 3600 s (--max-validity)"), "{message}");
    }
}

#[test]
fn an_account_that_goes_takes_the_service_account_first_and_leaves_the_rest_alone() {
    for terminating in [false, true] {
        let mut seen = settled();
        match terminating {
            true => seen.account.as_mut().unwrap().terminating = true,
            false => seen.account = None,
        }
        let step = decide(NAME, &seen, &policy(), at(START)).step;
        assert_eq!(step, Some(Step::DeleteServiceAccount { uid: "service".into() }));
        seen.service_account = None;
        let step = decide(NAME, &seen, &policy(), at(START)).step;
        assert_eq!(step, Some(Step::DeleteSecret { uid: "secret".into() }));
        seen.secret.as_mut().unwrap().metadata.owner_references = None;
        assert_eq!(
            decide(NAME, &seen, &policy(), at(START)).step,
            None,
            "not owned by an account of that name"
        );
    }
}

#[test]
fn a_clock_that_runs_ahead_makes_no_storm() {
    let mut seen = settled();
    let now = START + 10 * HOUR; // by the cluster's clock it is START
    let token = seen.secret.as_ref().unwrap().token.clone().unwrap();
    seen.memory.review = Some(Review { token: token.fingerprint(), accepted: true, at: at(now) });
    seen.memory.projected = Some((token.fingerprint(), at(now)));
    assert_eq!(cause_ignoring_status(&seen, now), None);
    assert_eq!(cause_ignoring_status(&seen, now + HOUR / 10), Some(Cause::Due));
}

fn cause_ignoring_status(seen: &Observed, now: i64) -> Option<Cause> {
    match decide(NAME, seen, &policy(), at(now)).step {
        Some(Step::RequestToken(_, cause)) => Some(cause),
        _ => None,
    }
}

#[test]
fn a_failure_is_said_once_and_a_good_token_stays_reported() {
    let mut seen = settled();
    let failure = (names::REASON_CLUSTER_UNREACHABLE, "cluster1 does not answer");
    let status = after_failure(NAME, &seen, &policy(), failure, at(START + 60)).unwrap();
    let condition = status.condition(names::CONDITION_TOKEN_REPORTED).unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "ClusterUnreachable"));
    assert!(condition.message.ends_with("good until 2027-01-15T09:00:00Z"), "{}", condition.message);
    assert_eq!(condition.last_transition_time, Time(at(START)), "only the status moves it");
    seen.account.as_mut().unwrap().status = status;
    assert_eq!(after_failure(NAME, &seen, &policy(), failure, at(START + 90)), None);

    let status = after_failure(NAME, &seen, &policy(), failure, at(START + HOUR)).unwrap();
    assert_eq!(status.condition(names::CONDITION_TOKEN_REPORTED).unwrap().status, "False");
    assert_eq!(status.condition(names::CONDITION_SECRET_CREATED).unwrap().status, "True");
}

#[test]
fn a_token_that_nears_its_end_is_called_expiring_until_it_is_replaced() {
    let mut seen = settled();
    let failure = (names::REASON_CLUSTER_UNREACHABLE, "cluster1 does not answer");
    let expiring = |status: &Status| {
        let condition = status.condition(names::CONDITION_TOKEN_EXPIRING).cloned();
        condition.map(|found| (found.status, found.reason, found.message))
    };
    let fail = |seen: &mut Observed, now| {
        let status = after_failure(NAME, seen, &policy(), failure, at(now)).unwrap();
        seen.account.as_mut().unwrap().status = status.clone();
        expiring(&status)
    };
    assert_eq!(fail(&mut seen, START + HOUR * 9 / 10 - 1), None, "there is time");
    let (status, reason, message) = fail(&mut seen, START + HOUR * 9 / 10).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", names::REASON_CLUSTER_UNREACHABLE));
    let text = "the token expires at 2027-01-15T09:00:00Z and could not be renewed: cluster1 does not answer";
    assert_eq!(message, text);
    assert!(fail(&mut seen, START + HOUR).unwrap().2.starts_with("the token expired at "));

    let mut world =
        World { seen, longest: HOUR, now: START + HOUR + 1, accepts: true, marks: true, tokens: 0 };
    world.settle();
    let (status, reason, _) = expiring(&world.seen.account.unwrap().status).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", names::REASON_TOKEN_NOT_EXPIRING));
}

#[test]
fn what_blocks_an_account_is_said_again_when_its_token_ends() {
    let mut seen = settled();
    seen.account.as_mut().unwrap().validity = "nonsense".into();
    let mut world = World { seen, longest: HOUR, now: START, accepts: true, marks: true, tokens: 0 };
    let mut told = Vec::new();
    for _ in 0..3 {
        let (plan, _) = world.settle();
        let status = &world.seen.account.as_ref().unwrap().status;
        let expiring = status.condition(names::CONDITION_TOKEN_EXPIRING).map(|found| found.reason.clone());
        told.push((world.now - START, expiring));
        world.now = plan.next.map_or(i64::MAX, Timestamp::as_second);
    }
    let reason = Some(names::REASON_INVALID_VALIDITY.to_owned());
    assert_eq!(told, [(0, None), (HOUR * 9 / 10, reason.clone()), (HOUR, reason)]);
    assert_eq!(world.now, i64::MAX, "nothing more to say");
}

#[test]
fn after_a_failure_a_token_counts_as_good_only_if_nothing_says_otherwise() {
    type Change = fn(&mut Observed);
    let silent: Change = |s| (s.service_account, s.unseen) = (None, Some(Unseen::Silent));
    let refused: Change = |s| (s.service_account, s.unseen) = (None, Some(Unseen::Refused));
    let was_not: Change = |s| s.account.as_mut().unwrap().status = Status::default();
    let nothing: Change = |_| ();
    let table: [(&str, [Change; 2], bool, &str); 10] = [
        ("the ServiceAccount is there", [nothing, nothing], true, "good until"),
        ("it is there, and nothing was said before", [nothing, was_not], true, "good until"),
        ("it does not exist", [|s| s.service_account = None, nothing], false, "no longer accepts"),
        (
            "it is another one by now",
            [|s| s.service_account.as_mut().unwrap().uid = "new".into(), nothing],
            false,
            "no longer accepts",
        ),
        (
            "it is being deleted",
            [|s| s.service_account.as_mut().unwrap().terminating = true, nothing],
            false,
            "no longer accepts",
        ),
        (
            "the cluster said no to the token",
            [|s| s.memory.review.as_mut().unwrap().accepted = false, nothing],
            false,
            "no longer accepts",
        ),
        (
            "it did, and is silent since",
            [|s| s.memory.review.as_mut().unwrap().accepted = false, silent],
            false,
            "no longer accepts",
        ),
        ("the cluster is silent", [silent, nothing], true, "good until"),
        ("the cluster is silent since it said no", [silent, was_not], false, "is not known"),
        // The namespace of the agent is gone, and with it the agent's rights: all is refused.
        ("the cluster refuses to say", [refused, nothing], false, "is not known"),
    ];
    for (what, changes, good, message) in table {
        let mut seen = settled();
        changes.iter().for_each(|change| change(&mut seen));
        let failure = (names::REASON_CLUSTER_REFUSED, "cluster1 says no");
        let status = after_failure(NAME, &seen, &policy(), failure, at(START + 60)).unwrap();
        let condition = status.condition(names::CONDITION_TOKEN_REPORTED).unwrap();
        assert_eq!(condition.status == "True", good, "{what}: {condition:?}");
        assert!(condition.message.contains(message), "{what}: {}", condition.message);
    }
}

#[test]
fn accounts_that_were_created_together_drift_apart() {
    let shares: std::collections::HashSet<u64> =
        (0..1_000).map(|i| spread(&[&format!("account-{i}"), "uid"], 151)).collect();
    assert!(shares.len() > 145, "{} of 151", shares.len());
}

/// A world that does what it is told, and checks that it is nothing that must not be done.
#[derive(Debug)]
struct World {
    seen: Observed,
    longest: i64,
    now: i64,
    accepts: bool,
    /// Whether the agent may change ServiceAccounts.
    marks: bool,
    tokens: u64,
}

fn mark(cluster: Option<&str>, hub: Option<&str>) -> Mark {
    Mark { cluster: cluster.map(str::to_owned), hub: hub.map(str::to_owned) }
}

/// Whether the mark names another agent than the one of these tests, in words of its own.
fn foreign(service: &ServiceAccount, hub: Option<&str>) -> bool {
    service.mark.cluster.as_deref() == Some("cluster2")
        || (hub == Some("hub1") && service.mark.hub.as_deref() == Some("hub2"))
}

impl World {
    fn take(&mut self, step: Step) {
        let (now, hub) = (self.now, self.seen.hub.clone());
        match step {
            Step::CreateServiceAccount(mark) => {
                assert!(self.seen.service_account.is_none());
                self.seen.service_account = Some(ServiceAccount {
                    uid: format!("service-{now}"),
                    managed: true,
                    mark,
                    ..ServiceAccount::default()
                });
            }
            Step::MarkServiceAccount(mark) => {
                let service = self.seen.service_account.as_mut().unwrap();
                assert!(service.managed && !service.terminating && !foreign(service, hub.as_deref()));
                match self.marks {
                    true => service.mark = mark,
                    false => self.seen.may_not_mark = true,
                }
            }
            Step::RequestToken(wanted, _) => {
                let service = self.seen.service_account.as_ref().unwrap();
                assert!(service.managed && !service.terminating && !foreign(service, hub.as_deref()));
                assert!(self.seen.secret.as_ref().is_none_or(|secret| secret.managed));
                self.tokens += 1;
                let lifetime = wanted.expiration_seconds.min(self.longest);
                let token = token(&service.uid, now, now + lifetime, 1_000 + self.tokens);
                self.seen.memory.minted = Some(Minted { token, record: wanted.record(), at: at(now) });
            }
            Step::ReviewToken => {
                let token = self.seen.secret.as_ref().unwrap().token.as_ref().unwrap().fingerprint();
                let review = Review { token, accepted: self.accepts, at: at(now) };
                self.seen.memory.review = Some(review);
            }
            Step::WriteSecret(source) => self.write(source),
            Step::DeleteServiceAccount { uid } => {
                let service = self.seen.service_account.take().unwrap();
                assert!(service.managed && service.uid == uid && !foreign(&service, hub.as_deref()));
            }
            Step::DeleteSecret { uid } => {
                let secret = self.seen.secret.take().unwrap();
                assert!(secret.managed && secret.uid() == uid);
            }
            Step::PatchStatus(status) => {
                let account = self.seen.account.as_mut().unwrap();
                assert_ne!(account.status, status);
                account.status = status;
            }
        }
    }

    fn write(&mut self, source: Source) {
        let present = self.seen.secret.take();
        assert!(present.as_ref().is_none_or(|secret| secret.managed && !secret.immutable));
        let record = wanted_record(&self.seen, &policy()).unwrap();
        let token = match source {
            Source::Minted(_) => {
                let minted = self.seen.memory.minted.take().unwrap();
                self.seen.memory.projected = Some((minted.token.fingerprint(), minted.at));
                self.seen.memory.review =
                    Some(Review { token: minted.token.fingerprint(), accepted: true, at: minted.at });
                minted.token
            }
            Source::Present => present.unwrap().token.unwrap(),
        };
        let mut written = secret(Some(token), Some(&record));
        written.ca = Some(self.seen.ca.clone());
        self.seen.secret = Some(written);
    }

    /// Steps until nothing is left to do, and how many tokens that took.
    fn settle(&mut self) -> (Plan, u64) {
        let before = self.tokens;
        for _ in 0..12 {
            match decide(NAME, &self.seen, &policy(), at(self.now)) {
                Plan { step: Some(step), .. } => self.take(step),
                plan => return (plan, self.tokens - before),
            }
        }
        panic!("no end: {:?}", decide(NAME, &self.seen, &policy(), at(self.now)));
    }
}

fn any_account() -> impl Strategy<Value = Option<Account>> {
    let validity = prop::sample::select(vec!["10m", "1h", "8640h0m0s", "5m", "nonsense", ""]);
    let account =
        (any::<bool>(), validity, any::<bool>()).prop_map(|(terminating, validity, known)| Account {
            uid: "account".into(),
            resource_version: "1".into(),
            terminating: terminating && known,
            validity: validity.into(),
            status: if known { settled().account.unwrap().status } else { Status::default() },
        });
    prop::option::weighted(0.85, account)
}

fn any_service() -> impl Strategy<Value = Option<ServiceAccount>> {
    let marks = vec![
        mark(None, None),
        mark(Some("cluster1"), None),
        mark(Some("cluster1"), Some("hub1")),
        mark(None, Some("hub1")),
        mark(Some("cluster2"), Some("hub1")),
        mark(Some("cluster1"), Some("hub2")),
        mark(Some("cluster2"), None),
    ];
    let uid = prop::sample::select(vec!["service", "old"]);
    let service = (prop::bool::weighted(0.8), prop::bool::weighted(0.1), uid, prop::sample::select(marks))
        .prop_map(|(managed, terminating, uid, mark)| ServiceAccount {
            uid: uid.into(),
            resource_version: "1".into(),
            managed,
            terminating,
            mark,
        });
    prop::option::weighted(0.8, service)
}

fn any_token() -> impl Strategy<Value = Option<Token>> + Clone {
    let real = (
        prop::sample::select(vec!["service", "old"]),
        -2 * HOUR..10,
        prop::sample::select(vec![600, HOUR, 7 * HOUR]),
    )
        .prop_map(|(uid, start, lifetime)| token(uid, START + start, START + start + lifetime, 1));
    prop_oneof![
        6 => real.prop_map(Some),
        1 => Just(Some(Token::new("garbage".into()))),
        1 => Just(None),
    ]
}

fn any_secret() -> impl Strategy<Value = Option<Secret>> {
    let records = vec![None, Some(record(HOUR)), Some(record(600)), Some("else".to_owned())];
    let secret = (
        any_token(),
        prop::sample::select(records),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(token, record, managed, immutable, extra_keys, ca, owned)| {
            let mut secret = secret(token, record.as_deref());
            if !owned {
                secret.metadata.owner_references = None;
            }
            Secret { managed, immutable, extra_keys, ca: ca.then(|| CA.to_vec()), ..secret }
        });
    prop::option::weighted(0.8, secret)
}

/// What an agent may remember: tokens as old as they say, by a clock that agrees with the cluster's within seconds.
fn any_memory() -> impl Strategy<Value = Memory> {
    let dated = (any_token(), -5..5_i64).prop_map(|(token, skew)| {
        let token = token.unwrap_or_else(|| Token::new(String::new()));
        let issued = token.claims().map_or(START, |claims| claims.issued_at.as_second());
        (token, at(issued + skew))
    });
    let minted = (dated.clone(), prop::sample::select(vec![record(HOUR), record(600)]))
        .prop_map(|((token, at), record)| Minted { token, record, at });
    let projected = dated.clone().prop_map(|(token, at)| (token.fingerprint(), at));
    let review = (dated, any::<bool>(), -2 * HOUR..2 * HOUR).prop_map(|((token, _), accepted, offset)| {
        Review { token: token.fingerprint(), accepted, at: at(START + offset) }
    });
    (prop::option::of(minted), prop::option::weighted(0.3, projected), prop::option::of(review))
        .prop_map(|(minted, projected, review)| Memory { minted, projected, review, ..Memory::default() })
}

fn any_world() -> impl Strategy<Value = World> {
    let longest = prop::sample::select(vec![600, HOUR, 1 << 32]);
    let objects = (any_account(), any_service(), any_secret());
    (objects, any_memory(), longest, any::<[bool; 2]>()).prop_map(
        |((account, service_account, secret), memory, longest, [accepts, marks])| World {
            seen: Observed {
                account,
                service_account,
                unseen: None,
                secret,
                ca: CA.to_vec(),
                hub: Some("hub1".into()),
                may_not_mark: false,
                memory,
            },
            longest,
            now: START,
            accepts,
            marks,
            tokens: 0,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever the state: the steps touch nothing foreign ([`World::take`] looks), end, take at most one token,
    /// and leave an account that may have a token with a good one.
    #[test]
    fn every_state_settles(mut world in any_world()) {
        let (plan, tokens) = world.settle();
        prop_assert!(tokens <= 1, "{tokens} tokens");
        let (again, tokens) = world.settle();
        prop_assert_eq!((again.step, again.next, tokens), (None, plan.next, 0));
        let seen = &world.seen;
        let condition = seen.account.as_ref().filter(|account| !account.terminating).map(|account| {
            account.status.condition(names::CONDITION_TOKEN_REPORTED).unwrap().clone()
        });
        if let Some(condition) = condition && condition.status == "True" {
            let claims = seen.secret.as_ref().unwrap().token.as_ref().unwrap().claims().unwrap();
            prop_assert!(claims.expires_at > at(world.now));
            prop_assert_eq!(&claims.account_uid, &seen.service_account.as_ref().unwrap().uid);
            prop_assert!(plan.next.unwrap() > at(world.now) && plan.next.unwrap() < claims.expires_at);
        }
    }

    /// A token that stays untouched is renewed at 78 to 79.5 % of its lifetime, however long that is, and however
    /// often or seldom the agent looks.
    #[test]
    fn renewal_comes_in_time(lifetime in 600..(1_i64 << 32), steps in prop::collection::vec(1..20_i64, 1..60)) {
        let mut world = World { seen: settled(), longest: lifetime, now: START, accepts: true, marks: true, tokens: 0 };
        world.seen.account.as_mut().unwrap().validity = format!("{}s", 1_i64 << 32);
        world.settle();
        let issued = world.now;
        for step in steps {
            world.now += (lifetime * step / 200).max(1);
            let (_, tokens) = world.settle();
            let age = world.now - issued;
            if tokens > 0 {
                prop_assert!(age * 1_000 >= lifetime * 780 - 1_000, "too early: {age} of {lifetime}");
                break;
            }
            prop_assert!(age * 1_000 <= lifetime * 795 + 1_000, "too late: {age} of {lifetime}");
        }
    }
}
