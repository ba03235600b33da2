//! When a certificate of ours is renewed, what is asked for, what is accepted, and when somebody is warned.

use super::subject::attributes;
use crate::pki::Validity;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

/// Nobody is warned earlier than this before the end.
const LONGEST_WARNING: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How far signers date certificates back, for clients whose clocks are slow (kube-controller-manager:
/// `pkg/controller/certificates/authority/policies.go`).
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Lives below this they count from now, others from the backdated start (the same file).
const SHORT: SignedDuration = SignedDuration::from_hours(8);
/// No API server takes a request for less (`spec.expirationSeconds`).
const SHORTEST: SignedDuration = SignedDuration::from_mins(10);
/// The pauses between attempts that failed begin with this, and double.
const FIRST_RETRY: Duration = Duration::from_secs(30);
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// When to renew: at two thirds of the life, a little earlier by as much as `spread` says, so that certificates of one hour
/// are not all renewed in the same one. The spread is of the certificate itself: a restart changes nothing.
pub(super) fn renew_at(validity: Validity, spread: u8) -> Timestamp {
    let early = validity.not_after.duration_since(validity.not_before) / 15 * i32::from(spread) / 256;
    validity.renew_at().saturating_sub(early).unwrap_or(validity.not_before)
}

/// What tells certificates apart for [`renew_at`]: some byte of their signature, which is the end of the DER.
pub(super) fn spread(der: &[u8]) -> u8 {
    der.last().copied().unwrap_or_default()
}

/// From when on the end is near enough to warn of it: a week before, or less of a short life: its last part, of so many. Later
/// than a renewal is due, which has had some time then.
pub(super) fn warn_at(begins: Timestamp, ends: Timestamp, parts: i32) -> Timestamp {
    let margin = (ends.duration_since(begins) / parts).clamp(SignedDuration::ZERO, LONGEST_WARNING);
    ends.saturating_sub(margin).unwrap_or(begins)
}

/// For how many seconds to ask, so that the next certificate lives as long as this one: the signer may make it less.
pub(super) fn asked_seconds(validity: Validity) -> i32 {
    let life = validity.not_after.duration_since(validity.not_before);
    // Of a short life its backdated part is added by the signer once more.
    let asked = if life - BACKDATE < SHORT { life - BACKDATE } else { life };
    i32::try_from(asked.max(SHORTEST).as_secs()).unwrap_or(i32::MAX)
}

/// How long to wait after so many failures in a row. Twice as long each time, but at most a tenth of what is left, so that
/// some attempts remain; `random` takes away up to a half.
pub(super) fn retry_after(failures: u32, left: SignedDuration, random: u8) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let tenth = Duration::try_from(left / 10).unwrap_or_default();
    let longest = if tenth.is_zero() { LONGEST_RETRY } else { tenth.clamp(FIRST_RETRY, LONGEST_RETRY) };
    let full = doubled.min(longest);
    full - full / 512 * u32::from(random)
}

/// Why a certificate that was issued is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it cannot be read")]
    Unreadable,
    #[error("it is for another key")]
    Key,
    #[error("it is for another subject")]
    Subject,
    #[error("it is not for clients")]
    Purpose,
    #[error("it is that of an authority")]
    Authority,
    #[error("its time has not come: look at the clocks of both sides")]
    Early,
    #[error("it ends no later than the one that there is")]
    NoGain,
    #[error("it is not signed by the certificate that comes with it as its issuer")]
    Chain,
}

/// Whether a chain, leaf first, is one to go on with after `old`: the same subject, our new key, a longer life.
pub(super) fn accept(old: &[u8], chain: &[&[u8]], public_key: &[u8], now: Timestamp) -> Result<(), Unfit> {
    let parse = |der| match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Unfit::Unreadable),
    };
    let old = parse(old)?;
    let chain = chain.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
    let new = chain.first().ok_or(Unfit::Unreadable)?;
    let time = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|_| Unfit::Unreadable)
    };
    if new.public_key().raw != public_key {
        return Err(Unfit::Key);
    }
    // By their meaning: signers write the same subject in another order, or the values of one type into one set.
    if attributes(new.subject()) != attributes(old.subject()) {
        return Err(Unfit::Subject);
    }
    if new.is_ca() {
        return Err(Unfit::Authority);
    }
    let purposes = new.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::ExtendedKeyUsage(purposes) => Some(purposes),
        _ => None,
    });
    if purposes.is_some_and(|purposes| !purposes.client_auth && !purposes.any) {
        return Err(Unfit::Purpose);
    }
    // As long as a signer's backdating covers: beyond that, the hub and we would not agree whether it is good.
    if time(new.validity().not_before)? > now.saturating_add(BACKDATE).unwrap_or(Timestamp::MAX) {
        return Err(Unfit::Early);
    }
    if time(new.validity().not_after)? <= time(old.validity().not_after)? {
        return Err(Unfit::NoGain);
    }
    let fits = |pair: &[X509Certificate<'_>]| {
        pair[0].issuer().as_raw() == pair[1].subject().as_raw()
            && pair[0].verify_signature(Some(pair[1].public_key())).is_ok()
    };
    if chain.windows(2).all(fits) { Ok(()) } else { Err(Unfit::Chain) }
}

#[cfg(test)]
mod tests;
