//! For tests: certificates as an operator would have them, in files.
#![expect(clippy::unwrap_used, reason = "what helpers of tests do")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use tempfile::TempDir;

use crate::TlsConfig;

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A new one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each differs")]
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's, for `localhost` and 127.0.0.1.
    #[must_use]
    pub fn server(&self) -> Pair {
        self.sign("a server", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A server's, good until then: since the Unix epoch.
    #[must_use]
    pub fn server_until(&self, end: Duration) -> Pair {
        let not_after = date_time_ymd(1970, 1, 1) + end;
        self.sign_with("a server", ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_after = not_after;
        })
    }

    /// A client's.
    #[must_use]
    pub fn client(&self, name: &str) -> Pair {
        self.sign(name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Pair {
        self.sign_with(name, usage, |_| {})
    }

    fn sign_with(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages.push(usage);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// Where a server's files are, and others of a test.
#[derive(Debug)]
pub struct Files(TempDir);

impl Files {
    /// `cert.pem`, `key.pem`, and `client-ca.pem` if clients need certificates.
    #[must_use]
    pub fn new(server: &Pair, client_ca: Option<&Authority>) -> Self {
        let files = Self(TempDir::new().unwrap());
        files.put("cert.pem", &server.cert);
        files.put("key.pem", &server.key);
        if let Some(authority) = client_ca {
            files.put("client-ca.pem", &authority.pem());
        }
        files
    }

    /// Writes a file.
    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Where a file of this name is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What names the server's files.
    #[must_use]
    pub fn config(&self) -> TlsConfig {
        let given = |name: &str| Some(self.path(name)).filter(|path| Path::exists(path));
        TlsConfig {
            tls_cert: Some(self.path("cert.pem")),
            tls_key: Some(self.path("key.pem")),
            tls_client_ca: given("client-ca.pem"),
        }
    }
}
