//! A cache of verified signatures, bounded by number and by bytes, so that a client that sends its token with every request costs one
//! verification. Only the signature is cached: time, audiences and live objects are checked on every use.
//!
//! Bad signatures are not cached: a client that sends ever new garbage would only evict what is of use.

use super::digest::TokenDigest;
use fleetpass_token::verify::{VerifiedClaims, VerifiedToken};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// A lock each, so that the threads that serve connections rarely wait for one another.
const SHARDS: usize = 16;

/// How many bytes of tokens all entries together may stand for. What is kept of a token is its claims, which are about as long.
const CAPACITY_BYTES: usize = 64 * 1024 * 1024;
const GENERATION_BYTES: usize = CAPACITY_BYTES / (2 * SHARDS);
/// What an entry counts at least, and each audience of it: memory that a short text needs besides its bytes.
const OVERHEAD: usize = 64;

/// A token with what it counts.
struct Entry {
    token: Arc<VerifiedToken>,
    bytes: usize,
}

#[derive(Default)]
struct Generation {
    entries: HashMap<TokenDigest, Entry>,
    /// The sum of what the entries count.
    bytes: usize,
}

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
    /// A cache of at most `capacity` tokens (rounded up to a multiple of twice the number of shards) and
    /// [`CAPACITY_BYTES`].
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
        if let Some(found) = shard.young.entries.get(key) {
            return Some(found.token.clone());
        }
        let entry = shard.old.entries.remove(key)?;
        shard.old.bytes -= entry.bytes;
        let found = entry.token.clone();
        self.put(&mut shard, *key, entry);
        Some(found)
    }

    /// Remembers a token that is `length` bytes long. One that would drive out a good part of all others is not remembered: who
    /// uses such a token pays for its verification each time.
    pub(super) fn insert(&self, key: TokenDigest, token: Arc<VerifiedToken>, length: usize) {
        let audiences = match &token.claims {
            VerifiedClaims::Bound(claims) => claims.aud.len(),
            VerifiedClaims::Legacy(_) => 0,
        };
        let bytes = length + OVERHEAD * (1 + audiences);
        if bytes <= GENERATION_BYTES / 16 {
            self.put(&mut self.shard(&key).lock(), key, Entry { token, bytes });
        }
    }

    fn put(&self, shard: &mut Shard, key: TokenDigest, entry: Entry) {
        let young = &shard.young;
        if young.entries.len() >= self.generation || young.bytes + entry.bytes > GENERATION_BYTES {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.bytes += entry.bytes;
        if let Some(replaced) = shard.young.entries.insert(key, entry) {
            shard.young.bytes -= replaced.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_token::claims::Claims;

    fn token() -> Arc<VerifiedToken> {
        Arc::new(VerifiedToken { claims: VerifiedClaims::Bound(Claims::default()), key_id: "k".into() })
    }

    fn held(cache: &SignatureCache) -> (usize, usize) {
        let shards = cache.shards.iter().map(|shard| shard.lock());
        shards.fold((0, 0), |(count, bytes), shard| {
            let Shard { young, old } = &*shard;
            for generation in [young, old] {
                assert_eq!(
                    generation.bytes,
                    generation.entries.values().map(|entry| entry.bytes).sum::<usize>()
                );
            }
            (count + young.entries.len() + old.entries.len(), bytes + young.bytes + old.bytes)
        })
    }

    #[test]
    fn stays_bounded_and_keeps_what_is_used() {
        let cache = SignatureCache::new(64);
        let used = TokenDigest::of("used");
        cache.insert(used, token(), 1000);
        for index in 0..10_000 {
            cache.insert(TokenDigest::of(&index.to_string()), token(), 1000);
            assert!(cache.get(&used).is_some(), "{index}");
        }
        assert!(held(&cache).0 <= 64, "{:?}", held(&cache));
        assert!(cache.get(&TokenDigest::of("0")).is_none());
    }

    #[test]
    fn long_tokens_are_bounded_by_their_bytes() {
        let cache = SignatureCache::new(1_000_000);
        let used = TokenDigest::of("used");
        cache.insert(used, token(), 1000);
        for index in 0..10_000 {
            cache.insert(TokenDigest::of(&index.to_string()), token(), 100_000);
            assert!(cache.get(&used).is_some(), "{index}");
        }
        let (count, bytes) = held(&cache);
        assert!(bytes <= CAPACITY_BYTES && count > 300, "{count} {bytes}");
        // Once more under the same key: counted once.
        cache.insert(used, token(), 2000);
        held(&cache);
    }

    #[test]
    fn huge_tokens_are_not_kept() {
        let cache = SignatureCache::new(1000);
        cache.insert(TokenDigest::of("huge"), token(), GENERATION_BYTES / 16);
        let claims = Claims { aud: vec![String::new(); 3000], ..Claims::default() };
        let many = VerifiedToken { claims: VerifiedClaims::Bound(claims), key_id: "k".into() };
        cache.insert(TokenDigest::of("many"), Arc::new(many), 10_000);
        assert_eq!(held(&cache), (0, 0));
    }
}
