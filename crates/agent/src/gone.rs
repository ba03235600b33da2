//! When is an account gone? A deletion is what a server says is one; a refusal is none.
//!
//! With the namespace of a cluster its RoleBinding goes, too, so that a deletion may look like a refusal, in whatever
//! order the hub takes things away. Whether ServiceAccounts, and so all tokens, are given up is decided here, by what the
//! hub has said and not by what it keeps to itself.
//!
//! | the account is asked for | the namespace is asked for | the watch | |
//! | --- | --- | --- | --- |
//! | 404 for the object | | | gone |
//! | 401, 403, 404 of the kind | 404 for the namespace | | gone |
//! | 401, 403, 404 of the kind | | said that this very account was deleted | gone |
//! | 401, 403, 404 of the kind | anything else | | not known |
//! | no answer, 429, 5xx, nonsense | | whatever it said | not known |

use crate::calls::{CallError, CallErrorKind};

/// What the hub answered when it was asked for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It gave the object.
    There,
    /// It does not exist.
    NotThere,
    /// The hub does not let the agent see whether it does.
    Refused,
    /// Nothing that one could use.
    Nothing,
}

impl Answer {
    /// What an answer to a request for one object means.
    pub(crate) fn of<T>(result: &Result<Option<T>, CallError>) -> Self {
        match result {
            Ok(Some(_)) => Self::There,
            Ok(None) => Self::NotThere,
            Err(CallError { kind: CallErrorKind::Refused { code: 401 | 403..=405, .. }, .. }) => {
                Self::Refused
            }
            Err(_) => Self::Nothing,
        }
    }
}

/// What there is to go by, about one account.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    /// The answer to a request for the account.
    pub(crate) account: Answer,
    /// The answer to a request for the namespace, if it was asked for.
    pub(crate) namespace: Option<Answer>,
    /// The UID of the account of that name that was deleted, if that is the last that the watch said of it.
    pub(crate) deleted: Option<&'a str>,
    /// The UID of the account as it was read last.
    pub(crate) known: Option<&'a str>,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    There,
    Gone,
    /// Only the namespace can tell: it has to be asked for.
    AskForNamespace,
    NotKnown,
}

impl Evidence<'_> {
    pub(crate) fn weigh(self) -> Finding {
        // A watch may lag behind: an account that was made anew since, and read, is another one than that which went.
        let was_deleted = match (self.deleted, self.known) {
            (Some(deleted), Some(known)) => deleted == known,
            (deleted, None) => deleted.is_some(),
            (None, Some(_)) => false,
        };
        match (self.account, self.namespace) {
            (Answer::There, _) => Finding::There,
            (Answer::NotThere, _) => Finding::Gone,
            (Answer::Nothing, _) => Finding::NotKnown,
            (Answer::Refused, _) if was_deleted => Finding::Gone,
            (Answer::Refused, None) => Finding::AskForNamespace,
            (Answer::Refused, Some(Answer::NotThere)) => Finding::Gone,
            (Answer::Refused, Some(_)) => Finding::NotKnown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side::Side;
    use proptest::prelude::*;

    const ANSWERS: [Answer; 4] = [Answer::There, Answer::NotThere, Answer::Refused, Answer::Nothing];

    #[test]
    fn a_refusal_is_no_deletion() {
        use {Answer::*, Finding as F};
        let (a, b) = (Some("a"), Some("b"));
        let table = [
            (There, None, None, a, F::There),
            // Made anew before the watch said that the earlier one went.
            (There, None, a, a, F::There),
            (NotThere, None, None, a, F::Gone),
            (NotThere, None, None, None, F::Gone),
            (Refused, None, None, a, F::AskForNamespace),
            (Refused, None, None, None, F::AskForNamespace),
            (Refused, Some(NotThere), None, a, F::Gone),
            // Made before a restart: nothing is known of the account but that its namespace is gone.
            (Refused, Some(NotThere), None, None, F::Gone),
            (Refused, Some(There), None, a, F::NotKnown),
            (Refused, Some(Refused), None, a, F::NotKnown),
            (Refused, Some(Nothing), None, a, F::NotKnown),
            (Refused, None, a, a, F::Gone),
            (Refused, None, a, None, F::Gone),
            (Refused, Some(Refused), a, a, F::Gone),
            // Another account of that name was read since.
            (Refused, None, a, b, F::AskForNamespace),
            (Refused, Some(Refused), a, b, F::NotKnown),
            (Nothing, None, a, a, F::NotKnown),
            (Nothing, None, None, None, F::NotKnown),
        ];
        for (account, namespace, deleted, known, expected) in table {
            let evidence = Evidence { account, namespace, deleted, known };
            assert_eq!(evidence.weigh(), expected, "{evidence:?}");
        }
    }

    #[test]
    fn what_answers_mean() {
        let refused = |code| CallErrorKind::Refused { code, reason: String::new(), message: String::new() };
        let error = |kind| Err::<Option<()>, _>(CallError { side: Side::Hub, call: "GET", kind });
        assert_eq!(Answer::of(&Ok(Some(()))), Answer::There);
        assert_eq!(Answer::of(&Ok(None::<()>)), Answer::NotThere);
        for code in [401, 403, 404, 405] {
            assert_eq!(Answer::of(&error(refused(code))), Answer::Refused);
        }
        for kind in [
            refused(400),
            refused(422),
            CallErrorKind::Conflict,
            CallErrorKind::Unavailable("HTTP 503".into()),
            CallErrorKind::Turned("a redirect".into()),
            CallErrorKind::Unusable("no JSON"),
        ] {
            assert_eq!(Answer::of(&error(kind)), Answer::Nothing);
        }
    }

    proptest! {
        /// Whatever else there is to go by: it takes a word of the hub that something does not exist any more, about the
        /// account or its namespace; and no word counts against an account that is there, or of a hub that is not.
        #[test]
        fn gone_only_by_the_hubs_own_word(
            account in prop::sample::select(&ANSWERS[..]),
            namespace in prop::option::of(prop::sample::select(&ANSWERS[..])),
            deleted in prop::option::of(prop::sample::select(vec!["a", "b"])),
            known in prop::option::of(prop::sample::select(vec!["a", "b"])),
        ) {
            let finding = Evidence { account, namespace, deleted, known }.weigh();
            let word = account == Answer::NotThere || namespace == Some(Answer::NotThere) || deleted.is_some();
            if finding == Finding::Gone {
                prop_assert!(word && account != Answer::There && account != Answer::Nothing);
            }
            prop_assert_eq!(finding == Finding::There, account == Answer::There);
            if finding == Finding::AskForNamespace {
                prop_assert!(namespace.is_none(), "it would be asked for again and again");
            }
        }
    }
}
