use super::*;
use crate::cache::{Objects, encode_for_storage};
use crate::resources::{configmaps, events};
use crate::strategy::Resource;
use fleetpass_codec::negotiate::{MetaVersion, TargetKind};
use proptest::prelude::*;
use serde_json::Map;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const NOW: &str = "2026-01-02T03:04:05Z";

/// A built-in kind, a view of another one, and a kind of a CRD, of which objects before revision 5 are converted.
fn rows() -> Vec<Arc<Row>> {
    let custom =
        Resource { custom: true, uniform_since: 5, group: "example.com".into(), ..configmaps::resource() };
    [configmaps::resource(), events::events_group_resource(), custom]
        .map(|row| Arc::new(Row::new(row)))
        .into()
}

fn outputs() -> Vec<Output> {
    let metadata = |version| Some((TargetKind::PartialObjectMetadataList, version));
    let tables = Some((TargetKind::Table, MetaVersion::V1));
    let all = [None, metadata(MetaVersion::V1), metadata(MetaVersion::V1beta1), tables];
    let with = |media, pretty| all.map(|convert_to| Output { media, convert_to, pretty });
    let mut outputs = Vec::new();
    outputs.extend(with(MediaType::Json, false));
    outputs.extend(with(MediaType::Json, true));
    outputs.extend(with(MediaType::Yaml, false));
    outputs.extend(with(MediaType::Protobuf, false));
    outputs
}

fn renderer(row: &Row, accepted: Output, include: IncludeObject) -> Renderer<'_> {
    Renderer { row, version: &row.resource.versions[0], accepted, include, now: NOW.parse().unwrap() }
}

fn object(n: usize, value: &Value) -> Arc<Object> {
    let key = format!("/registry/things/ns/{n:05}");
    Arc::new(Object::new(key.into(), n as u64 + 1, encode_for_storage(value)).unwrap())
}

/// The list in one piece, from the tree of all of it.
fn reference(renderer: &Renderer<'_>, listed: &Listed) -> Result<Bytes, Status> {
    let (mut list, items) = renderer.list_without_items(listed)?;
    let trees: Vec<Value> = listed.objects.iter().map(|object| renderer.list_item(object)).collect();
    let nil = trees.is_empty() && list["kind"] == "PartialObjectMetadataList";
    list[items] = if nil { Value::Null } else { trees.into() };
    render::encode(&list, renderer.accepted)
}

/// A list of these objects, which are ConfigMaps, in a form.
pub(in crate::server) fn of_config_maps(
    media: MediaType,
    convert_to: Option<(TargetKind, MetaVersion)>,
    values: &[Value],
) -> List {
    let (row, accepted) = (&rows()[0], Output { media, convert_to, pretty: false });
    List::new(&renderer(row, accepted, IncludeObject::Metadata), row, listed(values)).unwrap()
}

/// [`List::whole`], and after how many turns.
fn whole(list: &List) -> (Result<Option<Bytes>, Status>, usize) {
    let mut turns = 1;
    let mut future = pin!(list.whole());
    loop {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(whole) => return (whole, turns),
            Poll::Pending => turns += 1,
        }
    }
}

/// All that is made, with the size of the largest piece.
fn made(list: &mut List) -> Result<(Vec<u8>, usize), Status> {
    let (mut all, mut largest) = (Vec::new(), 0);
    loop {
        match list.step()? {
            Step::Piece(piece) => {
                assert!(!piece.is_empty());
                largest = largest.max(piece.len());
                all.extend(piece);
            }
            Step::Working => {}
            Step::Done => return Ok((all, largest)),
        }
    }
}

/// The same list, of which nothing was found yet.
fn unfound(row: &Arc<Row>, listed: &Listed) -> Listed {
    let mut objects = Objects::default();
    for object in &listed.objects {
        let (_, (namespace, name)) = crate::cache::split_key(&object.key);
        let key = crate::cache::join_key(&row.storage_prefix, namespace, name);
        let moved = Object::new(key.clone(), object.revision, encode_for_storage(&object.value()));
        objects.insert(key, Arc::new(moved.unwrap()));
    }
    Listed { objects: Vec::new(), rest: Some(Search::of_all(row, objects)), ..listed.clone() }
}

fn check(row: &Arc<Row>, accepted: Output, include: IncludeObject, listed: &Listed) {
    let renderer = renderer(row, accepted, include);
    let context = format!("{} {accepted:?} {include:?}", row.resource.plural);
    let mut list = match (List::new(&renderer, row, listed.clone()), reference(&renderer, listed)) {
        (Ok(list), Ok(_)) => list,
        (Err(refused), Err(expected)) => return assert_eq!(refused.message, expected.message, "{context}"),
        (list, expected) => panic!("{context}: {:?} {:?}", list.err(), expected.err()),
    };
    let expected = reference(&renderer, listed).unwrap();
    let (all, largest) = made(&mut list).unwrap();
    assert!(largest <= 2 * PIECE, "{context}: a piece of {largest} bytes");
    if all != expected {
        // Spliced: `resourceVersion` is in front of the metadata. Everything else is to the byte what an encoder makes of it.
        let spliced = accepted.media == MediaType::Json
            && !accepted.pretty
            && !matches!(accepted.convert_to, Some((TargetKind::Table, _)));
        let value = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        assert!(
            spliced,
            "{context}\n{}\n{}",
            String::from_utf8_lossy(&all),
            String::from_utf8_lossy(&expected)
        );
        assert_eq!(value(&all), value(&expected), "{context}");
    }
    let again = List::new(&renderer, row, unfound(row, listed)).unwrap();
    assert!(whole(&again).0.unwrap().is_none(), "nobody knows how long it is");
    assert!(made(&mut { again }).unwrap().0 == all, "{context}: found while it is made");
    let whole = whole(&List::new(&renderer, row, listed.clone()).unwrap()).0.unwrap();
    assert!(whole.as_ref().is_none_or(|whole| *whole == all), "{context}: at once");
    // JSON of much more than is made at once is not even begun.
    assert!(
        whole.is_some() || all.len() > SMALL - 96 * listed.objects.len() - 1024,
        "{context}: {}",
        all.len()
    );
    assert!(whole.is_none() || all.len() <= SMALL + 1024, "{context}: {}", all.len());
}

fn check_all(listed: &Listed) {
    for row in rows() {
        for accepted in outputs() {
            let includes: &[_] = match accepted.convert_to {
                Some((TargetKind::Table, _)) => {
                    &[IncludeObject::None, IncludeObject::Metadata, IncludeObject::Object]
                }
                _ => &[IncludeObject::Metadata],
            };
            includes.iter().for_each(|include| check(&row, accepted, *include, listed));
        }
    }
}

fn listed(values: &[Value]) -> Listed {
    let objects = values.iter().enumerate().map(|(n, value)| object(n, value)).collect();
    Listed { revision: 12_345, objects, rest: None, continue_token: String::new(), remaining: None }
}

/// Text of any kind: long lines that YAML folds, line breaks, what has to be quoted, what is no ASCII.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~\n\té\u{85}\u{1f600}]{0,40}",
        "([a-z\":]{1,9} ){0,40}[a-z]",
        "(items: \\[\\]|\"items\":\\[\\]\\}|rows: \\[\\])\n?",
        "[yn0-9.:+-]{0,6}",
    ]
}

fn objects() -> impl Strategy<Value = Value> {
    let map = || proptest::collection::btree_map("[a-zé]{1,5}", text(), 0..4);
    let size = prop_oneof![4 => Just(0), 2 => 0_usize..9_000, 1 => Just(3 * PIECE)];
    (map(), map(), map(), size, "[a-z]{0,5}").prop_map(|(labels, annotations, data, size, name)| {
        let mut metadata = Map::new();
        let mut member = |key: &str, value: Value, there: bool| {
            if there {
                metadata.insert(key.into(), value);
            }
        };
        member("labels", json!(labels), !labels.is_empty());
        member("annotations", json!(annotations), !annotations.is_empty());
        member("creationTimestamp", NOW.into(), name.len() > 1);
        member("name", name.clone().into(), !name.is_empty());
        let mut data = data;
        data.insert("large".into(), "x y ".repeat(size / 4));
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_list_in_pieces_is_the_list(
        values in proptest::collection::vec(objects(), 0..12),
        token in prop_oneof![Just(String::new()), text()],
        remaining in proptest::option::of(0_usize..9),
    ) {
        check_all(&Listed { continue_token: token, remaining, ..listed(&values) });
    }
}

#[test]
fn lists_of_nothing_of_little_and_of_much_are_whole() {
    let small = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}});
    for count in [0, 1, 2, 300] {
        check_all(&listed(&vec![small.clone(); count]));
    }
}

#[test]
fn a_large_object_is_shared_with_the_cache_until_it_is_sent() {
    let large = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"},
        "data": {"a": "x".repeat(10 * PIECE)}});
    let (row, listed) = (&rows()[0], listed(&[large]));
    let json = Output { media: MediaType::Json, convert_to: None, pretty: false };
    let mut list = List::new(&renderer(row, json, IncludeObject::Metadata), row, listed.clone()).unwrap();
    let stored = listed.objects[0].rest();
    let inside = stored.as_ptr_range();
    let mut shared = 0;
    while let Step::Piece(piece) = list.step().unwrap() {
        shared += usize::from(inside.contains(&piece.as_ptr()));
    }
    assert_eq!(shared, 10, "all but the head and the tail, in pieces");
}

#[test]
fn what_has_no_form_is_refused_before_anything_is_sent() {
    // The data of a ConfigMap are strings.
    let broken = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}, "data": 7});
    let (row, protobuf) =
        (&rows()[0], Output { media: MediaType::Protobuf, convert_to: None, pretty: false });
    let renderer = renderer(row, protobuf, IncludeObject::Metadata);
    let list = |values: &[Value]| List::new(&renderer, row, listed(values)).unwrap();
    assert_eq!(whole(&list(std::slice::from_ref(&broken))).0.unwrap_err().code, 500);
    // Protobuf is measured first, so this holds for long lists as well.
    let sound =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}, "data": {"a": "x".repeat(SMALL)}});
    let mut long = list(&[sound.clone(), sound, broken]);
    assert_eq!(whole(&long).0, Ok(None));
    let first = std::iter::repeat_with(|| long.step()).find(|step| *step != Ok(Step::Working));
    assert_eq!(first.unwrap().unwrap_err().code, 500);
}

#[test]
fn others_have_their_turn_however_little_is_made_of_the_objects() {
    let large =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}, "data": {"a": "x".repeat(2 * TURN)}});
    let table = Some((TargetKind::Table, MetaVersion::V1));
    let metadata = Some((TargetKind::PartialObjectMetadataList, MetaVersion::V1));
    for (media, convert_to, turns) in [
        (MediaType::Json, table, 20),
        (MediaType::Yaml, table, 20),
        // Of the object, only its metadata is looked at.
        (MediaType::Json, metadata, 1),
        (MediaType::Protobuf, metadata, 1),
    ] {
        let mut list = of_config_maps(media, convert_to, &vec![large.clone(); 20]);
        let (whole, taken) = whole(&list);
        assert!(whole.unwrap().is_some(), "{media:?}");
        assert_eq!(taken, turns, "{media:?}");
        let steps =
            std::iter::repeat_with(|| list.step().unwrap()).take_while(|step| *step != Step::Done).count();
        assert!(steps >= turns, "{media:?}: {steps}");
    }
}
