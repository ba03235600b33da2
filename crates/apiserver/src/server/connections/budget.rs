//! How many bytes are kept for clients that send or read slowly: in all, and for each connection. Accounting only; nothing is
//! allocated or awaited here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of one sort for all connections.
#[derive(Debug)]
pub(super) struct Budget {
    all: usize,
    /// For each connection.
    each: usize,
    used: AtomicUsize,
}

/// The share that a connection has in a budget.
#[derive(Debug)]
pub(in crate::server) struct Account {
    budget: Arc<Budget>,
    used: AtomicUsize,
}

/// Bytes that are accounted for until this is dropped.
#[derive(Debug)]
pub(in crate::server) struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Budget {
    /// So many bytes in all, and an eighth of them for each connection, but no less than `least`.
    pub(super) fn new(all: usize, least: usize) -> Arc<Self> {
        Arc::new(Self { all: all.max(least), each: (all / 8).max(least), used: AtomicUsize::new(0) })
    }

    /// The account of a new connection.
    pub(super) fn account(self: &Arc<Self>) -> Arc<Account> {
        Arc::new(Account { budget: self.clone(), used: AtomicUsize::new(0) })
    }

    /// The bytes that are in use.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Account {
    /// Nothing yet.
    pub(in crate::server) fn charge(self: &Arc<Self>) -> Charge {
        Charge { account: self.clone(), bytes: 0 }
    }

    /// Bytes that are there already, whether or not there is room for them.
    pub(in crate::server) fn charge_regardless(self: &Arc<Self>, bytes: usize) -> Charge {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        Charge { account: self.clone(), bytes }
    }

    /// Whether this connection may cause more: it has something left of its share, and of the whole too, unless it uses nothing
    /// now. So nobody is kept out by what others do not read.
    pub(in crate::server) fn has_room(&self) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        used == 0 || (used < self.budget.each && self.budget.used() < self.budget.all)
    }

    /// Whether that many bytes more may be kept although there is no room any longer: a client that asks for many things at once
    /// has asked before the first answer is there. It may have four times its share, and all together twice the whole. One
    /// thing at a time everybody may have until four times the whole is used.
    pub(in crate::server) fn bears(&self, bytes: usize) -> bool {
        let (used, all) = (self.used.load(Ordering::Relaxed), self.budget.used());
        match used {
            0 => all < self.budget.all.saturating_mul(4),
            used => {
                used.saturating_add(bytes) <= self.budget.each.saturating_mul(4)
                    && all.saturating_add(bytes) <= self.budget.all.saturating_mul(2)
            }
        }
    }

    /// Whether more than half of the whole is used: then a client that takes its time is in the way of others.
    pub(in crate::server) fn is_tight(&self) -> bool {
        self.budget.used() > self.budget.all / 2
    }
}

impl Charge {
    /// Whether nothing has been accounted for.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Accounts for more bytes; `false` if the connection's share or the whole does not allow it, and then nothing has changed.
    #[must_use]
    pub(in crate::server) fn grow(&mut self, bytes: usize) -> bool {
        let take = |used: &AtomicUsize, most: usize| {
            let taken = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= most);
            used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
        };
        let (account, budget) = (&self.account, &self.account.budget);
        if !take(&account.used, budget.each) {
            return false;
        }
        if !take(&budget.used, budget.all) {
            account.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.account.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_its_share_and_all_together_the_whole() {
        let budget = Budget::new(80, 10);
        let accounts: Vec<_> = (0..9).map(|_| budget.account()).collect();
        let mut charges: Vec<_> = accounts.iter().map(Account::charge).collect();
        assert!(charges[0].grow(6) && charges[0].grow(4));
        // Its share is used up, by another body as well.
        assert!(!charges[0].grow(1) && !accounts[0].charge().grow(1));
        for charge in &mut charges[1..8] {
            assert!(charge.grow(10));
        }
        // The whole is.
        assert!(!charges[8].grow(1));
        assert_eq!((budget.used(), accounts[8].has_room(), accounts[8].is_tight()), (80, true, true));
        drop(charges.remove(3));
        assert_eq!(budget.used(), 70);
        assert!(charges[7].grow(10) && !charges[7].grow(usize::MAX));
        drop(charges);
        assert_eq!(budget.used(), 0);
        assert!(accounts.iter().all(|account| account.has_room() && !account.is_tight()));
    }

    #[test]
    fn what_is_there_is_accounted_for_and_keeps_its_own_connection_from_more() {
        let budget = Budget::new(80, 1);
        let (greedy, modest, idle) = (budget.account(), budget.account(), budget.account());
        let large = greedy.charge_regardless(100);
        let small = modest.charge_regardless(1);
        assert!(!greedy.has_room() && !modest.has_room() && idle.has_room());
        drop(large);
        assert!(greedy.has_room() && modest.has_room());
        drop(small);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_was_asked_for_at_once_is_borne_up_to_a_point() {
        let budget = Budget::new(80, 1);
        let accounts: Vec<_> = (0..20).map(|_| budget.account()).collect();
        // One thing, however large.
        assert!(accounts[0].bears(1000));
        let first = accounts[0].charge_regardless(30);
        assert!(accounts[0].bears(10) && !accounts[0].bears(11) && !accounts[0].bears(usize::MAX));
        // Twice the whole, each with little.
        let more: Vec<_> = accounts[1..6].iter().map(|account| account.charge_regardless(26)).collect();
        assert!(budget.used() == 160 && !accounts[1].bears(1) && accounts[7].bears(10));
        let rest: Vec<_> = accounts[7..].iter().map(|account| account.charge_regardless(13)).collect();
        assert!(budget.used() > 320 && !accounts[6].bears(1));
        drop((first, more, rest));
        assert!(accounts[6].bears(1));
    }

    #[test]
    fn a_share_is_never_less_than_one_thing_needs() {
        let budget = Budget::new(8, 3);
        assert!(budget.account().charge().grow(3));
        assert!(Budget::new(0, 3).account().charge().grow(3));
    }
}
