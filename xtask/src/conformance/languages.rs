//! Clients in other languages: Python's in an environment of its own, Node's in a folder of packages, each made once for
//! its list of versions and hashes.

use crate::Workspace;
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The suite that needs them.
pub(super) const SUITE: &str = "clients";

/// A command with its arguments.
type Words = &'static [&'static str];

/// A language, and how its client is installed.
struct Language {
    name: &'static str,
    /// The files below `conformance/clients/NAME` that name the versions.
    lists: &'static [&'static str],
    /// What has to succeed before it can be had, and what is missing if it does not.
    needs: &'static [(Words, &'static str)],
    /// What installs it, in its folder.
    install: &'static [Words],
    /// What tells whether packages can be fetched from here.
    reach: Words,
}

const LANGUAGES: [Language; 2] = [
    Language {
        name: "python",
        lists: &["requirements.txt"],
        needs: &[
            (
                &["python3", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
                "Python 3.11 or newer (python3)",
            ),
            (&["python3", "-c", "import ensurepip, venv"], "Python's venv (a package such as python3-venv)"),
        ],
        install: &[
            &["python3", "-m", "venv", "."],
            &["bin/python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", "requirements.txt"],
        ],
        reach: &["bin/python", "-m", "pip", "download", "--quiet", "--no-deps", "--dest=.reach", "six"],
    },
    Language {
        name: "node",
        lists: &["package.json", "package-lock.json"],
        needs: &[
            (
                &["node", "-e", "process.exit(process.versions.node.split('.')[0] < 20 ? 1 : 0)"],
                "Node.js 20 or newer (node)",
            ),
            (&["npm", "--version"], "npm"),
        ],
        install: &[&["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]],
        reach: &["npm", "ping", "--loglevel=error"],
    },
];

/// Installs what is not there. Of a language that cannot be had on this machine, what is missing is said and noted for
/// the suite; if all have to be there (`complete`), it is an error instead.
///
/// # Errors
///
/// Something cannot be installed though its packages can be fetched.
pub(super) fn prepare(workspace: &Workspace, complete: bool) -> Result<()> {
    for language in &LANGUAGES {
        let folder = workspace.target("conformance").join(language.name);
        let source = workspace.path("conformance/clients").join(language.name);
        let missing = language.prepare(&source, &folder)?;
        if let Some(missing) = &missing {
            ensure!(!complete, "the client for {} cannot be installed: {missing}", language.name);
            println!("NOT CHECKED: the client for {}: {missing}", language.name);
        }
        note(&folder.join("missing"), missing.as_deref())
            .with_context(|| format!("cannot write to {}", folder.display()))?;
    }
    Ok(())
}

impl Language {
    /// What is missing, or nothing if it is installed now.
    fn prepare(&self, source: &Path, folder: &Path) -> Result<Option<String>> {
        for (need, missing) in self.needs {
            if !succeeds(need, Path::new(".")) {
                return Ok(Some(format!("there is no {missing}")));
            }
        }
        let mut stamp = output(&[self.needs[0].0[0], "--version"])?;
        for list in self.lists {
            let path: PathBuf = source.join(list);
            let text = std::fs::read_to_string(&path);
            stamp += &text.with_context(|| format!("cannot read {}", path.display()))?;
        }
        let stamp_path = folder.join(".stamp");
        if std::fs::read_to_string(&stamp_path).is_ok_and(|made| made == stamp) {
            return Ok(None);
        }
        println!("installing the client for {}", self.name);
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for list in self.lists {
            std::fs::copy(source.join(list), folder.join(list))
                .with_context(|| format!("cannot copy {list}"))?;
        }
        for command in self.install {
            let ended = run(command, folder)?;
            if ended.status.success() {
                continue;
            }
            if !succeeds(self.reach, folder) {
                return Ok(Some(format!("`{}` fails: no packages can be fetched", self.reach.join(" "))));
            }
            bail!("`{}` fails:\n{}", command.join(" "), String::from_utf8_lossy(&ended.stderr));
        }
        std::fs::write(&stamp_path, stamp)
            .with_context(|| format!("cannot write {}", stamp_path.display()))?;
        Ok(None)
    }
}

/// Leaves a note for the suite, or takes an old one away.
fn note(path: &Path, missing: Option<&str>) -> std::io::Result<()> {
    let Some(missing) = missing else {
        return if path.exists() { std::fs::remove_file(path) } else { Ok(()) };
    };
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, missing)
}

/// Runs a command in a folder. A program with a path is one of the folder.
fn run(command: Words, folder: &Path) -> Result<std::process::Output> {
    let (&program, arguments) = command.split_first().context("no command")?;
    let inside = folder.join(program);
    let program = if program.contains('/') { inside.as_os_str() } else { program.as_ref() };
    let mut started = Command::new(program);
    started.args(arguments).current_dir(folder).stdin(Stdio::null());
    started.output().with_context(|| format!("cannot run {}", command.join(" ")))
}

fn succeeds(command: Words, folder: &Path) -> bool {
    run(command, folder).is_ok_and(|ended| ended.status.success())
}

/// What a command writes.
fn output(command: &[&str]) -> Result<String> {
    let ended = Command::new(command[0]).args(&command[1..]).output();
    let ended = ended.with_context(|| format!("cannot run {}", command.join(" ")))?;
    ensure!(ended.status.success(), "`{}` fails", command.join(" "));
    Ok(String::from_utf8(ended.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sh` can be had everywhere; it installs nothing.
    const SHELL: Language = Language {
        name: "sh",
        lists: &["list"],
        needs: &[(&["true"], "true")],
        install: &[&["sh", "-c", "test -s list && echo made >>made"]],
        reach: &["true"],
    };

    fn folders(list: &str) -> Result<(tempfile::TempDir, PathBuf)> {
        let source = tempfile::tempdir()?;
        std::fs::write(source.path().join("list"), list)?;
        let folder = source.path().join("folder");
        Ok((source, folder))
    }

    #[test]
    fn what_is_installed_is_installed_again_when_its_list_changes() -> Result<()> {
        let (source, folder) = folders("1")?;
        let made = || std::fs::metadata(folder.join("made")).and_then(|made| made.modified()).ok();
        assert_eq!(SHELL.prepare(source.path(), &folder)?, None);
        let first = made();
        assert!(first.is_some());
        assert_eq!(SHELL.prepare(source.path(), &folder)?, None);
        assert_eq!(made(), first);
        std::fs::write(source.path().join("list"), "2")?;
        assert_eq!(SHELL.prepare(source.path(), &folder)?, None);
        assert_ne!(made(), first);
        Ok(())
    }

    #[test]
    fn only_what_cannot_be_had_is_not_checked() -> Result<()> {
        let (source, folder) = folders("")?;
        let error = SHELL.prepare(source.path(), &folder).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("test -s list")));
        let unreachable = Language { reach: &["false"], ..SHELL };
        let missing = unreachable.prepare(source.path(), &folder)?;
        assert_eq!(missing.as_deref(), Some("`false` fails: no packages can be fetched"));
        let absent = Language { needs: &[(&["no-such-program"], "such program")], ..SHELL };
        let missing = absent.prepare(source.path(), &folder)?;
        assert_eq!(missing.as_deref(), Some("there is no such program"));
        Ok(())
    }
}
