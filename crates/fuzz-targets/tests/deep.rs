//! All targets over inputs that are deep or long, on the stack of a server's thread: no decoder may overflow that. How much work
//! large inputs cause is counted elsewhere (`crates/growth`).

use fleetpass_fuzz_targets::TARGETS;

/// The size of inputs, except where depth is what matters. No fuzzer gets there.
const SIZE: usize = 40 * 1024;
/// The stack of a thread of tokio; without optimisation all takes many times as much.
const STACK: usize = if cfg!(debug_assertions) { 32 * 1024 * 1024 } else { 2 * 1024 * 1024 };

/// Inputs by what they are; of the given size, except where depth is what matters.
type Inputs = Vec<(&'static str, Vec<u8>)>;

/// Runs a target on inputs.
fn run(target: &'static str, inputs: impl Fn(usize) -> Inputs) {
    let (_, act) = TARGETS.into_iter().find(|(name, _)| *name == target).expect("there is such a target");
    for (what, input) in inputs(SIZE) {
        let act = move || act(&input);
        let thread =
            std::thread::Builder::new().stack_size(STACK).spawn(act).expect("a thread can be started");
        thread.join().unwrap_or_else(|_| panic!("{target} fails on {what}"));
    }
}

/// `head`, then as many `unit`s as fit into `size`, then `tail`.
fn repeated(head: &str, unit: &str, tail: &str, size: usize) -> Vec<u8> {
    [head, &unit.repeat(size.saturating_sub(head.len() + tail.len()) / unit.len()), tail]
        .concat()
        .into_bytes()
}

/// Brackets that open and close.
fn nested(head: &str, open: &str, middle: &str, close: &str, tail: &str, levels: usize) -> Vec<u8> {
    [head, &open.repeat(levels), middle, &close.repeat(levels), tail].concat().into_bytes()
}

/// Items that differ, separated by commas.
fn items(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

/// Members of different names.
fn members(count: usize, value: &str) -> String {
    items(count, |n| format!("\"k{n}\":{value}"))
}

const CONFIG_MAP: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"#;
const THING: &str = r#"{"apiVersion":"fuzz.example.com/v1","kind":"Thing","metadata":{"name":"a"},"spec":{"#;
const DEFINITION: &str = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","spec":{"versions":[{"schema":{"openAPIV3Schema":"#;

#[test]
fn json() {
    run("json", |size| {
        let long = "k".repeat(size / 2);
        let many = "\"a\":1,".repeat(size / 12);
        let below =
            |value: &str| format!("{{\"properties\":{{\"{long}\":{{{}}}}}}}", members(size / 20, value));
        vec![
            ("brackets that open", vec![b'['; size]),
            ("lists in lists", nested("", "[", "", "]", "", 10_000)),
            ("lists in lists, too many", nested("", "[", "", "]", "", size / 2)),
            ("objects in objects", nested("", "{\"a\":", "1", "}", "", 10_000)),
            ("keys in keys", nested("", "{\"kkkkkkkkkkkkkk\":", "1", "}", "", size / 18)),
            ("many members below a long key", format!("{{\"{long}\":{{{many}\"b\":1}}}}").into_bytes()),
            ("unknown members below a long key", format!("{DEFINITION}{}}}}}]}}}}", below("1")).into_bytes()),
            ("many members of one name", repeated("{", "\"a\":1,", "\"a\":2}", size)),
            ("many members of one name in a map", repeated(CONFIG_MAP, "\"a\":\"\",", "\"a\":\"\"}}", size)),
            ("many members of a map", format!("{CONFIG_MAP}{}}}}}", members(size / 12, "\"\"")).into_bytes()),
            ("many unknown members", format!("{CONFIG_MAP}}},{}}}", members(size / 12, "1")).into_bytes()),
            ("unknown members of a thing", format!("{THING}{}}}}}", members(size / 12, "1")).into_bytes()),
            ("a long list", repeated(&format!("{THING}\"words\":["), "\"a\",", "\"b\"]}}", size / 2)),
            ("a long number", repeated("", "9", "", size)),
            ("a long fraction", repeated("0.", "9", "e999999999", size)),
            ("a long string of escapes", repeated("\"", "\\u0000", "\"", size)),
            ("a schema in a schema", nested(DEFINITION, "{\"not\":", "{}", "}", "}}]}}", 9_000)),
        ]
    });
}

#[test]
fn yaml() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..9 {
        let list = vec![format!("*a{}", n - 1); 9].join(", ");
        laughs.push_str(&format!("a{n}: &a{n} [{list}]\n"));
    }
    let deep: String = (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    run("yaml", |size| {
        vec![
            ("brackets that open", vec![b'['; size]),
            ("braces that open", vec![b'{'; size]),
            ("lists in lists", nested("", "[", "", "]", "", 199)),
            ("dashes", repeated("", "- ", "", size)),
            ("questions", repeated("", "? ", "", size)),
            ("colons", repeated("", "a: ", "", size)),
            ("indented blocks", deep.clone().into_bytes()),
            ("anchors", repeated("", "&a ", "", size)),
            ("tags", repeated("", "! ", "", size)),
            ("many lines", repeated("", "a\n", "", size)),
            ("many empty lines", repeated("a: |\n", "\n", " b", size)),
            ("many spaces", repeated("a:", " ", "b", size)),
            ("many comments", repeated("", "#\n", "", size)),
            ("a line of many quotes", repeated("", "''", "", size)),
            ("a long scalar", repeated("a: \"", "\\\n ", "\"", size)),
            ("many items", repeated("", "- a\n", "", size)),
            ("many keys", items(size / 12, |n| format!("k{n}: v\n")).replace(',', "").into_bytes()),
            ("many times one key", repeated("", "a: b\n", "", size / 4)),
            ("many documents", repeated("", "---\n", "", size)),
            ("a billion laughs", laughs.clone().into_bytes()),
            ("a flow of many keys", repeated("{", "a, ", "}", size / 2)),
            ("a long plain scalar", repeated("", "a b ", "", size)),
            ("a long key", repeated("", "a", ": b", size)),
        ]
    });
}

/// A message of a core kind with its envelope.
fn envelope(kind: &str, message: &[u8]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let mut out = vec![tag];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend(bytes);
        out
    };
    let names = [field(0x0a, b"v1"), field(0x12, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(0x0a, &names), field(0x12, message)].concat()
}

#[test]
fn protobuf() {
    run("protobuf", |size| {
        vec![
            ("groups that open", [b"k8s\0".to_vec(), vec![0x2b; size]].concat()),
            ("many metadata", envelope("Secret", &[0x0a, 0].repeat(size / 2))),
            ("many labels", envelope("Secret", &[0x0a, 4, 0x5a, 2, 0x0a, 0].repeat(size / 6))),
            ("many containers", envelope("Pod", &[0x12, 2, 0x12, 0].repeat(size / 80))),
            ("many unknown fields", envelope("Secret", &[0xf8, 1, 1].repeat(size / 3))),
        ]
    });
}

#[test]
fn patches() {
    run("patches", |size| {
        let operations = |object: &str, unit: &str| repeated(&format!("{object}j["), unit, "{}]", size);
        let pairs = items(size / 64, |n| format!("{{\"k\":\"{n}\",\"n\":{n}}}"));
        let words = items(size / 32, |n| format!("\"{n}\""));
        let names = items(size / 64, |n| format!("{{\"name\":\"{n}\"}}"));
        let (set, unset) = (members(size / 32, "\"\""), members(size / 32, "null"));
        let twice = |list: &str| format!("4a{THING}{list}}}}}\0f{THING}{list}}}}}").into_bytes();
        let listed = |list: &str| format!("1s{{{list}}}\0s{{{list}}}").into_bytes();
        vec![
            ("many copies", operations("0", r#"{"op":"copy","from":"/data/k","path":"/data/x"},"#)),
            ("many moves", operations("0", r#"{"op":"move","from":"/data","path":"/data"},"#)),
            ("many tests", operations("0", r#"{"op":"test","path":"/data/k","value":"v"},"#)),
            ("a deep path", repeated("0j[{\"op\":\"add\",\"value\":1,\"path\":\"", "/a", "\"}]", size)),
            ("a deep merge", nested("0m{\"data\":", "{\"a\":", "1", "}", "}", 9_000)),
            ("a deep strategic merge", nested("0s{\"data\":", "{\"a\":", "1", "}", "}", 110)),
            ("a deep apply", nested("4a", "{\"a\": ", "1", "}", "", 199)),
            ("a long list by key", twice(&format!("\"pairs\":[{pairs}]"))),
            ("a long set", twice(&format!("\"words\":[{words}]"))),
            ("a long strategic list", listed(&format!("\"imagePullSecrets\":[{names}]"))),
            (
                "a long order",
                listed(&format!(
                    "\"$setElementOrder/imagePullSecrets\":[{names}],\"imagePullSecrets\":[{names}]"
                )),
            ),
            ("many members", format!("0m{{\"data\":{{{set}}}}}\0s{{\"data\":{{{unset}}}}}").into_bytes()),
        ]
    });
}

#[test]
fn heads() {
    run("selectors", |size| {
        vec![
            ("commas", vec![b','; size]),
            ("parentheses", vec![b'('; size]),
            ("negations", vec![b'!'; size]),
            ("many requirements", repeated("", "a=b,", "a", size)),
            ("many values", repeated("a in (", "b,", "b)", size)),
            ("many different values", format!("a in ({})", items(size / 16, |n| n.to_string())).into_bytes()),
            ("many escapes", repeated("a=", "\\\\", "", size)),
            ("one long value", repeated("a=", "b", "", size)),
        ]
    });
    run("request", |size| {
        vec![
            ("slashes", repeated("GET\n", "/", "", size)),
            ("a deep path", repeated("GET\n/apis/", "a/", "", size)),
            ("escapes", repeated("GET\n/api/v1/", "%25", "", size)),
            ("many pairs", repeated("GET\n/api/v1/pods\n", "a=b&", "", size)),
            ("many dry runs", repeated("GET\n/api/v1/pods\n", "dryRun=a&", "", size)),
            ("a field manager", repeated("POST\n/api/v1/pods\nfieldManager=", "%07", "", size)),
            ("many clauses", repeated("GET\n/api/v1/pods\n\n", "a/b;q=0.1,", "", size)),
            ("many parameters", repeated("GET\n/api/v1/pods\n\n*/*", ";a=b", "", size)),
            ("parameters of a body", repeated("POST\n/api/v1/pods\n\n\napplication/json", ";a=b", "", size)),
        ]
    });
    let ours = "\"iss\":\"https://kubernetes.default.svc\"";
    run("jwt", |size| {
        vec![
            ("dots", repeated("T", ".", "", size)),
            ("a long signature", repeated("Te30.e30.", "AAAA", "", size)),
            (
                "many audiences",
                repeated(&format!("S{{\"alg\":\"ES256\"}}\n{{{ours},\"aud\":["), "\"a\",", "\"a\"]}", size),
            ),
            (
                "deep claims",
                nested(&format!("S{{\"alg\":\"ES256\"}}\n{{{ours},\"x\":"), "[", "", "]", "}", size / 2),
            ),
            ("a deep header", nested("S{\"alg\":", "[", "", "]", &format!("}}\n{{{ours}}}"), size / 2)),
        ]
    });
}

#[test]
fn definitions() {
    let schema = |spec: &str| format!("{{\"type\":\"object\",\"properties\":{{\"spec\":{spec}}}}}");
    let object =
        |schema: &str, spec: &str| format!("{schema}\0{}{spec}}}", &THING[..THING.len() - 1]).into_bytes();
    let free = schema(r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true}"#);
    let set = schema(r#"{"type":"array","items":{"type":"integer"},"x-kubernetes-list-type":"set"}"#);
    let wrong = schema(r#"{"type":"array","items":{"type":"integer","minimum":1}}"#);
    let forbidden = schema(
        r#"{"type":"object","additionalProperties":false,"x-kubernetes-preserve-unknown-fields":true}"#,
    );
    let map = schema(
        r#"{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object",
        "required":["k"],"properties":{"k":{"type":"integer"}}}}"#,
    );
    let ruled = map
        .replace(r#""required""#, r#""x-kubernetes-validations":[{"rule":"self.k >= 0"}],"required""#)
        .replace(r#""type":"array","#, r#""type":"array","maxItems":9999,"#);
    let twice = |schema: &str, spec: &str| {
        let first = String::from_utf8(object(schema, spec)).expect("text");
        let (_, again) = first.split_once('\0').expect("two documents");
        format!("{first}\0{again}").into_bytes()
    };
    let (open, text) = ("{\"type\":\"object\",\"properties\":{\"a\":", "{\"type\":\"string\"}");
    run("definitions", |size| {
        vec![
            ("a deep schema", nested("", open, text, "}}", "", 55)),
            ("a schema that is too deep", nested("", open, text, "}}", "", 9_000)),
            (
                "many properties",
                format!("{{\"type\":\"object\",\"properties\":{{{}}}}}", members(size / 64, text))
                    .into_bytes(),
            ),
            (
                "many alternatives",
                repeated("{\"type\":\"object\",\"anyOf\":[", "{\"required\":[\"a\"]},", "{}]}", size / 4),
            ),
            ("a deep object", object(&free, &format!("{}1{}", "{\"a\":".repeat(110), "}".repeat(110)))),
            ("a long set", object(&set, &format!("[{}]", items(size / 16, |n| n.to_string())))),
            ("many wrong values", object(&wrong, &format!("[{}]", items(size / 16, |_| "0".into())))),
            ("many forbidden members", object(&forbidden, &format!("{{{}}}", members(size / 16, "1")))),
            (
                "a long list of objects, changed",
                twice(&map, &format!("[{}]", items(size / 16, |n| format!("{{\"k\":{n}}}")))),
            ),
            (
                "a long list of objects with a rule, changed",
                twice(&ruled, &format!("[{}]", items(size / 32, |n| format!("{{\"k\":{n}}}")))),
            ),
        ]
    });
}

#[test]
fn small_languages() {
    run("cel", |size| {
        // Longer ones are refused.
        let size = size / 2;
        vec![
            ("parentheses", nested("", "(", "true", ")", "", size / 2)),
            ("parentheses that open", vec![b'('; size]),
            ("negations", repeated("", "!", "true", size)),
            ("a long sum", repeated("", "1+", "1 == 1", size)),
            ("texts", repeated("", "'a'+", "'a' == ''", size)),
            ("lists", nested("", "[", "1", "]", "", size / 2)),
            ("members", repeated("self", ".a", "", size)),
            ("indexes", repeated("self", "[0]", "", size)),
            ("a sum of 240", nested("", "1+", "1 == 1", "", "", 240)),
            ("240 members", nested("self", ".a", "", "", "", 240)),
            ("240 indexes", nested("[1]", "[0]", "", "", " == 1", 240)),
            ("90 parentheses", nested("", "(", "true", ")", "", 90)),
            ("90 lists", nested("", "[", "1", "]", " == []", 90)),
            ("100 conditions", nested("", "true ? true : ", "true", "", "", 100)),
            ("calls", nested("", "size(", "self", ")", "", size / 6)),
            ("conditions", repeated("", "true ? true : ", "true", size)),
            ("conditions between conjunctions", repeated("", "true ? true : true && ", "true", size)),
            ("80 conditions between conjunctions", nested("", "true ? true : true && ", "true", "", "", 80)),
            ("names that do not exist", repeated("", "a && ", "b", size / 4)),
            ("loops in loops", nested("", "self.words.all(w, ", "true", ")", "", 30)),
        ]
    });
    run("texts", |size| {
        vec![
            ("dots", vec![b'.'; size / 2]),
            ("brackets", vec![b'['; size]),
            ("filters", nested("", ".a[?(@", ".a", ")]", "", 10_000)),
            ("parentheses", nested("", "(", "a", ")", "\naaaa", 10_000)),
            ("repetitions", repeated("", "a{1,9}", "\naaaaaaaaaaaaaaaaaaa", size / 8)),
            (
                "repetitions in repetitions",
                nested("", "(", "a", "{9})", &format!("\n{}", "a".repeat(1000)), 100),
            ),
            ("digits", repeated("", "9", "Ki", size / 8)),
            ("a small exponent", b"1e-999999999".to_vec()),
            ("a great exponent", b"1e999999999".to_vec()),
            ("stars", repeated("", ".*", "", 2_000)),
            ("braces that open", vec![b'{'; size / 2]),
            ("flags", repeated("", "(?i)", "", size / 2)),
            ("classes of classes", repeated("[", "[:", "]", size / 2)),
            ("names of classes", repeated("[", "[:a:]", "]", size / 2)),
            ("literal texts", repeated("", "\\Qa\\E", "", size / 2)),
        ]
    });
}
