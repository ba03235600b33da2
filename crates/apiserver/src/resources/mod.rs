//! The built-in kinds, one file each: everything that is special about a kind is in its file.
