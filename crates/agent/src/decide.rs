//! What should happen to one account now? Every rule of the agent is here, without I/O and without a clock.
//!
//! [`decide`] looks at what was observed and names the next step; the shell takes it, notes what came of it in
//! [`Observed`], and asks again, until there is nothing left to do. So every intermediate state is one that the
//! rules know, and a crash between two steps is an ordinary start.
//!
//! # The order of the steps, and what a crash after each leaves
//!
//! An account that exists:
//!
//! 1. *Create the ServiceAccount.* It is created with our label and mark, so the next start knows it as ours, even if
//!    the ManagedServiceAccount was deleted meanwhile: the watch of labelled ServiceAccounts shows it, and it is
//!    deleted. One that is there without a mark, as the upstream addon's agent makes them, is *marked*; where the
//!    cluster does not let the agent do that, it is used without.
//! 2. *Request a token.* It is in memory only until it is projected. Lost in a crash it does no harm: nobody else has
//!    it, it expires, and the token in the Secret stays good, because a cluster does not revoke a token when it issues
//!    another. The next start requests one more.
//! 3. *Write the Secret.* Token, CA, owner and record change in one write, so a reader never sees a token beside the
//!    CA of another. A crash before the next step leaves a good Secret and an old status.
//! 4. *Patch the status.* It comes last because it is derived from the Secret: it never announces a token that is not
//!    there yet.
//!
//! An account that is gone or going: *delete the ServiceAccount*, which revokes all its tokens, also copies of the
//! Secret's; only then *delete the Secret*. A crash in between leaves a Secret whose token is worthless; the next
//! start, or the hub's garbage collector, removes it.
//!
//! # Guarantees
//!
//! Checked as properties in the tests:
//! - an object without our label, or with the mark of another agent, is never minted for, overwritten or deleted;
//! - an account never says that a token is good of which the cluster has said that it is not;
//! - a good token is not replaced before 78 % of its lifetime, and is replaced before 80 % of it (`promise`);
//! - an account that can have a token has a good one, and no cause costs two;
//! - taking the steps ends in a state that asks for no further step, and names the time of the next look.

use crate::{
    observe::{Account, Mark, Minted, Observed, Secret, ServiceAccount, Unseen},
    promise::{self, SPREAD_PER_MYRIAD, after},
    report::{self, Accepted, Held, Verdict},
    token::{Claims, Token},
};
use fleetpass_api::{GoDuration, account::Status, names};
use jiff::Timestamp;

/// What the rules depend on besides the objects.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// The cluster: its namespace on the hub.
    pub(crate) cluster: String,
    /// Where the ServiceAccounts live on the cluster.
    pub(crate) agent_namespace: String,
    /// Audiences to request; empty for the cluster's default.
    pub(crate) audiences: Vec<String>,
    /// The longest validity that an account may ask for, in seconds; none: whatever the cluster grants.
    pub(crate) longest_validity: Option<i64>,
    /// Seconds between two TokenReviews of one token: how long a token that the cluster no longer accepts (its signing
    /// key was replaced, say) may stay in a Secret unnoticed.
    pub(crate) review_seconds: i64,
    /// Seconds between two looks at an object that is in the way. The watches select by our label, so none of them
    /// tells when an object of somebody else goes.
    pub(crate) obstacle_seconds: i64,
}

/// The next step, and when to look again if nothing happens.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What to do now; `None` when all is as it should be, or must wait.
    pub(crate) step: Option<Step>,
    /// When to look again without being told; `None`: only when something changes.
    pub(crate) next: Option<Timestamp>,
}

/// One change to the world.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Create the ServiceAccount, with our label and this mark.
    CreateServiceAccount(Mark),
    /// Put this mark on the ServiceAccount that was seen.
    MarkServiceAccount(Mark),
    /// Ask the cluster for a token.
    RequestToken(TokenRequestSpec, Cause),
    /// Ask the cluster whether the token in the Secret is still good.
    ReviewToken,
    /// Create or replace the Secret.
    WriteSecret(Source),
    /// Delete the ServiceAccount with this UID.
    DeleteServiceAccount {
        /// UID that it must still have.
        uid: String,
    },
    /// Delete the Secret with this UID.
    DeleteSecret {
        /// UID that it must still have.
        uid: String,
    },
    /// Replace the account's status.
    PatchStatus(Status),
}

/// Which token to write into the Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The one that was just issued, and why.
    Minted(Cause),
    /// The one that is there: only what surrounds it is wrong.
    Present,
}

/// Why a token is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// The Secret does not exist.
    SecretMissing,
    /// The Secret holds something that was not projected there.
    SecretAltered,
    /// The ServiceAccount was deleted and created again.
    ServiceAccountRecreated,
    /// The cluster does not accept the token.
    Rejected,
    /// Lifetime or audiences are not those that are wanted.
    RequestChanged,
    /// It is time.
    Due,
}

impl Cause {
    /// The cause as a metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::SecretMissing => "secret_missing",
            Self::SecretAltered => "secret_altered",
            Self::ServiceAccountRecreated => "service_account_recreated",
            Self::Rejected => "rejected",
            Self::RequestChanged => "request_changed",
            Self::Due => "due",
        }
    }
}

/// The token that is wanted: `spec` of a TokenRequest, as far as the agent sets it. (It never binds a token to an
/// object: the Secret is on another cluster than the token's issuer.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRequestSpec {
    /// Lifetime to ask for; the cluster may shorten it.
    pub(crate) expiration_seconds: i64,
    /// Audiences; empty for the cluster's default.
    pub(crate) audiences: Vec<String>,
}

impl TokenRequestSpec {
    /// The request as the Secret's annotation records it. It is compared as text, so it must stay the same from one
    /// version of the agent to the next: another text means a new token for every account.
    pub(crate) fn record(&self) -> String {
        serde_json::json!({"audiences": self.audiences, "expirationSeconds": self.expiration_seconds})
            .to_string()
    }

    /// Whether a token without a record, as the upstream addon's agent leaves them, may be taken for an answer to this
    /// request: as long as wanted, give or take a minute, and for the audiences that were named. So the agent takes
    /// over from upstream's without renewing every token.
    fn is_met_by(&self, claims: &Claims) -> bool {
        let close = (claims.lifetime_seconds() - self.expiration_seconds).abs() <= 60;
        close && (self.audiences.is_empty() || self.audiences == claims.audiences)
    }
}

/// Bounds of `spec.expirationSeconds` (k8s.io/kubernetes, `pkg/apis/authentication/validation/validation.go`).
pub(crate) const SHORTEST: i64 = 10 * 60;
const LONGEST: i64 = 1 << 32;

/// The next step for the account `name`, as it was `seen`, at `now`.
pub(crate) fn decide(name: &str, seen: &Observed, policy: &Policy, now: Timestamp) -> Plan {
    Context { name, seen, policy, now }.decide()
}

/// The status after a step failed: what a user should know while the agent tries again. `None` when there is
/// nothing new to say, or nobody to say it to.
pub(crate) fn after_failure(
    name: &str,
    seen: &Observed,
    policy: &Policy,
    (reason, message): (&'static str, &str),
    now: Timestamp,
) -> Option<Status> {
    let context = Context { name, seen, policy, now };
    let account = seen.account.as_ref().filter(|account| !account.terminating)?;
    // The conflict is what the user has to do something about; it was reported when it was seen.
    if context.conflict().is_some() {
        return None;
    }
    let verdict = Verdict::failing(context.held(), reason, message);
    report::status(name, account, &verdict, now)
}

/// One account at one moment, and what the rules depend on besides: the arguments of [`decide`].
#[derive(Clone, Copy)]
struct Context<'a> {
    name: &'a str,
    seen: &'a Observed,
    policy: &'a Policy,
    now: Timestamp,
}

impl<'a> Context<'a> {
    fn decide(self) -> Plan {
        let account = match &self.seen.account {
            Some(account) if !account.terminating => account,
            _ => return self.clean_up(),
        };
        let report = |verdict: Verdict, next| Plan {
            step: report::status(self.name, account, &verdict, self.now).map(Step::PatchStatus),
            next,
        };
        let later = after(self.now, self.policy.obstacle_seconds);
        // Before anything is created: a conflict on one side must leave nothing behind on the other.
        if let Some(message) = self.conflict() {
            return report(Verdict::conflict(self.held(), message), Some(later));
        }
        // Before anything that may hold the account up: until it is marked, the agent of another name of this cluster
        // takes it for its own, without an account.
        if let Some(found) = &self.seen.service_account
            && !(found.terminating || self.seen.may_not_mark || found.mark.covers(&self.mark()))
        {
            return Plan { step: Some(Step::MarkServiceAccount(self.mark())), next: None };
        }
        let wanted = match wanted_request(account, self.policy) {
            Ok(wanted) => wanted,
            // Only an edit of the account can help, and the watch shows that; but its token ends meanwhile.
            Err(message) => {
                let next = self.held_claims().and_then(|claims| promise::next_turn(claims, self.now));
                return report(Verdict::invalid_validity(self.held(), message), next);
            }
        };
        let service_account = match &self.seen.service_account {
            None => return Plan { step: Some(Step::CreateServiceAccount(self.mark())), next: None },
            Some(service_account) if service_account.terminating => {
                return report(Verdict::service_account_terminating(self.held()), Some(later));
            }
            Some(service_account) => service_account,
        };
        let token = TokenContext { context: self, account, service_account, wanted: &wanted };
        match token.decide() {
            TokenStep::Take(step) => Plan { step: Some(step), next: None },
            TokenStep::Wait => {
                let held = self.held();
                let next = held.good_until.map_or(later, |until| until.min(later));
                report(Verdict::secret_terminating(held), Some(next))
            }
            TokenStep::Good { expires_at, refreshed_at, next } => {
                report(Verdict::reported(expires_at, refreshed_at), Some(next))
            }
        }
    }

    /// The account is gone or going: its token is revoked by deleting the ServiceAccount, then the Secret goes.
    fn clean_up(self) -> Plan {
        // What is terminating already is left to its finalizers: a second deletion would change nothing.
        let service_account = self.seen.service_account.as_ref();
        let service_account = service_account.filter(|found| self.is_ours(found) && !found.terminating);
        // Owned by the name, whatever the UID: a Secret of an earlier account of this name has to go too.
        let secret = self.our_secret().filter(|found| found.owned_by_name(self.name) && !found.terminating());
        let step = match (service_account, secret) {
            (Some(found), _) => Some(Step::DeleteServiceAccount { uid: found.uid.clone() }),
            (None, Some(secret)) => Some(Step::DeleteSecret { uid: secret.uid().to_owned() }),
            (None, None) => None,
        };
        Plan { step, next: None }
    }

    /// Who stands in the way, if anybody. The upstream addon mints for any ServiceAccount of that name, so that
    /// whoever may create a ManagedServiceAccount owns every account in the agent's namespace; not so here.
    fn conflict(self) -> Option<String> {
        let (name, label) = (self.name, names::LABEL_IS_MANAGED);
        let namespace = &self.policy.agent_namespace;
        match &self.seen.service_account {
            Some(found) if !found.managed => {
                return Some(format!(
                    "ServiceAccount {namespace}/{name} of the cluster is not labelled {label}=true"
                ));
            }
            Some(found) if !self.is_ours(found) => return Some(self.whose(&found.mark)),
            _ => {}
        }
        if self.seen.secret.as_ref().is_some_and(|secret| !secret.managed) {
            let namespace = &self.policy.cluster;
            return Some(format!(
                "Secret {namespace}/{name} of the hub is not of type Opaque with the label {label}=true"
            ));
        }
        None
    }

    /// The mark of the ServiceAccounts of this agent.
    fn mark(self) -> Mark {
        Mark { cluster: Some(self.policy.cluster.clone()), hub: self.seen.hub.clone() }
    }

    /// Whether the ServiceAccount is this agent's: labelled, and not marked as another agent's.
    fn is_ours(self, found: &ServiceAccount) -> bool {
        found.managed && found.mark.agrees_with(&self.mark())
    }

    /// Whose a ServiceAccount with that mark is, which is not ours, and what to do about it.
    fn whose(self, mark: &Mark) -> String {
        let (name, namespace) = (self.name, &self.policy.agent_namespace);
        let (cluster_key, hub_key) = (names::ANNOTATION_CLUSTER_NAME, names::ANNOTATION_HUB);
        let cluster = mark.cluster.as_deref().unwrap_or("(not said)");
        let hub = mark.hub.as_deref().unwrap_or("(not said)");
        format!(
            "ServiceAccount {namespace}/{name} of the cluster belongs to another agent: {cluster_key} is {cluster}, \
             {hub_key} is {hub}. Name this account otherwise, or run each agent in a namespace of its own; if that \
             agent is gone for good, take the two annotations off the ServiceAccount, and it is adopted"
        )
    }

    /// The Secret, if it is ours.
    fn our_secret(self) -> Option<&'a Secret> {
        self.seen.secret.as_ref().filter(|secret| secret.managed)
    }

    /// The claims of the token in our Secret.
    fn held_claims(self) -> Option<&'a Claims> {
        self.our_secret()?.token.as_ref()?.claims()
    }

    /// Whether the cluster takes the token in our Secret, as far as it is known: a token is bound to its ServiceAccount,
    /// and dead with it. A cluster that is silent changes nothing: what was good still is, and what was not, is not.
    fn accepted(self, claims: &Claims) -> Accepted {
        let token = self.our_secret().and_then(|secret| secret.token.as_ref());
        let review = self
            .seen
            .memory
            .review
            .filter(|review| token.is_some_and(|token| token.fingerprint() == review.token));
        if review.is_some_and(|review| !review.accepted) {
            return Accepted::No;
        }
        match (&self.seen.service_account, self.seen.unseen) {
            (Some(found), _) if found.uid == claims.account_uid && !found.terminating => Accepted::Yes,
            (Some(_), _) | (None, None) => Accepted::No,
            (None, Some(Unseen::Silent)) if self.was_reported() => Accepted::Yes,
            (None, Some(_)) => Accepted::Unknown,
        }
    }

    /// Whether the account says that its token is good.
    fn was_reported(self) -> bool {
        let status = self.seen.account.as_ref().map(|account| &account.status);
        let condition = status.and_then(|status| status.condition(names::CONDITION_TOKEN_REPORTED));
        condition.is_some_and(|condition| condition.status == "True")
    }

    /// What the hub holds of ours.
    fn held(self) -> Held {
        let claims = self.held_claims();
        let expires_at = claims.map(|claims| claims.expires_at);
        Held {
            exists: self.our_secret().is_some(),
            good_until: expires_at.filter(|expires_at| *expires_at > self.now),
            accepted: claims.map_or(Accepted::No, |claims| self.accepted(claims)),
            expiring: expires_at.filter(|_| claims.map(promise::expiring_from) <= Some(self.now)),
        }
    }
}

/// The token that the account asks for; why no cluster grants it otherwise.
fn wanted_request(account: &Account, policy: &Policy) -> Result<TokenRequestSpec, String> {
    let validity: GoDuration =
        account.validity.parse().map_err(|error| format!("spec.rotation.validity: {error}"))?;
    let expiration_seconds = validity.as_secs();
    if !(SHORTEST..=LONGEST).contains(&expiration_seconds) {
        return Err(format!(
            "spec.rotation.validity: {validity} is {expiration_seconds} s; a token lives {SHORTEST} to {LONGEST} s"
        ));
    }
    if let Some(limit) = policy.longest_validity.filter(|limit| expiration_seconds > *limit) {
        return Err(format!(
            "spec.rotation.validity: {validity} is {expiration_seconds} s; the agent of this cluster requests tokens for at most \
             {limit} s (--max-validity)"
        ));
    }
    Ok(TokenRequestSpec { expiration_seconds, audiences: policy.audiences.clone() })
}

/// The record of the token that is wanted; `None` when the account asks for what no cluster grants.
pub(crate) fn wanted_record(seen: &Observed, policy: &Policy) -> Option<String> {
    wanted_request(seen.account.as_ref()?, policy).ok().map(|wanted| wanted.record())
}

/// What the rules about the token come to.
enum TokenStep {
    Take(Step),
    /// The Secret is on its way out: look again later.
    Wait,
    /// All is well until `next`.
    Good {
        expires_at: Timestamp,
        refreshed_at: Timestamp,
        next: Timestamp,
    },
}

/// A [`Context`] in which nothing stands in the way of a token: the account wants one that a cluster can grant, and
/// its ServiceAccount is there and ours.
#[derive(Clone, Copy)]
struct TokenContext<'a> {
    context: Context<'a>,
    account: &'a Account,
    service_account: &'a ServiceAccount,
    wanted: &'a TokenRequestSpec,
}

/// A token in the Secret that may stay.
struct GoodToken<'a> {
    secret: &'a Secret,
    token: &'a Token,
    claims: &'a Claims,
    /// When it is to be replaced.
    due: Timestamp,
    /// When it was projected, as far as that is known.
    refreshed_at: Timestamp,
}

impl<'a> TokenContext<'a> {
    fn decide(self) -> TokenStep {
        let Context { name, seen, policy, now } = self.context;
        if seen.secret.as_ref().is_some_and(Secret::terminating) {
            return TokenStep::Wait;
        }
        // An immutable Secret cannot be mended: it is deleted, and the next step creates it. A token that waits for it
        // in memory survives that; a crash in between costs one more token.
        let write = |source| match &seen.secret {
            Some(secret) if secret.immutable => Step::DeleteSecret { uid: secret.uid().to_owned() },
            _ => Step::WriteSecret(source),
        };
        match self.check() {
            Err(cause) => {
                // A write that failed is tried again with the token that is there: a hub that refuses writes must not
                // make the cluster issue a token for each attempt.
                let minted = seen.memory.minted.as_ref();
                TokenStep::Take(if minted.is_some_and(|minted| self.is_usable(minted)) {
                    write(Source::Minted(cause))
                } else {
                    Step::RequestToken(self.wanted.clone(), cause)
                })
            }
            Ok(GoodToken { secret, .. }) if !self.is_tidy(secret) => TokenStep::Take(write(Source::Present)),
            Ok(GoodToken { token, claims, due, refreshed_at, .. }) => {
                // Up to a tenth earlier, so that the reviews of many accounts do not come in one moment.
                let spread = spread(&[name, &self.account.uid, "review"], 1_000) as i64;
                let interval = policy.review_seconds - policy.review_seconds * spread / 10_000;
                let reviewed = seen.memory.review.filter(|review| review.token == token.fingerprint());
                match reviewed.map(|review| (review.at, after(review.at, interval))) {
                    // A review from the future was made before the clock was set back: it says nothing about when the
                    // next one is due.
                    Some((at, again)) if at <= now && now < again => {
                        TokenStep::Good { expires_at: claims.expires_at, refreshed_at, next: due.min(again) }
                    }
                    _ => TokenStep::Take(Step::ReviewToken),
                }
            }
        }
    }

    /// Whether the token in the Secret may stay, or why it must be replaced. The order matters to metrics and logs
    /// only: they name the first cause that holds.
    fn check(self) -> Result<GoodToken<'a>, Cause> {
        let Context { name, seen, policy, now } = self.context;
        let secret = seen.secret.as_ref().ok_or(Cause::SecretMissing)?;
        let token = secret.token.as_ref().ok_or(Cause::SecretAltered)?;
        // Somebody put another token there. It may even be a good one of this ServiceAccount; but what the agent did
        // not project it does not vouch for. After a restart it cannot tell: then claims and TokenReview have to do.
        if seen.memory.projected.is_some_and(|(projected, _)| projected != token.fingerprint()) {
            return Err(Cause::SecretAltered);
        }
        let claims = made_for(token, name, self.service_account, policy)?;
        if seen.memory.review.is_some_and(|review| review.token == token.fingerprint() && !review.accepted) {
            return Err(Cause::Rejected);
        }
        // The record, not the claims: a cluster may grant less than was asked for, and asking again and again would
        // not change its mind.
        let as_wanted = match secret.record() {
            Some(record) => record == self.wanted.record(),
            None => self.wanted.is_met_by(claims),
        };
        if !as_wanted {
            return Err(Cause::RequestChanged);
        }
        let projected_at = projected_at(token, seen);
        let due = promise::due(
            claims,
            projected_at,
            now,
            spread(&[name, &self.account.uid], SPREAD_PER_MYRIAD + 1),
        );
        if now >= due {
            return Err(Cause::Due);
        }
        let refreshed_at = projected_at.unwrap_or_else(|| self.reported_refresh(claims));
        Ok(GoodToken { secret, token, claims, due, refreshed_at })
    }

    /// Whether a token that waits to be projected still is the one to project: it has half of its life before it.
    fn is_usable(self, minted: &Minted) -> bool {
        let Context { name, policy, now, .. } = self.context;
        let fresh =
            |claims: &Claims| minted.at <= now && now < after(minted.at, claims.lifetime_seconds() / 2);
        minted.record == self.wanted.record()
            && made_for(&minted.token, name, self.service_account, policy).is_ok_and(fresh)
    }

    /// When the token was last renewed, as it was reported or as the token says itself. Only for an agent that does
    /// not remember: if its former life crashed between Secret and status, this is the time of the token before, until
    /// the next renewal.
    fn reported_refresh(self, claims: &Claims) -> Timestamp {
        let reported = self.account.status.token_secret_ref.as_ref();
        let reported = reported.filter(|reference| reference.name == self.context.name);
        reported.map_or(claims.issued_at, |reference| reference.last_refresh_timestamp.0)
    }

    /// Whether all that surrounds the token in the Secret is as it should be.
    fn is_tidy(self, secret: &Secret) -> bool {
        secret.ca.as_deref() == Some(self.context.seen.ca.as_slice())
            && !secret.extra_keys
            && secret.owned_by(self.context.name, &self.account.uid)
            && secret.record() == Some(self.wanted.record().as_str())
            && !secret.tells_other_times()
    }
}

/// The claims of a token that was made for this very ServiceAccount.
fn made_for<'a>(
    token: &'a Token,
    name: &str,
    service_account: &ServiceAccount,
    policy: &Policy,
) -> Result<&'a Claims, Cause> {
    let claims = token.claims().ok_or(Cause::SecretAltered)?;
    if claims.subject != names::service_account_user(&policy.agent_namespace, name) {
        return Err(Cause::SecretAltered);
    }
    // A token is bound to the UID: the cluster refuses it after the ServiceAccount was created anew under its name.
    if claims.account_uid != service_account.uid {
        return Err(Cause::ServiceAccountRecreated);
    }
    Ok(claims)
}

/// Why a token that the cluster just issued cannot be used, if it cannot. A TokenRequest has no precondition on the
/// UID: between the look and the request the ServiceAccount may have become another, perhaps somebody else's.
pub(crate) fn refuse_issued(
    token: &Token,
    name: &str,
    service_account: &ServiceAccount,
    policy: &Policy,
) -> Option<&'static str> {
    match made_for(token, name, service_account, policy) {
        Ok(_) => None,
        Err(Cause::ServiceAccountRecreated) => Some("the token is of another ServiceAccount of that name"),
        Err(_) => Some("the token is no service-account token for this account"),
    }
}

/// When this agent projected this very token, if it did and remembers.
fn projected_at(token: &Token, seen: &Observed) -> Option<Timestamp> {
    seen.memory.projected.filter(|(projected, _)| *projected == token.fingerprint()).map(|(_, at)| at)
}

/// A number below `bound` that is always the same for the same parts (FNV-1a, so that it is the same in every
/// version of the program).
pub(crate) fn spread(parts: &[&str], bound: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The low bits of FNV-1a mix poorly for short inputs.
    (hash ^ (hash >> 32)) % bound.max(1)
}

#[cfg(test)]
mod tests;
