//! Why a server does not do what the agent asks for, in the words of whoever has to mend it.

use super::call::Call;
use jiff::Timestamp;
use kube::core::Status;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};
use std::{borrow::Cow, error::Error, fmt, io, time::Duration};

/// A cause that is about the server or a kind of request, not about one object.
///
/// Holds nothing that a Secret or token could have leaked into: what a server says about requests with either is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection: nobody listens, no way there, no such name.
    Connect(String),
    /// The server does not prove that it is the one.
    Certificate(String),
    /// Its certificate, by the clock here, is not valid yet or no longer.
    Clock {
        /// What is wrong with it, without the clock.
        problem: String,
        /// What the clock here said.
        clock: String,
    },
    /// The server does not take the agent's certificate: said in the TLS handshake.
    ClientCertificate(String),
    /// The agent has no credential to show: a file that cannot be read, a plugin that failed.
    Credential(String),
    /// No answer in time.
    Silence(Duration),
    /// The connection ended in the middle of an answer.
    Broken(String),
    /// It answered with this: 401, 403, 404 of a kind or namespace, 429, 5xx.
    Answer {
        /// HTTP status.
        code: u16,
        /// `metav1.Status` reason, or empty.
        reason: String,
        /// What it said, or what there is to say where that may not be kept.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It points to another server. The agent's credential is not for that one.
    Redirect {
        /// HTTP status.
        code: u16,
        /// Where to; without query.
        to: String,
    },
    /// More than such an answer may be.
    TooLarge(Cow<'static, str>),
    /// It is no answer of this API.
    Junk(&'static str),
    /// A watch that it lets in and ends at once, again and again.
    Brief,
}

/// What a cause is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All that is asked of the server.
    Server,
    /// What is asked with this verb of this resource.
    Call,
}

/// Whether the server says no, or nothing that one could use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does not let the agent do what it must.
    Refused,
    /// It is not there, or not able to.
    Unreachable,
}

/// The longest wait that a server may ask for. One that asks for more is asked again after this: a header must not make the
/// agent deaf.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// As much of a server's message as is kept.
const MOST_MESSAGE: usize = 400;

impl Cause {
    /// What it is about.
    pub(crate) fn scope(&self) -> Scope {
        match self {
            Self::Connect(_)
            | Self::Certificate(_)
            | Self::Clock { .. }
            | Self::ClientCertificate(_)
            | Self::Credential(_)
            | Self::Answer { code: 401, .. } => Scope::Server,
            _ => Scope::Call,
        }
    }

    /// What it means for the side.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Answer { code: 408 | 429 | 500.., .. }
            | Self::Connect(_)
            | Self::Certificate(_)
            | Self::Clock { .. }
            | Self::Silence(_)
            | Self::Broken(_)
            | Self::Brief => Verdict::Unreachable,
            _ => Verdict::Refused,
        }
    }

    /// It as a metric label: a few fixed texts.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Certificate(_) => "certificate",
            Self::Clock { .. } => "clock",
            Self::ClientCertificate(_) => "client_certificate",
            Self::Credential(_) => "credential",
            Self::Silence(_) | Self::Answer { code: 408, .. } => "silence",
            Self::Broken(_) => "broken",
            Self::Answer { code: 401, .. } => "unauthorized",
            Self::Answer { code: 403, .. } => "forbidden",
            Self::Answer { code: 404 | 405, .. } => "missing",
            Self::Answer { code: 429, .. } => "busy",
            Self::Answer { code: 500.., .. } => "failing",
            Self::Answer { .. } => "rejected",
            Self::Redirect { .. } => "redirect",
            Self::TooLarge(_) => "too_large",
            Self::Junk(_) => "junk",
            Self::Brief => "brief",
        }
    }

    /// When the server wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What a status means; `None` if it is about the object that the call names, not about the server or such calls.
    pub(crate) fn of_status(call: &Call, status: &Status, retry_after: Option<Duration>) -> Option<Self> {
        let about = status
            .details
            .as_ref()
            .filter(|details| details.kind != "namespaces" || call.resource == "namespaces");
        let is_about_object = match status.code {
            _ if is_expired(status) => true,
            403..=405 if call.is_optional() => true,
            // A path that the server does not know is a 404 without details, a namespace that is missing one about the
            // namespace.
            404 => about.is_some_and(|about| call.object.as_ref() == Some(&about.name)),
            401 | 403 | 405 | 406 | 408 | 415 | 429 | 500.. => false,
            409 => true,
            // Nothing about an object is wrong where none is sent.
            _ => !matches!(call.verb, "list" | "watch"),
        };
        if is_about_object {
            return None;
        }
        let message = match (call.is_sensitive(), status.code) {
            (_, 404) if status.details.is_none() => format!("the server does not know {}", call.resource),
            // It says no more than that.
            (_, 401) => {
                "it does not take the agent's credential, which may be expired, revoked or another server's"
                    .to_owned()
            }
            (false, _) => brief(&status.message),
            (true, 403) => format!("not allowed to {call}"),
            (true, _) => String::new(),
        };
        Some(Self::Answer { code: status.code, reason: brief(&status.reason), message, retry_after })
    }

    /// What an error of a client means. Secrets do not reach it: none of these errors quotes a body.
    pub(crate) fn of_error(error: &kube::Error) -> Self {
        if let kube::Error::Auth(error) = error {
            return of_auth(error);
        }
        let mut found = Found::default();
        found.walk(error);
        match found {
            Found { cause: Some(cause), .. } => cause,
            Found { timed_out: true, connecting: true, .. } => {
                Self::Connect("no connection in time".to_owned())
            }
            Found { connecting: true, root, .. } => Self::Connect(root),
            Found { root, .. } => Self::Broken(root),
        }
    }

    /// It with all that may help whoever reads the log, as what the clock said just then. [`Display`](fmt::Display) says the
    /// same of the same cause each time, so that conditions do not change.
    pub(crate) fn in_full(&self) -> String {
        match self {
            Self::Clock { clock, .. } => format!("{self}; the clock here says {clock}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Certificate(why) | Self::Clock { problem: why, .. } => f.write_str(why),
            Self::ClientCertificate(why) => {
                write!(f, "the server does not take the agent's certificate: {why}")
            }
            Self::Credential(why) => write!(f, "the agent has no credential to show: {why}"),
            Self::Silence(time) => write!(f, "no answer within {} s", time.as_secs_f64()),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
            Self::Answer { code, reason, message, .. } => {
                let reason = if reason.is_empty() { standard_reason(*code) } else { reason };
                let space = if reason.is_empty() { "" } else { " " };
                let colon = if message.is_empty() { "" } else { ": " };
                write!(f, "{code}{space}{reason}{colon}{message}")
            }
            Self::Redirect { code, to } => {
                write!(
                    f,
                    "it answers with a redirect ({code}) to {to}, which is not followed: is this an API server?"
                )
            }
            Self::TooLarge(what) => f.write_str(what),
            Self::Junk(what) => write!(f, "it is no answer of a Kubernetes API server: {what}"),
            Self::Brief => f.write_str("watches end as soon as they begin"),
        }
    }
}

impl Error for Cause {}

fn standard_reason(code: u16) -> &'static str {
    http::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or_default()
}

/// A server's text without what would break out of a line, and not more than a few lines of it.
pub(crate) fn brief(text: &str) -> String {
    let mut brief: String =
        text.trim().chars().take(MOST_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.trim().chars().nth(MOST_MESSAGE).is_some() {
        brief.push('…');
    }
    brief
}

/// `Retry-After` as a number of seconds. As a date it would need a clock that agrees; API servers send seconds.
pub(crate) fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// Whether a status says that a revision is none that the server can begin from: gone, or, after an older backup was put back,
/// not there yet (`storage.NewTooLargeResourceVersionError` in k8s.io/apiserver).
pub(crate) fn is_expired(status: &Status) -> bool {
    let too_large = status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge"));
    status.code == 410 || too_large
}

/// What was found in the chain of an error's sources.
#[derive(Default)]
struct Found {
    cause: Option<Cause>,
    connecting: bool,
    timed_out: bool,
    root: String,
}

impl Found {
    fn walk(&mut self, error: &(dyn Error + 'static)) {
        if let Some(cause) = error.downcast_ref::<Cause>() {
            self.cause = Some(cause.clone());
        } else if let Some(error) = error.downcast_ref::<rustls::Error>() {
            self.cause = Some(of_tls(error));
        } else if let Some(error) = error.downcast_ref::<kube::client::AuthError>() {
            self.cause = Some(of_auth(error));
        } else if let Some(kube::Error::Auth(error)) = error.downcast_ref::<kube::Error>() {
            self.cause = Some(of_auth(error));
        }
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            self.connecting |= error.is_connect();
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            self.timed_out |= error.kind() == io::ErrorKind::TimedOut;
            // `source` of an io::Error passes over what it wraps.
            if let Some(inner) = error.get_ref() {
                return self.walk(inner);
            }
        }
        self.root = error.to_string();
        if let Some(source) = error.source() {
            self.walk(source);
        }
    }
}

fn of_auth(error: &kube::client::AuthError) -> Cause {
    use kube::client::AuthError;
    Cause::Credential(match error {
        // Not what it printed: that may be a token.
        AuthError::AuthExecRun { cmd, out } => {
            format!("the plugin {} failed with {}", brief(cmd), out.status)
        }
        AuthError::AuthExecParse(_) => "what the plugin printed is no ExecCredential".to_owned(),
        // From a transport with plugins and files of its own: it says whose fault it is.
        AuthError::AuthExec(why) => brief(why),
        error => brief(&error.to_string()),
    })
}

fn of_tls(error: &rustls::Error) -> Cause {
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied),
        ) => Cause::ClientCertificate(format!("{alert:?}")),
        error => Cause::Certificate(format!("no TLS connection: {error}")),
    }
}

fn of_certificate(error: &CertificateError) -> Cause {
    match error {
        CertificateError::NotValidYetContext { time, not_before } => Cause::Clock {
            problem: format!(
                "its certificate is valid from {} only: the clock here is behind, or the certificate is for later",
                timestamp(*not_before)
            ),
            clock: timestamp(*time),
        },
        CertificateError::ExpiredContext { time, not_after } => Cause::Clock {
            problem: format!("its certificate expired at {}", timestamp(*not_after)),
            clock: timestamp(*time),
        },
        CertificateError::UnknownIssuer => {
            Cause::Certificate("its certificate is signed by an authority that is not the configured one (UnknownIssuer)".to_owned())
        }
        CertificateError::BadSignature => Cause::Certificate(
            "its certificate is not signed by the configured authority, but by another of that name (BadSignature)".to_owned(),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => Cause::Certificate(format!(
            "its certificate is not valid for {}, only for {}",
            expected.to_str(),
            brief(&presented.join(", "))
        )),
        error => Cause::Certificate(format!("its certificate cannot be accepted: {error}")),
    }
}

fn timestamp(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds)
        .map_or_else(|_| "a time beyond all calendars".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::client::AuthError;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn what_a_plugin_printed_is_not_said() {
        let out = std::process::Output {
            status: std::process::ExitStatus::from_raw(256),
            stdout: b"s3cret".to_vec(),
            stderr: b"s3cret".to_vec(),
        };
        let failed = AuthError::AuthExecRun { cmd: "aws eks".to_owned(), out: Box::new(out) };
        // As the client says it, and as a layer of it does.
        let layered = kube::Error::Service(Box::new(AuthError::AuthExec("no such plugin".to_owned())));
        for (error, says) in [
            (kube::Error::Auth(failed), "the plugin aws eks failed with exit status: 1"),
            (layered, "no such plugin"),
        ] {
            let cause = Cause::of_error(&error);
            assert!(matches!(cause, Cause::Credential(_)), "{cause:?}");
            assert_eq!((cause.scope(), cause.verdict()), (Scope::Server, Verdict::Refused));
            let said = cause.in_full();
            assert!(said.contains(says) && !said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn a_servers_words_stay_within_a_line() {
        assert_eq!(brief(" a\r\nb\u{1b}[31m "), "a  b [31m");
        assert_eq!(brief(&"ä".repeat(MOST_MESSAGE)), "ä".repeat(MOST_MESSAGE));
        assert_eq!(brief(&"ä".repeat(MOST_MESSAGE + 1)), format!("{}…", "ä".repeat(MOST_MESSAGE)));
    }

    #[test]
    fn retry_after_is_bounded() {
        let wait = |value: &str| {
            let headers = [(http::header::RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
            retry_after(&headers)
        };
        assert_eq!(wait("20"), Some(Duration::from_secs(20)));
        assert_eq!(wait("18446744073709551615"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(wait("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(wait("-1"), None);
    }
}
