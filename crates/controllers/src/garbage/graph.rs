//! Who owns whom, as far as the watches have told: a function of the events it was given, without I/O.
//!
//! Only objects that name owners, or that wait for their dependents, have a node. Of all others the graph knows that
//! they exist, in 24 bytes each. So the garbage of a large server costs what its ownership costs, not what its objects
//! weigh. (kube-controller-manager keeps a node for each object: `pkg/controller/garbagecollector/graph_builder.go`.)

use crate::discovery::ResourceType;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// How many owners are remembered whose dependents were orphaned: the last ones.
const REMEMBERED: usize = 16_384;

/// The finalizer of an object that waits until its blocking dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object that goes once its dependents no longer name it.
pub(crate) const ORPHAN: &str = "orphan";

/// A UID, folded into a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Uid(u128);

impl Uid {
    const LEAST: Self = Self(0);
    const GREATEST: Self = Self(u128::MAX);

    /// The number for `uid`: its own if it is a UUID, a digest otherwise. Nothing is deleted on the strength of it
    /// alone: deletions carry the UID that the server told.
    pub(crate) fn of(uid: &str) -> Self {
        let digits: String = uid.chars().filter(|character| *character != '-').collect();
        let is_uuid = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        match u128::from_str_radix(&digits, 16) {
            Ok(number) if is_uuid => Self(number),
            _ => Self(u128::from(digest(&(0, uid))) << 64 | u128::from(digest(&(1, uid)))),
        }
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its resource.
    pub(crate) resource: Arc<ResourceType>,
    /// Its namespace; empty for objects of the cluster.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

/// A reference to an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    uid: Uid,
    group: String,
    kind: String,
    name: String,
    blocks: bool,
}

#[derive(Debug)]
struct Node {
    place: Place,
    owners: Box<[Owner]>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

/// What should be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// An object that may have lost its owners, or that waits for its dependents.
    Check(Uid),
    /// An object whose dependents must forget it before it goes.
    Orphan(Uid),
}

/// What the graph knows of an object that should be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Where it is.
    pub(crate) place: Place,
    /// Whether it is being deleted.
    pub(crate) deleting: bool,
    /// Whether it waits for its dependents.
    pub(crate) foreground: bool,
    /// Dependents that keep it from going, unless they wait for their own dependents.
    pub(crate) blocking: Vec<(Uid, bool)>,
    /// Whether anything depends on it.
    pub(crate) has_dependents: bool,
    /// Whether a dependent of it waits for its own dependents: a circle, if its owner waits too.
    pub(crate) dependent_waits: bool,
}

/// The graph.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Existing objects of each watched group and kind, with a digest of namespace and name: a reference is right only
    /// if both fit. The digest of another name may be the same, one time in 2^64; then an object that lost its owner is
    /// not looked at before something of it changes.
    alive: HashMap<(String, String), HashMap<Uid, u64>>,
    /// What a list under way has shown so far.
    listing: HashMap<(String, String), HashMap<Uid, u64>>,
    /// The objects that name owners or wait for their dependents, and no others.
    nodes: HashMap<Uid, Node>,
    /// Owners and those that name them, in pairs: exactly those of `nodes`. Ordered, so that the dependents of an owner
    /// are a range, and no owner needs a set of its own.
    dependents: BTreeSet<(Uid, Uid)>,
    /// The owners whose dependents were orphaned last.
    orphaned: Orphaned,
}

/// Owners whose dependents were orphaned: the latest [`REMEMBERED`], in the order in which that happened.
#[derive(Debug, Default)]
struct Orphaned {
    known: HashSet<Uid>,
    order: VecDeque<Uid>,
}

impl Orphaned {
    fn add(&mut self, owner: Uid) {
        if !self.known.insert(owner) {
            return;
        }
        self.order.push_back(owner);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

fn kind_of(resource: &ResourceType) -> (String, String) {
    (resource.api.group.clone(), resource.api.kind.clone())
}

fn place_digest(namespace: &str, name: &str) -> u64 {
    digest(&(namespace, name))
}

/// The group of an `apiVersion`.
pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

fn uid_of(meta: &ObjectMeta) -> Option<Uid> {
    meta.uid.as_deref().map(Uid::of)
}

fn owners_of(meta: &ObjectMeta) -> Box<[Owner]> {
    let references = meta.owner_references.iter().flatten();
    references
        .map(|reference| Owner {
            uid: Uid::of(&reference.uid),
            group: group_of(&reference.api_version).into(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
            blocks: reference.block_owner_deletion == Some(true),
        })
        .collect()
}

impl Graph {
    /// A list of `resource` begins.
    pub(crate) fn list_begins(&mut self, resource: &ResourceType) {
        self.listing.insert(kind_of(resource), HashMap::new());
    }

    /// A list of `resource` is complete: what it did not show is gone, and who waited to know of it is looked at.
    pub(crate) fn list_ends(&mut self, resource: &ResourceType) -> Vec<Work> {
        let kind = kind_of(resource);
        let shown = self.listing.remove(&kind).unwrap_or_default();
        let before = self.alive.insert(kind.clone(), shown).unwrap_or_default();
        let now = &self.alive[&kind];
        // Linear in the objects of this resource, and, below, in all nodes: once per list, not once per object.
        let gone: Vec<Uid> = before.into_keys().filter(|uid| !now.contains_key(uid)).collect();
        let mut work: Vec<Work> = gone.into_iter().flat_map(|uid| self.removed(uid)).collect();
        let owned = self.nodes.iter().filter(|(_, node)| {
            node.owners
                .iter()
                .any(|owner| owner.group == kind.0 && owner.kind == kind.1 && !self.lives(node, owner))
        });
        work.extend(owned.map(|(uid, _)| Work::Check(*uid)));
        work
    }

    /// `resource` is no longer watched: nothing is known of its objects.
    pub(crate) fn forget(&mut self, resource: &ResourceType) -> Vec<Work> {
        self.list_begins(resource);
        let work = self.list_ends(resource);
        self.alive.remove(&kind_of(resource));
        work
    }

    /// Whether `resource` was listed since it is watched.
    pub(crate) fn is_listed(&self, resource: &ResourceType) -> bool {
        self.alive.contains_key(&kind_of(resource))
    }

    /// An object exists. `listed` when a list shows it, false when it changed.
    pub(crate) fn exists(
        &mut self,
        resource: &Arc<ResourceType>,
        meta: &ObjectMeta,
        listed: bool,
    ) -> Vec<Work> {
        let Some(uid) = uid_of(meta) else { return Vec::new() };
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let kind = kind_of(resource);
        // A list is put together apart from what was known, and replaces it when it is complete.
        let map = if listed { &mut self.listing } else { &mut self.alive };
        map.entry(kind).or_default().insert(uid, place_digest(&namespace, &name));

        let deleting = meta.deletion_timestamp.is_some();
        let waits_for =
            |finalizer: &str| deleting && meta.finalizers.iter().flatten().any(|held| held == finalizer);
        let orphan = waits_for(ORPHAN);
        let node = Node {
            place: Place { resource: resource.clone(), namespace, name },
            owners: owners_of(meta),
            deleting,
            // Orphaning comes first: what the dependents are told to forget they are not deleted with.
            foreground: waits_for(FOREGROUND) && !orphan,
            orphan,
        };
        self.put(uid, node)
    }

    /// An object is gone.
    pub(crate) fn deleted(&mut self, resource: &ResourceType, meta: &ObjectMeta) -> Vec<Work> {
        let Some(uid) = uid_of(meta) else { return Vec::new() };
        if let Some(alive) = self.alive.get_mut(&kind_of(resource)) {
            alive.remove(&uid);
        }
        self.removed(uid)
    }

    fn put(&mut self, uid: Uid, node: Node) -> Vec<Work> {
        let mut work = Vec::new();
        // The dependents are those that name it now: pairs of owners that it no longer names go, the others come.
        let before = self.nodes.remove(&uid);
        let old = before.as_ref().map_or(&[][..], |node| &node.owners);
        // A map, because an object may name thousands of owners.
        let mut now: HashMap<Uid, bool> = HashMap::with_capacity(node.owners.len());
        node.owners.iter().for_each(|owner| *now.entry(owner.uid).or_default() |= owner.blocks);
        for owner in old {
            let keeps = now.get(&owner.uid).is_some_and(|blocks| *blocks >= owner.blocks);
            // An owner that waits for this object may now go on without it.
            if !keeps && self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                work.push(Work::Check(owner.uid));
            }
            if !now.contains_key(&owner.uid) {
                self.dependents.remove(&(owner.uid, uid));
            }
        }
        for owner in &node.owners {
            self.dependents.insert((owner.uid, uid));
        }
        if node.orphan && !before.as_ref().is_some_and(|node| node.orphan) {
            work.push(Work::Orphan(uid));
        }
        if node.foreground && !before.as_ref().is_some_and(|node| node.foreground) {
            work.push(Work::Check(uid));
            work.extend(self.dependents_of(uid).map(Work::Check));
        }
        // Most objects of a server end here, and take no more memory than their entry in `alive`.
        if node.owners.is_empty() && !node.foreground && !node.orphan {
            return work;
        }
        self.nodes.insert(uid, node);
        if self.is_doubtful(uid) {
            work.push(Work::Check(uid));
        }
        work
    }

    /// Forgets an object that turned out not to exist, as if its deletion had been seen.
    pub(crate) fn removed(&mut self, uid: Uid) -> Vec<Work> {
        let mut work = Vec::new();
        if let Some(node) = self.nodes.remove(&uid) {
            for owner in &node.owners {
                self.dependents.remove(&(owner.uid, uid));
                if self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                    work.push(Work::Check(owner.uid));
                }
            }
            if let Some(alive) = self.alive.get_mut(&kind_of(&node.place.resource)) {
                alive.remove(&uid);
            }
        }
        // Its dependents are found although it may have had no node: the pairs are theirs.
        work.extend(self.dependents_of(uid).map(Work::Check));
        work
    }

    fn dependents_of(&self, owner: Uid) -> impl Iterator<Item = Uid> {
        self.dependents.range((owner, Uid::LEAST)..=(owner, Uid::GREATEST)).map(|(_, dependent)| *dependent)
    }

    /// Whether the watches say that `owner` of `node` exists where the reference says.
    fn lives(&self, node: &Node, owner: &Owner) -> bool {
        // The scope of the owner is that of its entry: an object of the cluster was entered without a namespace.
        let here = [place_digest(&node.place.namespace, &owner.name), place_digest("", &owner.name)];
        let kind = (owner.group.clone(), owner.kind.clone());
        self.alive
            .get(&kind)
            .and_then(|alive| alive.get(&owner.uid))
            .is_some_and(|place| here.contains(place))
    }

    fn is_doubtful(&self, uid: Uid) -> bool {
        let Some(node) = self.nodes.get(&uid) else { return false };
        let owner_waits = |owner: &Owner| self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground);
        node.foreground || node.owners.iter().any(|owner| !self.lives(node, owner) || owner_waits(owner))
    }

    /// What is known of the object, if it should be looked at at all: it waits for dependents, or an owner of it is
    /// missing or waits for its dependents.
    pub(crate) fn doubtful(&self, uid: Uid) -> Option<View> {
        if !self.is_doubtful(uid) {
            return None;
        }
        let node = self.nodes.get(&uid)?;
        let dependents: Vec<_> = self
            .dependents_of(uid)
            .filter_map(|dependent| Some((dependent, self.nodes.get(&dependent)?)))
            .collect();
        let blocks = |node: &Node| node.owners.iter().any(|owner| owner.uid == uid && owner.blocks);
        let mut blocking: Vec<_> = dependents
            .iter()
            .filter(|(_, node)| blocks(node))
            .map(|(uid, node)| (*uid, node.foreground))
            .collect();
        blocking.sort_unstable();
        Some(View {
            place: node.place.clone(),
            deleting: node.deleting,
            foreground: node.foreground,
            blocking,
            has_dependents: !dependents.is_empty(),
            dependent_waits: dependents.iter().any(|(_, node)| node.foreground),
        })
    }

    /// Where an object is whose dependents must forget it, and those that the watches have told.
    pub(crate) fn orphans(&self, uid: Uid) -> Option<(Place, Vec<(Uid, Place)>)> {
        let owner = self.nodes.get(&uid).filter(|node| node.orphan)?;
        let dependents = self
            .dependents_of(uid)
            .filter_map(|dependent| Some((dependent, self.nodes.get(&dependent)?.place.clone())));
        Some((owner.place.clone(), dependents.collect()))
    }

    /// All dependents of `owner` that the watches have told have forgotten it.
    pub(crate) fn orphaned(&mut self, owner: Uid) {
        self.orphaned.add(owner);
    }

    /// Whether what names `owner` should have forgotten it. A watch that lags behind tells of a dependent when its owner is
    /// gone already; without this it would be taken for garbage.
    pub(crate) fn was_orphaned(&self, owner: Uid) -> bool {
        self.orphaned.known.contains(&owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use serde_json::json;

    fn secrets() -> Arc<ResourceType> {
        Arc::new(ResourceType::of("", "Secret", "secrets", true))
    }

    fn namespaces() -> Arc<ResourceType> {
        Arc::new(ResourceType::of("", "Namespace", "namespaces", false))
    }

    fn meta(name: &str, owners: &[&str]) -> ObjectMeta {
        let reference = |owner: &&str| OwnerReference {
            api_version: "v1".into(),
            kind: "Secret".into(),
            name: (*owner).into(),
            uid: format!("uid-{owner}"),
            block_owner_deletion: Some(true),
            controller: None,
        };
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            uid: Some(format!("uid-{name}")),
            owner_references: Some(owners.iter().map(reference).collect()),
            ..ObjectMeta::default()
        }
    }

    fn going(mut meta: ObjectMeta, finalizer: &str) -> ObjectMeta {
        meta.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        meta.finalizers = Some(vec![finalizer.into()]);
        meta
    }

    fn uid(name: &str) -> Uid {
        Uid::of(&format!("uid-{name}"))
    }

    fn listed(graph: &mut Graph, objects: &[ObjectMeta]) -> Vec<Work> {
        graph.list_begins(&secrets());
        let mut work: Vec<_> = objects.iter().flat_map(|meta| graph.exists(&secrets(), meta, true)).collect();
        work.extend(graph.list_ends(&secrets()));
        work
    }

    #[test]
    fn uids_are_folded_without_loss_when_they_are_uuids() {
        let uid = |text| Uid::of(text);
        assert_eq!(uid("00000000-0000-0000-0000-0000000000ff"), Uid(255));
        assert_ne!(uid("x"), uid("y"));
        assert_ne!(uid("ff"), Uid(255));
        assert_ne!(uid("+0000000-0000-0000-0000-00000000000f"), uid("00000000-0000-0000-0000-00000000000f"));
    }

    #[test]
    fn objects_with_living_owners_are_left_alone() {
        let mut graph = Graph::default();
        listed(&mut graph, &[meta("child", &["parent"]), meta("parent", &[])]);
        assert_eq!(graph.doubtful(uid("child")), None);
        assert_eq!(graph.nodes.len(), 1, "an object without owners has no node");
        assert_eq!(graph.exists(&secrets(), &meta("second", &["parent"]), false), []);
    }

    #[test]
    fn a_deleted_owner_casts_doubt_on_its_dependents_only() {
        let mut graph = Graph::default();
        listed(
            &mut graph,
            &[meta("child", &["parent"]), meta("parent", &[]), meta("other", &["boss"]), meta("boss", &[])],
        );
        assert_eq!(graph.deleted(&secrets(), &meta("parent", &[])), [Work::Check(uid("child"))]);
        assert!(graph.doubtful(uid("child")).is_some());
        assert_eq!(graph.doubtful(uid("other")), None);
        assert_eq!(graph.deleted(&secrets(), &meta("child", &["parent"])), []);
        assert!(graph.nodes.len() == 1 && graph.dependents.len() == 1, "nothing is left of the deleted");
    }

    #[test]
    fn an_owner_that_vanished_while_nobody_watched_is_missed_in_the_next_list() {
        let mut graph = Graph::default();
        listed(&mut graph, &[meta("child", &["parent"]), meta("parent", &[])]);
        let work = listed(&mut graph, &[meta("child", &["parent"])]);
        assert!(work.contains(&Work::Check(uid("child"))), "{work:?}");
    }

    #[test]
    fn a_reference_with_the_right_uid_and_a_wrong_name_or_place_is_doubtful() {
        let mut graph = Graph::default();
        let mut wrong_name = meta("a", &["parent"]);
        wrong_name.owner_references.as_mut().unwrap()[0].name = "nobody".into();
        let mut wrong_place = meta("b", &["parent"]);
        wrong_place.namespace = Some("elsewhere".into());
        listed(&mut graph, &[meta("parent", &[]), wrong_name, wrong_place]);
        assert!(graph.doubtful(uid("a")).is_some());
        assert!(graph.doubtful(uid("b")).is_some());
    }

    #[test]
    fn an_owner_of_the_cluster_is_found_from_any_namespace() {
        let mut graph = Graph::default();
        let namespace =
            ObjectMeta { name: Some("n".into()), uid: Some("uid-n".into()), ..ObjectMeta::default() };
        graph.exists(&namespaces(), &namespace, false);
        let mut child = meta("child", &["n"]);
        child.owner_references.as_mut().unwrap()[0].kind = "Namespace".into();
        assert_eq!(graph.exists(&secrets(), &child, false), []);
    }

    #[test]
    fn an_owner_that_waits_is_looked_at_with_its_dependents_until_the_last_is_gone() {
        let mut graph = Graph::default();
        listed(&mut graph, &[meta("child", &["parent"]), meta("parent", &[])]);
        let work = graph.exists(&secrets(), &going(meta("parent", &[]), FOREGROUND), false);
        assert_eq!(work[..2], [Work::Check(uid("parent")), Work::Check(uid("child"))]);
        assert_eq!(graph.doubtful(uid("parent")).unwrap().blocking, [(uid("child"), false)]);
        let work = graph.deleted(&secrets(), &meta("child", &["parent"]));
        assert_eq!(work, [Work::Check(uid("parent"))]);
        assert!(graph.doubtful(uid("parent")).unwrap().blocking.is_empty());
    }

    #[test]
    fn a_dependent_that_stops_blocking_lets_its_owner_go_on() {
        let mut graph = Graph::default();
        listed(&mut graph, &[meta("child", &["parent"]), meta("parent", &[])]);
        graph.exists(&secrets(), &going(meta("parent", &[]), FOREGROUND), false);
        let mut yielding = meta("child", &["parent"]);
        yielding.owner_references.as_mut().unwrap()[0].block_owner_deletion = None;
        let work = graph.exists(&secrets(), &yielding, false);
        assert!(work.contains(&Work::Check(uid("parent"))), "{work:?}");
        assert!(graph.doubtful(uid("parent")).unwrap().blocking.is_empty());
    }

    #[test]
    fn orphaning_is_asked_for_once_and_comes_before_foreground_deletion() {
        let mut graph = Graph::default();
        listed(&mut graph, &[meta("child", &["parent"]), meta("parent", &[])]);
        let mut parent = going(meta("parent", &[]), ORPHAN);
        parent.finalizers.as_mut().unwrap().push(FOREGROUND.into());
        assert_eq!(graph.exists(&secrets(), &parent, false), [Work::Orphan(uid("parent"))]);
        assert_eq!(graph.exists(&secrets(), &parent, false), []);
        let (place, dependents) = graph.orphans(uid("parent")).unwrap();
        assert_eq!((place.name.as_str(), dependents.len()), ("parent", 1));
    }

    #[test]
    fn the_last_orphaned_owners_are_remembered() {
        let mut graph = Graph::default();
        for n in (0..=REMEMBERED as u128).chain([7, 7]) {
            graph.orphaned(Uid(n));
        }
        assert!(!graph.was_orphaned(Uid(0)) && graph.was_orphaned(Uid(1)));
        assert_eq!(graph.orphaned.known.len(), REMEMBERED);
        assert_eq!(graph.orphaned.order.len(), REMEMBERED);
    }

    #[test]
    fn a_resource_is_known_from_the_end_of_its_first_list_until_it_is_forgotten() {
        let mut graph = Graph::default();
        graph.list_begins(&secrets());
        graph.exists(&secrets(), &meta("a", &[]), true);
        assert!(!graph.is_listed(&secrets()));
        graph.list_ends(&secrets());
        assert!(graph.is_listed(&secrets()) && !graph.is_listed(&namespaces()));
        graph.forget(&secrets());
        assert!(!graph.is_listed(&secrets()));
    }
}
