//! What is checked, read from disk: the crates, the table of layers, the Rust files.

use crate::Workspace;
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use std::path::Path;

/// All of the repository that is looked at.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) structure: Structure,
    pub(super) crates: Vec<Crate>,
    pub(super) sources: Vec<Source>,
}

/// `[workspace.metadata.structure]` of the root Cargo.toml.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Structure {
    /// Groups of names of crates, from the ground up.
    pub(super) layers: Vec<Vec<String>>,
    /// Crates that must not know each other, whatever their layers are.
    pub(super) apart: Vec<Apart>,
    /// Whether a `pub` item that nobody else uses is an error.
    pub(super) deny_unused_public: bool,
    /// The text of the root Cargo.toml, to name the lines of the table.
    #[serde(skip)]
    pub(super) manifest: String,
}

/// None of `crates` may need one of `from`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Apart {
    pub(super) crates: Vec<String>,
    pub(super) from: Vec<String>,
    pub(super) reason: String,
}

/// A crate of the workspace.
#[derive(Debug, Default)]
pub(super) struct Crate {
    pub(super) name: String,
    /// Its Cargo.toml, relative to the repository's folder.
    pub(super) manifest: String,
    /// The crates of the workspace that it needs; not those that only its tests need.
    pub(super) needs: Vec<Need>,
    /// The folder of its library, if it has one, relative to the repository's folder.
    pub(super) library: Option<String>,
    /// The files of its programs, relative to the repository's folder.
    pub(super) programs: Vec<String>,
}

/// A dependency on another crate of the workspace.
#[derive(Debug)]
pub(super) struct Need {
    pub(super) name: String,
    /// Where it is in the Cargo.toml.
    pub(super) line: usize,
}

/// A Rust file.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the repository's folder.
    pub(super) path: String,
    pub(super) text: String,
}

/// What `cargo metadata` says, as far as it is needed.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    metadata: WorkspaceMetadata,
}

#[derive(Deserialize)]
struct WorkspaceMetadata {
    structure: Structure,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev` and `build`; nothing for an ordinary one.
    kind: Option<String>,
    /// Where it is, if it is of the workspace.
    path: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: String,
}

impl Tree {
    /// Reads the crates from cargo and the files from disk.
    ///
    /// # Errors
    ///
    /// cargo refuses a Cargo.toml, the table is missing or malformed, or a file cannot be read.
    pub(super) fn read(workspace: &Workspace) -> Result<Self> {
        let mut cargo = workspace.cargo();
        cargo.args(["metadata", "--format-version", "1", "--no-deps", "--locked"]);
        let output = cargo.output().context("cannot run cargo metadata")?;
        ensure!(
            output.status.success(),
            "cargo metadata fails: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let metadata: Metadata = serde_json::from_slice(&output.stdout)
            .context("cargo metadata has no [workspace.metadata.structure] as it has to be")?;
        let mut structure = metadata.metadata.structure;
        structure.manifest = read(&workspace.path("Cargo.toml"))?;
        let root = workspace.path("");
        let crates = metadata.packages.into_iter().map(|package| package.into_crate(&root));
        let crates = crates.collect::<Result<Vec<_>>>()?;
        let mut sources = Vec::new();
        collect_sources(&root, &root, &mut sources)?;
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { structure, crates, sources })
    }
}

impl Package {
    fn into_crate(self, root: &Path) -> Result<Crate> {
        let text = read(Path::new(&self.manifest_path))?;
        let ordinary =
            |dependency: &&Dependency| dependency.path.is_some() && dependency.kind.as_deref() != Some("dev");
        let needs = self.dependencies.iter().filter(ordinary).map(|dependency| Need {
            name: dependency.name.clone(),
            line: line_of_dependency(&text, &dependency.name),
        });
        let of_kind = |kind: &'static str| {
            let is = move |target: &&Target| target.kind.iter().any(|found| found == kind);
            self.targets.iter().filter(is).map(|target| relative(root, Path::new(&target.src_path)))
        };
        let folder = |file: String| Path::new(&file).parent().map(|folder| folder.display().to_string());
        Ok(Crate {
            manifest: relative(root, Path::new(&self.manifest_path)),
            needs: needs.collect(),
            library: of_kind("lib").next().and_then(folder),
            programs: of_kind("bin").collect(),
            name: self.name,
        })
    }
}

/// The line at which a Cargo.toml declares an ordinary dependency; the first if it is declared in an unusual way.
fn line_of_dependency(manifest: &str, name: &str) -> usize {
    let mut of_tests = false;
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            of_tests = line.contains("dev-dependencies");
        }
        let rest = line.strip_prefix(name).unwrap_or_default();
        if !of_tests && rest.starts_with(['.', ' ', '=']) {
            return index + 1;
        }
    }
    1
}

/// All Rust files below a folder, except in the folders of build results and those whose name begins with a dot.
fn collect_sources(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            // cargo marks its target folders with this file, whatever their name is.
            let skip =
                entry.file_name().to_string_lossy().starts_with('.') || path.join("CACHEDIR.TAG").exists();
            if !skip {
                collect_sources(root, &path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source { path: relative(root, &path), text: read(&path)? });
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_dependency_is_not_that_of_the_tests_nor_of_a_longer_name() {
        let manifest = "[package]\nname = \"x\"\n[dev-dependencies]\nstore.workspace = true\n[dependencies]\n\
                        store-more.workspace = true\nstore = { workspace = true }\n";
        assert_eq!(line_of_dependency(manifest, "store"), 7);
        assert_eq!(line_of_dependency(manifest, "store-more"), 6);
        assert_eq!(line_of_dependency(manifest, "absent"), 1);
    }

    #[test]
    fn build_results_and_hidden_folders_are_left_out() -> Result<()> {
        let root = tempfile::tempdir()?;
        for folder in ["crates/a/src", "crates/a/src/target", ".git", "build"] {
            std::fs::create_dir_all(root.path().join(folder))?;
            std::fs::write(root.path().join(folder).join("x.rs"), "fn f() {}")?;
        }
        std::fs::write(root.path().join("build/CACHEDIR.TAG"), "")?;
        std::fs::write(root.path().join("crates/a/src/x.txt"), "")?;
        let mut sources = Vec::new();
        collect_sources(root.path(), root.path(), &mut sources)?;
        let mut paths: Vec<&str> = sources.iter().map(|source| source.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["crates/a/src/target/x.rs", "crates/a/src/x.rs"]);
        Ok(())
    }
}
