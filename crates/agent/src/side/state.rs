//! What the agent knows of one side: a pure state machine, fed with what was tried, what came, and when.
//!
//! ```text
//!              an answer                       a cause that refuses
//!  Connecting ───────────► Admitted ◄────────────────────────────────► Refused
//!       │                     ▲      no answer, or none of use             ▲
//!       └──────────────► Unreachable ◄─────────────────────────────────────┘
//! ```
//!
//! A cause is about the whole server (no connection, its certificate, 401), and over with any answer; or about one kind of
//! call (403 for a verb and resource, a 503, no answer in time), and over when that call succeeds. Otherwise a side that
//! grants half of what the agent asks for would be admitted and refused in turns, with a line in the log each time.

use super::{
    call::Call,
    cause::{Cause, Scope, Verdict},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// A side as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It was not heard of yet.
    Connecting,
    /// It does what it is asked for.
    Admitted,
    /// It does not let the agent do what it must.
    Refused,
    /// It is not there, or not able to.
    Unreachable,
}

impl Phase {
    /// It as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

impl From<Verdict> for Phase {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Refused => Self::Refused,
            Verdict::Unreachable => Self::Unreachable,
        }
    }
}

/// The waits after failures, from one to the next: for the watches as long as any below, with jitter; for others that ask
/// beside them.
pub(crate) const WAITS: fleetpass_workqueue::Backoff =
    fleetpass_workqueue::Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// How long a cause counts that is about a kind of call when nobody makes that call any more: the account that needed it may
/// be gone. Whoever still needs it tries again long before.
const LAPSE: Duration = Duration::from_secs(5 * 60);
/// The least time between two occasions on which everybody who failed tries at once: a side that comes and goes would be
/// asked by all of them all the time.
const HURRY: Duration = Duration::from_secs(30);
/// A trouble that is back within so long after it was over is not said anew, unless it stays.
const DAMPED: Duration = Duration::from_secs(60);
/// Kinds of calls whose causes are kept. The agent makes fewer.
const MOST_CALLS: usize = 64;

/// Something that does not work.
#[derive(Debug, Clone)]
struct Trouble {
    call: Call,
    cause: Cause,
    scope: Scope,
    failures: u32,
    /// When it was tried last.
    tried: Instant,
    /// Until when the server wants to be left alone with it.
    quiet: Instant,
    /// From when on it no longer counts.
    lapses: Instant,
    /// When the same call succeeded last, for another object: for some time after, this one is about the object.
    others: Option<Instant>,
}

impl Trouble {
    /// Whether it says something about the side.
    fn counts(&self, now: Instant) -> bool {
        self.lapses > now && self.others.is_none_or(|others| now >= others + LAPSE)
    }
}

/// Something worth a line in the log. There is one for each change, not for each failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// It begins, or begins to have another cause.
    Trouble(Phase, String),
    /// The side is heard of for the first time, and lets the agent in.
    Admitted,
    /// All that did not work does again.
    Again,
}

/// Whether a trouble that has been logged is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Now,
    /// It was over at that time.
    Over(Instant),
}

/// What a line is about: several causes have one line, whichever call it was that met them first.
fn subject(call: &Call, cause: &Cause) -> String {
    match cause {
        // Silence of one call is not worth another line after silence of all.
        Cause::Silence(_) => String::new(),
        cause if cause.scope() == Scope::Server => String::new(),
        _ => call.to_string(),
    }
}

/// What follows from an answer or a failure.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    /// To be logged.
    pub(crate) line: Option<Line>,
    /// The server is there again, or does again what it did not: whoever failed may try now. Not more often than every
    /// [`HURRY`].
    pub(crate) recovered: bool,
}

/// What is known of one side.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// About the whole server.
    whole: Option<Trouble>,
    /// About kinds of calls; one each.
    calls: Vec<Trouble>,
    /// When it answered last.
    answered: Option<Instant>,
    /// What has been logged: of each subject and label one line, however often they take turns.
    said: BTreeMap<(String, &'static str), Said>,
    /// How often it recovered.
    returns: u64,
    was: Option<Phase>,
    /// When everybody was told to try at once.
    hurried: Option<Instant>,
}

impl State {
    /// The server answered, and gave what was asked for or said something about the object.
    pub(crate) fn answered(&mut self, call: &Call, now: Instant) -> Followed {
        self.answered = Some(now);
        // What a watch tells that was let in before says nothing about the credential of now: a server goes on sending
        // after it was revoked.
        let revoked = |trouble: &Trouble| matches!(trouble.cause, Cause::Answer { code: 401, .. });
        let before = match &self.whole {
            Some(trouble) if call.verb == "watch" && revoked(trouble) => None,
            _ => self.whole.take(),
        };
        for trouble in self.calls.iter_mut().filter(|trouble| trouble.call.is_like(call)) {
            if trouble.call.object == call.object {
                trouble.lapses = now;
            } else {
                // It shows only that the trouble is about objects.
                trouble.others = Some(now);
            }
        }
        self.follow(None, before.as_ref(), now)
    }

    /// A call failed.
    pub(crate) fn failed(&mut self, call: &Call, cause: &Cause, now: Instant) -> Followed {
        let mut before = None;
        if let Cause::Answer { code, .. } = cause {
            self.answered = Some(now);
            // It was reached and took the credential, whatever else.
            if *code != 401 {
                before = self.whole.take();
            }
        }
        let wait = cause.retry_after().unwrap_or_default();
        let scope = self.scope(cause, now);
        let known = match scope {
            Scope::Server => self.whole.take(),
            Scope::Call => {
                let at = self.calls.iter().position(|trouble| trouble.call.is_like(call));
                at.map(|at| self.calls.swap_remove(at)).filter(|trouble| trouble.lapses > now)
            }
        };
        let trouble = Trouble {
            call: call.clone(),
            cause: cause.clone(),
            scope,
            failures: known.as_ref().map_or(0, |known| known.failures.saturating_add(1)),
            tried: now,
            quiet: now + wait,
            lapses: now + LAPSE + wait,
            others: known.as_ref().and_then(|known| known.others),
        };
        // What is so for one call only would come and go with the others: of those the call has to succeed.
        let is_of_call = scope == Scope::Call || matches!(cause, Cause::Answer { .. } | Cause::Silence(_));
        if is_of_call {
            self.calls.retain(|trouble| !trouble.call.is_like(call));
            if self.calls.len() < MOST_CALLS {
                self.calls.push(Trouble { scope: Scope::Call, ..trouble.clone() });
            }
        }
        if scope == Scope::Server {
            self.whole = Some(trouble);
        }
        let line = self.say(call, cause, now);
        self.follow(line, before.as_ref(), now)
    }

    /// The line about a failure, if there is something new to say: a trouble that comes and goes within a short time is
    /// said once; one that stays is said even if it came again right after it was over.
    fn say(&mut self, call: &Call, cause: &Cause, now: Instant) -> Option<Line> {
        // What one object is refused was said when it was not yet known that others are not.
        if self.phase(now) == Phase::Admitted {
            return None;
        }
        let key = (subject(call, cause), cause.label());
        match self.said.get(&key) {
            Some(Said::Now) => return None,
            Some(Said::Over(at)) if now < *at + DAMPED => return None,
            _ => self.said.insert(key, Said::Now),
        };
        let phase = Phase::from(cause.verdict());
        let text = match cause.scope() {
            Scope::Server => cause.in_full(),
            Scope::Call => format!("{call}: {}", cause.in_full()),
        };
        Some(Line::Trouble(phase, text))
    }

    /// What a cause that came now is about: silence about the whole server if nothing else was heard of it meanwhile.
    fn scope(&self, cause: &Cause, now: Instant) -> Scope {
        match cause {
            Cause::Silence(time) if self.answered.is_none_or(|answered| answered + *time <= now) => {
                Scope::Server
            }
            cause => cause.scope(),
        }
    }

    /// What follows from what has been noted; `before`: what was wrong with the whole server, and
    /// is over.
    fn follow(&mut self, trouble: Option<Line>, before: Option<&Trouble>, now: Instant) -> Followed {
        self.calls.retain(|trouble| trouble.lapses > now);
        let phase = self.phase(now);
        let was = self.was.replace(phase);
        let back = phase == Phase::Admitted && matches!(was, Some(Phase::Refused | Phase::Unreachable));
        let recovered =
            (before.is_some() || back) && self.hurried.is_none_or(|hurried| now >= hurried + HURRY);
        if recovered {
            self.hurried = Some(now);
            // Not after a refusal: what was open goes on, and may be the last that is heard of what was deleted with the
            // rights to it.
            let was_away = |trouble: &Trouble| trouble.cause.verdict() == Verdict::Unreachable;
            if before.is_some_and(was_away) || (back && was == Some(Phase::Unreachable)) {
                self.returns += 1;
            }
        }
        let line = match (was, phase) {
            (None | Some(Phase::Connecting), Phase::Admitted) => Some(Line::Admitted),
            // Only if there is a line that it answers.
            _ if back => self.said.values().any(|said| *said == Said::Now).then_some(Line::Again),
            _ => trouble,
        };
        if back {
            self.said.values_mut().for_each(|said| *said = Said::Over(now));
        }
        Followed { line, recovered }
    }

    /// What counts most of that which does not work now.
    fn worst(&self, now: Instant) -> Option<&Trouble> {
        let calls = || self.calls.iter().filter(|trouble| trouble.counts(now));
        // A refusal before the rest: somebody has to do something about it.
        let refused = || calls().find(|trouble| trouble.cause.verdict() == Verdict::Refused);
        self.whole.as_ref().or_else(refused).or_else(|| calls().next())
    }

    /// How the side is.
    pub(crate) fn phase(&self, now: Instant) -> Phase {
        match self.worst(now) {
            Some(trouble) => trouble.cause.verdict().into(),
            None if self.answered.is_some() => Phase::Admitted,
            None => Phase::Connecting,
        }
    }

    /// Why it is so, for a person; `None` if nothing is wrong.
    pub(crate) fn why(&self, now: Instant) -> Option<String> {
        let trouble = self.worst(now)?;
        Some(match trouble.scope {
            Scope::Server => trouble.cause.to_string(),
            Scope::Call => format!("{}: {}", trouble.call, trouble.cause),
        })
    }

    /// Why it is so, as a metric label.
    pub(crate) fn label(&self, now: Instant) -> &'static str {
        self.worst(now).map_or("none", |trouble| trouble.cause.label())
    }

    /// How long ago it answered; `None` if it never did.
    pub(crate) fn silent_for(&self, now: Instant) -> Option<Duration> {
        Some(now - self.answered?)
    }

    /// How often it recovered: what was open before may be about another past.
    pub(crate) fn returns(&self) -> u64 {
        self.returns
    }

    /// How long the server asked to be left alone with such calls.
    pub(crate) fn quiet_for(&self, call: &Call, now: Instant) -> Duration {
        let quiet = self.calls.iter().find(|trouble| trouble.call.is_like(call)).map(|trouble| trouble.quiet);
        quiet.map_or(Duration::ZERO, |quiet| quiet.saturating_duration_since(now))
    }

    /// Whether to make the call at all: not while the server asked to be left alone with such, and not for each account anew
    /// while nothing can come of it. What was said last is the answer then. The watches ask all the same, and find out when
    /// it is over.
    pub(crate) fn may_ask(&mut self, call: &Call, now: Instant) -> Result<(), Cause> {
        let like = |trouble: &&Trouble| trouble.call.is_like(call) && trouble.quiet > now;
        if let Some(trouble) = self.calls.iter().find(like) {
            return Err(trouble.cause.clone());
        }
        match &mut self.whole {
            Some(trouble) if now < trouble.tried + WAITS.delay(trouble.failures) => {
                Err(trouble.cause.clone())
            }
            Some(trouble) => {
                // Whoever comes next waits for what comes of this.
                trouble.tried = now;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn list() -> Call {
        Call::of(&Method::GET, "/api/v1/namespaces/c1/secrets", None)
    }

    fn token(object: &str) -> Call {
        Call::of(&Method::POST, &format!("/api/v1/namespaces/n/serviceaccounts/{object}/token"), None)
    }

    fn answer(code: u16) -> Cause {
        Cause::Answer { code, reason: String::new(), message: "m".to_owned(), retry_after: None }
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn trouble(followed: &Followed) -> (Phase, &str) {
        match &followed.line {
            Some(Line::Trouble(phase, text)) => (*phase, text),
            line => panic!("{line:?}"),
        }
    }

    #[test]
    fn a_change_is_said_once_with_its_cause() {
        let start = Instant::now();
        let mut state = State::default();
        assert_eq!(state.phase(start), Phase::Connecting);
        let refused = Cause::Connect("connection refused".to_owned());
        let first = state.failed(&list(), &refused, start);
        assert_eq!(trouble(&first), (Phase::Unreachable, "no connection: connection refused"));
        for second in 1..100 {
            assert_eq!(state.failed(&list(), &refused, after(start, second)), Followed::default());
        }
        // Another cause is a change; the first one once more is none.
        assert_eq!(
            trouble(&state.failed(&list(), &answer(401), after(start, 100))),
            (Phase::Refused, "401 Unauthorized: m")
        );
        assert_eq!(state.failed(&list(), &refused, after(start, 101)), Followed::default());
        let back = state.answered(&list(), after(start, 102));
        assert_eq!(back, Followed { line: Some(Line::Again), recovered: true });
        assert_eq!((state.phase(start), state.returns()), (Phase::Admitted, 1));
        assert_eq!(state.answered(&list(), after(start, 103)), Followed::default());
        // Once more at once it is not said; if it stays it is.
        assert_eq!(state.failed(&list(), &refused, after(start, 104)), Followed::default());
        assert_eq!(state.answered(&list(), after(start, 105)).line, None);
        assert_eq!(state.failed(&list(), &refused, after(start, 106)), Followed::default());
        assert_eq!(state.phase(after(start, 106)), Phase::Unreachable);
        assert_eq!(
            trouble(&state.failed(&list(), &refused, after(start, 166))),
            (Phase::Unreachable, "no connection: connection refused")
        );
        assert_eq!(state.answered(&list(), after(start, 167)).line, Some(Line::Again));
    }

    #[test]
    fn a_watch_that_goes_on_does_not_mend_a_credential() {
        let start = Instant::now();
        let mut state = State::default();
        let watch = Call::of(&Method::GET, "/api/v1/namespaces/c1/secrets", Some("watch=true"));
        state.answered(&list(), start);
        state.answered(&watch, start);
        assert!(state.failed(&list(), &answer(401), after(start, 1)).line.is_some());
        assert_eq!(state.answered(&watch, after(start, 2)), Followed::default());
        assert_eq!((state.phase(after(start, 2)), state.returns()), (Phase::Refused, 0));
        let back = state.answered(&list(), after(start, 3));
        assert_eq!(back, Followed { line: Some(Line::Again), recovered: true });
        assert_eq!(state.returns(), 0, "watches go on through a refusal");
        // That nobody was there is over with whatever comes.
        state.failed(&list(), &Cause::Connect("refused".into()), after(start, 1_000));
        assert!(state.answered(&watch, after(start, 1_001)).recovered);
        assert_eq!(state.returns(), 1);
    }

    #[test]
    fn the_first_answer_is_no_return() {
        let start = Instant::now();
        let mut state = State::default();
        assert_eq!(state.answered(&list(), start), Followed { line: Some(Line::Admitted), recovered: false });
    }

    #[test]
    fn one_call_that_is_refused_stays_so_whatever_else_is_granted() {
        let start = Instant::now();
        let mut state = State::default();
        state.answered(&list(), start);
        let followed = state.failed(&token("a"), &answer(403), start);
        assert_eq!(
            trouble(&followed),
            (Phase::Refused, "create serviceaccounts/token in namespace n: 403 Forbidden: m")
        );
        for second in 1..600 {
            assert_eq!(state.answered(&list(), after(start, second)), Followed::default());
            if second % 30 == 0 {
                assert_eq!(
                    state.failed(&token("a"), &answer(403), after(start, second)),
                    Followed::default()
                );
            }
            assert_eq!(state.phase(after(start, second)), Phase::Refused);
        }
        assert_eq!(state.answered(&token("a"), after(start, 600)).line, Some(Line::Again));
    }

    #[test]
    fn what_one_object_is_refused_is_no_refusal_of_the_agent() {
        let start = Instant::now();
        let mut state = State::default();
        state.answered(&list(), start);
        state.failed(&token("a"), &answer(403), start);
        assert!(state.answered(&token("b"), after(start, 1)).recovered);
        for second in 2..300 {
            assert_eq!(state.failed(&token("a"), &answer(403), after(start, second)), Followed::default());
            assert_eq!(state.answered(&token("b"), after(start, second)), Followed::default());
            assert_eq!(state.phase(after(start, second)), Phase::Admitted);
        }
    }

    #[test]
    fn what_nobody_asks_for_any_more_lapses() {
        let start = Instant::now();
        let mut state = State::default();
        state.failed(&token("a"), &answer(403), start);
        state.answered(&list(), after(start, 1));
        assert_eq!(state.phase(after(start, 200)), Phase::Refused);
        assert!(state.answered(&list(), start + LAPSE).recovered);
        assert_eq!(state.phase(start + LAPSE), Phase::Admitted);
    }

    #[test]
    fn a_server_that_asks_for_quiet_gets_it() {
        let start = Instant::now();
        let mut state = State::default();
        let busy = Cause::Answer {
            code: 429,
            reason: String::new(),
            message: String::new(),
            retry_after: Some(Duration::from_secs(20)),
        };
        state.failed(&token("a"), &busy, start);
        assert_eq!(state.quiet_for(&token("b"), after(start, 5)), Duration::from_secs(15));
        assert_eq!(state.may_ask(&token("b"), after(start, 19)), Err(busy));
        assert_eq!(state.may_ask(&token("b"), after(start, 20)), Ok(()));
        // It did not say so of other calls, as the renewal of a Lease.
        assert_eq!(state.may_ask(&list(), start), Ok(()));
    }

    #[test]
    fn silence_is_about_the_server_if_nothing_else_was_heard() {
        let start = Instant::now();
        let silence = Cause::Silence(Duration::from_secs(30));
        let mut state = State::default();
        state.answered(&list(), start);
        state.failed(&token("a"), &silence, after(start, 29));
        assert_eq!(state.may_ask(&list(), after(start, 29)), Ok(()), "others may be answered");
        state.failed(&token("a"), &silence, after(start, 30));
        assert_eq!(state.may_ask(&list(), after(start, 30)), Err(silence));
    }

    #[test]
    fn of_many_that_ask_a_server_that_is_away_one_finds_out() {
        let start = Instant::now();
        let mut state = State::default();
        let mut asked = 0;
        for second in 0..600 {
            for _account in 0..100 {
                if state.may_ask(&token("a"), after(start, second)).is_ok() {
                    asked += 1;
                    state.failed(&token("a"), &answer(401), after(start, second));
                }
            }
        }
        assert!((20..30).contains(&asked), "{asked}");
        // What is about one call keeps nobody from others.
        let mut state = State::default();
        state.failed(&token("a"), &answer(403), start);
        assert_eq!(state.may_ask(&list(), start), Ok(()));
    }

    /// Whatever comes: no more lines than changes of state and causes, and a metric that agrees with the phase.
    #[test]
    fn lines_are_as_few_as_changes() {
        let start = Instant::now();
        let causes =
            [answer(401), answer(403), answer(500), Cause::Silence(Duration::from_secs(30)), Cause::Brief];
        let mut state = State::default();
        let mut lines = 0;
        for second in 0..10_000_u64 {
            let cause = &causes[(second * 7 % 5) as usize];
            lines += u32::from(
                state.failed(&token(&format!("a{}", second % 3)), cause, after(start, second)).line.is_some(),
            );
            let now = after(start, second);
            assert_eq!(state.why(now).is_none(), state.phase(now) == Phase::Admitted);
            assert_eq!(state.label(now) == "none", state.phase(now) == Phase::Admitted);
        }
        assert!(lines as usize <= causes.len(), "{lines}");
        assert!(state.calls.len() <= MOST_CALLS);
    }
}
