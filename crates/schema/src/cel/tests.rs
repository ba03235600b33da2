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
        let report = check_rules(&schema, false).remove(0);
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
