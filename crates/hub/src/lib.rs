//! ManagedServiceAccount on the hub side: time to live, clean-up, joining clusters.
