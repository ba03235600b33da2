//! The promise about the Secret: whoever reads it has at least 20 % of the token's lifetime left.
//!
//! ```text
//! issued                                                due   the last fifth  expiring        expires
//!   ├──────────────────────────────────────────────────┬──┬──────────────────┬──────────────────┤
//!   0 %                                               78 79.5 80             90              100 %
//! ```
//!
//! A token is due before the last fifth of its lifetime begins, early enough that its replacement is in the Secret by
//! then when all goes well. (Upstream's agent renews at 80 %, so that a reader may find less.) When it does not go well,
//! the last fifth is for further attempts: an account is tried every 30 s at least ([`crate::news::BACKOFF`]), which is
//! four times in the last fifth of the shortest token that there is. When half of that time is gone in vain, the account
//! says so: condition `TokenExpiring`.

use crate::token::Claims;
use jiff::Timestamp;

/// A token is due at 78 % of its lifetime, and up to 1.5 % later: accounts that were created together drift apart, and
/// there is time for the requests before the last fifth begins.
const DUE_PER_MYRIAD: i64 = 7_800;
/// See [`DUE_PER_MYRIAD`]: shares of the spread are from 0 to this.
pub(crate) const SPREAD_PER_MYRIAD: u64 = 150;
/// Half of the last fifth is gone.
const EXPIRING_PER_MYRIAD: i64 = 9_000;

/// When a token is to be replaced, given the account's share of the spread.
///
/// The token's own claims are times by the cluster's clock. Where the agent remembers when it projected this very token,
/// it measures the token's age by its own clock too, because the two may disagree: a clock that is behind must not make
/// the renewal late. And never within a tenth of the lifetime after the projection: a clock that is ahead must not make
/// the agent ask again and again.
pub(crate) fn due(
    claims: &Claims,
    projected_at: Option<Timestamp>,
    now: Timestamp,
    spread_per_myriad: u64,
) -> Timestamp {
    let share = DUE_PER_MYRIAD + spread_per_myriad.min(SPREAD_PER_MYRIAD) as i64;
    let regular = share_after(claims.issued_at, claims, share);
    match projected_at {
        // Only of the past: a projection from the future was made before the clock was set back, and would put off the
        // renewal for as long as it was set back.
        Some(at) if at <= now => {
            regular.min(share_after(at, claims, share)).max(share_after(at, claims, 1_000))
        }
        _ => regular,
    }
}

/// From when on a token that has not been replaced is called expiring.
pub(crate) fn expiring_from(claims: &Claims) -> Timestamp {
    share_after(claims.issued_at, claims, EXPIRING_PER_MYRIAD)
}

/// When what there is to say about a token that cannot be replaced changes next: it begins to expire, it has expired.
pub(crate) fn next_turn(claims: &Claims, now: Timestamp) -> Option<Timestamp> {
    [expiring_from(claims), claims.expires_at].into_iter().find(|turn| *turn > now)
}

/// That share of the token's lifetime after `time`.
fn share_after(time: Timestamp, claims: &Claims, per_myriad: i64) -> Timestamp {
    // In 128 bits, because a forged token may claim any lifetime.
    after(time, (i128::from(claims.lifetime_seconds()) * i128::from(per_myriad) / 10_000) as i64)
}

/// `seconds` after `time`; as late, or as early, as a timestamp can be where that overflows.
pub(crate) fn after(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_second(time.as_second().saturating_add(seconds)).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decide::SHORTEST, news::BACKOFF};
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn claims(issued: i64, lifetime: i64) -> Claims {
        Claims {
            issued_at: at(issued),
            expires_at: at(issued + lifetime),
            subject: String::new(),
            account_uid: String::new(),
            audiences: Vec::new(),
        }
    }

    #[test]
    fn the_last_fifth_of_the_shortest_token_has_room_for_four_attempts() {
        assert!(BACKOFF.last.as_secs() as i64 * 4 <= SHORTEST / 5);
    }

    #[test]
    fn what_there_is_to_say_changes_twice() {
        let claims = claims(0, 1_000);
        let turns: Vec<_> =
            [0, 899, 900, 999, 1_000].map(|now| next_turn(&claims, at(now)).map(Timestamp::as_second)).into();
        assert_eq!(turns, [Some(900), Some(900), Some(1_000), Some(1_000), None]);
    }

    proptest! {
        /// Whatever the clocks say, by the agent's own a token that it projected is due before its last fifth begins, and
        /// not in its first tenth. Where the clocks agree, that is between 78 and 79.5 % of the lifetime.
        #[test]
        fn due_before_the_last_fifth(
            lifetime in SHORTEST..(1_i64 << 32),
            skew in -100_000_i64..100_000,
            spread in 0..=SPREAD_PER_MYRIAD,
        ) {
            let projected = 2_000_000_000;
            let claims = claims(projected + skew, lifetime);
            let age = |due: Timestamp| (due.as_second() - projected) as f64 / lifetime as f64;
            let due_at = age(due(&claims, Some(at(projected)), at(projected), spread));
            prop_assert!((0.099..0.8).contains(&due_at), "{due_at}");
            let agreeing = due(&super::tests::claims(projected, lifetime), None, at(projected), spread);
            prop_assert!((0.778..=0.795).contains(&age(agreeing)), "{}", age(agreeing));
        }

        #[test]
        fn no_claim_overflows(issued: i64, expires: i64, now: i64) {
            let time = |second| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
            let claims = Claims { issued_at: time(issued), expires_at: time(expires), ..claims(0, 1) };
            due(&claims, Some(time(now)), time(now), 0);
            next_turn(&claims, time(now));
        }
    }
}
