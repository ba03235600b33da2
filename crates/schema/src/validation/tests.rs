//! Values, schemas and what a real kube-apiserver said about them.

use super::*;
use crate::crd;
use serde_json::json;

fn messages(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// A schema, a value, and what is said about it.
type Case = (Value, Value, Vec<&'static str>);

/// Validates each value as the member `a` of an object.
fn check(cases: Vec<Case>) {
    for (schema, value, expected) in cases {
        let whole = crd::schema(&json!({"type": "object", "properties": {"a": schema}}));
        let errors = validate(&Path::default(), &whole, &json!({"a": value}));
        assert_eq!(messages(&errors), expected, "{value} against {schema}");
    }
}

#[test]
fn errors_of_strings_and_other_scalars_are_those_of_kube_apiserver() {
    check(vec![
        (
            json!({"type": "string", "minLength": 2}),
            json!("a"),
            vec!["a: Invalid value: \"a\": a in body should be at least 2 chars long"],
        ),
        (json!({"type": "string", "maxLength": 5}), json!("日本語名前"), vec![]),
        (
            json!({"type": "string", "maxLength": 5}),
            json!("abcdef"),
            vec!["a: Too long: may not be more than 5 bytes"],
        ),
        (
            json!({"type": "string", "enum": ["red", "green"]}),
            json!("blue"),
            vec!["a: Unsupported value: \"blue\": supported values: \"red\", \"green\""],
        ),
        (
            json!({"type": "string", "enum": ["True"]}),
            json!(true),
            vec![
                "a: Invalid value: \"boolean\": a in body must be of type string: \"boolean\"",
                "a: Unsupported value: true: supported values: \"True\"",
            ],
        ),
        (
            json!({"type": "string", "pattern": "^[A-Z]{3}$"}),
            json!("abc"),
            vec!["a: Invalid value: \"abc\": a in body should match '^[A-Z]{3}$'"],
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(1.5),
            vec!["a: Invalid value: \"number\": a in body must be of type integer,string: \"number\""],
        ),
        (json!({"x-kubernetes-int-or-string": true}), json!("http"), vec![]),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("nope"),
            vec!["a: Invalid value: \"nope\": a in body must be of type date-time: \"nope\""],
        ),
        (json!({"type": "string", "nullable": true}), json!(null), vec![]),
    ]);
}

#[test]
fn errors_of_numbers_are_those_of_kube_apiserver() {
    check(vec![
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            vec!["a: Invalid value: 0: a in body should be greater than or equal to 1"],
        ),
        (
            json!({"type": "integer", "maximum": 10}),
            json!(11),
            vec!["a: Invalid value: 11: a in body should be less than or equal to 10"],
        ),
        (
            json!({"type": "number", "minimum": 0, "exclusiveMinimum": true}),
            json!(0),
            vec!["a: Invalid value: 0: a in body should be greater than 0"],
        ),
        (
            json!({"type": "number", "maximum": 0.5}),
            json!(0.75),
            vec!["a: Invalid value: 0.75: a in body should be less than or equal to 0.5"],
        ),
        (json!({"type": "number", "multipleOf": 0.1}), json!(0.3), vec![]),
        (
            json!({"type": "number"}),
            json!("0.5"),
            vec!["a: Invalid value: \"string\": a in body must be of type number: \"string\""],
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            vec!["a: Invalid value: 7: a in body should be a multiple of 5"],
        ),
        (json!({"type": "integer", "format": "int32"}), json!(3600.0), vec![]),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(1.5),
            vec![
                "a: Invalid value: \"float64\": a in body must be of type int32: \"float64\"",
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in a",
            ],
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(2147483648_i64),
            vec!["<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in a"],
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(9223372036854775808_u64),
            vec![
                "a: Invalid value: \"float64\": a in body must be of type int32: \"float64\"",
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in a",
            ],
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(true),
            vec!["a: Invalid value: \"\": a in body must be of type int32: \"\""],
        ),
    ]);
}

#[test]
fn errors_of_lists_and_objects_are_those_of_kube_apiserver() {
    check(vec![
        (
            json!({"type": "array", "minItems": 1, "items": {"type": "string"}}),
            json!([]),
            vec!["a: Invalid value: 0: a in body should have at least 1 items"],
        ),
        (
            json!({"type": "array", "maxItems": 2, "items": {"type": "string"}}),
            json!(["a", "b", "c"]),
            vec!["a: Too many: 3: must have at most 2 items"],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", 1]),
            vec!["a[1]: Invalid value: \"integer\": a[1] in body must be of type string: \"integer\""],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!([null]),
            vec!["a[0]: Invalid value: \"null\": a[0] in body must be of type string: \"null\""],
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"a": "one"}),
            vec!["a.a: Invalid value: \"string\": a.a in body must be of type integer: \"string\""],
        ),
        (
            json!({"type": "object", "additionalProperties": false}),
            json!({"b": 1}),
            vec!["a: Invalid value: \"b\": a.b in body is a forbidden property"],
        ),
        (
            json!({"type": "object", "minProperties": 1}),
            json!({}),
            vec!["a: Invalid value: 0: a in body should have at least 1 properties"],
        ),
        (
            json!({"type": "object", "maxProperties": 2}),
            json!({"a": 1, "b": 2, "c": 3}),
            vec!["a: Too many: 3: must have at most 2 items"],
        ),
        (json!({"type": "object", "required": ["k"]}), json!({}), vec!["a.k: Required value"]),
    ]);
}

#[test]
fn errors_of_junctors_are_those_of_kube_apiserver() {
    check(vec![
        (
            json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({}),
            vec![
                "<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found none valid",
                "a.a: Required value",
            ],
        ),
        (
            json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1, "b": 2}),
            vec![
                "<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        ),
        (
            json!({"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({}),
            vec![
                "<nil>: Invalid value: \"\": \"a\" must validate at least one schema (anyOf)",
                "a.a: Required value",
            ],
        ),
        (
            json!({"type": "integer", "allOf": [{"minimum": 3}, {"maximum": 5}]}),
            json!(2),
            vec![
                "a: Invalid value: 2: a in body should be greater than or equal to 3",
                "<nil>: Invalid value: \"\": \"a\" must validate all the schemas (allOf)",
            ],
        ),
        (
            json!({"type": "string", "not": {"enum": ["forbidden"]}}),
            json!("forbidden"),
            vec!["<nil>: Invalid value: \"\": \"a\" must not validate the schema (not)"],
        ),
    ]);
}

#[test]
fn names_fields_below_the_prefix_in_messages() {
    let status =
        crd::schema(&json!({"type": "object", "properties": {"conditions": {"type": "array", "items": {
        "type": "object", "properties": {"reason": {"type": "string", "minLength": 1}}}}}}));
    let errors = validate(&Path::new("status"), &status, &json!({"conditions": [{"reason": ""}]}));
    assert_eq!(
        messages(&errors),
        [
            "status.conditions[0].reason: Invalid value: \"\": conditions[0].reason in body should be at least 1 chars long"
        ]
    );
}

#[test]
fn tolerates_old_mistakes_that_did_not_change() {
    let schema = crd::schema(
        &json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["r"], "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "integer"},
            "l": {"type": "array", "items": {"type": "integer", "maximum": 1}},
            "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}},
        }}}}),
    );
    let old = json!({"spec": {"a": "long", "b": 1, "l": [5], "m": [{"k": "x", "v": 9}]}});
    for (new, expected) in [
        (old.clone(), vec![]),
        (json!({"spec": {"a": "long", "b": 2, "r": 1}}), vec![]),
        (json!({"spec": {"a": "other", "r": 1}}), vec!["spec.a: Too long: may not be more than 1 bytes"]),
        (json!({"spec": {"a": "long"}}), vec!["spec.r: Required value"]),
        (
            json!({"spec": {"r": 1, "l": [5, 6]}}),
            vec![
                "spec.l[0]: Invalid value: 5: spec.l[0] in body should be less than or equal to 1",
                "spec.l[1]: Invalid value: 6: spec.l[1] in body should be less than or equal to 1",
            ],
        ),
        (
            json!({"spec": {"r": 1, "m": [{"k": "y", "v": 7}, {"k": "x", "v": 9}]}}),
            vec!["spec.m[0].v: Invalid value: 7: spec.m[0].v in body should be less than or equal to 1"],
        ),
    ] {
        let errors = validate_update(&Path::default(), &schema, &new, &old);
        assert_eq!(messages(&errors), expected, "{new}");
    }
}

#[test]
fn the_work_of_a_validation_is_bounded_and_what_is_beyond_is_refused() {
    let words: Vec<String> = (0..1_000).map(|i| format!("w{i}")).collect();
    let texts = |count: usize| Value::from(vec!["w999"; count]);
    let beyond = format!("Invalid value: \"\": validation takes more than {STEPS} steps");
    for (what, schema, value) in [
        (
            "an enum for each element",
            json!({"type": "array", "items": {"type": "string", "enum": words}}),
            texts(1_000),
        ),
        (
            "a large pattern",
            json!({"type": "string", "pattern": "^(?:a{0,900}b?){1,1}c$"}),
            json!("a".repeat(100_000)),
        ),
        (
            // The alternative that could not be looked at to its end must not count as one that holds.
            "an alternative",
            json!({"type": "array", "items": {"type": "string"}, "anyOf": [{"maxItems": 0}, {"items": {"enum": words}}]}),
            texts(1_000),
        ),
    ] {
        let schema = crd::schema(&schema);
        let errors = validate_within(&Path::default(), &schema, &value, &mut Effort::new(100_000));
        assert!(messages(&errors).last().is_some_and(|last| last.contains(&beyond)), "{what}: {errors:?}");
    }
    let few = crd::schema(&json!({"type": "array", "items": {"type": "string", "enum": words}}));
    let mut effort = Effort::new(100_000);
    assert!(validate_within(&Path::default(), &few, &texts(50), &mut effort).is_empty());
    // The same for one value as for another that comes with the request.
    assert!(!validate_within(&Path::default(), &few, &texts(60), &mut effort).is_empty());
}

#[test]
fn long_keys_above_many_elements_cost_no_more_than_their_sum() {
    let schema = crd::schema(&json!({"type": "object", "additionalProperties":
        {"type": "array", "items": {"type": "string", "maxLength": 1}}}));
    let value = |text: &str| json!({"k".repeat(100_000): vec![text; 20_000]});
    // Two gigabytes of paths, if they were written.
    assert!(validate(&Path::default(), &schema, &value("a")).is_empty());
    let errors = validate(&Path::default(), &schema, &value("ab"));
    assert!(errors.len() < 100, "{}", errors.len());
    assert!(errors.first().is_some_and(|first| first.detail.contains("validation takes more than")));
}
