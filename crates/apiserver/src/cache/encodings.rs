//! The encodings of one event. Thousands of watchers want the same few: JSON, metadata alone, protobuf, a Table. Each is made
//! once, whichever watcher comes first, and lives as long as some watcher has the event before it.

use bytes::Bytes;
use parking_lot::Mutex;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// How many forms of one event are kept. Clients choose the forms, so there has to be a limit; there are fewer than this in use.
const MAX_FORMS: usize = 12;

/// The name of a form. Whoever asks for equal names is given equal bytes: all that the bytes depend on, beside the event, must
/// be in it.
#[derive(Clone)]
pub(crate) struct Form {
    /// Encoding and versions, in words that only their maker needs to understand.
    name: Arc<str>,
    /// What changes from event to event, such as the second at which an age was told.
    variant: u64,
    /// What else the bytes were made with, such as the row of the catalog: another one of the same name makes another form.
    /// Held, so that its address is not used again as long as it is compared.
    origin: Option<Arc<dyn Any + Send + Sync>>,
}

impl Form {
    /// A form whose bytes depend on its name and the event alone.
    pub(crate) fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), variant: 0, origin: None }
    }

    /// A form whose bytes also depend on `origin`.
    pub(crate) fn made_with(name: impl Into<Arc<str>>, origin: Arc<dyn Any + Send + Sync>) -> Self {
        Self { name: name.into(), variant: 0, origin: Some(origin) }
    }

    /// The same form in another variant.
    pub(crate) fn set_variant(&mut self, variant: u64) {
        self.variant = variant;
    }
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        let address = |form: &Self| form.origin.as_ref().map(|origin| Arc::as_ptr(origin).cast::<()>());
        self.variant == other.variant && address(self) == address(other) && self.name == other.name
    }
}

/// A form and its bytes, once they are made.
type Encoding = (Form, Arc<OnceLock<Bytes>>);

/// The encodings of one event.
///
/// Two locks: the outer one is held for a look at the few forms, the inner one ([`OnceLock`]) while a form is made. So watchers
/// that want a form that is being made wait for it instead of making it too, and those of other forms do not wait.
pub(super) struct Encodings(Mutex<Option<Vec<Encoding>>>);

impl Encodings {
    /// Keeps what is made, until it is closed.
    pub(super) fn open() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// Keeps nothing.
    pub(super) fn closed() -> Self {
        Self(Mutex::new(None))
    }

    /// Forgets what was made, and keeps nothing from now on.
    pub(super) fn close(&self) {
        *self.0.lock() = None;
    }

    /// The event in a form: as it was made before, or by `encode`.
    pub(super) fn get(&self, form: &Form, encode: impl FnOnce() -> Bytes) -> Bytes {
        let slot = match &mut *self.0.lock() {
            None => None,
            Some(made) => match made.iter().find(|(known, _)| known == form) {
                Some((_, slot)) => Some(slot.clone()),
                None if made.len() < MAX_FORMS => {
                    let slot = Arc::new(OnceLock::new());
                    made.push((form.clone(), slot.clone()));
                    Some(slot)
                }
                None => None,
            },
        };
        match slot {
            Some(slot) => slot.get_or_init(encode).clone(),
            None => encode(),
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().as_ref().map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn each_form_is_made_once_for_all_who_want_it() {
        let (encodings, made) = (Encodings::open(), Cell::new(0));
        let get = |form: &Form, text: &'static str| {
            encodings.get(form, || {
                made.set(made.get() + 1);
                text.into()
            })
        };
        let row: Arc<dyn Any + Send + Sync> = Arc::new(1);
        let mut later = Form::made_with("table", row.clone());
        later.set_variant(1);
        let forms = [
            (Form::new("json v1"), "a"),
            (Form::new("json v2"), "b"),
            (Form::made_with("table", row), "c"),
            (later, "d"),
            // Another row of the same kind, after its definition has changed.
            (Form::made_with("table", Arc::new(1)), "e"),
        ];
        for _ in 0..1000 {
            for (form, text) in &forms {
                assert_eq!(get(form, text), *text);
            }
        }
        assert_eq!(made.get(), forms.len());
        encodings.close();
        assert_eq!((get(&forms[0].0, "f"), get(&forms[0].0, "g")), ("f".into(), "g".into()));
        assert_eq!(encodings.count(), 0);
    }

    #[test]
    fn what_clients_choose_is_bounded() {
        let encodings = Encodings::open();
        for variant in 0..1000 {
            let mut form = Form::new("table");
            form.set_variant(variant);
            assert_eq!(encodings.get(&form, || variant.to_string().into()), variant.to_string());
        }
        assert_eq!(encodings.count(), MAX_FORMS);
    }
}
