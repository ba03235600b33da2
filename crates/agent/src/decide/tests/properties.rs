//! The rules over every combination of account, status, Secret, token, review answer, marks and clock.

use super::*;

/// A world at any time, on a hub that says who it is or not, with a Secret that may be on its way out.
fn any_world_at_any_time() -> impl Strategy<Value = World> {
    let hub = prop::option::weighted(0.8, Just("hub1".to_owned()));
    let clock = prop_oneof![3 => Just(0_i64), 1 => -10 * HOUR..10 * HOUR];
    (any_world(), hub, prop::bool::weighted(0.1), clock).prop_map(|(mut world, hub, leaving, clock)| {
        world.seen.hub = hub;
        world.now += clock;
        if let Some(secret) = world.seen.secret.as_mut().filter(|_| leaving) {
            secret.metadata.deletion_timestamp = Some(Time(at(START)));
        }
        world
    })
}

/// Whether the account can have a token, in words other than those of the rules: it asks for one that clusters grant, and
/// nobody else's object, nor one that is on its way out, is in the way.
fn can_be_served(seen: &Observed) -> bool {
    let asks = seen.account.as_ref().is_some_and(|account| {
        !account.terminating && ["10m", "1h", "8640h0m0s"].contains(&account.validity.as_str())
    });
    let may_use = seen.service_account.as_ref().is_none_or(|service| {
        service.managed && !service.terminating && !foreign(service, seen.hub.as_deref())
    });
    asks && may_use && seen.secret.as_ref().is_none_or(|secret| secret.managed && !secret.terminating())
}

/// Everything that is not ours, by the same words, as it would be compared: it must stay as it is.
fn not_ours(seen: &Observed) -> (Option<String>, Option<String>) {
    let foreign = |service: &&ServiceAccount| !service.managed || foreign(service, seen.hub.as_deref());
    let service = seen.service_account.as_ref().filter(foreign);
    let secret = seen.secret.as_ref().filter(|secret| !secret.managed);
    (service.map(|service| format!("{service:?}")), secret.map(|secret| format!("{secret:?}")))
}

/// What `TokenReported` says; `None` if nothing.
fn says(seen: &Observed) -> Option<bool> {
    let status = &seen.account.as_ref()?.status;
    Some(status.condition(names::CONDITION_TOKEN_REPORTED)?.status == "True")
}

fn held(seen: &Observed) -> Option<&Claims> {
    seen.secret.as_ref()?.token.as_ref()?.claims()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// An account that can have a token has a good one; one that cannot is not said to have one. Nothing that is not ours
    /// is touched.
    #[test]
    fn whoever_can_have_a_token_has_one(mut world in any_world_at_any_time()) {
        let (served, others) = (can_be_served(&world.seen), not_ours(&world.seen));
        let alive = world.seen.account.as_ref().is_some_and(|account| !account.terminating);
        world.settle();
        let seen = &world.seen;
        if served {
            prop_assert_eq!(says(seen), Some(true));
            let (claims, service) = (held(seen).unwrap(), seen.service_account.as_ref().unwrap());
            prop_assert_eq!(&claims.account_uid, &service.uid);
            prop_assert!(claims.expires_at > at(world.now), "it ended at {}", claims.expires_at);
            prop_assert!(seen.secret.as_ref().unwrap().ca.as_deref() == Some(CA));
            // Marked, unless the cluster does not let the agent.
            prop_assert!(service.mark.cluster.is_some() || !world.marks);
        } else if alive {
            // A Secret that is on its way out may hold a good one for as long as it is there.
            let leaving = seen.secret.as_ref().is_some_and(Secret::terminating);
            let good = held(seen).zip(seen.service_account.as_ref()).is_some_and(|(claims, service)| {
                claims.account_uid == service.uid && claims.expires_at > at(world.now)
            });
            prop_assert!(says(seen) == Some(false) || (leaving && good));
        }
        let after = not_ours(seen);
        prop_assert!(others.0.is_none() || others.0 == after.0, "{others:?} became {after:?}");
        prop_assert!(others.1.is_none() || others.1 == after.1, "{others:?} became {after:?}");
        if !alive {
            // What is ours is gone, or going by itself.
            let left = seen.service_account.as_ref().filter(|service| !service.terminating);
            prop_assert!(left.is_none() || others.0.is_some(), "left: {left:?}");
        }
    }

    /// One cause, one token: not another one at the next look, nor at one after a restart, nor after one that the clock was
    /// set back before.
    #[test]
    fn no_cause_costs_two_tokens(
        mut world in any_world_at_any_time(),
        forget in any::<bool>(),
        later in 0..5_i64,
        back in prop_oneof![Just(0_i64), 0..24 * HOUR],
    ) {
        world.accepts = true;
        let (_, tokens) = world.settle();
        prop_assert!(tokens <= 1, "{tokens} tokens");
        if forget {
            world.seen.memory = Memory::default();
        }
        world.now += if forget { 0 } else { later } - back;
        let (_, again) = world.settle();
        // One that was there, and stayed, may be due by now.
        prop_assert!(again == 0 || (tokens == 0 && !forget && later > 0), "{tokens} tokens, then {again}");
        world.now += 1;
        prop_assert_eq!(world.settle().1, 0);
    }

    /// The plan always names the time of the next look, and it is to come; but for where only an event can help: nothing is
    /// left of the account, or only an edit of it can help and no token of it ends meanwhile.
    #[test]
    fn the_next_look_is_named(mut world in any_world_at_any_time()) {
        let (plan, _) = world.settle();
        let seen = &world.seen;
        let Some(account) = seen.account.as_ref().filter(|account| !account.terminating) else {
            prop_assert_eq!(plan.next, None);
            return Ok(());
        };
        let valid = wanted_request(account, &policy()).is_ok();
        let blocked = seen.service_account.as_ref().is_some_and(|service| !service.managed || foreign(service, seen.hub.as_deref()));
        let blocked = blocked || seen.secret.as_ref().is_some_and(|secret| !secret.managed);
        match plan.next {
            Some(next) => prop_assert!(next > at(world.now), "{next} is over"),
            None => prop_assert!(!valid && !blocked, "it waits for nothing"),
        }
        let ends = held(seen).filter(|claims| claims.expires_at > at(world.now));
        if let (Some(claims), Some(next)) = (ends, plan.next) && says(seen) == Some(true) {
            prop_assert!(next <= claims.expires_at, "only after the token has ended");
        }
    }

    /// A failure, whichever and whenever: the account says that its token is good only if it may be, and says it of no
    /// token that the cluster has excluded.
    #[test]
    fn a_failure_makes_nobody_lie(
        mut world in any_world_at_any_time(),
        unseen in prop::option::of(prop::sample::select(vec![Unseen::Silent, Unseen::Refused])),
        steps in 0..4_usize,
    ) {
        for _ in 0..steps {
            if let Some(step) = decide(NAME, &world.seen, &policy(), at(world.now)).step {
                world.take(step);
            }
        }
        let before = says(&world.seen);
        if unseen.is_some() {
            (world.seen.service_account, world.seen.unseen) = (None, unseen);
        }
        let failure = (names::REASON_CLUSTER_REFUSED, "it failed");
        let Some(status) = after_failure(NAME, &world.seen, &policy(), failure, at(world.now)) else { return Ok(()) };
        world.seen.account.as_mut().unwrap().status = status;
        let seen = &world.seen;
        if says(seen) == Some(true) {
            let claims = held(seen).unwrap();
            prop_assert!(claims.expires_at > at(world.now));
            let fingerprint = seen.secret.as_ref().unwrap().token.as_ref().unwrap().fingerprint();
            prop_assert!(seen.memory.review.is_none_or(|review| review.token != fingerprint || review.accepted));
            match unseen {
                None => prop_assert_eq!(&seen.service_account.as_ref().unwrap().uid, &claims.account_uid),
                Some(unseen) => prop_assert_eq!((unseen, before), (Unseen::Silent, Some(true))),
            }
        }
        // And said once.
        prop_assert_eq!(after_failure(NAME, &world.seen, &policy(), failure, at(world.now)), None);
    }
}
