//! Expressions, what they give, and what is wrong with them.

use super::*;
use crate::crd;
use proptest::prelude::*;
use serde_json::json;

/// What one rule says about a value, and about its change.
fn errors(schema: Value, rule: Value, new: Value, old: Option<Value>) -> Vec<String> {
    let mut schema = schema;
    schema["x-kubernetes-validations"] = json!([rule]);
    let whole = Arc::new(crd::schema(&json!({"type": "object", "properties": {"a": schema}})));
    let rules = Rules::new(&whole, false).expect("rules");
    let wrap = |value: Value| json!({ "a": value });
    let errors = rules.validate(&wrap(new), old.map(wrap).as_ref());
    errors.iter().map(ToString::to_string).collect()
}

fn holds(expression: &str, schema: Value, value: Value) -> Vec<String> {
    errors(schema, json!({"rule": expression, "message": "m"}), value, None)
}

#[test]
fn evaluates_the_language() {
    let text = json!({"type": "string"});
    for expression in [
        "1 + 2 * 3 == 7 && 7 / 2 == 3 && -7 % 3 == -1",
        "[1, 2, 3].exists(x, x > 2) && ![1, 2].all(x, x > 1)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6] && [1, 2, 3].filter(x, x > 1).size() == 2",
        "[1, 2, 3].exists_one(x, x == 2)",
        "{'a': 1}['a'] == 1 && 'a' in {'a': 1} && !('b' in {'a': 1})",
        "'abc'.startsWith('a') && 'abc'.matches('^[a-c]+$') && size('日本') == 2",
        "timestamp('2020-01-01T00:00:00Z') + duration('24h') == timestamp('2020-01-02T00:00:00Z')",
        "timestamp('2020-01-01T00:00:00Z').getDayOfWeek() == 3",
        "timestamp('2020-01-01T23:30:00Z').getHours('+01:00') == 0",
        "quantity('1.5Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('0.5')) == quantity('1')",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && ['a', 'b'].join('-') == 'a-b'",
        "'Hello'.lowerAscii() == 'hello' && 'hello'.substring(1, 3) == 'el' && 'abcb'.lastIndexOf('b') == 3",
        "[3, 1, 2].max() == 3 && [1, 2].isSorted() && [1, 2, 3].sum() == 6",
        "'abc 123'.find('[0-9]+') == '123' && '1a2'.findAll('[0-9]') == ['1', '2']",
        "url('https://a.b:80/c?d=e').getHostname() == 'a.b' && isURL('/path') && !isURL('no')",
        "ip('127.0.0.1').isLoopback() && cidr('10.0.0.0/8').containsIP('10.1.2.3') && isCIDR('::/0')",
        "!format.dns1123Label().validate('ok').hasValue() && format.dns1123Label().validate('No').hasValue()",
        "optional.of(1).orValue(2) == 1 && !optional.none().hasValue()",
        "{'a': {'b': 1}}.?a.?b.orValue(0) == 1 && {'a': 1}[?'x'].orValue(5) == 5",
        "cel.bind(x, 2, x * x) == 4",
        "sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 2], [2, 1, 1])",
        "type(1) == int && string(1.5) == '1.5' && int('7') == 7",
        "true || 1 / 0 > 0",
        "self == 'value' && (self.size() > 3 ? true : false)",
    ] {
        assert_eq!(holds(expression, text.clone(), json!("value")), Vec::<String>::new(), "{expression}");
    }
}

#[test]
fn errors_are_those_of_kube_apiserver() {
    let int = json!({"type": "integer"});
    for (rule, value, expected) in [
        (json!({"rule": "self > 1"}), 1, "a: Invalid value: 1: failed rule: self > 1"),
        (
            json!({"rule": "10 / self > 0", "message": "m"}),
            0,
            "a: Invalid value: \"integer\": division by zero evaluating rule: m",
        ),
        (
            json!({"rule": "self > 1", "messageExpression": "'got ' + string(self)"}),
            1,
            "a: Invalid value: 1: got 1",
        ),
        (
            json!({"rule": "self > 1", "message": " m ", "reason": "FieldValueForbidden"}),
            1,
            "a: Forbidden: m",
        ),
        (
            json!({"rule": "[self][5] == 1", "message": "m"}),
            1,
            "a: Invalid value: \"integer\": index out of bounds: 5 evaluating rule: m",
        ),
    ] {
        assert_eq!(errors(int.clone(), rule, json!(value), None), [expected]);
    }
    let loops = "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, \
                 [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, self >= 0))))))";
    let stopped = errors(int, json!({"rule": loops, "message": "m"}), json!(1), None);
    assert_eq!(
        stopped,
        [
            "a: Invalid value: \"integer\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: m"
        ]
    );
}

#[test]
fn transitions_need_an_old_value_and_unchanged_mistakes_are_tolerated() {
    let int = json!({"type": "integer"});
    let immutable = json!({"rule": "self == oldSelf", "message": "m"});
    assert!(errors(int.clone(), immutable.clone(), json!(1), None).is_empty());
    assert_eq!(errors(int.clone(), immutable, json!(1), Some(json!(2))), ["a: Invalid value: 1: m"]);
    let growing = json!({"rule": "!oldSelf.hasValue() || self >= oldSelf.value()", "optionalOldSelf": true, "message": "m"});
    assert!(errors(int.clone(), growing.clone(), json!(1), None).is_empty());
    assert_eq!(errors(int.clone(), growing, json!(1), Some(json!(2))), ["a: Invalid value: 1: m"]);
    let positive = json!({"rule": "self > 0", "message": "m"});
    assert!(errors(int.clone(), positive.clone(), json!(-1), Some(json!(-1))).is_empty());
    assert_eq!(errors(int, positive, json!(-1), Some(json!(-2))), ["a: Invalid value: -1: m"]);
}

#[test]
fn names_and_lists_follow_the_schema() {
    let object = json!({"type": "object", "properties": {"a-b": {"type": "string"}, "in": {"type": "integer"},
        "when": {"type": "string", "format": "date-time"}, "any": {"x-kubernetes-int-or-string": true},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}});
    let value = json!({"a-b": "x", "in": 1, "when": "2020-01-01T00:00:00Z", "any": "80%", "set": ["b", "a"]});
    for expression in [
        "self.a__dash__b == 'x' && self.__in__ == 1",
        "self.when > timestamp('2019-01-01T00:00:00Z')",
        "type(self.any) == string || self.any > 0",
        "has(self.set) && !has(self.missing)",
    ] {
        let expected: &[&str] = if expression.contains("missing") {
            &[
                "a: Invalid value: \"object\": rule compile error: compilation failed: ERROR: <input>:1:22: undefined field 'missing'\n | has(self.set) && !has(self.missing)\n | .....................^",
            ]
        } else {
            &[]
        };
        assert_eq!(holds(expression, object.clone(), value.clone()), expected, "{expression}");
    }
}

#[test]
fn mistakes_are_found_before_rules_run() {
    for (expression, expected) in [
        ("self + 1", "cel expression must evaluate to a bool"),
        (
            "self.nope > 0",
            "compilation failed: ERROR: <input>:1:5: type 'int' does not support field selection\n | self.nope > 0\n | ....^",
        ),
        (
            "nope > 0",
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope > 0\n | ^",
        ),
        (
            "self == 'a'",
            "compilation failed: ERROR: <input>:1:6: found no matching overload for '_==_' applied to '(int, string)'\n | self == 'a'\n | .....^",
        ),
        (
            "self.startsWith('a')",
            "compilation failed: ERROR: <input>:1:16: found no matching overload for 'startsWith' applied to 'int.(string)'\n | self.startsWith('a')\n | ...............^",
        ),
        (
            "nothing(self)",
            "compilation failed: ERROR: <input>:1:8: undeclared reference to 'nothing' (in container '')\n | nothing(self)\n | .......^",
        ),
    ] {
        let schema =
            crd::schema(&json!({"type": "integer", "x-kubernetes-validations": [{"rule": expression}]}));
        let report = RuleChecker::default().check(&schema, false).remove(0);
        assert_eq!(report.error.as_deref(), Some(expected));
    }
}

proptest! {
    #[test]
    fn no_expression_panics(source in "[a-z0-9 .,()\\[\\]{}'\"+*/<>=!&|?:-]{0,40}") {
        let schema = crd::schema(&json!({"type": "integer", "x-kubernetes-validations": [{"rule": source}]}));
        let rules = Rules::new(&Arc::new(schema), false);
        if let Some(rules) = rules {
            rules.validate(&json!(1), None);
        }
    }
}

/// The errors of a rule on an object of one schema.
fn broken(schema: Value, object: &Value) -> Vec<String> {
    let schema = Arc::new(crd::schema(&schema));
    let rules = Rules::new(&schema, false).expect("a rule");
    rules.validate(object, None).iter().map(ToString::to_string).collect()
}

/// A schema with one rule on a list.
fn list_rule(list_type: Value, items: Value, rule: &str) -> Value {
    json!({"type": "object", "x-kubernetes-validations": [{"rule": rule, "message": "no"}], "properties": {
        "a": {"type": "array", "x-kubernetes-list-type": list_type, "x-kubernetes-list-map-keys": ["k"], "items": items},
        "b": {"type": "array", "x-kubernetes-list-type": list_type, "x-kubernetes-list-map-keys": ["k"], "items": items}}})
}

#[test]
fn sets_and_maps_are_compared_and_joined_whatever_their_order() {
    let entry = json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}});
    let number = json!({"type": "number"});
    for (list_type, items, rule, object, holds) in [
        ("set", &number, "self.a == self.b", json!({"a": [1, 2.5], "b": [2.5, 1.0]}), true),
        ("set", &number, "self.a == self.b", json!({"a": [1, 2], "b": [2, 3]}), false),
        ("set", &number, "self.a == self.b", json!({"a": [0.0], "b": [-0.0]}), true),
        ("set", &number, "(self.a + self.b).size() == 3", json!({"a": [1, 2], "b": [2, 3]}), true),
        ("set", &number, "self.a + self.b == [1.0, 2.0, 3.0]", json!({"a": [1, 2], "b": [2, 3]}), true),
        (
            "map",
            &entry,
            "self.a == self.b",
            json!({"a": [{"k": "x", "v": 1}, {"k": "y"}], "b": [{"k": "y"}, {"k": "x", "v": 1}]}),
            true,
        ),
        (
            "map",
            &entry,
            "self.a == self.b",
            json!({"a": [{"k": "x", "v": 1}], "b": [{"k": "x", "v": 2}]}),
            false,
        ),
        (
            "map",
            &entry,
            "(self.a + self.b).map(e, e.v) == [2, 3]",
            json!({"a": [{"k": "x", "v": 1}, {"k": "y", "v": 3}], "b": [{"k": "x", "v": 2}]}),
            true,
        ),
        ("map", &entry, "(self.a + self.b).size() == 2", json!({"a": [{"k": "x"}], "b": [{"v": 1}]}), true),
        ("atomic", &number, "self.a == self.b", json!({"a": [1, 2], "b": [2, 1]}), false),
    ] {
        let errors = broken(list_rule(list_type.into(), items.clone(), rule), &object);
        assert_eq!(errors.is_empty(), holds, "{rule} on {object}: {errors:?}");
    }
}

#[test]
fn lists_are_compared_in_linear_work() {
    let steps = |count: usize| {
        let list = |reverse: bool| {
            let mut items: Vec<Val> = (0..count).map(|i| Val::string(&format!("{i}"))).collect();
            if reverse {
                items.reverse();
            }
            Val::List(std::rc::Rc::new(value::List { items, kind: crate::ListType::Set }))
        };
        let mut effort = crate::Effort::new(u64::MAX);
        assert_eq!(list(false).equals(&list(true), &mut effort), Some(true));
        u64::MAX - effort.left()
    };
    let (few, many) = (steps(1_000), steps(4_000));
    assert!(many <= few * 5, "{few} {many}");
}

#[test]
fn work_that_kubernetes_does_not_count_ends_at_the_same_limit() {
    // Without optimisation the parser takes many times the stack that it takes in a server.
    let thread = std::thread::Builder::new().stack_size(32 << 20).spawn(uncounted_work).expect("started");
    thread.join().expect("no panic");
}

fn uncounted_work() {
    let long = "a".repeat(100_000);
    let items: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
    let doubled = |depth: usize, end: &str| {
        let open: String = (0..depth).map(|i| format!("cel.bind(v{}, [v{i}, v{i}], ", i + 1)).collect();
        format!("cel.bind(v0, ['x'], {open}{end}{})", ")".repeat(depth))
    };
    let string = json!({"type": "string"});
    for (what, rule, object) in [
        (
            "a value that is its own part twenty-six times",
            doubled(26, "v26 == v26"),
            json!({"a": [], "b": []}),
        ),
        (
            "a text in a text",
            "self.a[0].replace('a', self.a[0]).size() > 0".into(),
            json!({"a": [long], "b": []}),
        ),
        ("a text between many", "self.a.join(self.b[0]).size() > 0".into(), json!({"a": items, "b": [long]})),
        (
            "many patterns",
            "self.a.all(x, 'aaaaaaaaaaaaaaaa'.matches('^(' + x + '|b){1,900}c{1,900}$') || true)".into(),
            json!({"a": items, "b": []}),
        ),
        ("pairs", "self.a.all(x, !(x in self.b))".into(), json!({"a": items, "b": vec![long.clone(); 200]})),
    ] {
        let errors = broken(list_rule("atomic".into(), string.clone(), &rule), &object);
        let [error] = errors.as_slice() else { panic!("{what}: {errors:?}") };
        assert!(error.contains("operation cancelled: actual cost limit exceeded"), "{what}: {error}");
    }
    // A loop that ends at its first element does not go over the others.
    let quick = list_rule("atomic".into(), string, "self.a.all(x, self.a.exists(y, true))");
    assert_eq!(broken(quick, &json!({"a": items, "b": []})), Vec::<String>::new());
}
