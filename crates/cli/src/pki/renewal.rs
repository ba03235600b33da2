//! When a certificate is replaced.

use jiff::{SignedDuration, Timestamp};

/// From when until when a certificate is good, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    /// The first moment.
    pub(crate) not_before: Timestamp,
    /// The last moment.
    pub(crate) not_after: Timestamp,
}

/// How a certificate stands at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is good, and stays so until it is replaced at that moment.
    Fresh(Timestamp),
    /// It is good, but it is time for a new one.
    Due,
    /// Its time is over.
    Expired,
    /// Its time has not come: it was made when the clock was ahead.
    NotYetValid,
}

impl Validity {
    /// A validity of `lifetime` that begins a little before `now`, because clocks differ, and that does not outlive
    /// `limit`.
    pub(crate) fn starting(now: Timestamp, lifetime: SignedDuration, limit: Option<Timestamp>) -> Self {
        let skew = SignedDuration::from_mins(5);
        let end = now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
        Self {
            not_before: now.saturating_sub(skew).unwrap_or(Timestamp::MIN),
            not_after: limit.map_or(end, |limit| end.min(limit)),
        }
    }

    /// The moment of replacement: after two thirds of its life, so that a third is left for whoever has to notice.
    pub(crate) fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before.saturating_add(life / 3 * 2).unwrap_or(self.not_after)
    }
}

/// How a certificate of this validity stands at `now`.
pub(crate) fn standing(validity: Validity, now: Timestamp) -> Standing {
    let renew_at = validity.renew_at();
    // Expired before everything else: of a validity that ends before it begins nothing may be fresh.
    if now > validity.not_after {
        Standing::Expired
    } else if now < validity.not_before {
        Standing::NotYetValid
    } else if now >= renew_at {
        Standing::Due
    } else {
        Standing::Fresh(renew_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_replaced_after_two_thirds_of_its_life() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let validity = Validity { not_before: at(1000), not_after: at(1300) };
        for (now, expected) in [
            (999, Standing::NotYetValid),
            (1000, Standing::Fresh(at(1200))),
            (1199, Standing::Fresh(at(1200))),
            (1200, Standing::Due),
            (1300, Standing::Due),
            (1301, Standing::Expired),
        ] {
            assert_eq!(standing(validity, at(now)), expected, "{now}");
        }
        // Nonsense is no panic.
        let backwards = Validity { not_before: at(1300), not_after: at(1000) };
        assert_eq!(standing(backwards, at(1100)), Standing::Expired);
        let endless = Validity { not_before: Timestamp::MIN, not_after: Timestamp::MAX };
        assert_eq!(standing(endless, Timestamp::MAX), Standing::Due);
    }

    #[test]
    fn a_new_certificate_is_fresh_and_ends_with_its_authority() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let year = SignedDuration::from_hours(365 * 24);
        let validity = Validity::starting(now, year, None);
        assert!(matches!(standing(validity, now), Standing::Fresh(at) if at > now + year / 2));
        let limit = now + year / 4;
        assert_eq!(Validity::starting(now, year, Some(limit)).not_after, limit);
        assert!(validity.not_before < now);
    }
}
