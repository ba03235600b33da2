//! What expressions cost: counted while they run, and estimated for the worst values that a schema allows before they
//! do (`k8s.io/apiserver/pkg/apis/cel/config.go`, `k8s.io/apiserver/pkg/cel/library/cost.go`).

use super::types::{DeclType, Ty};
use super::value::Val;
use cel::common::ast::operators;

/// The most that all rules of one object may cost.
pub(super) const BUDGET: u64 = 10_000_000;
/// The most that one evaluation may cost.
pub(super) const CALL_LIMIT: u64 = 1_000_000;
/// How many steps of work (a value that is compared, an instruction of a pattern for a character) are as much as a cost of one.
pub(super) const STEPS_PER_COST: u64 = 10;
/// What an error says when a rule costs more than [`CALL_LIMIT`].
pub(super) const TOO_EXPENSIVE: &str = "operation cancelled: actual cost limit exceeded";

/// What a call costs beyond the evaluation of its arguments.
pub(super) fn actual(name: &str, args: &[Val]) -> u64 {
    let size = |index: usize| args.get(index).map_or(1, Val::size);
    // Going through a text costs a tenth of its length (`StringTraversalCostFactor` in cel-go), matching a pattern a
    // quarter of the pattern for each of these.
    let tenth = |size: u64| size.div_ceil(10);
    match name {
        "matches" | "find" | "findAll" => 1 + tenth(size(0)) * size(1).div_ceil(4),
        "contains" | "replace" | "split" | "indexOf" | "lastIndexOf" => {
            1 + tenth(size(0)) * tenth(size(1)).max(1)
        }
        operators::EQUALS | operators::NOT_EQUALS => tenth(size(0).min(size(1))).max(1),
        operators::IN => size(1).max(1),
        operators::ADD => 1 + tenth(size(0) + size(1)),
        "isSorted" | "sum" | "min" | "max" | "sets.contains" | "sets.intersects" | "sets.equivalent" => {
            1 + size(0) * size(1).max(1)
        }
        _ => 1 + tenth(args.iter().map(Val::size).sum::<u64>()),
    }
}

/// What a call may cost at worst, beyond its arguments.
pub(super) fn estimate(name: &str, args: &[DeclType]) -> u64 {
    let most = |index: usize| args.get(index).map_or(1, |decl| decl.max_elements);
    let tenth = |size: u64| size.div_ceil(10).max(1);
    match name {
        "matches" | "find" | "findAll" => {
            tenth(most(0).saturating_add(1)).saturating_mul(most(1).div_ceil(4).max(1))
        }
        "contains" => tenth(most(0)).saturating_mul(tenth(most(1))),
        "startsWith" | "endsWith" => tenth(most(1)),
        operators::EQUALS | operators::NOT_EQUALS => tenth(most(0).min(most(1))),
        operators::IN => match args.get(1).map(|of| &of.ty) {
            Some(Ty::List(element)) => most(1).saturating_mul(tenth(most(0).min(element.max_elements))),
            _ => 1,
        },
        operators::ADD => match args.first().map(|a| &a.ty) {
            Some(Ty::String | Ty::Bytes) => tenth(most(0).saturating_add(most(1))),
            _ => 1,
        },
        "isSorted" | "sum" | "min" | "max" => most(0).max(1),
        "indexOf" | "lastIndexOf" | "replace" | "split" => tenth(most(0)).saturating_mul(tenth(most(1))),
        "sets.contains" | "sets.equivalent" | "sets.intersects" => most(0).saturating_mul(most(1)).max(1),
        "lowerAscii" | "upperAscii" | "trim" | "substring" | "join" | "url" | "isURL" | "quantity"
        | "isQuantity" | "ip" | "isIP" | "cidr" | "isCIDR" | "validate" | "string" | "bytes" => {
            tenth(most(0))
        }
        _ => 1,
    }
}
