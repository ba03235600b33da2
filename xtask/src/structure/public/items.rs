//! The `pub` items of a source, with the names that each needs to be public too.

use super::lexer::{Kind, Token};

/// An item that is declared `pub`, without a restriction as in `pub(crate)`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub(super) name: &'a str,
    pub(super) line: usize,
    /// The type of whose `impl` block it is.
    pub(super) owner: Option<&'a str>,
    /// The names in what a user of the item sees: the types of arguments and of public fields, bounds, variants.
    pub(super) shows: Vec<&'a str>,
}

/// What a source declares.
#[derive(Debug, Default)]
pub(super) struct Declarations<'a> {
    pub(super) items: Vec<Item<'a>>,
    /// Names that have to be public for reasons that are no `pub` item: associated types and bounds of `impl` blocks,
    /// and what exported macros expand to.
    pub(super) needed: Vec<&'a str>,
}

/// Reads the declarations of a source.
pub(super) fn read<'a>(tokens: &[Token<'a>]) -> Declarations<'a> {
    let code: Vec<Token<'a>> = tokens.iter().copied().filter(|token| token.kind != Kind::Doc).collect();
    let mut reader = Reader { code: &code, blocks: Vec::new(), found: Declarations::default() };
    let mut at = 0;
    while at < code.len() {
        at = reader.step(at);
    }
    reader.found
}

/// What a pair of braces is.
#[derive(Clone, Copy)]
enum Block<'a> {
    /// An `impl` block of a type, for a trait or not.
    Impl {
        owner: Option<&'a str>,
        of_trait: bool,
    },
    Other,
}

struct Reader<'c, 'a> {
    code: &'c [Token<'a>],
    /// The braces that are open.
    blocks: Vec<Block<'a>>,
    found: Declarations<'a>,
}

impl<'a> Reader<'_, 'a> {
    fn is(&self, at: usize, text: &str) -> bool {
        self.code.get(at).is_some_and(|token| token.is(text))
    }

    /// Reads what is at a place; the place to go on.
    fn step(&mut self, at: usize) -> usize {
        if self.is(at, "{") {
            self.blocks.push(Block::Other);
        } else if self.is(at, "}") {
            self.blocks.pop();
        } else if self.is(at, "impl") && self.begins_item(at) {
            return self.impl_header(at);
        } else if self.is(at, "macro_rules") && at >= 2 && self.is(at - 2, "macro_export") {
            let body = self.end_of_part(at, &["{", "(", "["]);
            let end = self.end_of_block(body);
            self.found.needed.extend(names(&self.code[body..end]));
            return end;
        } else if self.is(at, "pub") {
            self.public(at);
        } else if self.is(at, "type")
            && matches!(self.blocks.last(), Some(Block::Impl { of_trait: true, .. }))
        {
            let end = self.end_of_part(at, &[";"]);
            self.found.needed.extend(names(&self.code[at..end]));
        }
        at + 1
    }

    /// Whether an `impl` begins a block, and is not a type as in `-> impl Trait`.
    fn begins_item(&self, at: usize) -> bool {
        at == 0 || [";", "{", "}", "]", "unsafe"].iter().any(|before| self.is(at - 1, before))
    }

    /// Reads `impl<…> Trait for Type where … {`; the place after the brace.
    fn impl_header(&mut self, at: usize) -> usize {
        let end = self.end_of_part(at, &["{"]);
        let header = &self.code[at + 1..end];
        let parameters =
            if header.first().is_some_and(|token| token.is("<")) { end_of_angles(header) } else { 0 };
        self.found.needed.extend(names(&header[..parameters]));
        let header = &header[parameters..];
        let mut depth = 0;
        let (mut owner, mut of_trait) = (None, false);
        for (index, token) in header.iter().enumerate() {
            depth += angle(header, index);
            if depth > 0 {
                continue;
            }
            if token.is("where") {
                self.found.needed.extend(names(&header[index..]));
                break;
            }
            // `for<'a>` is part of a type.
            if token.is("for") && !header.get(index + 1).is_some_and(|next| next.is("<")) {
                of_trait = true;
            } else if token.kind == Kind::Word {
                owner = Some(token.text);
            }
        }
        self.blocks.push(Block::Impl { owner, of_trait });
        end + 1
    }

    /// Reads the item that is declared by the `pub` at a place, if it is one: fields are none.
    fn public(&mut self, at: usize) {
        let mut at = at + 1;
        while ["async", "unsafe", "extern", "default"].iter().any(|word| self.is(at, word))
            || self.code.get(at).is_some_and(|token| token.kind == Kind::Text)
            || (self.is(at, "const")
                && ["fn", "unsafe", "async", "extern"].iter().any(|word| self.is(at + 1, word)))
        {
            at += 1;
        }
        let Some(keyword) = self.code.get(at).filter(|token| token.kind == Kind::Word) else { return };
        let name_at = if self.is(at + 1, "mut") { at + 2 } else { at + 1 };
        let shown = match keyword.text {
            "fn" => name_at + 1..self.end_of_part(name_at, &["{", ";"]),
            "struct" | "union" => return self.structure(name_at),
            "enum" | "trait" => name_at + 1..self.end_of_block(self.end_of_part(name_at, &["{", ";"])),
            "type" => name_at + 1..self.end_of_part(name_at, &[";"]),
            "const" | "static" => name_at + 1..self.end_of_part(name_at, &["=", ";"]),
            "mod" => name_at + 1..name_at + 1,
            "use" => return self.reexports(at + 1),
            _ => return,
        };
        let shows = names(self.code.get(shown).unwrap_or_default());
        self.push(name_at, shows);
    }

    fn push(&mut self, name_at: usize, shows: Vec<&'a str>) {
        // In a macro, the name may be `$name`.
        let Some(name) = self.code.get(name_at).filter(|token| token.kind == Kind::Word) else { return };
        let owner = match self.blocks.last() {
            Some(Block::Impl { owner, .. }) => *owner,
            _ => None,
        };
        let item = Item { name: name.text.trim_start_matches("r#"), line: name.line, owner, shows };
        self.found.items.push(item);
    }

    /// A struct shows its parameters and the types of its public fields.
    fn structure(&mut self, name_at: usize) {
        let body = self.end_of_part(name_at, &["{", "(", ";"]);
        let mut shows = names(self.code.get(name_at + 1..body).unwrap_or_default());
        if self.is(body, ";") {
            return self.push(name_at, shows);
        }
        let end = self.end_of_block(body);
        let fields = self.code.get(body + 1..end.saturating_sub(1)).unwrap_or_default();
        let mut rest = fields;
        while !rest.is_empty() {
            let field_end = end_of_part(rest, &[","]);
            let field = &rest[..field_end];
            let public =
                field.iter().position(|token| token.is("pub")).filter(|at| !is_restricted(&field[at + 1..]));
            shows.extend(public.map(|at| names(&field[at + 1..])).unwrap_or_default());
            rest = rest.get(field_end + 1..).unwrap_or_default();
        }
        self.push(name_at, shows);
    }

    /// Each name that `pub use` brings here is an item, which shows what it is the name of.
    fn reexports(&mut self, at: usize) {
        let end = self.end_of_part(at, &[";"]);
        for name_at in at..end {
            let next_ends = name_at + 1 == end || self.is(name_at + 1, ",") || self.is(name_at + 1, "}");
            if self.code[name_at].kind != Kind::Word || !next_ends {
                continue;
            }
            // `Original as Alias` and `module::{self}` are about the name before.
            let before = if self.is(name_at - 1, "as") {
                Some(name_at - 2)
            } else if self.code[name_at].is("self") {
                (at..name_at).rev().find(|at| self.is(*at, "{")).map(|brace| brace.saturating_sub(3))
            } else {
                None
            };
            let original = before.unwrap_or(name_at);
            let named = if self.code[name_at].is("self") { original } else { name_at };
            let shows = vec![self.code[original].text.trim_start_matches("r#")];
            self.push(named, shows);
        }
    }

    fn end_of_part(&self, at: usize, ends: &[&str]) -> usize {
        at + end_of_part(self.code.get(at..).unwrap_or_default(), ends)
    }

    /// The place after the bracket that closes the one at a place, which may also be a semicolon.
    fn end_of_block(&self, at: usize) -> usize {
        let mut depth = 0;
        for (index, token) in self.code.iter().enumerate().skip(at) {
            depth += nesting(token);
            if depth == 0 {
                return index + 1;
            }
        }
        self.code.len()
    }
}

/// The offset of the first of some marks that is in no brackets of any kind, or the length.
fn end_of_part(code: &[Token<'_>], ends: &[&str]) -> usize {
    let mut depth = 0;
    for (index, token) in code.iter().enumerate() {
        if depth == 0 && ends.iter().any(|end| token.is(end)) {
            return index;
        }
        depth += nesting(token) + angle(code, index);
    }
    code.len()
}

/// The offset after the `>` that belongs to the `<` at the beginning.
fn end_of_angles(code: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for index in 0..code.len() {
        depth += angle(code, index);
        if depth == 0 {
            return index + 1;
        }
    }
    code.len()
}

/// By how much a bracket changes the depth.
fn nesting(token: &Token<'_>) -> i32 {
    if ["(", "[", "{"].iter().any(|open| token.is(open)) {
        1
    } else if [")", "]", "}"].iter().any(|close| token.is(close)) {
        -1
    } else {
        0
    }
}

/// By how much an angle bracket changes the depth; the `>` of an arrow is none.
fn angle(code: &[Token<'_>], index: usize) -> i32 {
    if code[index].is("<") {
        1
    } else if code[index].is(">") && !(index > 0 && (code[index - 1].is("-") || code[index - 1].is("="))) {
        -1
    } else {
        0
    }
}

/// Whether what follows a `pub` restricts it. `pub (u8, u8)` is a field that is a tuple.
fn is_restricted(after: &[Token<'_>]) -> bool {
    let inside = ["crate", "super", "self", "in"];
    after.first().is_some_and(|token| token.is("("))
        && after.get(1).is_some_and(|token| inside.contains(&token.text))
}

/// The names in a piece of code, without those that are declared there: of arguments, fields and parameters.
fn names<'a>(code: &[Token<'a>]) -> Vec<&'a str> {
    let is = |at: usize, text: &str| code.get(at).is_some_and(|token| token.is(text));
    let declares = |at: usize| is(at + 1, ":") && !is(at + 2, ":");
    let words = code.iter().enumerate().filter(|(at, token)| token.kind == Kind::Word && !declares(*at));
    words.map(|(_, token)| token.text.trim_start_matches("r#")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::lexer::tokens;
    use super::*;

    /// `owner::name: what it shows`, for each item.
    fn items(source: &str) -> Vec<String> {
        let show = |item: &Item<'_>| {
            let owner = item.owner.map(|owner| format!("{owner}::")).unwrap_or_default();
            format!("{owner}{}: {}", item.name, item.shows.join(" "))
        };
        read(&tokens(source)).items.iter().map(show).collect()
    }

    #[test]
    fn functions_show_their_types_and_not_their_bodies() {
        assert_eq!(
            items("pub fn f<T: Bound>(a: &A, b: [B; 2]) -> Result<C, D> where T: E { g(h) }"),
            ["f: Bound A B Result C D where E"]
        );
        assert_eq!(items("pub const unsafe extern \"C\" fn f() {}"), ["f: "]);
        assert_eq!(items("pub async fn f(a: module::A) {}"), ["f: module A"]);
        assert_eq!(items("fn f() {} pub(crate) fn g() {} pub(in crate::a) struct S;"), Vec::<String>::new());
    }

    #[test]
    fn structs_show_public_fields_only() {
        assert_eq!(
            items("pub struct S<T> { pub a: HashMap<A, B>, b: C, pub(crate) d: D, #[serde(x)] pub e: E }"),
            ["S: T HashMap A B E"]
        );
        assert_eq!(items("pub struct S(pub A, B, pub(super) C);"), ["S: A"]);
        assert_eq!(items("pub struct S(pub (A, B), C);"), ["S: A B"]);
        assert_eq!(items("pub struct S; pub struct R {}"), ["S: ", "R: "]);
    }

    #[test]
    fn enums_traits_aliases_and_constants_show_all_or_their_type() {
        assert_eq!(items("pub enum E { A(B), C { d: D } }"), ["E: A B C D"]);
        assert_eq!(
            items("pub trait T: U { type A: B; fn f(&self, c: C) -> D; } pub mod m;"),
            ["T: U type B fn f self C D", "m: "]
        );
        assert_eq!(
            items("pub type A<T> = B<T>; pub const C: [D; 2] = [e, f]; pub static mut G: H = i;"),
            ["A: T B T", "C: D", "G: H"]
        );
    }

    #[test]
    fn methods_belong_to_the_type_of_their_block() {
        assert_eq!(
            items(
                "impl<T: A> b::S<T> where T: C { pub fn f(self) {} fn g() {} pub const N: u8 = 1; } pub fn h() {}"
            ),
            ["S::f: self", "S::N: u8", "h: "]
        );
        assert_eq!(items("fn a() -> impl B { c } pub fn d(e: impl F) {}"), ["d: impl F"]);
        assert_eq!(items("impl S { fn f() { if a { b } } pub fn g() {} }"), ["S::g: "]);
    }

    #[test]
    fn reexports_are_items() {
        assert_eq!(
            items("pub use a::{b::C, D as E, f::{self, G}}; pub use h::I; pub use j::*; pub use K as L;"),
            ["C: C", "E: D", "f: f", "G: G", "I: I", "L: K"]
        );
    }

    #[test]
    fn bounds_and_associated_types_of_impl_blocks_and_exported_macros_need_names() {
        let needed = |source| read(&tokens(source)).needed;
        assert_eq!(
            needed("impl<T: A> Iterator for S<T> where T: B { type Item = C; fn next() -> D {} }"),
            ["A", "where", "B", "type", "Item", "C"]
        );
        assert_eq!(needed("impl S { pub fn f() { type X = Y; } }"), Vec::<&str>::new());
        assert_eq!(needed("#[macro_export] macro_rules! m { () => { $crate::f() } } g()"), ["crate", "f"]);
        assert_eq!(needed("macro_rules! m { () => { f() } }"), Vec::<&str>::new());
    }
}
