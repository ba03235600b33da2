//! A bounded cache of verified signatures, so that a client that sends its token with every request costs one
//! verification. Only the signature is cached: time, audiences and live objects are checked on every use.
//!
//! Bad signatures are not cached: a client that sends ever new garbage would only evict what is of use.

use super::digest::TokenDigest;
use fleetpass_token::verify::VerifiedToken;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// A lock each, so that the threads that serve connections rarely wait for one another.
const SHARDS: usize = 16;

type Generation = HashMap<TokenDigest, Arc<VerifiedToken>>;

/// Two generations: what is used moves to the young one; when that is full, it becomes the old one, and what had been
/// old is forgotten. So the most recently used half always stays, at the price of one lookup more.
// Not a list in order of use, which would have to be relinked under the lock with every hit.
#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

/// Tokens whose signature was found good, by digest; the tokens themselves are not kept.
pub(super) struct SignatureCache {
    // Not an `RwLock`: a hit may move the entry to the other generation. A lock is held for a lookup in memory, never while a
    // signature is verified; two requests that bring one new token at the same time both verify it, which does no harm.
    shards: [Mutex<Shard>; SHARDS],
    /// How many entries a generation of one shard has.
    generation: usize,
}

impl SignatureCache {
    /// A cache of at most `capacity` tokens (rounded up to a multiple of twice the number of shards).
    pub(super) fn new(capacity: usize) -> Self {
        let generation = capacity.div_ceil(2 * SHARDS).max(1);
        Self { shards: Default::default(), generation }
    }

    fn shard(&self, key: &TokenDigest) -> &Mutex<Shard> {
        // The bytes of a digest are uniform, whatever tokens clients choose.
        &self.shards[usize::from(key.0[0]) % SHARDS]
    }

    pub(super) fn get(&self, key: &TokenDigest) -> Option<Arc<VerifiedToken>> {
        let mut shard = self.shard(key).lock();
        if let Some(found) = shard.young.get(key) {
            return Some(found.clone());
        }
        let found = shard.old.remove(key)?;
        self.put(&mut shard, *key, found.clone());
        Some(found)
    }

    pub(super) fn insert(&self, key: TokenDigest, token: Arc<VerifiedToken>) {
        self.put(&mut self.shard(&key).lock(), key, token);
    }

    fn put(&self, shard: &mut Shard, key: TokenDigest, token: Arc<VerifiedToken>) {
        if shard.young.len() >= self.generation {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(key, token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_token::claims::Claims;
    use fleetpass_token::verify::VerifiedClaims;

    #[test]
    fn stays_bounded_and_keeps_what_is_used() {
        let cache = SignatureCache::new(64);
        let token =
            Arc::new(VerifiedToken { claims: VerifiedClaims::Bound(Claims::default()), key_id: "k".into() });
        let used = TokenDigest::of("used");
        cache.insert(used, token.clone());
        for index in 0..10_000 {
            cache.insert(TokenDigest::of(&index.to_string()), token.clone());
            assert!(cache.get(&used).is_some(), "{index}");
        }
        let held: usize = cache.shards.iter().map(|s| s.lock()).map(|s| s.young.len() + s.old.len()).sum();
        assert!(held <= 64, "{held}");
        assert!(cache.get(&TokenDigest::of("0")).is_none());
    }
}
