//! Fresh certificates and keys for one control plane.

use anyhow::Result;
use fleetpass_token::key::KeyKind;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use std::path::{Path, PathBuf};

/// An authority, the certificates it issued, and a key for service-account tokens, as files of one folder.
pub(super) struct Pki {
    folder: PathBuf,
    /// The authority's certificate, PEM.
    pub(super) ca_pem: String,
}

impl Pki {
    /// Makes `ca.crt`, `ca.key`, `serving.crt`, `serving.key`, `sa.key` and `sa.pub` in the folder.
    pub(super) fn make(folder: &Path, signing_key: KeyKind) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "rig");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_key = KeyPair::generate()?;
        let certificate = authority.self_signed(&authority_key)?;
        let ca_pem = certificate.pem();

        let mut serving = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?;
        serving.distinguished_name.push(DnType::CommonName, "localhost");
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let serving_key = KeyPair::generate()?;
        let issuer = Issuer::from_params(&authority, &authority_key);
        let serving = serving.signed_by(&serving_key, &issuer)?;

        let signing = match signing_key {
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            KeyKind::P256 => KeyPair::generate()?,
        };
        for (name, content) in [
            ("ca.crt", ca_pem.as_str()),
            ("ca.key", &authority_key.serialize_pem()),
            ("serving.crt", &serving.pem()),
            ("serving.key", &serving_key.serialize_pem()),
            ("sa.key", &signing.serialize_pem()),
            // kube-apiserver reads the public half of an RSA key from its private one, but not that of others.
            ("sa.pub", &signing.public_key_pem()),
        ] {
            write_private(&folder.join(name), content)?;
        }
        Ok(Self { folder: folder.into(), ca_pem })
    }

    /// The path of one of the files.
    pub(super) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Writes a file that only its owner may read: servers refuse others.
pub(super) fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    Ok(file.write_all(content.as_bytes())?)
}
