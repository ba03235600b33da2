//! The real programs: Go tools of the modules under `conformance/`, built once for each go.mod, and `fleetpass`.

use crate::Workspace;
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program, the package that it is built from, and the module that names its version.
struct Program {
    name: &'static str,
    package: &'static str,
    module: &'static str,
}

const PROGRAMS: [Program; 6] = [
    Program { name: "etcd", package: "go.etcd.io/etcd/server/v3", module: "conformance" },
    Program { name: "etcdctl", package: "go.etcd.io/etcd/etcdctl/v3", module: "conformance" },
    Program {
        name: "kube-apiserver",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
        module: "conformance",
    },
    Program {
        name: "kube-controller-manager",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
        module: "conformance",
    },
    Program { name: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl", module: "conformance" },
    Program {
        name: "addon",
        package: "open-cluster-management.io/managed-serviceaccount/cmd",
        module: "conformance/addon",
    },
];

const NO_GO: &str = "Go is not installed. kube-apiserver, etcd, kubectl and the upstream addon, which this runs \
    Fleetpass against, are built with it. Get Go 1.26 or newer from https://go.dev/dl/ (or as the package `golang` \
    or `go` of your system), see that `go version` works, and run this again.";

/// How `fleetpass` is built: the profiles of the workspace's Cargo.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Builds fast, runs slowly.
    Dev,
    /// As `cargo run --release` does.
    Release,
    /// As it is shipped, and so what a figure is about.
    Dist,
}

impl Profile {
    /// The name that cargo knows it by, and the folder in which it leaves programs.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Dev => ("dev", "debug"),
            Self::Release => ("release", "release"),
            Self::Dist => ("dist", "dist"),
        }
    }
}

/// Builds everything into one folder, and gives the folder.
pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let go = go_version()?;
    let folder = workspace.target("conformance/bin");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for program in &PROGRAMS {
        build_go(workspace, &folder, &go, program)?;
    }
    build_fleetpass(workspace, &folder, profile)?;
    Ok(folder)
}

/// The version of Go on this machine.
fn go_version() -> Result<String> {
    match Command::new("go").arg("version").output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => bail!("`go version` fails: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(NO_GO),
        Err(error) => Err(error).context("cannot run `go version`"),
    }
}

/// Builds a Go tool unless it is there, made by the same Go from the same go.mod and go.sum.
fn build_go(workspace: &Workspace, folder: &Path, go: &str, program: &Program) -> Result<()> {
    let module = workspace.path(program.module);
    let read = |name: &str| {
        let path = module.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let go_mod = read("go.mod")?;
    let flags = linker_flags(&go_mod);
    let stamp = format!("{go}\n{flags}\n{go_mod}\n{}", read("go.sum")?);
    let stamp_path = folder.join(format!(".{}.stamp", program.name));
    let output = folder.join(program.name);
    if output.is_file() && std::fs::read_to_string(&stamp_path).is_ok_and(|made| made == stamp) {
        return Ok(());
    }
    println!("building {} ({})", program.name, program.package);
    let status = Command::new("go")
        .current_dir(&module)
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o"])
        .arg(&output)
        .arg(program.package)
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .status()
        .context("cannot run go")?;
    ensure!(
        status.success(),
        "go cannot build {}: see above. It fetches modules from the network on first use; GOPROXY names another \
         source.",
        program.name
    );
    std::fs::write(&stamp_path, stamp).with_context(|| format!("cannot write {}", stamp_path.display()))
}

/// Small binaries that know their version, which `go build` does not tell Kubernetes' programs: they then refuse to
/// start or call themselves v0.0.0.
fn linker_flags(go_mod: &str) -> String {
    let mut flags = String::from("-s -w");
    if let Some(version) = kubernetes_version(go_mod) {
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for (name, value) in
            [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")]
        {
            flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
        }
    }
    flags
}

/// The version of `k8s.io/kubernetes` that a go.mod requires.
fn kubernetes_version(go_mod: &str) -> Option<&str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some("k8s.io/kubernetes")).then(|| words.next()).flatten()
    })
}

/// Builds `fleetpass` and puts it beside the others.
fn build_fleetpass(workspace: &Workspace, folder: &Path, profile: Profile) -> Result<()> {
    let (profile, built) = profile.names();
    println!("building fleetpass ({profile})");
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--quiet", "--package", "fleetpass", "--profile", profile]);
    ensure!(cargo.status().context("cannot run cargo")?.success(), "cargo cannot build fleetpass: see above");
    let from = workspace.target(built).join("fleetpass");
    let to = folder.join("fleetpass");
    // Beside it and renamed, so that one that runs still is not written to.
    let fresh = folder.join(".fleetpass.new");
    std::fs::copy(&from, &fresh).with_context(|| format!("cannot copy {}", from.display()))?;
    std::fs::rename(&fresh, &to).with_context(|| format!("cannot put {} in place", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_mod_tells_the_version_of_kubernetes() {
        for (go_mod, want) in [
            (
                "require (\n\tk8s.io/kubelet v0.36.2\n\tk8s.io/kubernetes v1.36.2 // indirect\n)",
                Some("v1.36.2"),
            ),
            ("require k8s.io/kubernetes v1.37.0", Some("v1.37.0")),
            ("tool k8s.io/kubernetes/cmd/kubectl", None),
        ] {
            assert_eq!(kubernetes_version(go_mod), want, "{go_mod}");
        }
        let flags = linker_flags("require k8s.io/kubernetes v1.37.0");
        assert!(flags.contains("version.gitVersion=v1.37.0"), "{flags}");
        assert!(flags.contains("version.gitMajor=1 "), "{flags}");
        assert!(flags.contains("version.gitMinor=37 "), "{flags}");
        assert_eq!(linker_flags(""), "-s -w");
    }
}
