//! The arguments of `fleetpass migrate`.

use clap::{ArgAction, Args};
use std::path::PathBuf;
use std::str::FromStr;

/// The arguments of `fleetpass migrate`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "Examples:\n  \
    fleetpass migrate --from embedded:hub --to etcd:http://127.0.0.1:2379\n  \
    fleetpass migrate --from etcd:https://e1:2379,https://e2:2379 --etcd-cafile ca.crt --to embedded:hub")]
pub(crate) struct MigrateArgs {
    /// Where the objects are.
    // Not in the comment above: rustdoc takes `[,URL]` for a link, and clap would print the backslash that it needs.
    #[arg(help = "Where the objects are: embedded:DIR, the data directory of a hub, or etcd:URL[,URL]")]
    #[arg(long, value_name = "STORE")]
    pub(crate) from: Location,
    /// Where they go, which has to be empty.
    #[arg(help = "Where they go, which has to be empty: embedded:DIR or etcd:URL[,URL]")]
    #[arg(long, value_name = "STORE")]
    pub(crate) to: Location,
    /// Delete what an interrupted migration left in the target, and begin anew
    #[arg(long)]
    pub(crate) discard_unfinished: bool,

    /// The keys that open and seal Secrets. Default: encryption.key in DIR, in that of --from if both have one
    #[arg(long, value_name = "FILE", help_heading = "Encryption")]
    pub(crate) encryption_key_file: Option<PathBuf>,
    /// Whether Secrets are sealed in the target
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, help_heading = "Encryption")]
    pub(crate) encrypt_secrets: bool,

    /// What all keys in etcd begin with
    #[arg(long, value_name = "PREFIX", default_value = "/registry", help_heading = "etcd")]
    pub(crate) etcd_prefix: String,
    /// The authorities (PEM) of the members' certificates
    #[arg(long, value_name = "FILE", help_heading = "etcd")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// A client certificate (PEM) for etcd
    #[arg(long, value_name = "FILE", requires_all = ["etcd_keyfile", "etcd_cafile"], help_heading = "etcd")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// The key of --etcd-certfile (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_certfile", help_heading = "etcd")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// In the data directory of a hub.
    Embedded(PathBuf),
    /// On an etcd with these URLs.
    Etcd(Vec<String>),
}

impl FromStr for Location {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("embedded", "")) => Err("embedded: needs a directory"),
            Some(("embedded", directory)) => Ok(Self::Embedded(directory.into())),
            Some(("etcd", urls)) => {
                let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
                match urls.iter().all(|url| url.starts_with("http://") || url.starts_with("https://")) {
                    true => Ok(Self::Etcd(urls)),
                    false => Err("etcd: needs URLs that begin with http:// or https://"),
                }
            }
            _ => Err("expected embedded:DIR or etcd:URL[,URL]"),
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded(directory) => write!(f, "embedded:{}", directory.display()),
            Self::Etcd(urls) => write!(f, "etcd:{}", urls.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_and_printed() {
        for text in ["embedded:hub", "embedded:/a:b/c", "etcd:http://a:1", "etcd:https://a:1,https://b:2"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        for (text, words) in [
            ("hub", "expected"),
            ("embedded:", "directory"),
            ("etcd:", "URLs"),
            ("etcd:http://a,b", "URLs"),
            ("memory:x", "expected"),
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
