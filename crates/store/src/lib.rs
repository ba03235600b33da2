//! A revisioned key-value store: the contract and its engines.
