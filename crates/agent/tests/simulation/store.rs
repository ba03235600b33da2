//! The objects of a simulated API server, with revisions, history, and backups that can be put back.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// Where an object is: resource, namespace (empty for resources without), name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) resource: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(resource: &'static str, namespace: &str, name: &str) -> Self {
        Self { resource, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One commit, as watches tell it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    /// When it happened, for the end of its time in the history.
    at: Duration,
    pub(crate) key: Key,
    /// The object before; `None` if it was created.
    pub(crate) before: Option<Arc<Value>>,
    /// The object after; `None` if it was deleted.
    pub(crate) after: Option<Arc<Value>>,
    /// The object as it was last, at the event's revision.
    pub(crate) object: Arc<Value>,
}

/// What happened, and what will.
pub(crate) type Events = (Vec<Arc<Event>>, mpsc::UnboundedReceiver<Arc<Event>>);

/// The objects and the revision of one moment.
#[derive(Clone)]
pub(crate) struct Backup {
    revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
}

/// How long a watch may lag behind before it is told to list anew: etcd is compacted every five minutes, and what is
/// older than that is kept by chance only.
const HISTORY: Duration = Duration::from_secs(10 * 60);

/// The objects of a server.
pub(crate) struct Store {
    revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Arc<Event>>,
    /// The greatest revision that the history no longer has.
    compacted: u64,
    watchers: HashMap<(&'static str, String), Vec<mpsc::UnboundedSender<Arc<Event>>>>,
    /// Not part of a backup: no two objects ever have the same UID.
    uids: u64,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            compacted: 1,
            watchers: HashMap::new(),
            uids: 0,
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The objects of a resource in a namespace, or in all of them if that is empty, by name.
    pub(crate) fn list(
        &self,
        resource: &'static str,
        namespace: &str,
    ) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let first = Key::new(resource, namespace, "");
        let wanted = namespace.to_owned();
        self.objects.range(first..).take_while(move |(key, _)| {
            key.resource == resource && (wanted.is_empty() || key.namespace == wanted)
        })
    }

    /// Creates an object under a key that is free, as the server sees it: with a UID, a time, a version.
    pub(crate) fn create(&mut self, key: Key, mut object: Value, now: Duration, wall: &str) -> Arc<Value> {
        self.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("uid-{}", self.uids));
        metadata["name"] = json!(key.name);
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        metadata["creationTimestamp"] = json!(wall);
        metadata["generation"] = json!(1);
        self.commit(key, Some(object), now)
    }

    /// Replaces an object. What changes nothing makes no revision, as in a real server.
    pub(crate) fn update(&mut self, key: Key, mut object: Value, now: Duration) -> Arc<Value> {
        if let Some(present) = self.objects.get(&key) {
            object["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"].clone();
            if **present == object {
                return present.clone();
            }
            if present["spec"] != object["spec"] {
                let generation = present["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
                object["metadata"]["generation"] = json!(generation);
            }
        }
        self.commit(key, Some(object), now)
    }

    /// Deletes an object; gives it as it was.
    pub(crate) fn delete(&mut self, key: &Key, now: Duration) -> Option<Arc<Value>> {
        self.objects.get(key)?;
        Some(self.commit(key.clone(), None, now))
    }

    fn commit(&mut self, key: Key, after: Option<Value>, now: Duration) -> Arc<Value> {
        self.revision += 1;
        let stamp = |mut object: Value, revision: u64| {
            object["metadata"]["resourceVersion"] = json!(revision.to_string());
            Arc::new(object)
        };
        let after = after.map(|object| stamp(object, self.revision));
        let before = match &after {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        let object = match (&after, &before) {
            (Some(after), _) => after.clone(),
            // A deletion has a revision of its own, which its event carries.
            (None, Some(before)) => stamp((**before).clone(), self.revision),
            (None, None) => unreachable!("what is deleted was there"),
        };
        let event =
            Arc::new(Event { revision: self.revision, at: now, key, before, after, object: object.clone() });
        while self.history.front().is_some_and(|event| event.at + HISTORY < now) {
            self.compacted = self.history.pop_front().map_or(self.compacted, |event| event.revision);
        }
        let place = (event.key.resource, event.key.namespace.clone());
        if let Some(watchers) = self.watchers.get_mut(&place) {
            watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
        }
        self.history.push_back(event);
        object
    }

    /// The events of a place after a revision, and those to come; `None` if the history no longer has them. A revision
    /// that is still to come is waited for, in silence.
    pub(crate) fn watch(&mut self, place: (&'static str, String), after: u64) -> Option<Events> {
        if after < self.compacted {
            return None;
        }
        let here = |event: &&Arc<Event>| {
            event.revision > after && event.key.resource == place.0 && event.key.namespace == place.1
        };
        let past = self.history.iter().filter(here).cloned().collect();
        let (send, receive) = mpsc::unbounded_channel();
        let watchers = self.watchers.entry(place).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(send);
        Some((past, receive))
    }

    pub(crate) fn backup(&self) -> Backup {
        Backup { revision: self.revision, objects: self.objects.clone() }
    }

    /// Puts a backup back: objects and revision go back to what they were, and nothing of the history is left.
    /// Whoever watches is cut off, because the server is started anew.
    pub(crate) fn restore(&mut self, backup: &Backup) {
        self.revision = backup.revision;
        self.objects = backup.objects.clone();
        self.history.clear();
        self.compacted = backup.revision;
        self.watchers.clear();
    }
}
