//! Where a value lies in an object, as a chain of steps on the stack. A path is only written where an error needs it: made for
//! each element, a long key above many elements would cost the product of both.

use fleetpass_apimachinery::field::Path;
use std::fmt;

/// A place in an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location<'a> {
    above: Option<&'a Location<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    /// A member that the schema names.
    Field(&'a str),
    /// A member of a map.
    Key(&'a str),
    Index(usize),
}

impl<'a> Location<'a> {
    /// The object itself.
    pub(crate) const ROOT: Location<'static> = Location { above: None, step: Step::Root };

    pub(crate) fn field<'b>(&'b self, name: &'b str) -> Location<'b> {
        Location { above: Some(self), step: Step::Field(name) }
    }

    pub(crate) fn key<'b>(&'b self, name: &'b str) -> Location<'b> {
        Location { above: Some(self), step: Step::Key(name) }
    }

    pub(crate) fn index(&self, index: usize) -> Location<'_> {
        Location { above: Some(self), step: Step::Index(index) }
    }

    pub(crate) fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }

    /// The place as the path of a field error, in which keys of maps stand in brackets.
    pub(crate) fn path(&self) -> Path {
        let above = || self.above.map(Location::path).unwrap_or_default();
        match self.step {
            Step::Root => Path::default(),
            Step::Field(name) => above().child(name),
            Step::Key(name) => above().key(name),
            Step::Index(index) => above().index(index),
        }
    }
}

/// As `kube-openapi` writes it: names with dots between them, also those of maps. Of a map at the root the dot comes first.
impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if self.above.is_none_or(Location::is_root) => f.write_str(name),
            Step::Field(name) | Step::Key(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_in_both_ways() {
        let (root, top) = (Location::ROOT, Location::ROOT.key("m"));
        assert_eq!((root.to_string(), root.path()), (String::new(), Path::default()));
        assert_eq!((top.to_string(), top.path().to_string()), (".m".into(), "[m]".into()));
        let spec = root.field("spec");
        let (map, list) = (spec.key("a.b"), spec.field("list"));
        let element = list.index(7);
        let inner = element.field("x");
        assert_eq!((map.to_string(), map.path().to_string()), ("spec.a.b".into(), "spec[a.b]".into()));
        assert_eq!(
            (inner.to_string(), inner.path().to_string()),
            ("spec.list[7].x".into(), "spec.list[7].x".into())
        );
    }
}
