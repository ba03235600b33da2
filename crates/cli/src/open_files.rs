//! How many files the process may have open, of which connections are most.

/// Raises the soft limit of open files to the hard one, as Go programs do at their start, and returns what it is then. The usual
/// soft limit of 1,024 is there for programs that use `select`; this one does not.
#[cfg(unix)]
pub(crate) fn raise() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            // macOS refuses what is more than the kernel's own limit.
            tracing::warn!(%error, soft = ?limit.current, "the limit of open files cannot be raised");
            limit.current
        }
    };
    current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// There is no such limit.
#[cfg(not(unix))]
pub(crate) fn raise() -> usize {
    usize::MAX
}

/// How many connections there may be if the process may open so many files: the store, outgoing connections (etcd, agents of
/// `up`), certificates, logs and what is being closed need the others. At least one.
pub(crate) fn for_connections(files: usize) -> usize {
    const OTHERS: usize = 128;
    // Of a very small limit a half: then everything is scarce.
    (files - files / 16).saturating_sub(OTHERS).max(files / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_than_connections_have_files_left() {
        for (files, connections) in [
            (usize::MAX, usize::MAX - usize::MAX / 16 - 128),
            (1 << 20, 982_912),
            (1024, 832),
            (256, 128),
            (1, 1),
            (0, 1),
        ] {
            assert_eq!(for_connections(files), connections, "{files}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        use rustix::process::{Resource, getrlimit};
        let raised = raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(limit.current.map_or(usize::MAX, |files| files as usize), raised);
    }
}
